"""What a policy that cannot be obeyed may have meant, at its strictest.

A policy that restricts access and that this node cannot obey (it cannot be read here, it breaks the compiler, or it is
in quarantine and no version before it is in force) must not be as if it had never been written: whom its author
wanted to keep out would be let in. So nobody is let in to what it selects, until it is edited or deleted. Where its
selection cannot be read either, that is its whole namespace; for the root namespace, as always, the whole mesh. That is
what Gateway API asks for (a filter that cannot be obeyed must not be skipped) and no more than the author could have
written: whether the author may write there was judged before (`peer/capabilities.py`).

Only what restricts access is meant: a limit that cannot be read leaves the limits that every cluster has.

Invariant: total. Whatever the document holds, there is an answer, and it is never wider than any reading of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from peer.catalog import PolicyEntry, PolicyVersion
from proxy.resources.authorization import DRY_RUN_ANNOTATION
from proxy.resources.resource import MESH_CONFIG_NAME, ROOT_NAMESPACE

RESTRICTING_KINDS: Final = frozenset({"AuthorizationPolicy", "MeshConfig"})
NOBODY_LET_IN: Final = "nobody is let in to what it selects"
DENIED_BY_DEFAULT: Final = "requests are denied by default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Nobody is let in to the workloads of `namespace` that have these labels or are one of these services; to all of
    them where it has neither."""

    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...] = ()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Strictest:
    """What versions that cannot be obeyed may have meant."""

    seals: tuple[Seal, ...] = ()
    default_deny: bool = False

    @property
    def words(self) -> str:
        """What is done because of it; "" when nothing is."""
        if self.seals:
            return NOBODY_LET_IN
        return DENIED_BY_DEFAULT if self.default_deny else ""


NOTHING: Final = Strictest()


def strictest(entry: PolicyEntry, versions: Iterable[PolicyVersion]) -> Strictest:
    """Of these versions of a policy. An observer's policy (a dry run) means nothing at its strictest."""
    if entry.kind == "AuthorizationPolicy":
        seals = (_seal(entry, version.resource) for version in versions)
        return Strictest(seals=tuple(dict.fromkeys(each for each in seals if each is not None)))
    if (entry.kind, entry.namespace, entry.name) == ("MeshConfig", ROOT_NAMESPACE, MESH_CONFIG_NAME):
        return Strictest(default_deny=any(_may_deny(version.resource) for version in versions))
    return NOTHING


def _seal(entry: PolicyEntry, document: Mapping[str, Any]) -> Seal | None:
    match document:
        case {"metadata": {"annotations": {**annotations}}} if annotations.get(DRY_RUN_ANNOTATION) == "true":
            return None
        case {"spec": {"selector": {"matchLabels": {**labels}, **more}, **rest}} if not more:
            texts = {k: v for k, v in labels.items() if isinstance(k, str) and isinstance(v, str)}
            if "targetRefs" not in rest and texts and len(texts) == len(labels):
                return Seal(namespace=entry.namespace, name=entry.name, labels=tuple(sorted(texts.items())))
        case {"spec": {"targetRefs": [_, *_] as references, **rest}} if "selector" not in rest:
            services = [_service(each) for each in references]
            named = tuple(dict.fromkeys(each for each in services if each is not None))
            if None not in services:
                return Seal(namespace=entry.namespace, name=entry.name, services=named)
        case _:
            pass
    return Seal(namespace=entry.namespace, name=entry.name)


def _service(reference: object) -> str | None:
    """The service that a targetRef names, or None when it may name something else."""
    match reference:
        case {"kind": "Service", "name": str(name), **more} if more.keys() <= {"group"} and more.get("group") in (
            None, "", "core",
        ):  # fmt: skip
            return name
        case _:
            return None


def _may_deny(document: Mapping[str, Any]) -> bool:
    match document:
        case {"spec": {**spec}}:
            words = {spec.get("defaultAction"), spec.get("default_action")} if _plain(spec) else {"?"}
            return not words <= {None, "ALLOW"}
        case _:
            return True


def _plain(spec: Mapping[Any, Any]) -> bool:
    """Whether the actions in it, if any, can be compared."""
    return all(isinstance(spec.get(name), str | None) for name in ("defaultAction", "default_action"))

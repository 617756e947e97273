"""From replicated documents to policies that can be obeyed: each version is read and tried out once.

A peer replicates documents it did not write, also from newer peers, so a version that cannot be read here is
set aside with the reason and the others go on. Where several versions of one policy live (concurrent edits),
the first that can be read is the effective one, on every node alike.

Invariant: whatever `Reader.read` returns compiles; nothing a member publishes can make a snapshot unusable.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from peer.catalog import PolicyEntry, PolicyVersion
from peer.translate import authorization_rules, route_rules
from peer.unread import NOTHING, Strictest, strictest
from proxy.authorize import compile_authorization
from proxy.resources.authorization import AuthorizationPolicySpec
from proxy.resources.httproute import HTTPRouteSpec
from proxy.resources.resource import KINDS, Resource, parse_resource
from proxy.resources.wording import ResourceError
from proxy.route import compile_rules
from proxy.snapshot import AppProtocol, Authorization, AuthzPolicy

MESSAGE_CHARS_MAX: Final = 1_000
TRACEBACK_FRAMES_MAX: Final = 20
_LATEST: Final = "the latest is in force"
_UNTIL_THEN: Final = {  # what holds while concurrent edits are not settled
    "AuthorizationPolicy": "what any of them denies is denied",
    "Capability": "of governors' versions only what all grant is granted, and a delegate's counts by itself",
    "MeshConfig": "who is denied by default in any of them is denied, and else the latest is in force",
    "TrafficPolicy": "the tightest of their limits hold, and else the latest is in force",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One statement about a policy, as Gateway API conditions are: `Accepted`, `ResolvedRefs`, `Conflicted`."""

    type: str
    status: Literal["True", "False"]
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What this node made of a policy. There is one condition of each type."""

    conditions: tuple[Condition, ...]

    @property
    def accepted(self) -> bool:
        """Whether the policy is obeyed here."""
        return any(each.type == "Accepted" and each.status == "True" for each in self.conditions)

    @property
    def reason(self) -> str:
        """Why it is not obeyed, in one word; "" when it is."""
        return next((c.reason for c in self.conditions if c.type == "Accepted" and c.status == "False"), "")

    @property
    def message(self) -> str:
        """The same in a sentence."""
        return next((c.message for c in self.conditions if c.type == "Accepted" and c.status == "False"), "")

    def document(self) -> dict[str, list[dict[str, str]]]:
        """As in a resource's `status`."""
        return {
            "conditions": [
                {"type": each.type, "status": each.status, "reason": each.reason, "message": each.message}
                for each in self.conditions
            ]
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy as far as it can be obeyed. `versions` are those that can be read, the effective one first."""

    kind: str
    namespace: str
    name: str
    versions: tuple[Resource, ...]
    conditions: tuple[Condition, ...] = ()  # what reading it showed; more is said when it is compiled
    outcomes: tuple[Resource | str, ...] = ()  # of all versions: the resource, or why there is none
    unread: Strictest = NOTHING  # what those that cannot be read may have meant

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def effective(self) -> Resource:
        return self.versions[0]


class Reader:
    """Reads versions, each once: what was read is kept while it lives. One per peer."""

    def __init__(self) -> None:
        self._policies: dict[str, tuple[PolicyEntry, Policy]] = {}
        self._faults: dict[str, str] = {}
        self.pinned: Sequence[PolicyEntry] = ()  # kept whatever is read

    @property
    def faults(self) -> Mapping[str, str]:
        """The traceback of each policy that was set aside by a mistake of ours, by key."""
        return self._faults

    def read(self, entries: Sequence[PolicyEntry]) -> tuple[Policy, ...]:
        """The policies in order of key. One without any readable version has none (`versions` is empty)."""
        kept: dict[str, tuple[PolicyEntry, Policy]] = {}
        for entry in sorted(entries, key=lambda each: (each.kind, each.namespace, each.name)):
            key = f"{entry.kind}/{entry.namespace}/{entry.name}"
            known = self._policies.get(key)
            kept[key] = (
                known if known is not None and known[0] is entry else (entry, self._policy(entry, known))
            )
        read = tuple(policy for _, policy in kept.values())
        for entry in self.pinned:
            key = f"{entry.kind}/{entry.namespace}/{entry.name}"
            if key in self._policies:
                kept.setdefault(key, self._policies[key])
        self._policies = kept
        self._faults = {
            key: text
            for key, text in self._faults.items()
            if key in kept and any(isinstance(each, str) for each in kept[key][1].outcomes)
        }
        return read

    def set_aside(self, entry: PolicyEntry, error: Exception) -> None:
        """What could be read broke the compiler all the same: its versions count as unreadable while they live."""
        key = f"{entry.kind}/{entry.namespace}/{entry.name}"
        outcomes = (self._fault(key, error),) * len(entry.versions)
        self._policies[key] = (entry, _policy_of(entry, outcomes))

    def _first_reading(self, entry: PolicyEntry, version: PolicyVersion) -> Resource | str:
        try:
            return _read(entry, version)
        except Exception as error:
            # Not a problem of the document that we foresaw, but one of ours: it must not stop the rest.
            return self._fault(f"{entry.kind}/{entry.namespace}/{entry.name}", error)

    def _fault(self, key: str, error: Exception) -> str:
        self._faults[key] = "".join(traceback.format_exception(error, limit=-TRACEBACK_FRAMES_MAX))
        return f"does not compile: {type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX]

    def _policy(self, entry: PolicyEntry, known: tuple[PolicyEntry, Policy] | None) -> Policy:
        """Read an entry; versions that were there before (`known`) keep their outcome."""
        before: dict[tuple[str, int], Resource | str] = {}
        if known is not None:
            before = {
                (version.writer, version.seq): outcome
                for version, outcome in zip(known[0].versions, known[1].outcomes, strict=True)
            }
        outcomes = tuple(
            before.get((version.writer, version.seq)) or self._first_reading(entry, version)
            for version in entry.versions
        )
        return _policy_of(entry, outcomes)


def _policy_of(entry: PolicyEntry, outcomes: tuple[Resource | str, ...]) -> Policy:
    resources = tuple(each for each in outcomes if isinstance(each, Resource))
    problems = tuple(each for each in outcomes if isinstance(each, str))
    unread = strictest(
        entry,
        (
            version
            for version, outcome in zip(entry.versions, outcomes, strict=True)
            if isinstance(outcome, str)
        ),
    )
    return Policy(
        kind=entry.kind,
        namespace=entry.namespace,
        name=entry.name,
        versions=resources,
        conditions=tuple(_conditions(entry, resources, problems, unread)),
        outcomes=outcomes,
        unread=unread,
    )


def _read(entry: PolicyEntry, version: PolicyVersion) -> Resource | str:
    """The resource, or why there is none."""
    if entry.kind not in KINDS:
        return f"this peer does not know the kind {entry.kind:.60}"
    try:
        resource = parse_resource(version.resource)
        if (resource.kind, resource.namespace, resource.name) != (entry.kind, entry.namespace, entry.name):
            return "the document is of another policy"
        _try_out(resource)
    except ResourceError as error:
        return "; ".join(error.problems)[:MESSAGE_CHARS_MAX]
    except ValueError as error:
        return f"does not compile: {error}"[:MESSAGE_CHARS_MAX]
    return resource


def _try_out(resource: Resource) -> None:
    """Compile it as the data planes will. Raises ValueError."""
    match resource.spec:
        case HTTPRouteSpec() as spec:
            compile_rules(route_rules(resource.key, spec, lambda _: ""))
        case AuthorizationPolicySpec() as spec:
            policy = AuthzPolicy(name=resource.key, variants=(authorization_rules(spec, "example.org"),))
            protocols: tuple[AppProtocol, ...] = ("http", "tcp")
            for protocol in protocols:
                compile_authorization(Authorization(deny=(policy,), allow=(policy,)), protocol)
        case _:
            pass  # made of numbers the schema has bounded


def _conditions(
    entry: PolicyEntry, resources: Sequence[Resource], problems: Sequence[str], unread: Strictest
) -> list[Condition]:
    found = []
    meanwhile = f"{unread.words}: " if unread.words else ""
    if not resources:
        reason = "Invalid" if entry.kind in KINDS else "UnsupportedKind"
        message = (meanwhile + (problems[0] if problems else "no version is left"))[:MESSAGE_CHARS_MAX]
        found.append(Condition(type="Accepted", status="False", reason=reason, message=message))
    if len(entry.versions) > 1:
        writers = ", ".join(each.writer for each in entry.versions)
        message = f"{len(entry.versions)} concurrent edits (by {writers}); the next edit settles them"
        if resources:
            message += f"; until then {_UNTIL_THEN.get(entry.kind, _LATEST)}"
        if problems and resources:
            message += f"; set aside: {meanwhile}{problems[0]}"
        found.append(
            Condition(
                type="Conflicted",
                status="True",
                reason="ConcurrentEdits",
                message=message[:MESSAGE_CHARS_MAX],
            )
        )
    return found

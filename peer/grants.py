"""What one Capability says, and what several say together: who may write and delegate which pairs.

Rights are about pairs of a namespace and a kind of resource. A pair is held by whoever a walk comes to that starts at
the governors and goes over the grants that include it, on from those they let delegate.

Invariant: pure; what is not reached from the governors is worth nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from crdt.record import Record
from peer.records import PayloadError, decode_policy
from proxy.resources.capability import EVERY, CapabilitySpec, Subject
from proxy.resources.resource import parse_resource
from proxy.resources.wording import ResourceError
from trust.identity import node_id, parse_id

ANSWERS_MAX: Final = 65_536  # pairs remembered
PAIRS_TRIED_MAX: Final = 2_048  # to see whether a delegate's Capability has any effect
EVERYBODY: Final = b"*"  # among subjects: every member


@dataclass(frozen=True, slots=True)
class Grant:
    """What one Capability says, or what several concurrent ones agree in. Subjects are ids of nodes' and
    authors' keys, or EVERYBODY."""

    subjects: frozenset[bytes]
    namespaces: frozenset[str]
    kinds: frozenset[str]
    delegate: bool

    def includes(self, namespace: str, kind: str) -> bool:
        """Whether it is about this pair. "*" is included in "*" alone."""
        return includes(self.namespaces, namespace) and includes(self.kinds, kind)


NOTHING: Final = Grant(frozenset(), frozenset(), frozenset(), False)


def includes(names: frozenset[str], name: str) -> bool:
    """Whether this is among the names, or all are."""
    return name in names or EVERY in names


def _common(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    if EVERY in one:
        return other
    return one if EVERY in other else one & other


def agreed(grants: Iterable[Grant]) -> Grant:
    """What every one of these grants: the reading of concurrent versions. Nothing, if there are none."""
    result: Grant | None = None
    for grant in grants:
        if result is None:
            result = grant
            continue
        if EVERYBODY in result.subjects:
            subjects = grant.subjects
        elif EVERYBODY in grant.subjects:
            subjects = result.subjects
        else:
            subjects = result.subjects & grant.subjects
        result = Grant(
            subjects,
            _common(result.namespaces, grant.namespaces),
            _common(result.kinds, grant.kinds),
            result.delegate and grant.delegate,
        )
    return result or NOTHING


def read_grant(record: Record) -> Grant | None:
    """What a Capability record says; None if it cannot be read here, and then it grants nothing."""
    try:
        resource = parse_resource(decode_policy(record.payload))
    except (PayloadError, ResourceError, ValueError):
        return None
    spec = resource.spec
    if resource.key != record.key or not isinstance(spec, CapabilitySpec):
        return None
    return _grant(spec)


def _grant(spec: CapabilitySpec) -> Grant:
    return Grant(
        frozenset(map(_subject, spec.subjects)),
        frozenset(spec.namespaces),
        frozenset(spec.kinds),
        spec.delegate,
    )


def _subject(subject: Subject) -> bytes:
    if subject.author is not None:
        return node_id(bytes.fromhex(subject.author))
    assert subject.node is not None
    return EVERYBODY if subject.node == EVERY else parse_id(subject.node)


class Grants:
    """Who holds which pair: the least fixed point of what governors and those they let delegate grant. Immutable, but
    for what it remembers of its own answers."""

    def __init__(self, governed: Sequence[Grant], granted: Mapping[bytes, Sequence[Grant]]) -> None:
        """`governed` is what governors grant, `granted` what others do, by granter."""
        self._index: dict[bytes, dict[str, list[Grant]]] = {}
        self._named: set[str] = set()
        self._named_kinds: set[str] = set()
        sources = {EVERYBODY: governed, **granted}  # stands for the governors
        for granter, grants in sources.items():
            index = self._index.setdefault(granter, {})
            for grant in grants:
                self._named |= grant.namespaces
                self._named_kinds |= grant.kinds
                for namespace in grant.namespaces:
                    index.setdefault(namespace, []).append(grant)
        self._all_namespaces = sorted(self._named | {EVERY})
        self._all_kinds = sorted(self._named_kinds | {EVERY})
        self._answers: dict[tuple[str, str], tuple[frozenset[bytes], frozenset[bytes]]] = {}

    def holders(self, namespace: str, kind: str) -> tuple[frozenset[bytes], frozenset[bytes]]:
        """(who may write that, who may delegate it), governors aside."""
        # What nobody has named is all the same: "*" is about it, and nothing else.
        pair = (
            namespace if namespace in self._named else EVERY,
            kind if kind in self._named_kinds else EVERY,
        )
        known = self._answers.get(pair)
        if known is not None:
            return known
        if len(self._answers) >= ANSWERS_MAX:
            self._answers.clear()
        holders: set[bytes] = set()
        delegates: set[bytes] = set()
        ahead = [EVERYBODY]  # stands for the governors
        while ahead:
            index = self._index.get(ahead.pop(), {})
            for name in {pair[0], EVERY}:
                for grant in index.get(name, ()):
                    if not grant.includes(*pair):
                        continue
                    holders |= grant.subjects
                    if grant.delegate:
                        fresh = grant.subjects - delegates - {EVERYBODY}
                        delegates |= fresh
                        ahead += fresh
        self._answers[pair] = answer = (frozenset(holders), frozenset(delegates))
        return answer

    def has_effect(self, granter: bytes, grant: Grant) -> bool:
        """Whether a grant of one who is no governor grants anything. One with more pairs than are tried is taken to:
        that it is listed does not widen what it grants."""
        namespaces = self._all_namespaces if EVERY in grant.namespaces else sorted(grant.namespaces)
        kinds = self._all_kinds if EVERY in grant.kinds else sorted(grant.kinds)
        if len(namespaces) * len(kinds) >= PAIRS_TRIED_MAX:
            return True
        return any(granter in self.holders(*pair)[1] for pair in product(namespaces, kinds))


def pairs_of(grant: Grant) -> Iterator[tuple[str, str]]:
    """Its pairs of namespace and kind, as they are written."""
    return product(sorted(grant.namespaces), sorted(grant.kinds))

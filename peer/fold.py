"""From records to the view: the folds of the `service`, `policy` and `quarantine` kinds.

Decoded services are kept by (writer, key, seq), so that a change costs decoding what changed, not everything;
policies are kept folded (`peer/policyfold.py`). A record whose writer was not entitled to it (`Registry.objection`,
for policies `peer/capabilities.py`) is left out and counted.

Invariant: equal journals, memberships and revocations give equal views.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from crdt.journal import Journal
from crdt.record import Context, Record
from gossip.member import Member, State
from peer.capabilities import Capabilities
from peer.catalog import Host, PolicyEntry, ServiceInstance
from peer.history import PastVersion, versions
from peer.notice import QUARANTINES_PER_NODE_MAX, Elsewhere, Notice, NoticeError, decode_notice
from peer.policyfold import PolicyFold
from peer.records import (
    POLICY,
    QUARANTINE,
    SERVICE,
    PayloadError,
    Registry,
    ServicePayload,
    decode_service,
)
from trust.identity import format_id, parse_id

# What one node may put into everybody's snapshot. Far above what a host runs, far below what a data plane can take.
SERVICES_PER_NODE_MAX: Final = 512
PORTS_PER_NODE_MAX: Final = 2048
FOLDED_AT_ONCE: Final = 50  # policies; some 5 ms
REACHABLE: Final = (State.ALIVE, State.SUSPECT)


def host_of(member: Member) -> Host:
    """What services need to know of the member they run on."""
    inbound = member.meta.get("inbound", 0)
    return Host(
        id=format_id(member.id),
        name=member.name,
        host=member.address[0],
        inbound_port=inbound if type(inbound) is int and 0 < inbound < 65536 else 0,
        zone=member.zone,
        reachable=member.state in REACHABLE and not member.meta.get("draining", False),
    )


class Folder:
    """Folds a journal, again and again, decoding each record once. `ignored` counts the records not obeyed at the
    last fold, by reason; `refused` says of whose policies some were, and why: (writer, reason) -> (how many, the words
    of one); `refused_keys` the same by key."""

    def __init__(self, journal: Journal, registry: Registry) -> None:
        self._journal = journal
        self._registry = registry
        self.capabilities = Capabilities(journal, registry)
        self._policies = PolicyFold(self.capabilities, registry)
        self.ignored: dict[str, Counter[str]] = {
            SERVICE: Counter(),
            POLICY: self._policies.ignored,
            QUARANTINE: Counter(),
        }
        self.refused = self._policies.refused
        self.refused_keys = self._policies.refused_keys
        self._services: dict[tuple[bytes, str, int], ServicePayload] = {}

    def services(self, members: Iterable[Member], *, but: bytes) -> tuple[ServiceInstance, ...]:
        """The services of all nodes in the mesh `but` one (a node knows its own at first hand), in order of name."""
        present = {member.id: member for member in members if member.state in REACHABLE}
        kept: dict[tuple[bytes, str, int], ServicePayload] = {}
        found = []
        room: dict[bytes, list[int]] = {}
        self.ignored[SERVICE].clear()
        # In order of key, so that every node leaves out the same ones of a node that has too many.
        for record in sorted(self._journal.records(SERVICE), key=lambda r: r.key):
            member = present.get(record.writer)
            if not record.payload or member is None or record.writer == but or not self._obeyed(record):
                continue
            key = (record.writer, record.key, record.seq)
            payload = self._services.get(key) or _service(record)
            if payload is None:
                continue
            left = room.setdefault(record.writer, [SERVICES_PER_NODE_MAX, PORTS_PER_NODE_MAX])
            if left[0] < 1 or left[1] < len(payload.ports):
                self.ignored[SERVICE]["too many services of one node"] += 1
                continue
            left[0] -= 1
            left[1] -= len(payload.ports)
            kept[key] = payload
            found.append(instance(payload, host_of(member)))
        self._services = kept
        return tuple(sorted(found, key=lambda s: (s.namespace, s.name, s.node)))

    def policies(self) -> tuple[PolicyEntry, ...]:
        """All policies with their live versions, in order of key; the same tuple until something changes."""
        return self._policies.all()

    def read_ahead(self) -> bool:
        """Look at some of the policies that have changed, for some milliseconds; whether that was all."""
        return self._policies.read_ahead(FOLDED_AT_ONCE)

    def policies_of(self, keys: Iterable[str]) -> dict[str, PolicyEntry]:
        """Those of the policies `<Kind>/<namespace>/<name>` that there are, by key."""
        return self._policies.get(keys)

    def policy_history(self, key: str, past: Iterable[bytes]) -> list[PastVersion]:
        """All versions of a policy, latest first, each as its author's; `past` are the encoded records of the disk."""
        rights = self.capabilities.rights()
        return versions(
            self._policies.records(key),
            past,
            key,
            read=self.capabilities.authors.read,
            live=lambda records: rights.live(records).get(key, ()),
            judge=lambda record: refusal.words if (refusal := rights.objection(record)) is not None else "",
        )

    def policy_reach(self, key: str) -> dict[bytes, int]:
        """How far journals go with all live versions of a policy (writer -> seq)."""
        return self._policies.reach(key)

    def policy_contexts(self, keys: Iterable[str], editor: bytes) -> dict[str, Context]:
        """The causal context that an edit or deletion of each policy by `editor` carries now."""
        return self._policies.contexts(keys, editor)

    def conflicts(self) -> tuple[str, ...]:
        """The keys of the policies with concurrent versions, sorted."""
        return self._policies.conflicts()

    def quarantines(self, members: Iterable[Member], *, but: bytes) -> dict[str, tuple[Elsewhere, ...]]:
        """By policy, where it is not in force as it stands: at all nodes in the mesh `but` one, in order of name."""
        present = {member.id: member for member in members if member.state in REACHABLE}
        room: Counter[bytes] = Counter()
        self.ignored[QUARANTINE].clear()
        notices: dict[str, list[Elsewhere]] = {}
        for record in sorted(self._journal.records(QUARANTINE), key=lambda r: r.key):
            member = present.get(record.writer)
            if not record.payload or member is None or record.writer == but or not self._obeyed(record):
                continue
            notice = _notice(record)
            if notice is None:
                continue
            room[record.writer] += 1
            if room[record.writer] > QUARANTINES_PER_NODE_MAX:
                self.ignored[QUARANTINE]["too many quarantines of one node"] += 1
                continue
            found = Elsewhere(node=record.writer, node_name=member.name, notice=notice)
            notices.setdefault(record.key, []).append(found)
        if not notices:
            return {}
        standing: dict[str, tuple[Elsewhere, ...]] = {}
        for key, entry in sorted(self.policies_of(notices).items()):
            dots = {(parse_id(version.writer), version.seq) for version in entry.versions}
            here = [each for each in notices[key] if set(each.notice.version) == dots]
            if here:
                standing[key] = tuple(sorted(here, key=lambda each: (each.node_name, each.node)))
        return standing

    def notices_of(self, writer: bytes) -> dict[str, tuple[Notice, bytes]]:
        """What one node tells, by policy, with the bytes."""
        found = {}
        for record in self._journal.records(QUARANTINE):
            if record.writer == writer and record.payload:
                notice = _notice(record)
                if notice is not None:
                    found[record.key] = (notice, record.payload)
        return found

    def _obeyed(self, record: Record) -> bool:
        reason = self._registry.objection(record)
        if reason:
            self.ignored[record.kind][reason] += 1
        return not reason


def instance(payload: ServicePayload, host: Host) -> ServiceInstance:
    """A service as one node offers it."""
    return ServiceInstance(
        node=host.id,
        node_name=host.name,
        host=host.host,
        inbound_port=host.inbound_port,
        zone=host.zone,
        reachable=host.reachable,
        namespace=payload.namespace,
        name=payload.name,
        account=payload.account,
        address=payload.address,
        ports=payload.ports,
        labels=payload.labels,
        health=payload.health,
    )


def _service(record: Record) -> ServicePayload | None:
    try:
        return decode_service(record.payload)
    except PayloadError:
        return None  # `objection` has said why


def _notice(record: Record) -> Notice | None:
    try:
        return decode_notice(record.payload)
    except NoticeError:
        return None  # `objection` has said why

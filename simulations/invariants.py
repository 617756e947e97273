"""What must hold whatever is done to a mesh: looked at while a story runs, and once it has been quiet.

All the time (every LOOK_EVERY_S):
- a member's (boot, incarnation), as one node sees it, never goes back within a life of that node;
- nobody sees a member at a (boot, incarnation) that it has not itself announced: only the owner raises its own;
- queues are within their bounds (datagrams are checked as they are sent, simulations/loop.py), and nothing waits in
  them to be told more often than the configuration says;
- no number is acknowledged twice for different contents, while somebody has the first, and no journal has seen one used
  twice;
- nobody is condemned without accusations that the accusers have signed, enough of them or old enough;
- a node's clock never goes back within a life of that node;
- no stamp counts that is further in the future than a clock may be wrong.

After quiet:
- every live node sees exactly the live nodes alive, each under the boot it runs, and no other node as live (so nobody
  is missing, nobody buried alive, nobody back from the dead);
- equal heads mean equal journals, and the heads are equal;
- what was acknowledged is there, unless every disk and process that held it is gone;
- of each key: an acknowledged edit is visible, or was replaced by somebody who knew it; what an acknowledged edit or
  deletion replaced is not back.

Members that lie (simulations/byzantine.py) are not looked at, nothing is demanded of how others see them, and what they
have acknowledged or hold counts for nothing; what honest members make of one another and of the records of honest
members must hold all the same.

Invariant: looking changes nothing; what is found is told in words that name who, what and when.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from crdt import register
from crdt.clock import hlc_ms
from crdt.record import Record, same_content
from gossip.config import GossipConfig
from gossip.entry import Entry
from gossip.member import State
from gossip.suspicion import accusers_needed
from peer.messages import MemberMoved, Written
from simulations import views
from simulations.faults import NOTE
from simulations.host import Host
from simulations.mesh import DRIFT_MS_MAX
from simulations.world import World

LOOK_EVERY_S: Final = 0.5
FOUND_MAX: Final = 20

Rank = tuple[int, int]


class Rule(Enum):
    """What was broken, for who wants to tell one from the other."""

    MONOTONE = "incarnations only rise"
    BOUNDED = "queues are bounded"
    NO_REUSE = "no number is used twice"
    VIEWS = "views agree"
    JOURNALS = "journals agree"
    EQUAL_STATE = "equal heads mean equal state"
    NO_LOSS = "nothing acknowledged is lost"
    NO_RESURRECTION = "nothing deleted comes back"
    EVIDENCE = "nobody is condemned without evidence"
    STAMPS = "no record counts before its time"
    THRESHOLD = "no certificate below the threshold"  # these three: simulations/thresholds.py
    ONE_ROOT = "there is one root"
    ISSUED = "certificates are issued"


@dataclass(frozen=True, slots=True)
class Found:
    """A rule that was broken, when (seconds since the start of the world), and in words by whom and how."""

    rule: Rule
    at_s: float
    what: str


@dataclass(slots=True)
class _Acknowledged:
    """A record its writer was told is durable. `owed`: somebody still has it to give. `kept`: the disk it was said to
    be on has not been lost, so that no crash is an excuse."""

    record: Record
    host: Host
    owed: bool = True
    kept: bool = True


class Watch:
    """Watches one world from the moment it is made. `found` says what did not hold."""

    def __init__(self, world: World) -> None:
        self.found: list[Found] = []
        self.acknowledged: list[_Acknowledged] = []
        self._world = world
        self._seen: dict[int, tuple[int, dict[bytes, Rank]]] = {}  # by host: its life, and what it showed
        self._announced: dict[bytes, Rank] = {}
        self._numbered: dict[tuple[bytes, int], _Acknowledged] = {}
        self._clocks: dict[int, tuple[int, int]] = {}  # by host: its life, and its last stamp
        self._retransmits: dict[
            int, tuple[int, int]
        ] = {}  # by host: its life, the most an item may be told in it
        self._suspected: dict[int, tuple[int, dict[bytes, float]]] = {}  # by host: its life, since when whom
        world.on_life.append(self._life)
        world.on_written.append(self._written)
        world.on_moved.append(self._moved)
        world.push(world.now + LOOK_EVERY_S, self._look, None, None)

    @property
    def broken(self) -> list[str]:
        """The same in words."""
        return [f"at {found.at_s:.3f} s: {found.what}" for found in self.found]

    def _tell(self, rule: Rule, what: str) -> None:
        if len(self.found) < FOUND_MAX:
            self.found.append(Found(rule, self._world.now - self._world.start_at, what))

    # ------------------------------------------------------------------ all the time

    def _look(self, _first: None, _second: None) -> None:
        self.look()
        self._world.push(self._world.now + LOOK_EVERY_S, self._look, None, None)

    def look(self) -> None:
        """Check what must hold now."""
        running = [host for host in self._world.hosts if host.node is not None]
        for host in running:
            self._note_own(host)
        for host in running:
            if host.index not in self._world.liars:
                self._check_ranks(host)
                self._check_bounds(host)
                self._check_stamps(host)

    def _note_own(self, host: Host) -> None:
        if host.node is not None:
            rank = host.node.engine.members()[0].rank
            self._announced[host.id] = max(rank, self._announced.get(host.id, rank))

    def _check_ranks(self, host: Host) -> None:
        assert host.node is not None, "only running nodes are looked at"
        life, seen = self._seen.get(host.index, (0, {}))
        if life != host.life:
            seen = {}
        self._seen[host.index] = host.life, seen
        for member in host.node.engine.members():
            before, rank = seen.get(member.id), member.rank
            name = self._world.name_of(member.id)
            if before is not None and rank < before:
                self._tell(Rule.MONOTONE, f"{host.name} saw {name} at {before} and now sees it at {rank}")
            if rank > self._announced.get(member.id, (0, 0)) and not self._world.lied(member.id):
                self._tell(Rule.MONOTONE, f"{host.name} sees {name} at {rank}, which it never announced")
            seen[member.id] = rank

    def _check_bounds(self, host: Host) -> None:
        assert host.node is not None, "only running nodes are looked at"
        config: GossipConfig = self._world.config
        sizes = host.node.engine.statistics()
        for name, size, most in (
            ("updates", sizes.updates_queued, config.updates_max),
            ("records", sizes.payloads_queued, config.payloads_max),
            ("probes", sizes.probes, config.probes_max),
            ("members", sizes.alive + sizes.suspect + sizes.dead + sizes.left, config.members_max + 1),
        ):
            if size > most:
                self._tell(Rule.BOUNDED, f"{host.name} holds {size} {name}, at most {most} are allowed")
        life, most = self._retransmits.get(host.index, (0, 0))
        known = sizes.alive + sizes.suspect + sizes.dead + sizes.left
        most = max(most if life == host.life else 0, config.retransmits(known))
        self._retransmits[host.index] = host.life, most
        if sizes.told_most > most:
            self._tell(
                Rule.BOUNDED, f"{host.name} has told something {sizes.told_most} times, {most} are allowed"
            )
        for writer in host.node.journal.forks:
            if not self._world.lied(writer):
                name = self._world.name_of(writer)
                self._tell(Rule.NO_REUSE, f"{host.name} has proof that {name} used a number twice")

    def _check_stamps(self, host: Host) -> None:
        assert host.node is not None, "only running nodes are looked at"
        life, before = self._clocks.get(host.index, (0, 0))
        stamp = host.node.journal.clock.last
        if life == host.life and stamp < before:
            self._tell(Rule.MONOTONE, f"the clock of {host.name} stamped {before} and now goes by {stamp}")
        self._clocks[host.index] = host.life, stamp
        ahead_ms = hlc_ms(host.node.journal.clock.last) - int(self._world.now_of(host) * 1000)
        if ahead_ms > DRIFT_MS_MAX:
            self._tell(
                Rule.STAMPS, f"{host.name} goes by a stamp {ahead_ms} ms in the future of its own clock"
            )

    # ------------------------------------------------------------------ verdicts

    def _moved(self, host: Host, moved: MemberMoved) -> None:
        life, since = self._suspected.get(host.index, (0, {}))
        if life != host.life:
            since = {}
        self._suspected[host.index] = host.life, since
        member = moved.member
        if member.state is State.SUSPECT:
            since.setdefault(member.id, self._world.now_of(host))
            return
        began = since.pop(member.id, None)
        if member.state is not State.DEAD or host.index in self._world.liars or host.node is None:
            return
        parts = host.node.engine._parts
        entry = parts.roster.get(member.id)
        gone = member.id in parts.judge.evicted or self._world.now_of(host) >= member.credential.expires_at
        if entry is not None and not gone:
            self._check_evidence(host, entry, began)

    def _check_evidence(self, host: Host, entry: Entry, began: float | None) -> None:
        """Who waited has waited a suspicion's least time; who did not has as many accusers as that takes."""
        assert host.node is not None, "only nodes condemn"
        world, crypto, parts = self._world, self._world.mesh.crypto, host.node.engine._parts
        name = world.name_of(entry.member.id)
        for accuser, suspicion in entry.evidence.items():
            key = world.key_of(accuser)
            if key is None or not crypto.verify(key, suspicion.signing_bytes(), suspicion.signature):
                what = f"{host.name} condemned {name} on a word that {world.name_of(accuser)} never signed"
                self._tell(Rule.EVIDENCE, what)
        config: GossipConfig = world.config
        heard = world.now_of(host) < entry.hearsay_until
        waited_s = 0.0 if began is None else world.now_of(host) - began
        least_s = config.suspicion_mult_corroborated * config.probe_interval_s
        needed = 1 if heard else accusers_needed(config, parts.judge.accusations._could_accuse(entry))
        if len(entry.evidence) < needed and waited_s < least_s:
            self._tell(
                Rule.EVIDENCE,
                f"{host.name} condemned {name} after {waited_s:.2f} s on {len(entry.evidence)} accusations, "
                f"{needed} are needed to condemn at once",
            )

    # ------------------------------------------------------------------ what was acknowledged

    def _written(self, host: Host, written: Written) -> None:
        honest = host.index not in self._world.liars
        for record in written.records:
            each = _Acknowledged(record, host, honest, honest)
            self.acknowledged.append(each)
            first = self._numbered.get((record.writer, record.seq))
            if first is not None and first.owed and not same_content(first.record, record):
                self._tell(
                    Rule.NO_REUSE, f"{host.name} has acknowledged two records under number {record.seq}"
                )
            self._numbered[record.writer, record.seq] = each

    def _life(self, host: Host, what: str) -> None:
        """A process or a disk goes: whatever nobody else holds goes with it."""
        if what == "crash":
            self._note_own(host)
        if what in ("start", "warm"):
            return
        for each in self.acknowledged:
            if each.host is host and what == "disk lost":
                each.kept = each.kept and host.disk.heads.get(each.record.writer, 0) >= each.record.seq
            if each.owed and not each.kept:
                each.owed = any(
                    self._holds(other, each.record, dying=other is host) for other in self._world.hosts
                )
            if what == "lies" and each.host is host:
                each.owed = each.kept = False

    def _holds(self, host: Host, record: Record, *, dying: bool) -> bool:
        """Whether that host has the record, in its node or on its disk, after what happens now; and says so."""
        if host.index in self._world.liars:
            return False
        if (
            not dying
            and host.node is not None
            and host.node.journal.heads.get(record.writer, 0) >= record.seq
        ):
            return True
        return host.disk.heads.get(record.writer, 0) >= record.seq

    # ------------------------------------------------------------------ after quiet

    def settled(self) -> bool:
        """Whether views and journals of all honest live nodes agree."""
        world = self._world
        prints = {host.node.journal.fingerprint() for host in world.honest() if host.node is not None}
        return len(prints) <= 1 and world.converged()

    def final(self) -> None:
        """Check what must hold after quiet."""
        self.look()
        for difference in views.differences(self._world):
            self._tell(Rule.VIEWS, f"after quiet, {difference}")
        live = [host for host in self._world.honest() if host.node is not None]
        self._check_journals(live)
        self._check_keys(live)
        holders = [host.name for host in live]
        for each in self.acknowledged:
            record = each.record
            if not each.owed:
                continue
            having = [host.name for host in live if self._has(host, record)]
            kept_by_the_down = any(
                host.disk.heads.get(record.writer, 0) >= record.seq
                for host in self._world.hosts
                if not host.up
            )
            if having != holders and (having or not kept_by_the_down):
                lacking = sorted(set(holders) - set(having))
                self._tell(
                    Rule.NO_LOSS,
                    f"record {record.seq} of {each.host.name} was acknowledged, {lacking} lack it",
                )

    def _check_journals(self, live: list[Host]) -> None:
        heads: dict[str, tuple[tuple[bytes, int], ...]] = {}
        contents: dict[tuple[tuple[bytes, int], ...], dict[bytes, str]] = {}
        for host in live:
            assert host.node is not None, "live hosts have nodes"
            heads[host.name] = tuple(sorted(host.node.journal.heads.items()))
            contents.setdefault(heads[host.name], {}).setdefault(host.node.journal.canonical(), host.name)
        if len(set(heads.values())) > 1:
            self._tell(
                Rule.JOURNALS,
                f"after quiet, journals differ: { ({name: len(each) for name, each in heads.items()}) }",
            )
        for same in contents.values():
            if len(same) > 1:
                self._tell(
                    Rule.EQUAL_STATE, f"journals with equal heads differ in content: {sorted(same.values())}"
                )

    def _check_keys(self, live: list[Host]) -> None:
        """Hold every key against what was acknowledged of it, as one node sees it; the journals are the same."""
        if not live or live[0].node is None:
            return
        journal = live[0].node.journal
        held: dict[str, list[Record]] = {}
        for record in journal.records(NOTE):
            if record.writer in journal.forks:
                continue  # out of every view
            held.setdefault(record.key, []).append(record)
        said: dict[str, list[Record]] = {}
        for each in self.acknowledged:
            if each.owed and each.record.kind == NOTE and self._has(live[0], each.record):
                said.setdefault(each.record.key, []).append(each.record)
        for key, records in said.items():
            now = held.get(key, [])
            visible = {record.dot for record in register.versions(now)}
            for record in records:
                if not (
                    record.deleted
                    or record.dot in visible
                    or any(_replaces(n, record) for n in [*now, *records])
                ):
                    self._tell(
                        Rule.NO_LOSS,
                        f"an acknowledged edit of {key} by {self._world.name_of(record.writer)} is lost",
                    )
            for back in now:
                if back.dot in visible and any(_replaces(record, back) for record in records):
                    name = self._world.name_of(back.writer)
                    self._tell(
                        Rule.NO_RESURRECTION,
                        f"{key} as {name} wrote it is back, though somebody who knew it replaced it",
                    )

    @staticmethod
    def _has(host: Host, record: Record) -> bool:
        assert host.node is not None, "live hosts have nodes"
        return host.node.journal.heads.get(record.writer, 0) >= record.seq


def _replaces(newer: Record, older: Record) -> bool:
    """Whether the author of one record of a key knew the other."""
    if newer.writer == older.writer:
        return newer.seq > older.seq
    return any(writer == older.writer and seq >= older.seq for writer, seq in newer.context)

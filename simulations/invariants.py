"""What must hold whatever is done to a mesh: looked at while a story runs, and once it has been quiet.

All the time (every LOOK_EVERY_S):
- a member's (boot, incarnation), as one node sees it, never goes back within a life of that node;
- nobody sees a member at a (boot, incarnation) that it has not itself announced: only the owner raises its own;
- queues are within their bounds (datagrams are checked as they are sent, simulations/loop.py);
- no journal has seen one number used twice.

After quiet:
- every live node sees exactly the live nodes alive, each under the boot it runs, and no other node as live (so nobody
  is missing, nobody buried alive, nobody back from the dead);
- equal heads mean equal journals, and the heads are equal;
- what was acknowledged is there, unless every disk and process that held it is gone;
- of each key: an acknowledged edit is visible, or was replaced by somebody who knew it; what an acknowledged edit or
  deletion replaced is not back.

Invariant: looking changes nothing; what is found is told in words that name who, what and when.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from crdt.record import Record
from crdt.register import versions
from gossip.config import GossipConfig
from peer.messages import Written
from simulations import views
from simulations.faults import NOTE
from simulations.host import Host
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
        world.on_life.append(self._life)
        world.on_written.append(self._written)
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
            self._check_ranks(host)
            self._check_bounds(host)

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
            if rank > self._announced.get(member.id, (0, 0)):
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
        for writer in host.node.journal.forks:
            self._tell(
                Rule.NO_REUSE, f"{host.name} has proof that {self._world.name_of(writer)} used a number twice"
            )

    # ------------------------------------------------------------------ what was acknowledged

    def _written(self, host: Host, written: Written) -> None:
        self.acknowledged += [_Acknowledged(record, host) for record in written.records]

    def _life(self, host: Host, what: str) -> None:
        """A process or a disk goes: whatever nobody else holds goes with it."""
        if what == "crash":
            self._note_own(host)
        if what in ("start", "warm"):
            return
        for each in self.acknowledged:
            each.kept = each.kept and not (each.host is host and what == "disk lost")
            if each.owed and not each.kept:
                each.owed = any(
                    self._holds(other, each.record, dying=other is host, disk_too=what == "disk lost")
                    for other in self._world.hosts
                )

    def _holds(self, host: Host, record: Record, *, dying: bool, disk_too: bool) -> bool:
        """Whether that host has the record, in its node or on its disk, after what happens now."""
        if (
            not dying
            and host.node is not None
            and host.node.journal.heads.get(record.writer, 0) >= record.seq
        ):
            return True
        return not (dying and disk_too) and host.disk.heads.get(record.writer, 0) >= record.seq

    # ------------------------------------------------------------------ after quiet

    def settled(self) -> bool:
        """Whether views and journals of all live nodes agree."""
        world = self._world
        prints = {host.node.journal.fingerprint() for host in world.live() if host.node is not None}
        return len(prints) <= 1 and world.converged()

    def final(self) -> None:
        """Check what must hold after quiet."""
        self.look()
        for difference in views.differences(self._world):
            self._tell(Rule.VIEWS, f"after quiet, {difference}")
        live = [host for host in self._world.live() if host.node is not None]
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
            held.setdefault(record.key, []).append(record)
        said: dict[str, list[Record]] = {}
        for each in self.acknowledged:
            if each.owed and each.record.kind == NOTE and self._has(live[0], each.record):
                said.setdefault(each.record.key, []).append(each.record)
        for key, records in said.items():
            now = held.get(key, [])
            visible = {record.dot for record in versions(now)}
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

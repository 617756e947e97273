"""What a campaign must have seen happen, or it has proved less than it says.

An invariant that holds because the situation it is about never came up holds for nothing. So each situation the
design was made for has a counter, and a campaign in which one of them stayed at zero fails (the "sometimes" assertions
of Antithesis, FoundationDB's coverage probes).

Most can be seen from outside: in what nodes tell their drivers. How a probe was saved, and by whose word a suspect was
condemned, is asked of the engine's own parts, which no driver would do.

Invariant: counting changes nothing.
"""

from collections import Counter
from enum import Enum
from typing import Any, Final

from crdt.journal import Verdict, Wait
from crdt.ormap import live_versions
from crdt.record import Record
from gossip.member import State
from gossip.probe import Probe, Probes, Purpose
from peer.messages import MemberMoved, Note, Written
from peer.node import Node
from simulations.faults import NOTE
from simulations.host import Host
from simulations.world import World


class Sometimes(Enum):
    """The situations."""

    REFUTED = "a refutation beat a timeout"
    REFUTATION = "a node refuted an accusation"
    CONDEMNED = "a suspicion ran out"
    CORROBORATED = "several observers condemned together"
    WITNESS = "a witness confirmed"
    INDIRECT = "an indirect ack saved a member"
    FALLBACK = "a stream saved a member whose datagrams were lost"
    REJOINED = "a member buried alive came back"
    RESTARTED = "a member came back with a higher boot"
    RETURNED = "a member that had left came back"
    LEFT = "a member left"
    HEALED = "a dead member that was knocked at answered"
    BEHIND = "a node found itself behind and asked"
    DIVERGED = "journals were found to differ"
    CONTACTED = "a seed or a dead member was knocked at"
    REPLAYED = "a datagram that came twice was refused"
    STRANGER = "a datagram that could not be opened was refused"
    LAGGED = "a late process noticed that it was late"
    ASKED = "a node in doubt of its own journal asked one more member"
    RELEARNT = "a node got its own journal back from the others"
    CONCURRENT = "two edits of one key that did not know each other lived side by side to the end"
    DELETED = "a key was deleted"
    FUTURE = "a record waited because it was stamped in the future"
    TORN = "a crash took what was on its way to the disk"
    OVERFLOWED = "a socket's buffer overflowed"
    RETRANSMITTED = "a frame was sent again"
    GIVEN_UP = "an exchange took too long, or more than a node takes part in were asked for"
    REFUSED = "a stream was refused or could not be had"


_REASONS: Final = {
    "a dead member answered": Sometimes.HEALED,
    "it knows of members unknown here": Sometimes.BEHIND,
    "diverged": Sometimes.DIVERGED,
    "own journal": Sometimes.ASKED,
    "seed": Sometimes.CONTACTED,
    "dead member": Sometimes.CONTACTED,
}


class Tally:
    """Counts in one world, from the moment it is made."""

    def __init__(self, world: World) -> None:
        self.counts: Counter[Sometimes] = Counter()
        self._world = world
        self._blank: set[int] = set()  # hosts whose disk was lost and whose identity was kept
        world.on_moved.append(self._moved)
        world.on_note.append(self._noted)
        world.on_life.append(self._life)
        world.on_written.append(self._written)

    def finish(self) -> Counter[Sometimes]:
        """The counts, with what only the end of a world can tell."""
        world, counts = self._world, self.counts
        counts[Sometimes.RETRANSMITTED] += world.streams.retransmitted
        counts[Sometimes.GIVEN_UP] += world.streams.given_up
        counts[Sometimes.REFUSED] += world.streams.failed
        for host in world.hosts:
            counts[Sometimes.TORN] += host.disk.lost
            counts[Sometimes.OVERFLOWED] += host.traffic.datagrams_overflowed
            counts[Sometimes.LAGGED] += host.lags
            if host.node is not None:
                counts[Sometimes.REFUTATION] += host.node.engine.statistics().refutations
                relearnt = host.index in self._blank and host.node.journal.heads.get(host.id, 0) > 0
                counts[Sometimes.RELEARNT] += relearnt
        counts[Sometimes.CONCURRENT] += self._conflicts()
        return +counts

    def _conflicts(self) -> int:
        live = next((host.node for host in self._world.live() if host.node is not None), None)
        if live is None:
            return 0
        return sum(len(versions) > 1 for versions in live_versions(live.journal.records(NOTE)).values())

    # ------------------------------------------------------------------ from outside

    def _moved(self, host: Host, moved: MemberMoved) -> None:
        member, counts = moved.member, self.counts
        match moved.previous, member.state:
            case State.SUSPECT, State.ALIVE if member.incarnation > 0:
                counts[Sometimes.REFUTED] += 1
            case State.DEAD, State.ALIVE if member.incarnation > 0:
                counts[Sometimes.REJOINED] += 1
            case State.DEAD, State.ALIVE:
                counts[Sometimes.RESTARTED] += 1
            case State.LEFT, State.ALIVE:
                counts[Sometimes.RETURNED] += 1
            case _, State.LEFT:
                counts[Sometimes.LEFT] += 1
            case State.SUSPECT, State.DEAD:
                counts[Sometimes.CONDEMNED] += 1
                assert host.node is not None, "only nodes see others"
                entry = host.node.engine._parts.roster.get(member.id)
                counts[Sometimes.CORROBORATED] += entry is not None and len(entry.evidence) > 1

    def _noted(self, _host: Host, note: Note) -> None:
        reason = str(note.fields.get("reason", ""))
        if note.event == "exchange_begins":
            happened = _REASONS.get(reason)
            if happened is not None:
                self.counts[happened] += 1
        elif note.event == "datagram_rejected":
            self.counts[Sometimes.REPLAYED] += "seen before" in reason
            self.counts[Sometimes.STRANGER] += "unknown sender" in reason

    def _written(self, _host: Host, written: Written) -> None:
        self.counts[Sometimes.DELETED] += any(record.deleted for record in written.records)

    # ------------------------------------------------------------------ from inside

    def _life(self, host: Host, what: str) -> None:
        if what == "disk lost":
            self._blank.add(host.index)
        elif what in ("start", "warm") and host.node is not None:
            self._listen(host.node.engine._parts.probes)
            self._listen_to_verdicts(host.node)

    def _listen_to_verdicts(self, node: Node) -> None:
        """Have the journal tell what it makes wait."""
        verify, counts = node.journal._verify, self.counts

        def noting(record: Record, now_ms: int) -> Verdict:
            verdict = verify(record, now_ms)
            counts[Sometimes.FUTURE] += isinstance(verdict, Wait) and "future" in verdict.reason
            return verdict

        node.journal._verify = noting

    def _listen(self, probes: Probes) -> None:
        """Have the node's probes tell how they end."""
        finish, finish_target, failed = probes.finish, probes.finish_target, probes.failed
        counts = self.counts

        def noting_finish(sequence: int, *, sender: bytes) -> Probe | None:
            probe = finish(sequence, sender=sender)
            counts[Sometimes.INDIRECT] += probe is not None and sender != probe.target
            return probe

        def noting_finish_target(target: bytes) -> Probe | None:
            probe = finish_target(target)
            counts[Sometimes.FALLBACK] += probe is not None and probe.indirect and probe.judges
            return probe

        def noting_failed(now: float) -> list[Probe]:
            due = failed(now)
            counts[Sometimes.WITNESS] += sum(probe.purpose is Purpose.WITNESS for probe in due)
            return due

        instrumented: Any = probes
        instrumented.finish = noting_finish
        instrumented.finish_target = noting_finish_target
        instrumented.failed = noting_failed

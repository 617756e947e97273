"""How long a suspicion lasts before it is a verdict (Lifeguard, section 3.2, "LHA-Suspicion"), and which is next.

    timeout = max(floor, ceiling - (ceiling - floor) * log(c + 1) / log(k + 1))

with c independent confirmations after the first accusation and k of them expected. The ceiling is what a lone
accuser must wait; each further observer that failed to reach the suspect by its own probe brings the timeout nearer
to the floor. k never exceeds the members that could confirm at all, so that two nodes (k = 0) and three (k = 1) work
by the same rule as a thousand.

Ours: once k have confirmed, the floor is lower than when k is 0, and does not grow with log n: witnesses have carried
the accusation to the suspect (gossip/judge.py), and its refutation goes back to them at once and is forwarded at
once, hop by hop, not from gossip round to gossip round. It does grow with this node's own bad health, up to the floor
of a lone accuser: who misses acks misses refutations too.

The same count tells when a Dead heard from others is believed at once: `accusers_needed` signed suspicions.

The timeouts depend on the number of accusers and on the mesh, not on who is suspected, so the suspects are kept in a
heap for each number of accusers: the next to run out is the oldest of one of these few.

Invariant: more confirmations never lengthen a timeout beyond `refutation_s`, and the timeout is finite.
"""

import heapq
import math
from collections.abc import Iterator

from gossip.config import GossipConfig
from gossip.entry import Entry
from gossip.health import LocalHealth
from gossip.roster import Roster


def confirmations_expected(config: GossipConfig, able: int) -> int:
    """k, where `able` members (this node included, the suspect not) are alive and could accuse."""
    return max(0, min(config.confirmations, able - 1))


def accusers_needed(config: GossipConfig, able: int) -> int:
    """How many distinct signed suspicions make a Dead true for a node that has not waited itself."""
    return 1 if config.dead_on_word else confirmations_expected(config, able) + 1


def timeout_s(config: GossipConfig, *, members: int, able: int, accusers: int, health: int = 0) -> float:
    """Seconds from the first accusation to the verdict; `members` live ones, `accusers` distinct ones so far,
    `health` this node's own score."""
    scale = max(1.0, math.log10(max(1, members))) * config.probe_interval_s
    alone = config.suspicion_mult_alone * scale
    expected = confirmations_expected(config, able)
    confirmed = max(0, accusers - 1)
    if expected == 0 and confirmed == 0:
        return alone
    floor = min(alone, config.suspicion_mult_corroborated * config.probe_interval_s * (health + 1))
    if confirmed >= expected:
        return floor
    ceiling = config.suspicion_max_mult * alone
    return max(floor, ceiling - (ceiling - floor) * math.log(confirmed + 1) / math.log(expected + 1))


class Suspicions:
    """The suspects of one node, by when their time runs out."""

    __slots__ = ("_accusers", "_config", "_entries", "_health", "_heaps", "_roster", "_serial", "_waits")

    def __init__(self, config: GossipConfig, roster: Roster, health: LocalHealth) -> None:
        self._config = config
        self._roster = roster
        self._health = health
        self._entries: dict[bytes, Entry] = {}
        self._accusers: dict[bytes, int] = {}
        self._heaps: dict[int, list[tuple[float, int, Entry]]] = {}
        self._serial = 0
        self._waits: tuple[tuple[int, int, int], dict[int, float]] = ((0, 0, 0), {})

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> Iterator[Entry]:
        """All suspects, the one suspected first first."""
        return iter(self._entries.values())

    def note(self, entry: Entry, now: float) -> None:
        """`entry` is a suspect with its present evidence. However short that makes its time, it has not less than
        `refutation_s` from now on."""
        node, accusers = entry.member.id, len(entry.evidence)
        if self._accusers.get(node) == accusers:
            return
        self._entries[node] = entry
        self._accusers[node] = accusers
        least_at = now + self._config.refutation_s - self._wait_s(accusers)
        entry.suspected_at = max(entry.suspected_at, least_at)
        self._push(accusers, entry)

    def drop(self, node: bytes) -> None:
        """`node` is a suspect no more."""
        if self._entries.pop(node, None) is not None:
            del self._accusers[node]

    def delay(self, lag_s: float) -> None:
        """Give every suspect that much longer."""
        self._heaps.clear()
        for node, entry in self._entries.items():
            entry.suspected_at += lag_s
            self._push(self._accusers[node], entry)

    @property
    def deadline(self) -> float | None:
        """When the next suspicion runs out, as things stand."""
        if not self._entries:
            return None
        return min(at for at, _ in self._oldest())

    def due(self, now: float) -> list[Entry]:
        """The suspects whose time has run out; the caller drops them."""
        due: list[Entry] = []
        while self._entries:
            at, accusers = min(self._oldest())
            if at > now:
                break
            _, _, entry = heapq.heappop(self._heaps[accusers])
            least_at = entry.accused_at + self._config.refutation_s
            if least_at > now:  # its wait has become shorter since: this node got better
                entry.suspected_at = least_at - self._wait_s(accusers)
                self._push(accusers, entry)
                continue
            self.drop(entry.member.id)
            due.append(entry)
        return due

    def _push(self, accusers: int, entry: Entry) -> None:
        self._serial += 1
        heapq.heappush(self._heaps.setdefault(accusers, []), (entry.suspected_at, self._serial, entry))

    def _oldest(self) -> Iterator[tuple[float, int]]:
        """(when it runs out, number of accusers) of the oldest suspect with each number of accusers."""
        for accusers, heap in list(self._heaps.items()):
            while heap and not self._current(accusers, heap[0]):
                heapq.heappop(heap)
            if heap:
                yield heap[0][0] + self._wait_s(accusers), accusers
            else:
                del self._heaps[accusers]

    def _current(self, accusers: int, item: tuple[float, int, Entry]) -> bool:
        """Whether a heap's item still tells how things stand."""
        since, _, entry = item
        return self._accusers.get(entry.member.id) == accusers and entry.suspected_at == since

    def _wait_s(self, accusers: int) -> float:
        roster = self._roster
        able = roster.able(next(iter(self._entries.values())).member)  # the same for every suspect
        mesh = (roster.size, able, self._health.score)
        if self._waits[0] != mesh:
            self._waits = (mesh, {})
        wait_s = self._waits[1].get(accusers)
        if wait_s is None:
            wait_s = timeout_s(
                self._config, members=roster.size, able=able, accusers=accusers, health=self._health.score
            )
            self._waits[1][accusers] = wait_s
        return wait_s

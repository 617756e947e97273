"""What the nodes of a world say of one another from one moment on.

Invariant: watching changes nothing; a watch that was ended hears no more.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from types import TracebackType

from gossip.member import State
from peer.messages import MemberMoved
from simulations.host import Host
from simulations.world import World


@dataclass(frozen=True, slots=True)
class Move:
    """At `at`, `observer` saw `subject` at that (boot, incarnation) go from one state to another."""

    at: float
    observer: int
    subject: bytes
    rank: tuple[int, int]
    before: State | None
    state: State


@dataclass(slots=True)
class Watch:
    """Notes the moves of a world while it is entered."""

    world: World
    moves: list[Move] = field(default_factory=list)

    def __enter__(self) -> "Watch":
        self.world.on_moved.append(self._moved)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.world.on_moved.remove(self._moved)

    def _moved(self, host: Host, moved: MemberMoved) -> None:
        member = moved.member
        move = Move(self.world.now, host.index, member.id, member.rank, moved.previous, member.state)
        self.moves.append(move)

    def count(
        self, state: State, subjects: Container[bytes], *, observers: Container[int] | None = None
    ) -> int:
        """How often one of the observers (None: anybody) saw one of the subjects enter that state."""
        return sum(
            move.state is state
            and move.subject in subjects
            and (observers is None or move.observer in observers)
            for move in self.moves
        )

    def accusations(self, subjects: Container[bytes]) -> int:
        """How many suspicions there were, each counted once however many heard of it: (subject, rank)."""
        return len(
            {(m.subject, m.rank) for m in self.moves if m.state is State.SUSPECT and m.subject in subjects}
        )

    def first(self, state: State, subject: bytes, *, since: float) -> dict[int, float]:
        """By observer, the seconds from `since` until it first saw the subject in that state."""
        seen: dict[int, float] = {}
        for move in self.moves:
            if move.subject == subject and move.state is state and move.at >= since:
                seen.setdefault(move.observer, move.at - since)
        return seen


class Awaited:
    """Waits until every one of `observers` has seen the subject enter a state."""

    def __init__(self, world: World, subject: bytes, state: State, observers: frozenset[int]) -> None:
        self._world, self._subject, self._state, self._observers = world, subject, state, observers
        self.since = world.now
        self.seen: dict[int, float] = {}

    def complete(self) -> bool:
        return len(self.seen) == len(self._observers)

    def __enter__(self) -> "Awaited":
        self._world.on_moved.append(self._moved)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._world.on_moved.remove(self._moved)

    def _moved(self, host: Host, moved: MemberMoved) -> None:
        member = moved.member
        if member.id == self._subject and member.state is self._state and host.index in self._observers:
            self.seen.setdefault(host.index, self._world.now - self.since)

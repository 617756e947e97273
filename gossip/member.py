"""A member as others see it, and the table of what may happen to it.

SWIM (section 4.2) orders claims about one member by incarnation; here by (boot, incarnation), compared
lexicographically, so that a restarted host outranks whatever was ever said about its earlier lives and leaves no
ghost. Only the subject moves that pair; an accusation always refers to a pair the subject has signed. Which event a
claim amounts to is decided in gossip/judge.py; what the event then does is decided here and nowhere else:

| event      | what it is                                                                                   |
|------------|----------------------------------------------------------------------------------------------|
| ANNOUNCED  | the subject signed an Alive with a higher (boot, incarnation) than any known                   |
| SUSPECTED  | a member signed a Suspect for exactly the known pair                                         |
| CONDEMNED  | the suspicion ran out unrefuted, or enough signed suspicions for the known pair are at hand   |
| DEPARTED   | the subject signed a Left at the known pair or above                                          |
| EXPIRED    | the subject's credential ran out                                                             |
| EVICTED    | the subject was revoked; from then on nothing it signs is an event                            |
| ACQUITTED  | all who accused it were revoked                                                              |

Invariant: every (state, event) pair has an entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from trust.credential import Credential
from trust.identity import format_id


class State(Enum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


class Event(Enum):
    ANNOUNCED = "announced"
    SUSPECTED = "suspected"
    CONDEMNED = "condemned"
    DEPARTED = "departed"
    EXPIRED = "expired"
    EVICTED = "evicted"
    ACQUITTED = "acquitted"


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (State.ALIVE, Event.ANNOUNCED): State.ALIVE,
    (State.ALIVE, Event.SUSPECTED): State.SUSPECT,
    (State.ALIVE, Event.CONDEMNED): State.DEAD,
    (State.ALIVE, Event.DEPARTED): State.LEFT,
    (State.ALIVE, Event.EXPIRED): State.DEAD,
    (State.ALIVE, Event.EVICTED): State.DEAD,
    (State.ALIVE, Event.ACQUITTED): State.ALIVE,
    (State.SUSPECT, Event.ANNOUNCED): State.ALIVE,
    (State.SUSPECT, Event.SUSPECTED): State.SUSPECT,
    (State.SUSPECT, Event.CONDEMNED): State.DEAD,
    (State.SUSPECT, Event.DEPARTED): State.LEFT,
    (State.SUSPECT, Event.EXPIRED): State.DEAD,
    (State.SUSPECT, Event.EVICTED): State.DEAD,
    (State.SUSPECT, Event.ACQUITTED): State.ALIVE,
    (State.DEAD, Event.ANNOUNCED): State.ALIVE,
    (State.DEAD, Event.SUSPECTED): State.DEAD,
    (State.DEAD, Event.CONDEMNED): State.DEAD,
    (State.DEAD, Event.DEPARTED): State.LEFT,
    (State.DEAD, Event.EXPIRED): State.DEAD,
    (State.DEAD, Event.EVICTED): State.DEAD,
    (State.DEAD, Event.ACQUITTED): State.DEAD,
    (State.LEFT, Event.ANNOUNCED): State.ALIVE,
    (State.LEFT, Event.SUSPECTED): State.LEFT,
    (State.LEFT, Event.CONDEMNED): State.LEFT,
    (State.LEFT, Event.DEPARTED): State.LEFT,
    (State.LEFT, Event.EXPIRED): State.LEFT,
    (State.LEFT, Event.EVICTED): State.DEAD,
    (State.LEFT, Event.ACQUITTED): State.LEFT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What is known of one member. `since` is when this node saw it enter `state` (Unix seconds)."""

    id: bytes
    name: str
    address: tuple[str, int]
    state: State
    incarnation: int
    boot: int
    zone: str
    meta: Mapping[str, int | str | bool]
    credential: Credential
    since: float

    @property
    def rank(self) -> tuple[int, int]:
        """The pair that orders claims about this member."""
        return self.boot, self.incarnation

    @property
    def live(self) -> bool:
        """Whether it still counts as a member: a suspect does, until it is condemned."""
        return self.state is State.ALIVE or self.state is State.SUSPECT

    def __repr__(self) -> str:
        host, port = self.address
        return (
            f"Member({self.name}, {format_id(self.id)}, {self.state.value}, {host}:{port}, "
            f"boot {self.boot}, incarnation {self.incarnation})"
        )

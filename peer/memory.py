"""What a peer may believe of its own state when it starts.

Three things can be known without asking anybody: whether this peer has ever met another one (then others may hold what
it wrote, and what it should know), whether it has taken in the mesh's state since its database was made, and whether
the database was found damaged, or is a copy of an older state. What follows from them is decided here, once.

Where every database of a mesh was lost there is nobody to be told by; then an operator has to say so
(`--accept-state-loss`, heeded once: `peer/lossword.py`), for a peer cannot tell a mesh that has lost everything from
one it is cut off from.

Invariant: a peer that others may have heard of never writes on a state it has reason to doubt.
"""

import math
from dataclasses import dataclass
from typing import Final

FIRST_SYNC_S_MAX: Final = 3.0  # a peer that was a member before goes on alone after this long


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`entered`: the mesh's state was taken in since the database was made. `blank`: others hold what this peer does
    not know. `alone`: there is nobody to wait for. `hold_writes_s`: how long its own writes wait for word of its own
    journal (for ever: infinity)."""

    entered: bool
    blank: bool
    alone: bool
    hold_writes_s: float


def recall(*, met: bool, entered: bool, damaged: bool, reachable: bool, accepted: bool = False) -> Memory:
    """`met`: this peer has known of others. `damaged`: its database may hold less than was written, and what else
    remembers others may be as old. `reachable`: somebody is configured or remembered to be contacted. `accepted`:
    somebody has said that nobody holds more."""
    blank = (met or damaged) and not entered and not accepted
    alone = not blank and not reachable
    hold_writes_s = FIRST_SYNC_S_MAX
    if blank or (damaged and not accepted):
        hold_writes_s = math.inf
    elif alone:  # the founder's first start, and a mesh of one
        hold_writes_s = 0.0
    return Memory(entered=entered, blank=blank, alone=alone, hold_writes_s=hold_writes_s)

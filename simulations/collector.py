"""The garbage collector under a large world.

Nodes that meet make entries of one another that stay to the end; next to nothing a world makes is ever garbage that
counting references does not free (the two ends of a stream, once it is over). Yet by default the collector looks at
what is new every 700 objects and at all that has lasted whenever that has grown by a quarter: a sixth of the time of
an idle mesh of 10,000.

Invariant: `relax` and `resume` are about the whole process; after `resume` it is as it was before.
"""

import gc
from typing import Final

YOUNG_MAX: Final = 100_000  # new objects before the collector looks at them
_BEFORE: Final = gc.get_threshold()


def relax() -> None:
    """What was made so far stays to the end: it is not gone through any more, and what is new seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *_BEFORE[1:])


def resume() -> None:
    """The world is over: collect it, and as much as before from here on."""
    gc.set_threshold(*_BEFORE)
    gc.unfreeze()
    gc.collect()

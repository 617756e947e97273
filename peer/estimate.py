"""What answers of some members say about all of them.

Up to ASKED_MAX members are all asked, and the answer is a count. Of more, a random sample of that size is, and the
share of all is estimated from it with Wilson's score interval for 95 % (Wilson, "Probable Inference, the Law of
Succession, and Statistical Inference", 1927), which holds its level near 0 and 1, where the usual one does not.

Invariant: pure; a count of all has an interval of no width.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

ASKED_MAX: Final = 300
Z_95: Final = 1.959963984540054  # the normal quantile that leaves 2.5 % on each side
NAMED_MAX: Final = 10  # of those missing, in a line of text

T = TypeVar("T")


def choose(members: Sequence[T], rng: random.Random) -> list[T]:
    """Whom to ask: all, or a random sample of ASKED_MAX in no order."""
    return list(members) if len(members) <= ASKED_MAX else rng.sample(members, ASKED_MAX)


def wilson(successes: int, asked: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `successes` of `asked` were seen."""
    if asked == 0:
        return 0.0, 1.0
    share = successes / asked
    spread = Z_95**2 / asked
    middle = share + spread / 2
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4)
    low, high = (middle - half) / (1 + spread), (middle + half) / (1 + spread)
    return (0.0 if successes == 0 else low), (1.0 if successes == asked else high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many of the members asked enforce something. `members` is how many there are; `missing` names those asked
    that do not."""

    members: int
    asked: int
    enforced: int
    missing: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def share(self) -> float:
        return self.enforced / self.asked if self.asked else 1.0

    @property
    def sampled(self) -> bool:
        return self.asked < self.members

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share of all members, with 95 % confidence."""
        return wilson(self.enforced, self.asked) if self.sampled else (self.share, self.share)

    def reaches(self, share: float) -> bool:
        return self.enforced >= share * self.asked - 1e-9  # 0.07 * 100 is a little more than 7

    def words(self) -> str:
        """`3 of 3 members`, or an estimate with its interval."""
        if not self.sampled:
            return f"{self.enforced} of {self.asked} members"
        low, high = self.interval
        return (
            f"{self.enforced} of {self.asked} members asked at random (an estimated {self.share:.1%} of all "
            f"{self.members}, with 95 % confidence {low:.1%} to {high:.1%})"
        )

    def missing_words(self) -> str:
        more = len(self.missing) - NAMED_MAX
        return ", ".join(self.missing[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")

    def document(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "members": self.members, "asked": self.asked, "enforced": self.enforced, "share": round(self.share, 6),
            "low": round(low, 6), "high": round(high, 6), "missing": list(self.missing),
            "seconds": round(self.seconds, 3),
        }  # fmt: skip

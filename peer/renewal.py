"""How well the renewal of a certificate or credential goes: one judgement for `check`, the metrics and the log.

Renewal is tried from about half of the life on. A first failure may be a signer that restarts, and is worth a warning.
If it goes on failing for an eighth of the life, or only a quarter is left, it is a failure while there is still time
to act: with a life of one hour that is a quarter of an hour before anything stops working, at the latest.

Invariant: a pure function of what is held, what failed, and the time; what it says only gets worse until a renewal
succeeds.
"""

from dataclasses import dataclass
from typing import Final, Literal, Protocol

Level = Literal["ok", "warn", "fail"]

FAILING_SHARE_MAX: Final = 0.125  # of the life
LEFT_SHARE_MIN: Final = 0.25  # by then two renewals should have happened


class Expiring(Protocol):
    """What is to be renewed. Times are Unix seconds."""

    @property
    def not_before(self) -> int: ...
    @property
    def not_after(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the last attempt failed, how many in a row have, and since when (Unix s)."""

    reason: str
    attempts: int
    since: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands, in a word and in a sentence ("" when all is well)."""

    level: Level
    words: str = ""


def standing(held: Expiring | None, failure: Failure | None, now: float) -> Standing:
    """Judge one identity."""
    if held is None:
        if failure is None:
            return Standing("warn", "none held: being issued")
        return Standing("fail", f"none held: {failure.reason}")
    life_s = held.not_after - held.not_before
    left_s = held.not_after - now
    late = left_s < LEFT_SHARE_MIN * life_s
    reason = f": {failure.reason}" if failure is not None else ""
    if left_s <= 0:
        return Standing("fail", f"expired {-left_s:.0f} s ago and was not renewed{reason}")
    if failure is None:
        return Standing("fail", f"expires in {left_s:.0f} s and was not renewed") if late else Standing("ok")
    failing_s = now - failure.since
    lasting = failing_s > FAILING_SHARE_MAX * life_s
    words = (
        f"expires in {left_s:.0f} s; renewal has failed {failure.attempts} times in {failing_s:.0f} s{reason}"
    )
    return Standing("fail" if late or lasting else "warn", words)

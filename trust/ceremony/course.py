"""The course of a participant through the attempts: when it enters one, how long it stays, why it leaves.

An elector that has a reason to begins with attempt 0 and goes on to the next one when somebody leaves, is guilty or is
silent for too long; never before a pause is over (`patience`). Whoever has no vote follows the openings it hears.

Invariant: the number of the attempt only rises, by JUMP_MAX at a time at most, so that nobody uses the numbers up; and
of an attempt that is left nothing secret stays.
"""

from collections.abc import Callable
from typing import Final

from trust.ceremony.attempt import Attempt
from trust.ceremony.bodies import Join
from trust.ceremony.events import Output, Retrying
from trust.ceremony.patience import Patience
from trust.ceremony.place import Place
from trust.ceremony.statement import ATTEMPT_MAX, Kind

JUMP_MAX: Final = 1 << 20  # attempts, at a time


class Course:
    """See the module's theory. `recalled`: this node was here before, and has lost its nonces."""

    def __init__(
        self, place: Place, patience: Patience, put: Callable[[Output], None], *, recalled: bool
    ) -> None:
        self._place = place
        self._patience = patience
        self._put = put
        self._begun = False
        self._recalled = recalled

    @property
    def deadline(self) -> float | None:
        """When time brings this further (s); None if only others can. Of a ceremony without an outcome."""
        place, patience = self._place, self._patience
        times = [patience.resend_at]
        if patience.target is not None:
            times.append(patience.enter_at)
        elif not place.elects:
            times.append(patience.until)
        elif place.engaged:
            times.append(patience.until if self._begun else 0.0)
            if place.leader == place.me and place.attempt.opening is None and place.attempt.number >= 0:
                times.append(patience.gather_until)
        return min((time for time in times if time is not None), default=None)

    # -------------------------------------------------------------- into an attempt

    def enter(self, now: float) -> Join | None:
        """Enter the attempt that is due, if one is. What this node joins it with."""
        place, patience = self._place, self._patience
        if not self._begun and place.engaged:
            self._begun = True
            if place.attempt.number < 0:
                patience.aim(now, 0, at_once=True)
        if self._recalled:
            self._resume(now)
        number = patience.target
        if number is None or not patience.is_due(now) or number <= place.attempt.number:
            return None
        if patience.may_blame(now):
            place.gathering.blame(place.awaited(), place.attempt.number)
        self.start(now, number)
        able, blamed, lock = place.voice.able, place.gathering.blamed(number), place.voice.lock
        if lock is None:
            return Join(able=able, blamed=blamed)
        return Join(able=able, lock=lock.attempt, locked=lock.value.digest, blamed=blamed)

    def start(self, now: float, number: int) -> None:
        """Leave the attempt for another one, with nothing said in it yet."""
        place = self._place
        self._patience.entered(now, first=place.attempt.number < 0)
        place.voice.leave(place.attempt)
        place.attempt = Attempt(number, place.me, place.electorate)

    def _resume(self, now: float) -> None:
        """The first step after a restart. Nonces are gone: who promised them and did not sign leaves the attempt."""
        self._recalled = False
        place = self._place
        if place.attempt.number < 0:
            return
        self._patience.resumed(now, opened=place.attempt.opening is not None)
        if place.did(Kind.ACCEPT) and not place.did(Kind.PROVE):
            self._patience.aim(now, place.attempt.number + 1, at_once=True)

    # -------------------------------------------------------------- out of it

    def wait(self, now: float) -> None:
        """Let the attempt's time run, which it does from when a quorum is here, and give up when it is over."""
        place, patience = self._place, self._patience
        waits = patience.until is None and patience.target is None and place.attempt.opening is None
        if waits and place.gathering.quorate(place.attempt.number):
            leader = place.electorate.leader(place.attempt.number)
            patience.gathered(now, hopeless=not place.standing.counts(leader))
        if patience.gather_until is not None and now >= patience.gather_until:
            patience.gather_until = None
        if patience.is_over(now) and (place.engaged or not place.elects):
            self._give_up(now)

    def move_on(self, now: float, number: int, reason: str, awaited: tuple[bytes, ...] = ()) -> None:
        """Aim at attempt `number`, as an elector: the others follow openings. `awaited`: because of whom."""
        number = min(number, self._place.attempt.number + JUMP_MAX, ATTEMPT_MAX)
        if self._place.elects and self._patience.aim(now, number):
            self._put(Retrying(attempt=number, reason=reason, awaited=awaited))

    def leave(self, now: float, reason: str, awaited: tuple[bytes, ...]) -> None:
        """Aim at the next attempt."""
        self.move_on(now, self._place.attempt.number + 1, reason, awaited)

    def _give_up(self, now: float) -> None:
        self._patience.until = None
        self.leave(now, "it took too long", tuple(sorted(self._place.awaited())))
        if not self._place.elects:
            # It has no vote, but the others learn for whom it has been waiting.
            self._patience.aim(now, self._place.attempt.number + 1, at_once=True)

"""Listening: which statement of somebody else counts, and what it changes.

A statement counts if its author may have a say, has signed it, and its body has the form of its kind. What is said of
an attempt that is not open here yet is kept until its opening comes; of one that was left, only joins and accusations
still matter. An opening is taken from the attempt's leader alone, and only if it is justified (`lock`) and, to who
has a vote, right and bearable (`selection`, `bearing`); an elector that refuses one says why, and leaves the attempt.

Invariant: nothing enters the attempt, the joins or the convictions unchecked; what waits for an opening is bounded
(EARLY_MAX), one statement for each kind and author. Whoever says two things at one place is accused.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from trust.ceremony.bodies import Opening, check_body, decode_join, decode_opening
from trust.ceremony.course import JUMP_MAX, Course
from trust.ceremony.events import Output, Refused
from trust.ceremony.evidence import contradicts
from trust.ceremony.growth import SignerRules
from trust.ceremony.guilt import Guilt
from trust.ceremony.lock import check_justified, check_lock
from trust.ceremony.patience import Patience
from trust.ceremony.place import Place
from trust.ceremony.selection import check_opening
from trust.ceremony.statement import Kind, Locked, Statement
from trust.epoch import Value
from trust.errors import CeremonyError

EARLY_MAX: Final = 256


class Hearing:
    """See the module's theory. Its methods raise CeremonyError and EpochError at what is malformed, forged or out of
    place."""

    def __init__(
        self,
        place: Place,
        rules: SignerRules,
        patience: Patience,
        course: Course,
        guilt: Guilt,
        put: Callable[[Output], None],
    ) -> None:
        self._place = place
        self._rules = rules
        self._patience = patience
        self._course = course
        self._guilt = guilt
        self._put = put
        self._early: dict[tuple[Kind, bytes], Statement] = {}

    def locked(self, node: bytes, frame: Locked) -> None:
        """`node` tells a lock."""
        place = self._place
        if node not in place.electorate.ids:
            raise CeremonyError("locks are told by electors")
        lock = check_lock(frame.value, frame.prepares, place.electorate, place.standing.convictions)
        if place.heard_lock is None or lock.attempt > place.heard_lock.attempt:
            place.heard_lock = lock

    def listen(self, now: float, said: Statement) -> None:
        """A statement came, through whomever."""
        place, node, kind = self._place, said.node, said.kind
        if node == place.me or not place.standing.counts(node):
            return
        if kind is Kind.SHARE and said.recipient != place.me:
            return
        self._check_member(said)
        if not said.genuine:
            raise CeremonyError("a statement is not signed by its sender")
        check_body(kind, said.body)
        if kind is Kind.ACCUSE:
            self._guilt.hear(now, said)
        elif kind is Kind.JOIN:
            self._joined(now, said)
        elif said.attempt < place.attempt.number:
            return
        elif kind is Kind.OPEN:
            self._opened(now, said)
        elif said.attempt > place.attempt.number or place.attempt.opening is None:
            if len(self._early) < EARLY_MAX or (kind, node) in self._early:
                self._early[kind, node] = said
        elif (other := place.attempt.put(said)) is not None:
            self._guilt.accuse(now, other, said)
        self._patience.heard(now)

    def adopt(self, now: float, said: Statement, opening: Opening, value: Value | None) -> None:
        """The attempt is open, by `said`; with `value` if one is locked. What came before it is heard now."""
        attempt = self._place.attempt
        attempt.put(said)
        attempt.opened, attempt.opening = said, opening
        attempt.value = value
        self._patience.opened(now)
        early, self._early = self._early, {}
        for each in early.values():
            if each.attempt >= attempt.number and self._place.standing.counts(each.node):
                self.listen(now, each)

    def _check_member(self, said: Statement) -> None:
        """Of an attempt that it does not know yet, a node that is no elector cannot tell who takes part."""
        place = self._place
        ahead = said.attempt > place.attempt.number and not place.elects
        if said.node in place.members or (ahead and said.kind not in {Kind.ACCUSE, Kind.JOIN}):
            return
        raise CeremonyError("a statement is of somebody who does not take part")

    def _joined(self, now: float, said: Statement) -> None:
        place, join, node = self._place, decode_join(said.body), said.node
        known = place.gathering.joins.get(node)
        confirmed = place.attempt.get(Kind.CONFIRM, node)
        for other in (known, confirmed):
            if other is not None and contradicts(other, said):
                self._guilt.accuse(now, other, said)
                return
        if join.lock >= said.attempt:
            raise CeremonyError("an elector says that it is locked in an attempt that is still to come")
        place.gathering.add(said)
        if said.attempt <= place.attempt.number:
            return
        if node in place.participants and not place.did(Kind.PREPARE):
            # It has left this attempt, which therefore comes to nothing.
            place.gathering.left(said, join, place.attempt.number)
            self._course.leave(now, "a participant left it", (node,))
        if place.elects and (ahead := place.gathering.common_attempt()) > place.attempt.number:
            self._course.move_on(now, ahead, "others have left it")

    def _opened(self, now: float, said: Statement) -> None:
        place, attempt = self._place, self._place.attempt
        if said.attempt == attempt.number and attempt.opened is not None:
            if contradicts(attempt.opened, said):
                self._guilt.accuse(now, attempt.opened, said)
            return
        if place.electorate.leader(said.attempt) != said.node:
            raise CeremonyError("an attempt is opened by its leader alone")
        if said.attempt > attempt.number + JUMP_MAX:
            raise CeremonyError("the attempt is too far ahead")
        opening = decode_opening(said.body)
        convicted = place.standing.convictions
        lock = check_justified(opening, said.attempt, place.electorate, convicted)
        if lock is None and place.elects and not self._bears(now, said, opening):
            return
        if not place.elects and place.me not in opening.receiver_ids:
            return
        if said.attempt > attempt.number:
            self._course.start(now, said.attempt)
        self.adopt(now, said, opening, None if lock is None else lock.value)

    def _bears(self, now: float, said: Statement, opening: Opening) -> bool:
        """Whether this elector carries out what the leader opened with. If not it says so, by going on to the next
        attempt, and blames nobody but itself: views differ for a while."""
        place = self._place
        seen = replace(place.seen, known=place.candidates)
        try:
            check_opening(
                opening, place.electorate, self._rules, seen=seen, convicted=place.standing.convictions,
                excused=place.gathering.excused(opening, place.me),
            )  # fmt: skip
        except CeremonyError as error:
            refused = (said.node, str(error))
            if place.refused != refused or place.refused_in != said.attempt:
                place.refused, place.refused_in = refused, said.attempt
                self._put(Refused(node=said.node, attempt=said.attempt, reason=str(error)))
            place.gathering.refuse(place.me, said.attempt)
            self._course.move_on(
                now, said.attempt + 1, f"this node refuses its opening: {error}", (said.node,)
            )
            return False
        return True

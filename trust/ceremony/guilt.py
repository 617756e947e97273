"""Guilt: from statements that do not go together to a conviction that everybody shares.

A participant judges alone, by evidence that convinces whoever sees it (`evidence`), and passes it on. Where two
statements were made for different eyes nobody holds both yet, so each is shown to whoever tells something else.

Invariant: nobody is convicted without a statement of its own that shows its guilt, this node never by itself; a
conviction is stored, told once, and never taken back.
"""

from collections.abc import Callable

from trust.ceremony.attempt import Show
from trust.ceremony.course import Course
from trust.ceremony.events import Convicted, Output
from trust.ceremony.evidence import accusation, judge
from trust.ceremony.place import Place
from trust.ceremony.statement import Kind, Said, Statement, state
from trust.identity import NodeIdentity


class Guilt:
    """See the module's theory."""

    def __init__(
        self, identity: NodeIdentity, place: Place, course: Course, put: Callable[[Output], None]
    ) -> None:
        self._identity = identity
        self._place = place
        self._course = course
        self._put = put

    def weigh(self, now: float) -> None:
        """Act on what the attempt has found."""
        attempt = self._place.attempt
        findings, attempt.findings = attempt.findings, []
        for finding in findings:
            if isinstance(finding, Show):
                self._show(finding.node, finding.statement)
            else:
                self.accuse(now, *finding.parts)

    def show_all(self, said: Statement) -> None:
        """Show a statement to everybody but its author; whoever holds another one has the evidence."""
        for node in sorted(self._place.audience - {said.node}):
            self._show(node, said)

    def accuse(self, now: float, *parts: Statement) -> None:
        """The parts convict the author of the last one."""
        place = self._place
        number = max(place.attempt.number, 0)
        body = accusation(*parts)
        said = state(self._identity, place.electorate.ceremony, number, Kind.ACCUSE, body)
        guilty = judge(said, place.electorate)
        assert guilty != place.me, "this node accuses nobody without evidence"
        self._convict(now, guilty, said)

    def hear(self, now: float, said: Statement) -> None:
        """Somebody accuses. Raises CeremonyError: that is no evidence."""
        self._convict(now, judge(said, self._place.electorate), said)

    def _show(self, node: bytes, said: Statement) -> None:
        to = (node, said.signature)
        shown = self._place.attempt.shown
        if to not in shown and node != self._place.me:
            shown.add(to)
            self._put(self._place.letter(node, Said(statement=said)))

    def _convict(self, now: float, guilty: bytes, said: Statement) -> None:
        place = self._place
        if guilty in place.standing.convictions or guilty == place.me or guilty not in place.members:
            return
        place.standing.convictions[guilty] = said
        place.unstored = True
        self._put(Convicted(node=guilty, evidence=said.encode()))
        for node in sorted(place.audience):
            self._put(place.letter(node, Said(statement=said)))
        place.gathering.joins.pop(guilty, None)
        leads = place.attempt.opening is None and place.leader == guilty
        takes_part = guilty in place.participants and place.attempt.value is None
        if takes_part or (leads and place.engaged):
            self._course.leave(now, "a participant is guilty", (guilty,))

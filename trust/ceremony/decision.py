"""The decision on the value of an attempt: counting the electors' votes, and closing the ceremony with a record.

PREPARE by a quorum locks (`lock`), CONFIRM by a quorum decides; only votes of electors whose word counts are counted. A
record that was made elsewhere closes as well, once its votes are verified.

Invariant: a ceremony is closed at most once, with a record that satisfies `check_epoch`.
"""

from collections.abc import Callable, Iterable

from trust.ceremony.events import Output, Rejected
from trust.ceremony.guilt import Guilt
from trust.ceremony.place import Place
from trust.ceremony.statement import Closed, Kind, Statement
from trust.epoch import EpochRecord, Value, check_epoch, decode_epoch, with_votes
from trust.errors import EpochError


class Decision:
    """See the module's theory."""

    def __init__(self, place: Place, guilt: Guilt, put: Callable[[Output], None]) -> None:
        self._place = place
        self._guilt = guilt
        self._put = put

    def prepared(self, value: Value) -> list[Statement] | None:
        """The prepares that a quorum made for `value`; None if it has not."""
        prepares = self._votes(Kind.PREPARE, value.digest)
        return prepares if self._suffice(prepares) else None

    def decide(self) -> None:
        """Close, if a quorum has confirmed."""
        place = self._place
        value = place.attempt.proven()
        if value is None or place.record is not None:
            return
        for kind in (Kind.PREPARE, Kind.CONFIRM):
            for node in place.electorate.ids:
                vote = place.attempt.get(kind, node)
                if vote is not None and vote.body != value.digest:
                    self._guilt.show_all(vote)
        confirms = self._votes(Kind.CONFIRM, value.digest)
        if not self._suffice(confirms):
            return
        short = len(confirms) < place.electorate.quorum
        convictions = place.standing.convictions.values() if short else ()
        self._close(with_votes(value, place.attempt.number, confirms, convictions))

    def learn(self, node: bytes, data: bytes) -> None:
        """`node` tells the outcome."""
        if self._place.record is not None:
            return
        try:
            record = decode_epoch(data)
            check_epoch(record, self._place.electorate)
        except EpochError as error:
            self._put(Rejected(node=node, reason=str(error)))
            return
        self._close(record)

    def _votes(self, kind: Kind, digest: bytes) -> list[Statement]:
        place = self._place
        counted = [node for node in place.electorate.ids if place.standing.counts(node)]
        said = [place.attempt.get(kind, node) for node in counted]
        return [each for each in said if each is not None and each.body == digest]

    def _suffice(self, votes: Iterable[Statement]) -> bool:
        place = self._place
        return place.electorate.decided([each.node for each in votes], place.standing.convictions)

    def _close(self, record: EpochRecord) -> None:
        place = self._place
        place.record = record
        place.unstored = True
        for node in sorted(place.audience | set(record.value.ids) - {place.me}):
            self._put(place.letter(node, Closed(record=record.encode())))

"""Locks: why two values of one epoch are never both decided, whatever crashes, is late or lies.

The electors agree as in PBFT (Castro and Liskov, OSDI 1999), attempts being its views and a ceremony its proposals:

1. `JOIN(k)` says: no vote of mine in an attempt before k will follow. It names the lock of its elector.
2. The leader of attempt k opens it with the joins of a quorum. If one of them is locked, the value of the highest
   lock is put to the vote again; only if none is, somebody deals.
3. An elector that sees a value of this opening proven makes its one `PREPARE` of the attempt.
4. Prepares of a quorum are a *lock*: the elector stores it and makes its `CONFIRM`.
5. Confirms of a quorum decide.

Two quorums have an honest elector in common (`electorate`). So in one attempt at most one value gets a lock;
and if a value was decided in attempt k, each later quorum of joins contains an elector that was locked to it in k, so
that by induction every later lock is of that value too.

Invariant: a `Lock` that was checked holds prepares of a quorum for its value, in its attempt.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from trust.ceremony.bodies import Join, Opening, decode_join
from trust.ceremony.electorate import Electorate
from trust.ceremony.statement import Kind, Locked, Statement, decode_statement
from trust.epoch import Value, check_value, decode_value
from trust.errors import CeremonyError, EpochError


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """`value`, and the prepares of one attempt that a quorum made for it."""

    attempt: int
    value: Value
    prepares: tuple[bytes, ...] = field(repr=False)  # encoded

    def frame(self) -> Locked:
        """How others learn it."""
        return Locked(value=self.value.encode(), prepares=self.prepares)


def check_lock(
    value: bytes, prepares: Iterable[bytes], electorate: Electorate, convicted: Collection[bytes]
) -> Lock:
    """The lock that these make. Raises CeremonyError."""
    try:
        decoded = decode_value(value)
        check_value(decoded, electorate)
    except EpochError as error:
        raise CeremonyError(f"the lock is of no epoch: {error}") from None
    statements = [_genuine(each, electorate, Kind.PREPARE) for each in prepares]
    attempts = {each.attempt for each in statements}
    if len(attempts) != 1 or any(each.body != decoded.digest for each in statements):
        raise CeremonyError("the prepares of a lock are not of one attempt and one value")
    if not electorate.decided({each.node for each in statements}, convicted):
        raise CeremonyError("a lock takes the prepares of a quorum")
    return Lock(attempt=attempts.pop(), value=decoded, prepares=tuple(each.encode() for each in statements))


def check_justified(
    opening: Opening, attempt: int, electorate: Electorate, convicted: Collection[bytes]
) -> Lock | None:
    """The lock whose value has to be voted on again, None if whoever is to deal may deal. Raises CeremonyError unless
    `opening` has the joins for what it says."""
    joins: dict[bytes, Join] = {}
    for each in opening.joins:
        statement = _genuine(each, electorate, Kind.JOIN)
        if statement.attempt != attempt or statement.node in joins:
            raise CeremonyError("an opening's joins are not of its attempt, each of another elector")
        joins[statement.node] = decode_join(statement.body)
    if not electorate.decided(joins, convicted):
        raise CeremonyError(f"an opening takes the joins of a quorum, this one has {len(joins)}")
    highest = max((join.lock for join in joins.values()), default=-1)
    if highest >= attempt:
        raise CeremonyError("an elector says that it is locked in an attempt that is still to come")
    if not opening.value:
        if highest >= 0:
            raise CeremonyError("an elector is locked, and the opening passes over its value")
        unable = [node for node in opening.dealers if node not in joins or not joins[node].able]
        if unable:
            raise CeremonyError("an opening lets somebody deal that did not join, or that cannot")
        return None
    lock = check_lock(opening.value, opening.prepares, electorate, convicted)
    if not highest <= lock.attempt < attempt:
        raise CeremonyError("an opening repeats a value to which nobody was locked last")
    return lock


def _genuine(data: bytes, electorate: Electorate, kind: Kind) -> Statement:
    statement = decode_statement(data)
    if statement.kind is not kind or statement.ceremony != electorate.ceremony:
        raise CeremonyError(f"this is no {kind.name} of this ceremony")
    if statement.node not in electorate.ids or not statement.genuine:
        raise CeremonyError(f"a {kind.name} is not signed by an elector")
    return statement

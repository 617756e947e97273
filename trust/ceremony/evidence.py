"""Complaints with public evidence: an accusation carries statements that convict their author, or it convicts the
accuser.

Everything a participant says is signed, so evidence is what it said itself, and anybody who knows the electorate judges
it alike, without asking anyone. There are four sorts:

    two statements at the same place    same attempt, kind and recipient, different bodies: equivocation
    CONFIRM, later JOIN                 it was bound by the first and denies it in the second
    OPEN, DEAL                          a dealing that is wrong for the opening it names
    OPEN, DEAL, SHARE                   a share that is not the recipient's by that dealing

The last reveals a share, but a wrong one: a right one cannot be used to accuse, and revealing it convicts nobody but
its recipient. Silence leaves no evidence; the ceremony goes on without the silent where that is possible, and the
next opening leaves out whom others wait for.

Invariant: `judge` is a function of its arguments. No honest participant makes statements that convict it.
"""

from typing import Final

from trust.ceremony.bodies import decode_dealt, decode_join, decode_opening, decode_shared
from trust.ceremony.dkg import check_dealt, check_shared
from trust.ceremony.electorate import Electorate
from trust.ceremony.statement import Kind, Statement, decode_statement, pack_many, unpack_many
from trust.errors import CeremonyError, TrustError
from trust.identity import node_id

_PARTS_MAX: Final = 3


def accusation(*parts: Statement) -> bytes:
    """The body of an ACCUSE."""
    return pack_many([part.encode() for part in parts])


def judge(accuse: Statement, electorate: Electorate) -> bytes:
    """The node id of the guilty: the author of what the accusation shows, or the accuser if that proves nothing.
    `accuse` itself has been found genuine, and of this ceremony."""
    assert accuse.kind is Kind.ACCUSE, "only accusations are judged"
    try:
        parts = [decode_statement(part) for part in unpack_many(accuse.body, count_max=_PARTS_MAX)]
        if all(part.ceremony == electorate.ceremony and part.genuine for part in parts):
            guilty = _author(parts, electorate)
            if guilty is not None:
                return guilty
    except TrustError:
        pass  # what cannot be read proves nothing
    return accuse.node


def contradicts(first: Statement, second: Statement) -> bool:
    """Whether two genuine statements of one ceremony convict their author (the first two sorts, either order)."""
    if first.sender != second.sender:
        return False
    if first.kind is not second.kind:
        confirm, join = (first, second) if first.kind is Kind.CONFIRM else (second, first)
        return _denies(confirm, join)
    same_place = first.attempt == second.attempt and first.recipient == second.recipient
    return same_place and first.kind is not Kind.ACCUSE and first.body != second.body


def _denies(confirm: Statement, join: Statement) -> bool:
    if confirm.kind is not Kind.CONFIRM or join.kind is not Kind.JOIN or join.attempt <= confirm.attempt:
        return False
    try:
        return decode_join(join.body).lock < confirm.attempt
    except CeremonyError:
        return False


def _author(parts: list[Statement], electorate: Electorate) -> bytes | None:
    match [part.kind for part in parts]:
        case [Kind.OPEN, Kind.DEAL]:
            return parts[1].node if _wrong_deal(parts[0], parts[1], electorate) else None
        case [Kind.OPEN, Kind.DEAL, Kind.SHARE]:
            return parts[1].node if _wrong_share(parts[0], parts[1], parts[2], electorate) else None
        case [_, _]:
            return node_id(parts[0].sender) if contradicts(parts[0], parts[1]) else None
        case _:
            return None


def _wrong_deal(opened: Statement, deal: Statement, electorate: Electorate) -> bool:
    opening, dealt = decode_opening(opened.body), decode_dealt(deal.body)
    if dealt.opening != opened.digest or deal.attempt != opened.attempt or deal.node not in opening.dealers:
        return False
    try:
        check_dealt(dealt, deal.node, opening, dealt.opening, electorate)
    except CeremonyError:
        return True
    return False


def _wrong_share(opened: Statement, deal: Statement, share: Statement, electorate: Electorate) -> bool:
    opening, dealt, shared = decode_opening(opened.body), decode_dealt(deal.body), decode_shared(share.body)
    if not (
        share.sender == deal.sender
        and share.attempt == deal.attempt == opened.attempt
        and shared.opening == dealt.opening == opened.digest
        and share.recipient in opening.receiver_ids
    ):
        return False
    # Of a dealing that is wrong itself no share is right: the shorter accusation says so.
    check_dealt(dealt, deal.node, opening, dealt.opening, electorate)
    try:
        check_shared(shared.share, dealt, share.recipient)
    except CeremonyError:
        return True
    return False

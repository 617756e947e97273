"""Asking for what is missing: a bit for each kind of statement that is here, and the statements where it is not set.

Invariant: an answer holds what its sender said itself, the opening, its lock and accusations; all of it is evidence on
its own, so whom it comes from does not matter.
"""

from collections.abc import Iterator

from trust.ceremony.attempt import Attempt
from trust.ceremony.gathering import Gathering, Standing
from trust.ceremony.lock import Lock
from trust.ceremony.statement import Frame, Kind, Said, Want


def want_of(attempt: Attempt, gathering: Gathering, standing: Standing, me: bytes, node: bytes) -> Want:
    """What `me` asks `node` for: all it said in this attempt, but what is here, and the opening, whosoever's it is."""
    kinds = 0
    for kind in Kind:
        recipient = me if kind is Kind.SHARE else b""
        if attempt.get(kind, node, recipient) is not None:
            kinds |= 1 << kind
    join = gathering.joins.get(node)
    if join is not None and join.attempt >= attempt.number:
        kinds |= 1 << Kind.JOIN
    if attempt.opened is not None:
        kinds |= 1 << Kind.OPEN
    if standing.convictions:
        kinds |= 1 << Kind.ACCUSE
    return Want(attempt=max(attempt.number, 0), kinds=kinds)


def answers(
    want: Want,
    attempt: Attempt,
    gathering: Gathering,
    standing: Standing,
    lock: Lock | None,
    me: bytes,
    node: bytes,
) -> Iterator[Frame]:
    """What to send to `node`, which wants. If it is further than this node, that is to say so."""
    if not want.kinds >> Kind.ACCUSE & 1:
        yield from (Said(statement=said) for said in standing.convictions.values())
    if want.attempt > attempt.number:
        yield want_of(attempt, gathering, standing, me, node)
        return
    current = want.attempt == attempt.number
    if lock is not None and not current:
        yield lock.frame()
    for kind in Kind:
        if current and want.kinds >> kind & 1:
            continue
        recipient = node if kind is Kind.SHARE else b""
        own = attempt.opened if kind is Kind.OPEN else attempt.get(kind, me, recipient)
        if own is not None:
            yield Said(statement=own)

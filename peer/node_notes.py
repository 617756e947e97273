"""What the node has to say for the log.

Invariant: notes name writers, keys and reasons; never a payload, never a secret.
"""

from crdt.journal import Merged
from gossip.events import AddressConflict, Rejected
from peer.messages import Level, Note
from trust.identity import format_id


def rejected(refusal: Rejected) -> Note:
    """A datagram, or part of a stream, that membership would not believe."""
    source = "stream" if refusal.source is None else f"{refusal.source[0]}:{refusal.source[1]}"
    fields = {"source": source, "reason": refusal.reason}
    return Note(level=Level.DEBUG, event="datagram_rejected", fields=fields)


def address_conflict(conflict: AddressConflict) -> Note:
    """Two members at one address: expected once where a host was set up anew, a mistake otherwise."""
    host, port = conflict.member.address
    fields: dict[str, str | int | float] = {
        "address": f"{host}:{port}",
        "member": conflict.member.name,
        "member_id": format_id(conflict.member.id),
        "holder": conflict.holder.name,
        "holder_id": format_id(conflict.holder.id),
    }
    return Note(level=Level.WARNING, event="address_conflict", fields=fields)


def warning(event: str, node: bytes | None, reason: str) -> Note:
    """Something about a node that somebody should know."""
    fields = {"node": format_id(node) if node else "?", "reason": reason}
    return Note(level=Level.WARNING, event=event, fields=fields)


def of_merge(merged: Merged) -> list[Note]:
    """What a merge refused, and who was found to contradict itself."""
    notes = []
    for record, reason in merged.refused:
        key = f"{record.kind} {record.key}"
        refused: dict[str, str | int | float]
        refused = {"writer": format_id(record.writer), "record": key, "reason": reason}
        notes.append(Note(level=Level.WARNING, event="record_refused", fields=refused))
    for fork in merged.equivocations:
        keys = f"{fork.first.key} {fork.second.key}"
        forked: dict[str, str | int | float]
        forked = {"writer": format_id(fork.writer), "seq": fork.first.seq, "keys": keys}
        notes.append(Note(level=Level.WARNING, event="equivocation", fields=forked))
    return notes

"""What the node has to say for the log.

Who does something wrong can do it a million times. Each sort of complaint about a node is told once a minute, with the
first example of it, and few sorts; how many more there were is told when the minute is over.

Invariants: notes name writers, keys and reasons; never a payload, never a secret. Nobody can make this node say more
than SORTS_MAX + 1 complaints about it in WINDOW_S.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from crdt.delta import Contradiction, Equivocation
from crdt.record import Record
from gossip.events import AddressConflict, Rejected
from peer.messages import Level, Note
from peer.records import POLICY
from trust.identity import format_id

WINDOW_S: Final = 60.0
SORTS_MAX: Final = 8  # told in a window about one node
NODES_MAX: Final = 512  # complained about at a time, each by itself
STALE_S: Final = 60.0  # a record is not on its way for so long
STALE_MAX: Final = 100  # handed on by one node in a window before it is told
_TEXT_MAX: Final = 120  # characters of what others chose
_VARYING: Final = re.compile(r"\d+")


@dataclass(slots=True)
class _Window:
    """The complaints about one node since its window began."""

    ends_at: float
    told: set[tuple[str, str]] = field(default_factory=set)
    untold: int = 0


class Complaints:
    """Lets through what is worth saying. `untold` counts, since the start, what was not said by itself."""

    def __init__(self) -> None:
        self.untold = 0
        self._windows: dict[bytes | None, _Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def deadline(self) -> float | None:
        """When `due` has something to say."""
        if not self._windows:
            return None  # nearly always
        return min((window.ends_at for window in self._windows.values() if window.untold), default=None)

    def tell(self, now: float, culprit: bytes | None, note: Note) -> list[Note]:
        """The note, unless its like was told about `culprit` (None: whoever it was) within the window."""
        sort = (note.event, _VARYING.sub("#", str(note.fields.get("reason", "")))[:_TEXT_MAX])
        window = self._window(now, culprit)
        if sort in window.told or len(window.told) >= SORTS_MAX:
            window.untold += 1
            self.untold += 1
            return []
        window.told.add(sort)
        return [note]

    def due(self, now: float) -> list[Note]:
        """What was left unsaid in the windows that have ended."""
        over = {culprit: window for culprit, window in self._windows.items() if window.ends_at <= now}
        notes = []
        for culprit, window in over.items():
            del self._windows[culprit]
            if window.untold:
                fields: dict[str, str | int | float] = {
                    "node": format_id(culprit) if culprit else "?",
                    "times": window.untold,
                    "events": " ".join(sorted({event for event, _ in window.told})),
                }
                notes.append(Note(level=Level.WARNING, event="complaints_repeated", fields=fields))
        return notes

    def _window(self, now: float, culprit: bytes | None) -> _Window:
        window = self._windows.get(culprit)
        if window is not None and (window.untold or now < window.ends_at):
            return window
        self._windows.pop(culprit, None)
        if len(self._windows) >= NODES_MAX:
            spent = [each for each, w in self._windows.items() if w.ends_at <= now and not w.untold]
            for each in spent:
                del self._windows[each]
        if len(self._windows) >= NODES_MAX:
            culprit = None
        return self._windows.setdefault(culprit, _Window(now + WINDOW_S))


class Replays:
    """Who hands on records that were replaced long ago. They change nothing, and each may have a reason: somebody was
    cut off for a while. Many do not."""

    def __init__(self) -> None:
        self._counts: dict[bytes, tuple[float, int]] = {}  # when the window ends, how many

    def __len__(self) -> int:
        return len(self._counts)

    def stale(self, now: float, node: bytes) -> bool:
        """Count one; whether it is one too many, once a window."""
        ends_at, count = self._counts.get(node, (0.0, 0))
        if ends_at <= now:
            if len(self._counts) >= NODES_MAX:
                self._counts = {each: kept for each, kept in self._counts.items() if kept[0] > now}
            if len(self._counts) >= NODES_MAX:
                return False
            ends_at, count = now + WINDOW_S, 0
        self._counts[node] = ends_at, count + 1
        return count + 1 == STALE_MAX


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


def refused(record: Record, reason: str, sender: bytes | None) -> Note:
    """A record that will never be part of the journal here. Who wrote it is what it says of itself; `sender` is who
    handed it on."""
    fields: dict[str, str | int | float] = {
        "writer": format_id(record.writer),
        "sender": format_id(sender) if sender else "?",
        "record": f"{record.kind} {record.key}"[:_TEXT_MAX],
        "reason": reason,
    }
    return Note(level=Level.WARNING, event="record_refused", fields=fields)


def contradiction(lie: Contradiction) -> Note:
    """A writer that took back or changed what it had published without saying so. What it signed last counts."""
    fields: dict[str, str | int | float] = {
        "writer": format_id(lie.writer),
        "reason": f"what it signed at {lie.after} does not follow from what it signed at {lie.before}",
    }
    return Note(level=Level.WARNING, event="contradiction", fields=fields)


def withdrawn(writer: bytes, records: Iterable[Record]) -> list[Note]:
    """The policies that are in force no more because their writer was expelled."""
    keys = sorted(record.key for record in records if record.kind == POLICY and record.payload)
    if not keys:
        return []
    fields: dict[str, str | int | float] = {
        "writer": format_id(writer),
        "policies": len(keys),
        "keys": " ".join(keys)[:_TEXT_MAX],
        "mend": "publish them again at another peer",
    }
    return [Note(level=Level.WARNING, event="policies_withdrawn", fields=fields)]


def equivocations(proofs: Iterable[Equivocation]) -> list[Note]:
    """Who was found to contradict itself: once for each writer, for good."""
    notes = []
    for fork in proofs:
        fields: dict[str, str | int | float] = {
            "writer": format_id(fork.writer),
            "seq": fork.first.seq,
            "keys": f"{fork.first.key[:_TEXT_MAX]} {fork.second.key[:_TEXT_MAX]}",
        }
        notes.append(Note(level=Level.WARNING, event="equivocation", fields=fields))
    return notes

"""Windowed grow-only counters: how much of each key a writer has used lately, for limits nobody holds centrally.

A *tally* is what one writer has counted itself: (key, window) -> count. Windows have one width and are named by the
millisecond they start at. Within a window counts only grow, so two tallies of one writer merge by the larger count of
each cell (a grow-only counter, as in Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated
Data Types", 2011, with one entry a writer). A writer publishes its whole tally, replicas keep the newest of each, and
`totals` adds them up. No tally needs another, so a limit for the whole mesh has no server.

What is old has to go, and must not come back with a copy that was long on its way. So a tally has a *floor*, the start
of the first window it keeps: the floor never falls, and what lies below it is void whoever brings it. The floor follows
from the cells alone. It is the lowest, not below any floor merged, above which at most `WINDOWS_MAX` windows and
`KEYS_MAX` keys are left. Both bounds can only be overstepped by more cells, never by fewer, so the order of merging
does not matter. Whoever counts stays within `KEYS_MAX`: a key that finds no room is counted under `OTHERS`.

Counts stop at `COUNT_MAX`, a total at `TOTAL_MAX`.

Invariant: merge is commutative, associative and idempotent; counts and floors never fall; every tally is within the
bounds, and has one encoding of at most `TALLY_BYTES_MAX` bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from crdt.codec import MalformedError, pack, unpack

Cells: TypeAlias = Mapping[tuple[str, int], int]

WINDOWS_MAX: Final = 8
KEYS_MAX: Final = 64  # OTHERS among them
KEY_BYTES_MAX: Final = 128
WIDTH_MS_MAX: Final = 3_600_000
START_MS_MAX: Final = 2**48 - 1
COUNT_MAX: Final = 2**48 - 1
TOTAL_MAX: Final = 2**63 - 1
OTHERS: Final = ""

_FORMAT: Final = 1
_HEADER_BYTES_MAX: Final = 1 + 1 + 5 + 9 + 3
_KEY_ENTRY_BYTES_MAX: Final = (2 + KEY_BYTES_MAX) + 1 + 3 + WINDOWS_MAX * (1 + 9)
TALLY_BYTES_MAX: Final = _HEADER_BYTES_MAX + KEYS_MAX * _KEY_ENTRY_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """See the module's docstring. Immutable. `cells`: (key, start of the window) -> count, each at least 1."""

    width_ms: int
    floor_ms: int = 0
    cells: Cells = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        assert 0 < self.width_ms <= WIDTH_MS_MAX, "a window is 1 ms to an hour wide"

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(key for key, _ in self.cells)

    def add(self, amounts: Mapping[str, int], now_ms: int) -> "Tally":
        """Count what was used since the last time. `now_ms` is Unix time; where that clock went back below the floor,
        the first window kept takes the amounts, so that nothing used goes uncounted."""
        assert 0 <= now_ms <= START_MS_MAX, "a time no window starts at"
        start = max(now_ms - now_ms % self.width_ms, self.floor_ms)
        rolled = _settled(self.width_ms, max(self.floor_ms, _first_kept(start, self.width_ms)), self.cells)
        keys = set(rolled.keys)
        cells = dict(rolled.cells)
        for key in sorted(amounts):
            amount = amounts[key]
            assert amount >= 0, "counts only grow"
            assert len(key.encode()) <= KEY_BYTES_MAX, "a key is too long"
            if amount == 0:
                continue
            cell = key if key in keys or len(keys | {OTHERS}) < KEYS_MAX else OTHERS, start
            keys.add(cell[0])
            cells[cell] = min(COUNT_MAX, cells.get(cell, 0) + amount)
        return replace(rolled, cells=cells)

    def merge(self, other: "Tally") -> "Tally":
        """The least tally that counts all that either does. Both are of one writer and one width."""
        assert self.width_ms == other.width_ms, "windows of two widths"
        cells = dict(self.cells)
        for cell, count in other.cells.items():
            if count > cells.get(cell, 0):
                cells[cell] = count
        return _settled(self.width_ms, max(self.floor_ms, other.floor_ms), cells)

    def delta(self, since: "Tally") -> "Tally":
        """What a copy as old as `since` lacks: merged into it, it gives the same as all of this does."""
        news = {cell: count for cell, count in self.cells.items() if count > since.cells.get(cell, 0)}
        return replace(self, cells=news)

    def descends(self, other: "Tally") -> bool:
        """Whether everything `other` says is said here too, or void here."""
        return self.floor_ms >= other.floor_ms and all(
            self.cells.get(cell, 0) >= count
            for cell, count in other.cells.items()
            if cell[1] >= self.floor_ms
        )

    def used(self, now_ms: int, span_ms: int) -> dict[str, int]:
        """How much of each key was used in the last `span_ms`, as far as the windows kept reach back.

        The window that the span begins in counts by the part of it that the span covers, rounded up. One that begins
        after `now_ms` counts in full: its writer's clock is ahead, and a limit errs on the strict side.
        """
        begin_ms = now_ms - span_ms
        found: dict[str, int] = {}
        for (key, start), count in self.cells.items():
            covered = min(self.width_ms, start + self.width_ms - begin_ms)
            if covered > 0:
                found[key] = found.get(key, 0) - (-count * covered // self.width_ms)
        return found


def totals(tallies: Iterable[Tally], now_ms: int, span_ms: int) -> dict[str, int]:
    """The fold over writers, one tally each: what all together used of each key in the last `span_ms`."""
    found: dict[str, int] = {}
    for tally in tallies:
        for key, used in tally.used(now_ms, span_ms).items():
            found[key] = min(TOTAL_MAX, found.get(key, 0) + used)
    return found


def encode_tally(tally: Tally) -> bytes:
    """The canonical form: equal tallies, equal bytes."""
    rows: dict[str, list[int]] = {}
    for (key, start), count in sorted(tally.cells.items()):
        rows.setdefault(key, []).extend(((start - tally.floor_ms) // tally.width_ms, count))
    return pack([_FORMAT, tally.width_ms, tally.floor_ms, rows])


def decode_tally(data: bytes) -> Tally:
    """Inverse of `encode_tally`. Raises MalformedError, also for a tally beyond the bounds."""
    fields = unpack(
        data, bytes_max=TALLY_BYTES_MAX, depth_max=3, items_max=4 + KEYS_MAX * (2 + 2 * WINDOWS_MAX)
    )
    if not isinstance(fields, list) or len(fields) != 4 or type(fields[0]) is not int or fields[0] != _FORMAT:
        raise MalformedError("not a tally of format 1")
    _, width_ms, floor_ms, rows = fields
    if type(width_ms) is not int or not 0 < width_ms <= WIDTH_MS_MAX:
        raise MalformedError("a window is 1 ms to an hour wide")
    if type(floor_ms) is not int or not 0 <= floor_ms <= START_MS_MAX or floor_ms % width_ms:
        raise MalformedError("the floor is no window's start")
    if not isinstance(rows, dict) or len(rows) > KEYS_MAX:
        raise MalformedError(f"a tally is a map of at most {KEYS_MAX} keys")
    cells = {
        (key, floor_ms + offset * width_ms): count
        for key, row in rows.items()
        for offset, count in _row(key, row)
    }
    if any(start > START_MS_MAX for _, start in cells):
        raise MalformedError("a window starts beyond all times")
    return Tally(width_ms=width_ms, floor_ms=floor_ms, cells=cells)


def _row(key: str, row: Any) -> list[tuple[int, int]]:
    """The windows of one key: rising offsets from the floor, each with its count."""
    if len(key.encode()) > KEY_BYTES_MAX:
        raise MalformedError(f"a key of more than {KEY_BYTES_MAX} bytes")
    if not isinstance(row, list) or not row or len(row) % 2 or any(type(part) is not int for part in row):
        raise MalformedError("a key's windows are pairs of numbers")
    pairs = list(zip(row[::2], row[1::2], strict=True))
    previous = -1
    for offset, count in pairs:
        if not previous < offset < WINDOWS_MAX:
            raise MalformedError("windows do not rise from the floor, or are too many")
        if not 0 < count <= COUNT_MAX:
            raise MalformedError("a count is out of bounds")
        previous = offset
    return pairs


def _first_kept(start: int, width_ms: int) -> int:
    """The floor that goes with a newest window."""
    return max(0, start - (WINDOWS_MAX - 1) * width_ms)


def _settled(width_ms: int, floor_ms: int, cells: Cells) -> Tally:
    """The tally of these cells: with the lowest floor, not below `floor_ms`, that leaves no more keys than may be.

    Of windows there are never too many: `floor_ms` is above what the newest of them leaves no room for.
    """
    kept = {cell: count for cell, count in cells.items() if cell[1] >= floor_ms}
    if len({key for key, _ in kept}) > KEYS_MAX:
        latest: dict[str, int] = {}  # up to which floor each key stays
        for key, start in kept:
            latest[key] = max(start, latest.get(key, 0))
        floor_ms = sorted(latest.values(), reverse=True)[KEYS_MAX] + width_ms
        kept = {cell: count for cell, count in kept.items() if cell[1] >= floor_ms}
    return Tally(width_ms=width_ms, floor_ms=floor_ms, cells=kept)

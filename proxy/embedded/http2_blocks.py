"""Header blocks that came, as lists of fields (HPACK, RFC 7541).

Most calls of a channel say what the call before said, so what was read is remembered. A block that refers to nothing
but the static table means the same whenever it comes, and adds the same entries; one that refers to the dynamic table
means the same until that table changes. And of strings in Huffman's code, what they stand for: a date or an
identifier makes a block new, while the rest of it is as before.

What is remembered belongs to one direction of one connection, and ends with it. Blocks are kept from the second time
on: those with something in them that never comes again would only push out the others. A field that is never to be
indexed is not remembered in any way (7.1.3).

Invariant: what comes out, and the table after it, is what a reader without memory would have. The table holds at most
`TABLE_BYTES_MAX`, what is remembered at most `REMEMBERED_BYTES_MAX` and `STRINGS_MAX`, and no list is larger than the
reader was made for.
"""

from collections import deque
from typing import Final

from hpack import HPACKDecodingError
from hpack.table import HeaderTable

from proxy.embedded.chunked import Pairs
from proxy.embedded.http1 import Request, Response
from proxy.embedded.http2_frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, Http2Error
from proxy.embedded.http2_huffman import decode

TABLE_BYTES_MAX: Final = 4096
FIELD_BYTES: Final = 32  # what a field counts besides its name and value (4.1)
BLOCK_BYTES_MAX: Final = 512  # of a block that is remembered
REMEMBERED_BYTES_MAX: Final = 16 * 1024  # of all of them, as blocks and as lists
SEEN_MAX: Final = 64  # blocks that came once
STRINGS_MAX: Final = 64
STRING_BYTES_MAX: Final = 128  # of one that is remembered, coded
_INTEGER_BYTES_MAX: Final = 5  # after the prefix

_STATIC: Final[tuple[tuple[bytes, bytes], ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)
_DYNAMIC: Final = len(_STATIC)  # the index of the newest entry
_ALWAYS: Final = -1


class Fields:
    """A block's fields, in their order; those of a remembered block are given out again, and must not be changed.

    `request`, `response` and `trailers` are what http2_heads.py made of them, with what that depended on besides; each
    is about as large as the list.
    """

    __slots__ = ("added", "pairs", "request", "response", "trailers", "when")

    def __init__(self, pairs: Pairs, added: Pairs, when: int) -> None:
        self.request: tuple[int, bool, Request] | None = None
        self.response: tuple[int, bool, bool, Response] | None = None
        self.trailers: tuple[int, Pairs] | None = None
        self.pairs = pairs
        self.added = added  # to the table, the newest last
        self.when = when  # the version of the table with which the block means this, or _ALWAYS


class BlockReader:
    """One direction's decoder."""

    __slots__ = (
        "_known", "_list_bytes_max", "_remembered_bytes", "_seen", "_strings", "_table", "_table_bytes",
        "_table_bytes_max", "_version",
    )  # fmt: skip

    def __init__(self, list_bytes_max: int) -> None:
        self._list_bytes_max = list_bytes_max
        self._table: deque[tuple[bytes, bytes]] = deque()  # the newest first
        self._table_bytes = 0
        self._table_bytes_max = TABLE_BYTES_MAX
        self._version = 0  # another one whenever the table has changed
        self._known: dict[bytes, Fields] = {}
        self._remembered_bytes = 0
        self._seen: set[int] = set()
        self._strings: dict[bytes, bytes] = {}

    def read(self, block: bytes) -> Fields:
        """Raises Http2Error, after which nothing can be read any more."""
        known = self._known.get(block)
        if known is not None:
            if known.when == _ALWAYS:
                if known.added:
                    self._add(known.added)
                return known
            if known.when == self._version:
                return known
        try:
            return self._read(block)
        except (HPACKDecodingError, IndexError) as error:
            raise Http2Error(COMPRESSION_ERROR, f"header block: {error}") from None

    def _read(self, block: bytes) -> Fields:
        pairs: Pairs = []
        added: Pairs = []
        at, size, room = 0, len(block), self._list_bytes_max
        refers = secret = False
        version = self._version
        while at < size:
            first = block[at]
            at += 1
            if first > 0x7F:
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                if 0 < index < _DYNAMIC:
                    pair = _STATIC[index]
                else:
                    pair = self._entry(index)
                    refers = True
                pairs.append(pair)
                room -= len(pair[0]) + len(pair[1]) + FIELD_BYTES
                if room < 0:
                    break
                continue
            if 0x20 <= first < 0x40:
                if pairs:
                    raise HPACKDecodingError("the table's size changes after a field")
                at = self._resize(block, first, at)
                refers = True
                continue
            prefix = 0x3F if first > 0x3F else 0x0F
            index = first & prefix
            if index == 0:
                length = block[at]
                if length < 0x7F:
                    name = block[at + 1 : at + 1 + length]
                    at += 1 + length
                else:
                    name, at = self._string(block, at, keep=True)
            else:
                if index == prefix:
                    index, at = _integer(block, at, prefix)
                if index < _DYNAMIC:
                    name = _STATIC[index][0]
                else:
                    name = self._entry(index)[0]
                    refers = True
            never = 0x10 <= first < 0x20
            length = block[at]
            if length < 0x7F:
                value = block[at + 1 : at + 1 + length]
                at += 1 + length
            else:
                value, at = self._string(block, at, keep=not never)
            pair = (name, value)
            if first > 0x3F:
                added.append(pair)
                self._add([pair])
            elif never:
                secret = True
            pairs.append(pair)
            room -= len(name) + len(value) + FIELD_BYTES
            if room < 0:
                break
        if at > size:
            raise HPACKDecodingError("truncated")
        if room < 0:
            raise Http2Error(ENHANCE_YOUR_CALM, "header list too large")
        fields = Fields(pairs, added, version if refers else _ALWAYS)
        again = not refers or version == self._version  # it may mean the same when it comes again
        if again and not secret and size <= BLOCK_BYTES_MAX:
            self._remember(block, fields, size + self._list_bytes_max - room)
        return fields

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if index < _DYNAMIC:
            raise HPACKDecodingError("index 0")
        return self._table[index - _DYNAMIC]

    def _string(self, block: bytes, at: int, *, keep: bool) -> tuple[bytes, int]:
        """The string at `at` and where it ends (5.2); a coded one is remembered, if it may be kept."""
        first = block[at]
        length, at = first & 0x7F, at + 1
        if length == 0x7F:
            length, at = _integer(block, at, 0x7F)
        end = at + length
        if end > len(block):
            raise HPACKDecodingError("truncated")
        raw = block[at:end]
        if first < 0x80:
            return raw, end
        text = self._strings.get(raw)
        if text is None:
            text = decode(raw)
            if keep and length <= STRING_BYTES_MAX:
                if len(self._strings) >= STRINGS_MAX:
                    self._strings.clear()
                self._strings[raw] = text
        return text, end

    # ------------------------------------------------------------------ the table

    def _add(self, entries: Pairs) -> None:
        """All of them at once: what is left is what one after the other would leave (4.4)."""
        self._table.extendleft(entries)
        for name, value in entries:
            self._table_bytes += len(name) + len(value) + FIELD_BYTES
        self._evict()

    def _evict(self) -> None:
        table, size, size_max = self._table, self._table_bytes, self._table_bytes_max
        while size > size_max:
            name, value = table.pop()
            size -= len(name) + len(value) + FIELD_BYTES
        self._table_bytes = size
        self._version += 1

    def _resize(self, block: bytes, first: int, at: int) -> int:
        """Take an update of the table's size (6.3); returns where it ends."""
        size_max = first & 0x1F
        if size_max == 0x1F:
            size_max, at = _integer(block, at, 0x1F)
        if size_max > TABLE_BYTES_MAX:
            raise HPACKDecodingError("a table larger than allowed")
        self._table_bytes_max = size_max
        self._evict()
        return at

    # ------------------------------------------------------------------ what is remembered

    def _remember(self, block: bytes, fields: Fields, size: int) -> None:
        """From the second time on. When there is too much, all is forgotten: what comes often is soon back."""
        mark = hash(block)
        if mark not in self._seen:
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen.add(mark)
            return
        self._remembered_bytes += size
        if self._remembered_bytes > REMEMBERED_BYTES_MAX:
            self._known.clear()
            self._remembered_bytes = size
            if size > REMEMBERED_BYTES_MAX:
                self._remembered_bytes = 0
                return
        self._known[block] = fields


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """An integer that did not fit its prefix (5.1), and where it ends."""
    value, shift, stop = prefix, 0, at + _INTEGER_BYTES_MAX
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        if at == stop:
            raise HPACKDecodingError("an integer too long")
        shift += 7

"""Huffman's code of HPACK (RFC 7541, 5.2), a byte at a time.

`hpack` walks its table by half bytes. Two of its steps are one here: for each state, what a whole byte writes and
where it leads. A state's row is made when it is first reached, since most never are.

Invariant: what is decoded, and what is refused, is what `hpack` decodes and refuses.
"""

from typing import Final

from hpack import HPACKDecodingError
from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE

_REFUSED: Final = -1  # the state that a string reaches with what is no code, and never leaves
_SYMBOLS: Final = tuple(bytes((symbol,)) for symbol in range(256))

Row = tuple[tuple[int, ...], tuple[bytes, ...]]  # by byte: the next state, and what is written


class _Rows(dict[int, Row]):
    def __missing__(self, state: int) -> Row:
        steps = [_step(state, byte) for byte in range(256)]
        row = self[state] = (tuple(after for after, _ in steps), tuple(written for _, written in steps))
        return row


def _step(state: int, byte: int) -> tuple[int, bytes]:
    written = b""
    for half in (byte >> 4, byte & 0xF):
        if state == _REFUSED:
            break
        state, flags, symbol = HUFFMAN_TABLE[state * 16 + half]
        if flags & HUFFMAN_FAIL:
            return _REFUSED, b""
        if flags & HUFFMAN_EMIT_SYMBOL:
            written += _SYMBOLS[symbol]
    return state, written


_ROWS: Final = _Rows()
# Where a string may end: after a symbol, or within no more than seven ones that pad it.
_ENDS: Final = frozenset(
    [
        0,
        *(
            after
            for after, flags, _ in HUFFMAN_TABLE
            if flags & HUFFMAN_COMPLETE and not flags & HUFFMAN_FAIL
        ),
    ]
)


def decode(raw: bytes) -> bytes:
    """Raises HPACKDecodingError."""
    rows, state, written = _ROWS, 0, []
    for byte in raw:
        after, writes = rows[state]
        written.append(writes[byte])
        state = after[byte]
    if state not in _ENDS:
        raise HPACKDecodingError("no string in Huffman's code")
    return b"".join(written)

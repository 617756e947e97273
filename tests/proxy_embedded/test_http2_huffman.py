"""Huffman's code, judged by `hpack`."""

import hpack
import pytest
from hpack import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.embedded import http2_huffman
from proxy.embedded.http2_huffman import decode

SHORT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).map(str.encode)


def coded(text: bytes) -> bytes:
    raw: bytes = hpack.Encoder().huffman_coder.encode(text)
    return raw


@given(st.one_of(SHORT, st.binary(max_size=60)))
@example(bytes(range(256)))
def test_what_was_coded_is_decoded(text: bytes) -> None:
    assert decode(coded(text)) == text


@given(
    st.one_of(
        st.binary(max_size=12),
        st.builds(lambda text, end: coded(text) + end, SHORT, st.binary(max_size=2)),
        st.builds(lambda text, cut: coded(text)[:cut], SHORT, st.integers(0, 40)),
        st.lists(st.sampled_from([b"\xff", b"\xfe", b"\x00", b"\xf8"]), max_size=6).map(b"".join),
    )
)
@example(b"\xff")  # padding of a whole byte
@example(b"\xff\xff\xff\xff")  # the symbol that ends a string
@example(b"\xff\xff\xff\xfb\x00")
def test_any_bytes_are_taken_or_refused_as_hpack_does(raw: bytes) -> None:
    try:
        told = decode_huffman(raw)
    except HPACKDecodingError:
        with pytest.raises(HPACKDecodingError):
            decode(raw)
    else:
        assert decode(raw) == told


def test_what_is_kept_is_bounded_by_the_states() -> None:
    table = http2_huffman.HUFFMAN_TABLE
    states = len(table) // 16
    for state in range(states):
        assert {*http2_huffman._ROWS[state][0]} <= {http2_huffman._REFUSED, *range(states)}
    assert len(http2_huffman._ROWS) <= states + 1


def test_whether_a_string_may_end_is_the_state_s_alone() -> None:
    steps = {(after, bool(flags & 1)) for after, flags, _ in http2_huffman.HUFFMAN_TABLE if not flags & 4}
    assert {after for after, may_end in steps if may_end} | {0} == http2_huffman._ENDS
    assert len(steps) == len({after for after, _ in steps})

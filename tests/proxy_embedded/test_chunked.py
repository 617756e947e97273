"""The chunked coding: strict, bounded, and the same however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded.chunked import (
    CHUNK_LINE_BYTES_MAX,
    TRAILER_BYTES_MAX,
    TRAILERS_MAX,
    ChunkedDecoder,
    ChunkedError,
    encode_body,
    encode_last_chunk,
)


def decode(pieces: list[bytes]) -> tuple[bytes, list[tuple[bytes, bytes]], bytes, bool]:
    decoder = ChunkedDecoder()
    body = b""
    rest = b""
    for piece in pieces:
        if decoder.done:
            rest += piece
        else:
            body += b"".join(decoder.feed(piece))
    return body, decoder.trailers, decoder.rest + rest, decoder.done


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=60), max_size=6),
    trailers=st.lists(
        st.tuples(st.sampled_from([b"x-sum", b"grpc-status"]), st.sampled_from([b"1", b"a b", b""])), max_size=3
    ),
    rest=st.binary(max_size=20),
    data=st.data(),
)  # fmt: skip
def test_what_is_encoded_is_decoded_however_it_is_cut(
    payloads: list[bytes], trailers: list[tuple[bytes, bytes]], rest: bytes, data: st.DataObject
) -> None:
    wire = b"".join(encode_body(payload, False, ()) for payload in payloads)
    wire += encode_last_chunk(trailers) + rest
    assert decode(data.draw(cut(wire))) == (b"".join(payloads), trailers, rest, True)


def test_a_payload_is_one_chunk_and_nothing_is_none() -> None:
    assert encode_body(b"abcde", False, ()) == b"5\r\nabcde\r\n"
    assert encode_body(b"", False, ()) == b""
    assert encode_body(b"abcde", True, ()) == b"5\r\nabcde\r\n0\r\n\r\n"
    assert encode_body(b"", True, [(b"x-sum", b"1")]) == b"0\r\nx-sum: 1\r\n\r\n"


def test_extensions_are_dropped() -> None:
    assert decode([b"3;a=b\r\nabc\r\n0 ; x\r\n\r\n"])[0] == b"abc"
    assert decode([b'3;a="x;\\"y" ;b\t=\tc;d=""\r\nabc\r\n0\r\n\r\n'])[0] == b"abc"


def test_trailers_that_would_frame_or_vouch_are_dropped() -> None:
    wire = b"0\r\nContent-Length: 3\r\nX-Forwarded-Client-Cert: me\r\nX-Sum: 1\r\n\r\n"
    assert decode([wire])[1] == [(b"x-sum", b"1")]


@pytest.mark.parametrize(
    "wire",
    [
        b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"1 \r\n", b"\r\n", b"1_0\r\n", b"1\n", b"1\ra\r\n",
        b"fffffffffffffffff\r\n", b"1\r\nab\r\n", b"1\r\na\n", b"1\r\naXY", b"1;\x00\r\n", b"0\r\nbad name: x\r\n\r\n",
        b"0\r\nx: a\x00\r\n\r\n", b"0\r\n: x\r\n\r\n", b"0\r\nx\r\n\r\n", b"0\r\nx: a\n\r\n",
        b"1;\r\n", b"1;a=\r\n", b'1;a="\r\n', b'1;a="b" c\r\n', b"1;a b\r\n", b'1;a="\\"\r\n',
    ],
)  # fmt: skip
@pytest.mark.parametrize("whole", [True, False])
def test_anything_else_is_refused(wire: bytes, whole: bool) -> None:
    with pytest.raises(ChunkedError):
        decode([wire] if whole else [bytes([byte]) for byte in wire])


@pytest.mark.parametrize(
    "wire",
    [
        b"1;" + b"x" * CHUNK_LINE_BYTES_MAX,
        b"1;" + b"x" * CHUNK_LINE_BYTES_MAX + b"\r\n",
        b"0\r\nx: " + b"y" * TRAILER_BYTES_MAX,
        b"0\r\n" + (b"x: " + b"y" * 1019 + b"\r\n") * (TRAILER_BYTES_MAX // 1024 + 1),
        b"0\r\n" + b"x: y\r\n" * (TRAILERS_MAX + 1),
    ],
)
def test_lines_and_trailers_are_bounded(wire: bytes) -> None:
    with pytest.raises(ChunkedError):
        decode([wire])


def test_as_many_trailers_pass_as_there_may_be() -> None:
    _, trailers, _, done = decode([b"0\r\n" + b"x: y\r\n" * TRAILERS_MAX + b"\r\n"])
    assert (len(trailers), done) == (TRAILERS_MAX, True)


@given(data=st.binary(max_size=200), places=st.data())
def test_no_bytes_raise_anything_else(data: bytes, places: st.DataObject) -> None:
    try:
        decode(places.draw(cut(data)))
    except ChunkedError:
        pass

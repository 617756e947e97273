"""A caller's HTTP/2 connection, frame by frame: the rules, the floods, the windows, the end."""

import asyncio
from typing import Any

import hpack
import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, RstStreamFrame
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded import http2_frames as wire
from proxy.embedded.engine import Engine
from proxy.embedded.exchange import HOLD_UPSTREAM
from proxy.embedded.http1 import Response
from proxy.embedded.http2_downstream import GOODBYE_S, PREFACE_END, STREAMS_MAX, Http2Downstream
from proxy.embedded.http2_flow import STREAM_WINDOW
from proxy.embedded.http2_heads import read_response
from proxy.embedded.http2_link import UNTAKEN_BYTES_MAX
from proxy.embedded.http2_patience import NUISANCES_MAX, RESETS_MAX
from proxy.embedded.http2_sender import RESET_REMEMBERED_MAX
from proxy.embedded.http2_session import CONTINUATIONS_MAX, MESH_RESETS
from proxy.embedded.runtime import Runtime
from proxy.snapshot import Limits, Snapshot

from .conftest import TRUST_DOMAIN

GET = b"\x82\x86\x84" + wire.authority_field(b"h")  # :method GET, :scheme http, :path /
POST = b"\x83\x86\x84" + wire.authority_field(b"h")
END = wire.END_STREAM | wire.END_HEADERS


class Wire(asyncio.Transport):
    """The transport, with the frames the caller gets."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = b""
        self.aborted = self.closed = False

    def write(self, data: Any) -> None:
        self.raw += data

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return len(self.raw)

    def frames(self) -> list[Any]:
        """What was written since the last time."""
        found, raw, self.raw = [], self.raw, b""
        while raw:
            frame, length = Frame.parse_frame_header(memoryview(raw[:9]))
            frame.parse_body(memoryview(raw[9 : 9 + length]))
            found.append(frame)
            raw = raw[9 + length :]
        return found


class FakeExchange:
    """Notes what a stream tells its exchange."""

    grpc = False

    def __init__(self, down: Any, request: Any) -> None:
        self.down, self.request = down, request
        self.told: list[Any] = []
        self.bytes_in = 0
        self.body = b""
        self.complete = False
        self.trailers: Any = []

    def begin(self, body: bytes, complete: bool, trailers: Any) -> None:
        self.told.append("begin")
        self.on_request_body(body, complete, trailers)

    def on_request_body(self, body: bytes, complete: bool, trailers: Any) -> None:
        self.body += body
        self.complete, self.trailers = complete, trailers

    def on_caller_gone(self) -> None:
        self.told.append("gone")

    def on_caller_full(self) -> None:
        self.told.append("full")

    def on_caller_drained(self) -> None:
        self.told.append("drained")

    def on_timeout(self) -> None:
        self.told.append("timeout")

    def on_bad_body(self) -> None:
        self.told.append("bad body")
        self.down.reply(self, 400, "malformed body", [])
        self.down.on_response_sent()

    def answer(self, body: bytes = b"", *, complete: bool = True, trailers: Any = ()) -> None:
        response = Response()
        response.status, response.body, response.length_told = 200, -2, b""
        self.down.respond(self, response, [b"x-a: b"], body, complete, list(trailers))
        if complete:
            self.down.on_response_sent()


class Connection(Http2Downstream):
    reporter = "source"

    def __init__(self, engine: Engine, made: list[FakeExchange]) -> None:
        super().__init__(engine, "127.0.0.1")
        self.made = made

    def exchange_for(self, caller: Any, request: Any) -> Any:
        self.made.append(FakeExchange(caller, request))
        return self.made[-1]


class Caller:
    def __init__(self, engine: Engine) -> None:
        self.exchanges: list[FakeExchange] = []
        self.connection = Connection(engine, self.exchanges)
        self.now_s = 0.0  # stands still, so that a slow machine forgives no flood
        for bucket in (self.connection._nuisances, self.connection._resets):
            bucket._now = lambda: self.now_s
            bucket._since_s = 0.0
        self.wire = Wire()
        engine.connections.add(self.connection)
        self.connection.adopt(self.wire, b"")

    def greet(self, pairs: Any = ()) -> "Caller":
        self.send(PREFACE_END + wire.settings(list(pairs)))
        self.got()
        return self

    def send(self, *frames: bytes) -> None:
        self.connection.data_received(b"".join(frames))

    def got(self) -> list[Any]:
        self.connection.flush()
        return self.wire.frames()

    def ended(self) -> int | None:
        """The code of the GOAWAY that ended the connection."""
        codes = [frame.error_code for frame in self.got() if isinstance(frame, GoAwayFrame)]
        return codes[-1] if codes and self.wire.is_closing() else None

    def resets(self) -> dict[int, int]:
        return {
            frame.stream_id: frame.error_code for frame in self.got() if isinstance(frame, RstStreamFrame)
        }


def make(engine: Engine) -> Caller:
    limits = Limits(header_bytes_max=8192)
    snapshot = Snapshot(version=1, node="n", node_name="n", trust_domain=TRUST_DOMAIN, limits=limits)
    Runtime.build(engine, snapshot, None, 0.0).commit()
    return Caller(engine)


@pytest.fixture
async def caller(engine: Engine) -> Caller:
    return make(engine).greet()


def ask(stream: int, block: bytes = GET, *, end: bool = True) -> bytes:
    return wire.headers(stream, block, end=end)


def data(stream: int, body: bytes, *, end: bool = False) -> bytes:
    return wire.frame(wire.DATA, wire.END_STREAM if end else 0, stream, body)


# ---------------------------------------------------------------- requests and responses


async def test_a_head_and_a_body_that_come_together_are_told_once(caller: Caller) -> None:
    caller.send(ask(1, POST, end=False), data(1, b"ab"), data(1, b"c", end=True))
    [exchange] = caller.exchanges
    assert (exchange.told, exchange.body, exchange.complete, exchange.bytes_in) == (
        ["begin"],
        b"abc",
        True,
        3,
    )
    exchange.answer(b"hello", trailers=[(b"x-t", b"1")])
    head, body, trailers = caller.got()
    decoder = hpack.Decoder()
    assert list(decoder.decode(head.data)) == [(":status", "200"), ("x-a", "b")]
    assert (body.data, body.flags) == (b"hello", set())
    assert (list(decoder.decode(trailers.data)), "END_STREAM" in trailers.flags) == ([("x-t", "1")], True)
    assert caller.connection.streams == {}


async def test_a_response_that_came_in_http2_is_written_once_unless_it_was_changed(caller: Caller) -> None:
    """It may be of a remembered block, and go to many."""
    pairs = [(b":status", b"200"), (b"content-length", b"0"), (b"x-b", b"c")]
    response = read_response(pairs, 100, to_head=False, end=True)
    written = []
    for number, headers in enumerate((response.headers, [b"x-a: b"], response.headers)):
        caller.send(ask(1 + 2 * number))
        exchange: Any = caller.exchanges[-1]
        exchange.down.respond(exchange, response, headers, b"", True, [])
        exchange.down.on_response_sent()
        [head] = caller.got()
        written.append(list(hpack.Decoder().decode(head.data)))
    own = [(":status", "200"), ("x-b", "c"), ("content-length", "0")]
    assert written == [own, [(":status", "200"), ("x-a", "b"), ("content-length", "0")], own]


async def test_a_caller_that_wants_no_table_is_told_of_none(engine: Engine) -> None:
    """RFC 7541, 4.2: its decoder insists on hearing that the table has shrunk."""
    caller = make(engine).greet([(1, 0)])
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 0
    for stream in (1, 3):
        caller.send(ask(stream))
        caller.exchanges[-1].answer()
        assert (":status", "200") in decoder.decode(caller.got()[0].data)


async def test_trailers_of_a_request(caller: Caller) -> None:
    caller.send(ask(1, POST, end=False), data(1, b"a"), ask(1, wire.pairs_block([(b"x-t", b"1")])))
    [exchange] = caller.exchanges
    assert (exchange.body, exchange.complete, exchange.trailers) == (b"a", True, [(b"x-t", b"1")])


async def test_an_answer_before_the_request_is_complete_frees_the_stream(caller: Caller) -> None:
    caller.send(ask(1, POST, end=False))
    caller.exchanges[0].answer(b"no")
    assert caller.resets() == {1: wire.NO_ERROR}
    caller.send(data(1, b"still coming"), data(1, b"", end=True))
    assert not caller.wire.is_closing()


async def test_a_stream_s_object_serves_again(caller: Caller) -> None:
    for stream in range(1, 41, 2):
        caller.send(ask(stream))
        caller.exchanges[-1].answer()
    assert len({id(exchange.down) for exchange in caller.exchanges}) == 1
    assert len(caller.got()) == 20


async def test_a_request_that_breaks_a_rule_ends_its_stream_alone(caller: Caller) -> None:
    caller.send(ask(1, GET + wire.field(b"connection", b"close")), ask(3))
    assert caller.resets() == {1: wire.PROTOCOL_ERROR}
    assert len(caller.exchanges) == 1


async def test_a_request_with_too_many_fields_is_answered(caller: Caller) -> None:
    caller.send(ask(1, GET + wire.field(b"x", b"y") * 100, end=False))
    head, reset = caller.got()
    assert dict(hpack.Decoder().decode(head.data))[":status"] == "431"
    assert (reset.stream_id, reset.error_code) == (1, wire.NO_ERROR)


@pytest.mark.parametrize(
    "frames",
    [
        [data(1, b"abcd")],
        [data(1, b"ab", end=True)],
        [data(1, b"ab"), ask(1, wire.field(b"x-t", b"1"))],
        [data(1, b"abc"), ask(1, wire.field(b"x-t", b"1"), end=False)],
        [data(1, b"abc"), ask(1, wire.field(b":path", b"/"))],
    ],
)
async def test_a_body_that_is_not_what_was_said(caller: Caller, frames: list[bytes]) -> None:
    caller.send(ask(1, POST + wire.field(b"content-length", b"3"), end=False))
    caller.send(*frames)
    assert "bad body" in caller.exchanges[0].told
    assert caller.resets() == {1: wire.PROTOCOL_ERROR}
    caller.send(ask(3))
    assert len(caller.exchanges) == 2


@pytest.mark.parametrize("frames", [[data(1, b"a")], [data(1, b"a", end=True)]])
async def test_a_body_where_none_was_said(caller: Caller, frames: list[bytes]) -> None:
    """Behind the head of a request without a body HTTP/1.1 reads another request, which nobody has authorised."""
    caller.send(ask(1, POST + wire.field(b"content-length", b"0"), end=False))
    caller.send(*frames)
    assert "bad body" in caller.exchanges[0].told
    assert caller.resets() == {1: wire.PROTOCOL_ERROR}
    caller.send(ask(3, POST + wire.field(b"content-length", b"0"), end=False), data(3, b"", end=True))
    assert len(caller.exchanges) == 2
    assert (caller.exchanges[1].told, caller.exchanges[1].complete) == (["begin"], True)


# ---------------------------------------------------------------- RFC 9113: errors of the connection

PING = wire.frame(wire.PING, 0, 0, bytes(8))
BROKEN: dict[str, tuple[bytes, int]] = {
    "DATA without a stream": (data(0, b"a"), wire.PROTOCOL_ERROR),
    "DATA for an idle stream": (data(1, b"a"), wire.PROTOCOL_ERROR),
    "HEADERS without a stream": (ask(0), wire.PROTOCOL_ERROR),
    "HEADERS of an even stream": (ask(2), wire.PROTOCOL_ERROR),
    "HEADERS of a stream that is over": (ask(3) + wire.rst_stream(3, 8) + ask(3), wire.STREAM_CLOSED),
    "HEADERS of an earlier stream": (ask(3) + ask(1), wire.STREAM_CLOSED),
    "DATA after a reset of its own": (ask(1, end=False) + wire.rst_stream(1, 8) + data(1, b"a"), wire.STREAM_CLOSED),
    "a frame too large": (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", wire.FRAME_SIZE_ERROR),
    "padding too long": (wire.frame(wire.DATA, wire.PADDED, 1, b"\x05ab"), wire.PROTOCOL_ERROR),
    "HEADERS padded too long": (wire.frame(wire.HEADERS, END | wire.PADDED, 1, b"\xff" + GET), wire.PROTOCOL_ERROR),
    "HEADERS with half a priority": (wire.frame(wire.HEADERS, END | wire.PRIORITISED, 1, b"a"), wire.FRAME_SIZE_ERROR),
    "a stream that depends on itself": (
        wire.frame(wire.HEADERS, END | wire.PRIORITISED, 1, b"\0\0\0\x01\0" + GET), wire.PROTOCOL_ERROR,
    ),
    "a header block that is none": (ask(1, b"\x80"), wire.COMPRESSION_ERROR),
    "PRIORITY without a stream": (wire.frame(wire.PRIORITY, 0, 0, bytes(5)), wire.PROTOCOL_ERROR),
    "PRIORITY too short": (wire.frame(wire.PRIORITY, 0, 1, bytes(4)), wire.FRAME_SIZE_ERROR),
    "PRIORITY on itself": (wire.frame(wire.PRIORITY, 0, 1, b"\0\0\0\x01\0"), wire.PROTOCOL_ERROR),
    "RST_STREAM without a stream": (wire.rst_stream(0, 0), wire.PROTOCOL_ERROR),
    "RST_STREAM of an idle stream": (wire.rst_stream(1, 0), wire.PROTOCOL_ERROR),
    "RST_STREAM too short": (wire.frame(wire.RST_STREAM, 0, 1, b"abc"), wire.FRAME_SIZE_ERROR),
    "SETTINGS of a stream": (wire.frame(wire.SETTINGS, 0, 1, b""), wire.PROTOCOL_ERROR),
    "half a setting": (wire.frame(wire.SETTINGS, 0, 0, b"abc"), wire.FRAME_SIZE_ERROR),
    "an acknowledgement that says something": (wire.frame(wire.SETTINGS, wire.ACK, 0, bytes(6)), wire.FRAME_SIZE_ERROR),
    "ENABLE_PUSH 2": (wire.settings([(wire.ENABLE_PUSH, 2)]), wire.PROTOCOL_ERROR),
    "a window beyond counting": (wire.settings([(wire.INITIAL_WINDOW_SIZE, 2**31)]), wire.FLOW_CONTROL_ERROR),
    "frames smaller than all take": (wire.settings([(wire.MAX_FRAME_SIZE, 16_383)]), wire.PROTOCOL_ERROR),
    "frames larger than there are": (wire.settings([(wire.MAX_FRAME_SIZE, 2**24)]), wire.PROTOCOL_ERROR),
    "PUSH_PROMISE": (wire.frame(wire.PUSH_PROMISE, END, 1, bytes(4) + GET), wire.PROTOCOL_ERROR),
    "PING of a stream": (wire.frame(wire.PING, 0, 1, bytes(8)), wire.PROTOCOL_ERROR),
    "PING too short": (wire.frame(wire.PING, 0, 0, bytes(7)), wire.FRAME_SIZE_ERROR),
    "GOAWAY of a stream": (wire.frame(wire.GOAWAY, 0, 1, bytes(8)), wire.PROTOCOL_ERROR),
    "GOAWAY too short": (wire.frame(wire.GOAWAY, 0, 0, bytes(7)), wire.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE too short": (wire.frame(wire.WINDOW_UPDATE, 0, 0, bytes(3)), wire.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of nothing": (wire.window_update(0, 0), wire.PROTOCOL_ERROR),
    "WINDOW_UPDATE of an idle stream": (wire.window_update(1, 1), wire.PROTOCOL_ERROR),
    "a connection's window beyond counting": (wire.window_update(0, 2**31 - 1), wire.FLOW_CONTROL_ERROR),
    "CONTINUATION of nothing": (wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, b""), wire.PROTOCOL_ERROR),
    "a header block interrupted": (wire.frame(wire.HEADERS, 0, 1, GET) + PING, wire.PROTOCOL_ERROR),
    "a header block of two streams": (
        wire.frame(wire.HEADERS, 0, 1, GET) + wire.frame(wire.CONTINUATION, wire.END_HEADERS, 3, b""),
        wire.PROTOCOL_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
async def test_frames_that_end_the_connection(caller: Caller, name: str) -> None:
    frames, code = BROKEN[name]
    caller.send(frames)
    assert caller.ended() == code
    assert all(exchange.told[-1] == "gone" for exchange in caller.exchanges)
    caller.send(ask(99))
    assert caller.wire.raw == b"", "nothing more is read"


STREAM_ERRORS: dict[str, tuple[bytes, int]] = {
    "DATA after the end": (ask(1) + data(1, b"a"), wire.STREAM_CLOSED),
    "HEADERS after the end": (ask(1) + ask(1), wire.STREAM_CLOSED),
    "WINDOW_UPDATE of nothing": (ask(1) + wire.window_update(1, 0), wire.PROTOCOL_ERROR),
    "a window beyond counting": (ask(1) + wire.window_update(1, 2**31 - 1), wire.FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
async def test_frames_that_end_a_stream(caller: Caller, name: str) -> None:
    frames, code = STREAM_ERRORS[name]
    caller.send(frames)
    assert caller.resets() == {1: code}
    assert not caller.wire.is_closing()
    caller.send(ask(3))
    assert caller.exchanges[-1].told == ["begin"]


async def test_frames_to_ignore(caller: Caller) -> None:
    caller.send(
        ask(1), wire.frame(0xFA, 0xFF, 0, b"abc"), wire.frame(0xFA, 0, 1, b""),
        wire.frame(wire.PRIORITY, 0, 9, bytes(5)),
        wire.settings([(0xFFFF, 7), (wire.MAX_HEADER_LIST_SIZE, 1)]), wire.frame(wire.SETTINGS, wire.ACK, 0, b""),
        wire.rst_stream(1, 8), wire.window_update(1, 5), wire.rst_stream(1, 8),
    )  # fmt: skip
    assert not caller.wire.is_closing()
    caller.send(PING)
    assert caller.got()[-1].flags == {"ACK"}


@pytest.mark.parametrize(
    "begin", [b"SM\r\n\rX", b"GET / HTTP/1.1\r\n", PREFACE_END + PING, PREFACE_END + ask(1)]
)
async def test_a_beginning_that_is_none(engine: Engine, begin: bytes) -> None:
    caller = make(engine)
    caller.send(begin)
    assert caller.ended() == wire.PROTOCOL_ERROR


# ---------------------------------------------------------------- floods


async def test_streams_begun_and_taken_back_end_the_connection(caller: Caller) -> None:
    """CVE-2023-44487, in one read and in many."""
    for number in range(RESETS_MAX):
        stream = 2 * number + 1
        caller.send(ask(stream), wire.rst_stream(stream, wire.CANCEL))
    assert caller.exchanges == [], "what was taken back at once is never begun"
    assert not caller.wire.is_closing()
    caller.send(ask(2 * RESETS_MAX + 1))
    caller.send(wire.rst_stream(2 * RESETS_MAX + 1, wire.CANCEL))
    assert caller.ended() == wire.ENHANCE_YOUR_CALM
    assert caller.exchanges[-1].told == ["begin", "gone"]


NUISANCES: dict[str, bytes] = {
    "PING": PING,
    "PING answers": wire.frame(wire.PING, wire.ACK, 0, bytes(8)),
    "SETTINGS": wire.settings([]),
    "SETTINGS answers": wire.frame(wire.SETTINGS, wire.ACK, 0, b""),
    "PRIORITY": wire.frame(wire.PRIORITY, 0, 5, bytes(5)),
    "WINDOW_UPDATE": wire.window_update(0, 1),
    "WINDOW_UPDATE of a stream": wire.window_update(1, 1),
    "WINDOW_UPDATE of a stream that is over": wire.window_update(1, 1),
    "unknown frames": wire.frame(0xEE, 0, 0, b""),
    "empty DATA": data(1, b""),
    "DATA of nothing but padding": wire.frame(wire.DATA, wire.PADDED, 1, b"\x03abc"),
}


@pytest.mark.parametrize("name", NUISANCES)
async def test_frames_that_carry_nothing_end_the_connection_in_the_end(caller: Caller, name: str) -> None:
    caller.send(ask(1, end=False))
    if "over" in name:
        caller.exchanges[0].answer()
    for _ in range(NUISANCES_MAX - 20):
        caller.send(NUISANCES[name])
    assert not caller.wire.is_closing()
    caller.send(NUISANCES[name] * 300)
    assert caller.ended() == wire.ENHANCE_YOUR_CALM


async def test_malformed_requests_end_the_connection_in_the_end(caller: Caller) -> None:
    for number in range(NUISANCES_MAX + 10):
        caller.send(ask(2 * number + 1, GET + wire.field(b"connection", b"close")))
    assert caller.ended() == wire.ENHANCE_YOUR_CALM


async def test_a_body_taken_byte_by_byte_ends_the_connection(caller: Caller) -> None:
    """CVE-2019-9511: a frame for each byte."""
    caller.send(ask(1))
    caller.exchanges[0].answer(bytes(200_000))
    caller.got()
    caller.send(wire.window_update(0, 10**6))
    for _ in range(NUISANCES_MAX - 20):
        caller.send(wire.window_update(1, 1))
    assert not caller.wire.is_closing()
    caller.send(wire.window_update(1, 1) * 200)
    assert caller.ended() == wire.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "trick",
    [
        lambda stream: ask(stream) + wire.window_update(stream, 0),
        lambda stream: ask(stream) + data(stream, b"a"),
        lambda stream: (
            ask(stream, POST + wire.field(b"content-length", b"1"), end=False) + data(stream, b"ab")
        ),
        lambda stream: ask(stream, POST, end=False) + ask(stream, b"", end=False),
    ],
)
async def test_streams_it_has_reset_by_breaking_rules_end_the_connection(caller: Caller, trick: Any) -> None:
    """CVE-2025-8671."""
    for number in range(RESETS_MAX):
        caller.send(trick(2 * number + 1))
    assert not caller.wire.is_closing()
    caller.send(trick(2 * RESETS_MAX + 1) + trick(2 * RESETS_MAX + 3))
    assert caller.ended() == wire.ENHANCE_YOUR_CALM


async def test_settings_do_not_keep_an_idle_connection(caller: Caller) -> None:
    until_s = caller.connection.deadline_s
    caller.send(wire.settings([]))
    assert caller.connection.deadline_s == until_s


async def test_updates_for_what_is_sent_are_no_flood(caller: Caller) -> None:
    caller.send(ask(1))
    caller.exchanges[0].answer(b"a", complete=False)
    for _ in range(3 * NUISANCES_MAX):
        caller.exchanges[0].down.respond_more(b"a", False, [])
        caller.send(wire.window_update(0, 1) + wire.window_update(1, 1))
    assert not caller.wire.is_closing()


async def test_time_forgives(caller: Caller) -> None:
    for _ in range(60):
        caller.send(PING * 100)
        caller.now_s += 1.0
    assert not caller.wire.is_closing()


async def test_a_block_in_too_many_pieces(caller: Caller) -> None:
    caller.send(wire.frame(wire.HEADERS, 0, 1, GET))
    caller.send(wire.frame(wire.CONTINUATION, 0, 1, b"") * CONTINUATIONS_MAX)
    assert not caller.wire.is_closing()
    caller.send(wire.frame(wire.CONTINUATION, 0, 1, b""))
    assert caller.ended() == wire.ENHANCE_YOUR_CALM


async def test_a_block_that_is_too_long(caller: Caller) -> None:
    caller.send(wire.frame(wire.HEADERS, 0, 1, GET + wire.field(b"x", b"y" * 5000)))
    caller.send(wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, wire.field(b"x", b"y" * 5000)))
    assert caller.ended() == wire.ENHANCE_YOUR_CALM


async def test_a_block_in_pieces(caller: Caller) -> None:
    caller.send(
        wire.frame(wire.HEADERS, wire.END_STREAM, 1, GET[:2]),
        wire.frame(wire.CONTINUATION, 0, 1, GET[2:5]),
        wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, GET[5:]),
    )
    assert caller.exchanges[0].complete


async def test_more_streams_than_were_offered_are_refused(caller: Caller) -> None:
    for number in range(STREAMS_MAX + 3):
        caller.send(ask(2 * number + 1))
    top = 2 * STREAMS_MAX + 1
    assert caller.resets() == dict.fromkeys((top, top + 2, top + 4), wire.REFUSED_STREAM)
    assert len(caller.exchanges) == STREAMS_MAX
    caller.exchanges[0].answer()
    caller.send(ask(top + 6))
    assert len(caller.exchanges) == STREAMS_MAX + 1


async def test_a_caller_that_asks_and_does_not_read_is_cut_off(caller: Caller) -> None:
    caller.connection.pause_writing()
    caller.wire.raw = bytes(UNTAKEN_BYTES_MAX)
    caller.send(PING)
    assert caller.wire.aborted


async def test_few_resets_are_remembered(caller: Caller) -> None:
    for number in range(RESET_REMEMBERED_MAX + 50):
        caller.send(ask(2 * number + 1, POST, end=False))
        caller.exchanges[-1].answer()
    assert len(caller.connection._we_reset) == RESET_REMEMBERED_MAX


# ---------------------------------------------------------------- windows


async def test_a_body_waits_for_both_windows(caller: Caller) -> None:
    caller.send(ask(1))
    [exchange] = caller.exchanges
    body = bytes(range(256)) * 400
    exchange.answer(body[:70_000], complete=False)
    assert exchange.told == ["begin", "full"]
    assert exchange.down.full
    frames = caller.got()
    assert sum(len(f.data) for f in frames[1:]) == 65_535
    assert max(len(f.data) for f in frames[1:]) == 16_384
    caller.send(wire.window_update(1, 100_000))
    assert caller.got() == [], "the connection's window is closed"
    caller.send(wire.window_update(0, 100_000))
    assert exchange.told == ["begin", "full", "drained"]
    exchange.down.respond_more(body[70_000:], True, [])
    exchange.down.on_response_sent()
    received = b"".join(f.data for f in [*frames[1:], *caller.got()])
    assert received == body
    assert caller.connection.streams == {}


async def test_a_full_stream_does_not_hold_back_others(caller: Caller) -> None:
    caller.send(wire.window_update(0, 1_000_000), ask(1), ask(3))
    caller.exchanges[0].answer(bytes(70_000), complete=False)
    caller.got()
    caller.exchanges[1].answer(b"quick")
    assert [frame.stream_id for frame in caller.got()] == [3, 3]


async def test_between_hosts_frames_may_be_larger_and_are_bounded(caller: Caller) -> None:
    caller.connection.widen()
    body = bytes(range(256)) * (wire.MESH_FRAME_BYTES_MAX // 256)
    caller.send(ask(1, POST, end=False), data(1, body))
    assert caller.exchanges[0].body == body
    caller.send(data(1, body + b"x"))
    assert caller.ended() == wire.FRAME_SIZE_ERROR


async def test_between_hosts_many_callers_may_go_away_and_not_any_number(caller: Caller) -> None:
    caller.connection.widen()
    caller.connection._resets._now = lambda: caller.now_s
    caller.connection._resets._since_s = 0.0
    for number in range(MESH_RESETS * RESETS_MAX):
        caller.send(ask(2 * number + 1), wire.rst_stream(2 * number + 1, wire.CANCEL))
    assert not caller.wire.is_closing()
    last = 2 * MESH_RESETS * RESETS_MAX + 1
    caller.send(ask(last), wire.rst_stream(last, wire.CANCEL))
    assert caller.ended() == wire.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    ("told", "largest"),
    [(0, wire.FRAME_BYTES_MAX), (20_000, 20_000), (2**20, wire.MESH_FRAME_BYTES_MAX)],
)
async def test_frames_are_as_large_as_their_reader_says_and_no_larger_than_is_fair(
    caller: Caller, told: int, largest: int
) -> None:
    pairs = [(wire.INITIAL_WINDOW_SIZE, 2**20)] + ([(wire.MAX_FRAME_SIZE, told)] if told else [])
    caller.send(wire.settings(pairs), wire.window_update(0, 2**20), ask(1))
    body = bytes(range(256)) * 1024
    caller.exchanges[0].answer(body)
    sent = [frame for frame in caller.got() if isinstance(frame, DataFrame)]
    assert b"".join(frame.data for frame in sent) == body
    assert max(len(frame.data) for frame in sent) == largest


async def test_streams_take_turns_with_the_connection_s_window(caller: Caller) -> None:
    caller.send(wire.settings([(wire.INITIAL_WINDOW_SIZE, 2**20)]), ask(1), ask(3), ask(5))
    for exchange in caller.exchanges:
        exchange.answer(bytes(80_000), complete=False)
    caller.got()
    for _ in range(6):
        caller.send(wire.window_update(0, 1000))
    assert [frame.stream_id for frame in caller.got()] == [1, 3, 5, 1, 3, 5]


async def test_settings_move_the_windows_of_open_streams(caller: Caller) -> None:
    caller.send(ask(1))
    caller.exchanges[0].answer(b"x" * 10, complete=False)
    caller.send(wire.settings([(wire.INITIAL_WINDOW_SIZE, 0)]))
    caller.got()
    caller.exchanges[0].down.respond_more(b"y", False, [])
    assert caller.got() == []
    caller.send(wire.settings([(wire.INITIAL_WINDOW_SIZE, 11)]))
    assert [frame.data for frame in caller.got() if frame.stream_id] == [b"y"]


async def test_the_caller_s_window_opens_as_the_body_is_taken(caller: Caller) -> None:
    caller.send(ask(1, POST, end=False))
    [exchange] = caller.exchanges
    caller.got()
    exchange.down.hold(HOLD_UPSTREAM)
    caller.send(data(1, bytes(16_384)) * 3 + data(1, bytes(16_383)))
    assert [frame for frame in caller.got() if frame.stream_id] == [], "nobody takes it"
    assert len(exchange.body) == STREAM_WINDOW
    exchange.down.release(HOLD_UPSTREAM)
    [update] = [frame for frame in caller.got() if frame.stream_id]
    assert (update.stream_id, update.window_increment) == (1, STREAM_WINDOW)
    exchange.down.hold(HOLD_UPSTREAM)
    caller.send(data(1, bytes(16_384)) * 4)
    assert caller.resets() == {1: wire.FLOW_CONTROL_ERROR}
    assert exchange.told[-1] == "gone"


async def test_padding_counts_as_what_was_sent(caller: Caller) -> None:
    caller.send(ask(1, POST, end=False))
    caller.exchanges[0].down.hold(HOLD_UPSTREAM)
    padded = wire.frame(wire.DATA, wire.PADDED, 1, b"\xff" + b"a" + bytes(255))
    caller.send(padded * 255)
    assert caller.exchanges[0].body == b"a" * 255
    caller.send(padded)
    assert caller.resets() == {1: wire.FLOW_CONTROL_ERROR}


async def test_a_transport_that_is_full_stops_all_streams(caller: Caller) -> None:
    caller.send(ask(1), ask(3))
    caller.connection.pause_writing()
    first, second = caller.exchanges
    assert first.told == second.told == ["begin", "full"]
    first.answer(b"waits")
    caller.got()
    caller.connection.resume_writing()
    assert [frame.data for frame in caller.got()] == [b"waits"]
    assert second.told == ["begin", "full", "drained"]


# ---------------------------------------------------------------- time, and the end


async def test_a_request_s_time_is_its_stream_s(caller: Caller) -> None:
    caller.send(ask(1), ask(3))
    caller.exchanges[0].down.limit(0.01)
    async with asyncio.timeout(5):
        while "timeout" not in caller.exchanges[0].told:
            await asyncio.sleep(0.005)
    assert caller.exchanges[1].told == ["begin"]


async def test_an_answer_nobody_takes_is_dropped_in_time(caller: Caller) -> None:
    caller.send(ask(1))
    caller.exchanges[0].answer(bytes(100_000))
    stream = caller.connection.streams[1]
    assert stream.deadline_s < float("inf")
    caller.got()
    stream.on_deadline()
    assert caller.resets() == {1: wire.CANCEL}
    assert caller.connection.streams == {}


async def test_a_block_that_does_not_end_has_its_time(caller: Caller) -> None:
    caller.send(ask(1))
    assert caller.connection.deadline_s == float("inf")
    caller.send(wire.frame(wire.HEADERS, 0, 3, GET))
    assert caller.connection.deadline_s < float("inf")
    caller.connection.on_deadline()
    assert caller.ended() == wire.PROTOCOL_ERROR


async def test_a_beginning_that_does_not_end_has_its_time(engine: Engine) -> None:
    caller = make(engine)
    assert caller.connection.deadline_s < float("inf")
    caller.connection.on_deadline()
    assert caller.ended() == wire.PROTOCOL_ERROR
    caller.connection.on_deadline()
    assert caller.wire.aborted


async def test_an_idle_connection_is_closed(caller: Caller) -> None:
    caller.send(ask(1))
    caller.connection.on_deadline()
    assert not caller.wire.is_closing()
    caller.exchanges[0].answer()
    caller.connection.on_deadline()
    assert caller.ended() == wire.NO_ERROR


async def test_a_drain_takes_what_was_on_its_way_and_nothing_later(caller: Caller, engine: Engine) -> None:
    caller.send(ask(1))
    engine.draining = True
    caller.connection.on_drain()
    goaway, ping = caller.got()
    assert goaway.last_stream_id == 2**31 - 1
    caller.send(ask(3))
    caller.send(wire.frame(wire.PING, wire.ACK, 0, ping.opaque_data))
    assert caller.got()[-1].last_stream_id == 3
    caller.send(ask(5))
    assert caller.resets() == {5: wire.REFUSED_STREAM}
    for exchange in caller.exchanges:
        exchange.answer()
    assert caller.ended() == wire.NO_ERROR


async def test_a_caller_s_goaway_lets_its_requests_end(caller: Caller) -> None:
    caller.send(ask(1), wire.goaway(0, 0))
    assert not caller.wire.is_closing()
    caller.exchanges[0].answer()
    assert len(caller.got()) == 1


async def test_after_a_caller_s_goaway_what_is_on_its_way_is_answered_and_the_connection_ends(
    caller: Caller, engine: Engine
) -> None:
    caller.send(wire.goaway(0, 0xFF))
    assert not caller.wire.is_closing()
    caller.send(wire.frame(wire.PING, 0, 0, b"are-you?"))
    assert [frame.opaque_data for frame in caller.got()] == [b"are-you?"]
    assert 0 < caller.connection.deadline_s - engine.loop.time() <= GOODBYE_S
    caller.connection.on_deadline()
    assert caller.ended() == wire.NO_ERROR


async def test_a_lost_connection_ends_every_request(caller: Caller, engine: Engine) -> None:
    caller.send(ask(1), ask(3))
    caller.connection.connection_lost(None)
    assert [exchange.told for exchange in caller.exchanges] == [["begin", "gone"]] * 2
    assert caller.connection not in engine.connections


# ---------------------------------------------------------------- anything at all

frames = st.builds(
    wire.frame,
    st.sampled_from([*range(10), 0xEE]),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]),
    st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]),
    st.one_of(
        st.sampled_from(
            [GET, POST, POST + wire.field(b"content-length", b"3"), bytes(4), bytes(5), bytes(8), b"abc"]
        ),
        st.binary(max_size=24),
        st.integers(0, 2**31).map(lambda value: value.to_bytes(4, "big")),
        st.tuples(st.integers(0, 8), st.sampled_from([0, 1, 100, 2**31 - 1, 2**31])).map(
            lambda pair: wire.settings([pair])[9:]
        ),
    ),
)


@given(
    st.lists(st.one_of(frames, st.binary(max_size=12)), max_size=30), st.lists(st.integers(0, 9), max_size=30)
)
def test_no_frames_break_the_worker(sent: list[bytes], doings: list[int]) -> None:
    """Whatever comes, in whatever order with answers: no exception, and each exchange is told of its end once."""

    async def run() -> None:
        caller = make(_engine())
        caller.send(PREFACE_END + wire.settings([]))
        over: set[int] = set()
        for number, piece in enumerate(sent):
            caller.send(piece)
            doing = doings[number] if number < len(doings) else 9
            for exchange in caller.exchanges:
                if exchange.told[-1] == "gone" or "bad body" in exchange.told:
                    over.add(id(exchange))
                if id(exchange) not in over and doing < 4:
                    exchange.answer(b"x" * (doing * 30_000))
                    over.add(id(exchange))
        caller.connection.connection_lost(None)
        for exchange in caller.exchanges:
            assert exchange.told.count("gone") == (id(exchange) not in over or exchange.told[-1] == "gone")
        caller.got()

    asyncio.run(run())


def _engine() -> Engine:
    import random

    return Engine(asyncio.get_running_loop(), random.Random(1), None)

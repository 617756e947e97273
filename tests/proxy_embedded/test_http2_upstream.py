"""Calls on shared connections to an application, which answers frame by frame."""

import asyncio
import random
from typing import Any, cast

import hpack
import pytest
from hyperframe.frame import RstStreamFrame
from hypothesis import given
from hypothesis import strategies as st

from proxy.breaker import Breaker
from proxy.embedded import http2_frames as wire
from proxy.embedded import http2_pool
from proxy.embedded.dial import Place
from proxy.embedded.engine import Engine
from proxy.embedded.exchange import Exchange
from proxy.embedded.http1 import CHUNKED, Request
from proxy.embedded.http2_flow import STREAM_WINDOW
from proxy.embedded.http2_patience import RESETS_MAX
from proxy.embedded.http2_pool import CONNECTIONS_MAX, Http2Pool
from proxy.embedded.http2_upstream import STREAMS_MAX
from proxy.embedded.runtime import Runtime
from proxy.snapshot import CircuitBreaker, Limits, Snapshot

from .conftest import TRUST_DOMAIN
from .test_http2_downstream import END, Wire, data, frames

OK = wire.status_field(200)


class FakeDial:
    def __init__(
        self, engine: Engine, place: Place, timeout_s: float, protocol: Any, failed: Any, negotiated: Any
    ) -> None:
        self.protocol, self.failed, self.settled = protocol, failed, False

    def settle(self) -> None:
        self.settled = True


class FakeExchange:
    """A request, with what it hears of its response."""

    def __init__(
        self, pool: Http2Pool, method: str = "POST", *, body: bytes = b"", complete: bool = True
    ) -> None:
        self.pool, self._body, self._complete = pool, body, complete
        self.request = Request()
        self.request.method, self.request.expects = method, False
        self.request.body = CHUNKED if body or not complete else 0
        self.path_sent, self.query, self.host = "/p", "?q", b"h"
        self.headers = [(b"x-a", b"b")]
        self.traceparent, self.request_id = b"t", b"i"
        self.grpc = True
        self.told: list[Any] = []
        self.body = b""
        self.trailers: Any = []
        self.upstream: Any = None

    def identity_line(self) -> bytes:
        return b"x-forwarded-client-cert: me\r\n"

    def start(self) -> "FakeExchange":
        call: Any = self.pool.take()
        if call is not None:
            self.on_connection(call)
        elif not self.pool.wait(cast(Exchange, self)):  # all of one that a pool and a call need
            self.told.append("overflow")
        return self

    def on_connection(self, call: Any) -> None:
        self.upstream = call
        call.begin(self, self._body, self._complete, [])

    def on_no_connection(self, reason: str) -> None:
        self.told.append(f"no connection: {reason}")

    def on_informational(self, response: Any) -> None:
        self.told.append(response.status)

    def on_response(self, response: Any, pieces: list[bytes], complete: bool, trailers: Any) -> None:
        self.told.append(response.status)
        self.on_response_body(pieces, complete, trailers)

    def on_response_body(self, pieces: list[bytes], complete: bool, trailers: Any) -> None:
        self.body += b"".join(pieces)
        if complete:
            self.trailers = trailers
            self.told.append("complete")

    def on_upstream_lost(self, call: Any, reason: str) -> None:
        self.told.append("lost")

    def on_upstream_refused(self, reason: str) -> None:
        self.told.append("refused")

    def on_upstream_broken(self, reason: str) -> None:
        self.told.append("broken")

    def on_upstream_full(self) -> None:
        self.told.append("full")

    def on_upstream_drained(self) -> None:
        self.told.append("drained")

    def on_try_timeout(self) -> None:
        self.told.append("timeout")


class Application:
    """A pool, and the other end of each of its connections."""

    def __init__(self, engine: Engine, breaker: CircuitBreaker | None = None) -> None:
        limits = Limits(header_bytes_max=8192)
        snapshot = Snapshot(version=1, node="n", node_name="n", trust_domain=TRUST_DOMAIN, limits=limits)
        Runtime.build(engine, snapshot, None, 0.0).commit()
        self.breaker = Breaker(breaker or CircuitBreaker())
        self.pool = Http2Pool(engine, Place(host="h", port=1), self.breaker)
        self.connections: list[Any] = []
        self.wires: list[Wire] = []

    @property
    def dial(self) -> Any:
        return self.pool._dial

    def accept(self, *pairs: tuple[int, int]) -> "Application":
        dial = self.dial
        self.connections.append(dial.protocol)
        self.wires.append(Wire())
        dial.protocol.connection_made(self.wires[-1])
        dial.protocol.flush()
        assert self.wires[-1].raw.startswith(wire.PREFACE)
        self.wires[-1].raw = self.wires[-1].raw[len(wire.PREFACE) :]
        self.send(wire.settings(list(pairs)))
        return self

    def exchange(self, method: str = "POST", **options: Any) -> FakeExchange:
        return FakeExchange(self.pool, method, **options).start()

    def send(self, *parts: bytes, to: int = -1) -> None:
        self.connections[to].data_received(b"".join(parts))

    def got(self, of: int = -1) -> list[Any]:
        self.connections[of].flush()
        return self.wires[of].frames()

    def resets(self, of: int = -1) -> dict[int, int]:
        return {
            frame.stream_id: frame.error_code for frame in self.got(of) if isinstance(frame, RstStreamFrame)
        }


@pytest.fixture
def no_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_pool, "Dial", FakeDial)


@pytest.fixture
async def application(engine: Engine, no_dial: None) -> Application:
    made = Application(engine)
    first = made.exchange()
    made.accept()
    made.send(wire.headers(1, OK, end=True))
    assert first.told == [200, "complete"]
    made.got()
    return made


def head(stream: int, block: bytes = OK, *, end: bool = False) -> bytes:
    return wire.headers(stream, block, end=end)


async def test_a_request_as_it_is_written(application: Application) -> None:
    exchange = application.exchange(body=b"hi")
    fields, body = application.got()
    assert list(hpack.Decoder().decode(fields.data)) == [
        (":method", "POST"), (":scheme", "http"), (":path", "/p?q"), (":authority", "h"), ("x-a", "b"),
        ("traceparent", "t"), ("x-request-id", "i"), ("x-forwarded-client-cert", "me"), ("te", "trailers"),
    ]  # fmt: skip
    assert (body.data, "END_STREAM" in body.flags, exchange.upstream.reused) == (b"hi", True, True)


async def test_a_response_that_comes_together_is_told_once(application: Application) -> None:
    exchange = application.exchange()
    application.send(
        head(3), data(3, b"hel"), data(3, b"lo"), head(3, wire.field(b"grpc-status", b"0"), end=True)
    )
    assert (exchange.told, exchange.body) == ([200, "complete"], b"hello")
    assert (exchange.trailers, exchange.upstream) == ([(b"grpc-status", b"0")], None)
    assert application.connections[0].streams == {}


@pytest.mark.parametrize(
    "end", [head(3, end=True), wire.rst_stream(3, wire.CANCEL), head(3, wire.status_field(101)), b""]
)
async def test_a_call_that_is_over_waits_for_no_timeout(application: Application, end: bytes) -> None:
    slots = application.connections[0].engine.wheel._slots
    exchange = application.exchange()
    call = exchange.upstream
    call.limit(300.0)
    assert any(call in waiting for waiting in slots.values())
    if end:
        application.send(end)
    else:
        call.drop()
    assert not any(call in waiting for waiting in slots.values()), "it would be kept for five minutes"


async def test_informational_responses_come_first(application: Application) -> None:
    exchange = application.exchange()
    application.send(head(3, wire.status_field(103)), head(3, wire.status_field(100)), head(3, end=True))
    assert exchange.told == [103, 100, 200, "complete"]


async def test_an_answer_before_the_request_is_complete_cancels_the_rest(application: Application) -> None:
    exchange = application.exchange(complete=False)
    application.send(head(3, end=True))
    assert exchange.told == [200, "complete"]
    assert application.resets() == {3: wire.CANCEL}
    exchange = application.exchange(complete=False)
    application.send(head(5, end=True), wire.rst_stream(5, wire.NO_ERROR))
    assert exchange.told == [200, "complete"], "the answer counts, not that the rest is unwanted"
    assert application.resets() == {}
    assert not application.wires[0].is_closing()


BROKEN: dict[str, bytes] = {
    "a second head that does not end": head(3) + head(3),
    "a head with another's pseudo-header field": head(3, OK + wire.path_field(b"/")),
    "status 101": head(3, wire.status_field(101)),
    "connection": head(3, OK + wire.field(b"connection", b"close")),
    "a line break": head(3, OK + wire.field(b"x", b"a\r\nb")),
    "too little": head(3, OK + wire.field(b"content-length", b"3")) + data(3, b"ab", end=True),
    "too little, then trailers": head(3, OK + wire.field(b"content-length", b"3")) + head(3, b"", end=True),
    "too much": head(3, OK + wire.field(b"content-length", b"3")) + data(3, b"abcd"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_responses_that_break_a_rule_end_their_call_alone(application: Application, name: str) -> None:
    exchange, other = application.exchange(), application.exchange()
    application.send(BROKEN[name])
    assert exchange.told[-1] == "broken"
    assert application.resets() == {3: wire.PROTOCOL_ERROR}
    application.send(head(5, end=True))
    assert other.told == [200, "complete"]


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n", wire.frame(wire.PUSH_PROMISE, END, 3, bytes(4)), data(0, b"a"),
        head(99), head(3, b"\x80"), wire.frame(wire.PING, 0, 0, b"") * 2,
    ],
)  # fmt: skip
async def test_frames_that_end_the_connection(application: Application, sent: bytes) -> None:
    exchange = application.exchange()
    application.send(sent)
    assert exchange.told == ["broken"]
    assert application.wires[0].is_closing()


async def test_an_application_that_floods_is_left(application: Application) -> None:
    exchange = application.exchange()
    application.send(wire.frame(wire.PING, 0, 0, bytes(8)) * 2000)
    assert (exchange.told, application.wires[0].aborted) == (["broken"], True)


@pytest.mark.parametrize("together", [True, False])
async def test_resets_that_follow_whole_answers_cut_nobody(application: Application, together: bool) -> None:
    """As nginx says, to every call, that it wants no more of a request it has answered."""
    application.connections[0]._resets._now = lambda: 0.0
    application.connections[0]._resets._since_s = 0.0
    for stream in range(3, 3 + 4 * RESETS_MAX, 2):
        exchange = application.exchange()
        answer = [head(stream), data(stream, b"a", end=True), wire.rst_stream(stream, wire.NO_ERROR)]
        for sent in [b"".join(answer)] if together else answer:
            application.send(sent)
        assert exchange.told == [200, "complete"]
    assert not application.connections[0].closed


async def test_an_application_that_takes_back_what_it_was_asked_is_left(application: Application) -> None:
    application.connections[0]._resets._now = lambda: 0.0
    application.connections[0]._resets._since_s = 0.0
    for stream in range(3, 3 + 2 * RESETS_MAX, 2):
        application.exchange()
        application.send(wire.rst_stream(stream, wire.CANCEL))
        assert not application.connections[0].closed
    application.exchange()
    application.send(wire.rst_stream(stream + 2, wire.CANCEL))
    assert application.connections[0].closed


async def test_what_came_before_a_reset_or_an_end_is_told(application: Application) -> None:
    one, two, three = (application.exchange() for _ in range(3))
    application.send(head(3), data(3, b"part"), wire.rst_stream(3, wire.INTERNAL_ERROR))
    assert (one.told, one.body) == ([200, "lost"], b"part")
    application.send(wire.rst_stream(5, wire.REFUSED_STREAM))
    assert two.told == ["refused"]
    application.connections[0].connection_lost(None)
    assert three.told == ["lost"]
    assert application.pool.unused


async def test_a_dropped_call_is_cancelled(application: Application) -> None:
    exchange = application.exchange()
    exchange.upstream.drop()
    assert application.resets() == {3: wire.CANCEL}
    application.send(head(3), data(3, b"late"))
    assert exchange.told == []


async def test_goaway_refuses_what_was_not_looked_at(application: Application) -> None:
    kept, refused = application.exchange(), application.exchange()
    application.send(wire.goaway(3, wire.NO_ERROR))
    assert (kept.told, refused.told) == ([], ["refused"])
    later = application.exchange()
    assert application.dial is not None, "nothing new goes by this connection"
    application.send(head(3, end=True))
    assert kept.told == [200, "complete"]
    assert application.wires[0].closed
    application.accept()
    application.send(head(1, end=True))
    assert later.told == [200, "complete"]


async def test_calls_wait_when_no_connection_has_room(application: Application) -> None:
    application.send(wire.settings([(wire.MAX_CONCURRENT_STREAMS, 1)]))
    waiting = [application.exchange() for _ in range(3)]
    application.accept((wire.MAX_CONCURRENT_STREAMS, 1))
    assert [exchange.upstream is not None for exchange in waiting] == [True, True, True], (
        "100 until it says otherwise"
    )
    application.send(head(3, end=True), to=0)
    last = application.exchange()
    assert last.upstream is not None


@pytest.mark.usefixtures("no_dial")
async def test_there_are_only_so_many_connections(engine: Engine) -> None:
    application = Application(engine)
    exchanges = []
    for _ in range(CONNECTIONS_MAX):
        exchanges.append(application.exchange())
        application.accept((wire.MAX_CONCURRENT_STREAMS, 1))
    waits = application.exchange()
    assert (application.dial, waits.upstream, application.breaker.pending) == (None, None, 1)
    application.send(head(1, end=True), to=4)
    assert (waits.upstream is not None, application.breaker.pending) == (True, 0)
    assert application.breaker.connections == CONNECTIONS_MAX


@pytest.mark.usefixtures("no_dial")
async def test_a_connection_has_only_so_many_calls(engine: Engine) -> None:
    application = Application(engine)
    application.exchange()
    application.accept((wire.MAX_CONCURRENT_STREAMS, 2**31))
    for _ in range(STREAMS_MAX - 1):
        application.exchange()
    assert application.dial is None
    application.exchange()
    assert application.dial is not None


@pytest.mark.usefixtures("no_dial")
async def test_the_breaker_s_limits(engine: Engine) -> None:
    application = Application(engine, CircuitBreaker(connections_max=0))
    assert application.exchange().told == ["overflow"]
    assert application.breaker.pending == 0
    application = Application(engine, CircuitBreaker(pending_max=1))
    application.exchange()
    assert application.exchange().told == ["overflow"]


@pytest.mark.usefixtures("no_dial")
async def test_who_waits_for_a_connection_that_fails_is_told(engine: Engine) -> None:
    application = Application(engine)
    one, two, gone = (application.exchange() for _ in range(3))
    application.pool.forget(cast(Exchange, gone))
    application.dial.failed("refused")
    assert (one.told, two.told, gone.told) == (["no connection: refused"], ["no connection: refused"], [])
    assert application.pool.unused
    assert (application.breaker.pending, application.breaker.connections) == (0, 0)


async def test_a_retired_pool_lets_calls_end(application: Application) -> None:
    exchange = application.exchange()
    application.pool.retire()
    assert not application.wires[0].is_closing()
    application.send(head(3, end=True))
    assert exchange.told == [200, "complete"]
    assert application.wires[0].closed
    application.connections[0].connection_lost(None)
    assert application.pool.unused


async def test_an_idle_connection_is_closed(application: Application) -> None:
    exchange = application.exchange()
    application.connections[0].on_deadline()
    assert not application.wires[0].is_closing()
    application.send(head(3, end=True))
    assert exchange.told == [200, "complete"]
    application.connections[0].on_deadline()
    assert application.wires[0].closed


async def test_a_connection_made_for_whoever_waits_no_longer_is_idle_at_once(
    engine: Engine, no_dial: None
) -> None:
    made = Application(engine)
    gone = made.exchange()
    made.pool.forget(cast(Exchange, gone))
    made.accept()
    assert made.connections[-1].deadline_s == pytest.approx(engine.loop.time() + engine.pool_idle_s, abs=1.0)
    made.connections[-1].on_deadline()
    assert made.wires[-1].closed
    assert made.pool.unused is False  # until it is told that the connection is gone
    made.connections[-1].connection_lost(None)
    assert made.pool.unused
    assert made.breaker.connections == 0


async def test_a_try_has_its_time_until_the_head(application: Application) -> None:
    late, quick = application.exchange(), application.exchange()
    call = quick.upstream
    call.limit(60)
    application.send(head(5))
    assert call.deadline_s == float("inf")
    late.upstream.on_deadline()
    assert (late.told, application.resets()) == (["timeout"], {3: wire.CANCEL})


async def test_the_application_s_window_opens_as_the_caller_takes(application: Application) -> None:
    exchange = application.exchange()
    exchange.upstream.pause()
    application.got()
    application.send(head(3), data(3, bytes(16_384)) * 3 + data(3, bytes(16_383)))
    assert [frame for frame in application.got() if frame.stream_id] == []
    exchange.upstream.resume()
    [update] = [frame for frame in application.got() if frame.stream_id]
    assert update.window_increment == STREAM_WINDOW


async def test_a_request_waits_for_the_application_s_windows(application: Application) -> None:
    exchange = application.exchange(complete=False)
    exchange.upstream.send(bytes(100_000), False, [])
    assert exchange.told == ["full"]
    assert sum(len(frame.data) for frame in application.got()[1:]) == 65_535
    application.send(wire.window_update(0, 10**6), wire.window_update(3, 10**6))
    assert exchange.told == ["full", "drained"]
    exchange.upstream.send(b"", True, [(b"x-t", b"1")])
    *_, last = application.got()
    assert "END_STREAM" in last.flags
    assert list(hpack.Decoder().decode(last.data)) == [("x-t", "1")]


@given(st.lists(st.one_of(frames, st.binary(max_size=12)), max_size=20))
def test_no_frames_break_the_worker(sent: list[bytes]) -> None:
    """Whatever an application sends, each call hears of one end."""

    async def run() -> None:
        application = Application(Engine(asyncio.get_running_loop(), random.Random(1), None))
        exchanges = [application.exchange() for _ in range(3)]
        application.accept()
        for piece in sent:
            application.send(piece)
        application.connections[0].connection_lost(None)
        for exchange in exchanges:
            ends = [told for told in exchange.told if told in {"complete", "lost", "refused", "broken"}]
            assert len(ends) == 1, exchange.told

    patch = pytest.MonkeyPatch()
    patch.setattr(http2_pool, "Dial", FakeDial)
    try:
        asyncio.run(run())
    finally:
        patch.undo()

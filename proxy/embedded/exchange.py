"""One request and its response, between the caller's connection and the one it is sent on.

What is alike on both sides of a hop is here: streaming both bodies with backpressure, keeping a small body for
another try, timeouts, answers of the mesh itself, the tunnel after `101`, and the end. `outgoing.py` decides for
callers on this host, `incoming.py` for applications on it.

What passes through here are messages: heads, pieces of bodies without framing, trailers. How they are written is the
business of the two connections, and neither knows in which version of HTTP the other one speaks.

Everything runs in callbacks of the two connections; there is no task, future or timer of the loop per request.

Invariant: an exchange ends exactly once (`_end`), and is counted and logged then; after that neither connection
refers to it.
"""

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from proxy.embedded.chunked import Pairs
from proxy.embedded.grpc import is_grpc, status_in_lines, status_in_trailers, status_of
from proxy.embedded.heads import HeaderView
from proxy.embedded.http1 import IDEMPOTENT, Request, Response
from proxy.embedded.trace import take_identity
from proxy.path import normalise_path
from proxy.retry import Failure

if TYPE_CHECKING:
    from proxy.embedded.caller import Caller
    from proxy.embedded.carrier import Carrier, Supplier
    from proxy.embedded.engine import Engine
    from proxy.embedded.upstream import Upstream

HELD_BYTES_MAX: Final = 64 * 1024  # of a body that no connection takes yet, before the caller is paused
# Why the caller's connection is not read, a bit each.
HOLD_UPSTREAM: Final = 1  # the other side takes no more
HOLD_BODY: Final = 2  # enough of the body waits for a connection
HOLD_PIPELINED: Final = 4  # the next request has to wait for this response

_clock = time.monotonic


class Exchange(ABC):
    """Base of `Outgoing` and `Incoming`. `request_complete` and `bytes_in` follow the body as the caller sends it."""

    __slots__ = (
        "_held", "_held_bytes", "_replay_bytes_max", "_replayable", "_responding", "_retried_stale", "_trailers",
        "bytes_in", "bytes_out", "down", "ended", "engine", "flags", "grpc", "grpc_status", "headers", "host", "path",
        "path_sent", "policy", "pool", "query", "request", "request_complete", "request_id", "route", "sent_s",
        "started_s", "status", "timeout_s", "traceparent", "try_timeout_s", "upstream",
    )  # fmt: skip

    def __init__(self, down: "Caller", request: Request) -> None:
        # Set by `begin`.
        self.request_complete: bool
        self.path: str
        self.path_sent: str
        self.query: str
        self._trailers: Pairs  # of the request
        engine = down.engine
        self.engine: Engine = engine
        self.down = down
        self.request = request
        self.started_s = self.sent_s = _clock()
        self.upstream: Carrier | None = None
        self.pool: Supplier | None = None  # where it waits for a connection
        self._held: list[bytes] = []  # the body, for the first or another try
        self._held_bytes = self.bytes_in = self.bytes_out = self.status = 0
        self._replay_bytes_max = HELD_BYTES_MAX
        self._replayable = True
        self._responding = self._retried_stale = False
        self.ended = False
        self.flags = "-"
        self.policy = self.route = ""
        self.host = request.host  # as it goes on, like `headers` and `path_sent`: a route may change them
        self.timeout_s = 0.0
        self.grpc = request.method == "POST" and is_grpc(request.headers)
        self.grpc_status = b""  # as the response told it, or the mesh
        self.try_timeout_s = 0.0  # of one attempt, from the request's end until its response begins; 0: none
        self.traceparent, self.request_id, self.headers = take_identity(
            request.headers, engine.rng, engine.request_ids
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.request!r} status={self.status} flags={self.flags}>"

    @property
    def view(self) -> HeaderView:
        """The request's headers for the rules of a route, as the caller sent them."""
        return HeaderView(self.request.headers, self.request.host, self.request)

    # ------------------------------------------------------------------ what the two sides of a hop do differently

    @abstractmethod
    def decide(self) -> None:
        """Route or authorise, then `_connect` or `_reply`."""

    @abstractmethod
    def identity_line(self) -> bytes:
        """The x-forwarded-client-cert line (with CRLF) for an application, or nothing."""

    def edit_response(self, headers: list[bytes]) -> list[bytes]:
        """The response's header lines as they go on."""
        return headers

    @abstractmethod
    def on_attempt_failed(self, failure: Failure, reason: str) -> None:
        """Nothing of a response came. Try again or `_reply`."""

    def may_retry_status(self, response: Response) -> bool:
        """True: this response is discarded and another attempt is on its way."""
        return False

    @abstractmethod
    def account(self, now_s: float, duration_ms: float) -> None:
        """The end: count, log, and give back what was taken."""

    # ------------------------------------------------------------------ from the caller's connection

    def begin(self, body: bytes, complete: bool, trailers: Pairs) -> None:
        """`body` is what of it came along with the head."""
        self.engine.active += 1
        self.request_complete = complete
        self._trailers = trailers
        if body:
            self._hold(body)
        target = self.request.target
        raw_path, question, query = target.decode("latin-1").partition("?")
        self.query = question + query
        path = raw_path if raw_path == "*" else normalise_path(raw_path)
        if path is None:
            self.path, self.query = raw_path, ""
            self.engine.recorder.increment("path_rejected")
            self._reply(400, "-", "malformed path")
            return
        self.path = self.path_sent = path
        self.decide()

    def start_clock(self, timeout_s: float) -> None:
        """The request's timeout, counted from its last byte; until that came, and without one, the idle timeout."""
        self.timeout_s = timeout_s
        engine = self.engine
        if timeout_s <= 0 or not self.request_complete:
            timeout_s = engine.limits.idle_timeout_s
        self.down.limit(timeout_s)

    def on_request_body(self, body: bytes, complete: bool, trailers: Pairs) -> None:
        """More of the body."""
        self.request_complete = complete
        self._trailers = trailers
        if self.timeout_s <= 0 or not complete:
            self.down.limit(self.engine.limits.idle_timeout_s)
        else:
            self.down.limit(self.timeout_s)
        if self.ended or not (body or complete):
            return
        upstream = self.upstream
        if body and (upstream is None or not self._responding):
            self._hold(body)
        if upstream is not None:
            if complete and self.try_timeout_s and not self._responding:
                upstream.limit(self.try_timeout_s)
            upstream.send(body, complete, trailers)
            if self._held_bytes > self._replay_bytes_max:
                self._replayable = False
                self._held.clear()
                self._held_bytes = 0
        elif self._held_bytes > HELD_BYTES_MAX:
            self.down.hold(HOLD_BODY)

    def _hold(self, body: bytes) -> None:
        if self._replayable:
            self._held.append(body)
            self._held_bytes += len(body)

    def on_caller_gone(self) -> None:
        """The caller's connection ended before the response did."""
        if self.ended:
            return
        if not self._responding:
            self.status = 0
        self.flags = "DC"
        self._leave_upstream()
        self._end()

    def on_bad_body(self) -> None:
        """The body's framing broke: what was sent on cannot be completed, and the caller is told if it can be."""
        self._leave_upstream()
        self.flags = "DPE"
        if self._responding:
            self.down.abort("malformed body")
            self._end()
        else:
            self._reply(400, "DPE", "malformed body")

    def on_timeout(self) -> None:
        """The request's time is over."""
        self._leave_upstream()
        if self._responding:
            self.flags = "UT"
            self.down.abort("upstream request timeout")
            self._end()
        elif not self.request_complete:
            self._reply(408, "SI", "the request's body did not arrive in time")
        else:
            self._reply(504, "UT", "upstream request timeout")

    def on_caller_full(self) -> None:
        if self.upstream is not None:
            self.upstream.pause()

    def on_caller_drained(self) -> None:
        if self.upstream is not None:
            self.upstream.resume()

    # ------------------------------------------------------------------ getting a connection

    def _connect(self, pool: "Supplier", *, fresh: bool = False) -> None:
        upstream = None if fresh else pool.take()
        if upstream is not None:
            self._send(upstream)
            return
        self.pool = pool
        if not pool.wait(self):
            self.pool = None
            self._overflow()

    def _overflow(self) -> None:
        self._reply(503, "UO", "upstream overflow: too many connections or waiting requests")

    def on_connection(self, upstream: "Carrier") -> None:
        self.pool = None
        self.sent_s = _clock()
        self._send(upstream)

    def _send(self, upstream: "Carrier") -> None:
        self.upstream = upstream
        if self.down.full:
            upstream.pause()
        if self._held:
            self.down.release(HOLD_BODY | HOLD_UPSTREAM)  # the latter may be the last try's
            upstream.begin(self, b"".join(self._held), self.request_complete, self._trailers)
            if self._held_bytes > self._replay_bytes_max:
                self._replayable = False
                self._held.clear()
                self._held_bytes = 0
        else:
            upstream.begin(self, b"", self.request_complete, self._trailers)
        if self.try_timeout_s and self.request_complete and not self.ended:
            upstream.limit(self.try_timeout_s)

    def on_no_connection(self, reason: str) -> None:
        self.pool = None
        self.on_attempt_failed(Failure.CONNECT, reason)

    def _leave_upstream(self) -> None:
        """Whatever was taken or asked for is given up."""
        if self.pool is not None:
            self.pool.forget(self)
            self.pool = None
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()

    # ------------------------------------------------------------------ from the connection it was sent on

    def on_upstream_full(self) -> None:
        self.down.hold(HOLD_UPSTREAM)

    def on_upstream_drained(self) -> None:
        self.down.release(HOLD_UPSTREAM)

    def on_informational(self, response: Response) -> None:
        self.down.inform(self, response)

    def on_response(self, response: Response, pieces: list[bytes], complete: bool, trailers: Pairs) -> None:
        """The head, with what of the body came along. When `complete`, the connection has been given back."""
        if self.ended:
            return
        if self.grpc:
            self.grpc_status = status_in_lines(response.headers) or status_in_trailers(trailers)
        status = response.status
        if (status >= 500 or self.grpc_status) and self.may_retry_status(response):
            return
        self.status = status
        self._responding = True
        if self._held:
            self._held = []
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.bytes_out += len(body)
        down = self.down
        down.respond(self, response, self.edit_response(response.headers), body, complete, trailers)
        if complete:
            self._end()
            down.on_response_sent()

    def on_response_body(self, pieces: list[bytes], complete: bool, trailers: Pairs) -> None:
        if self.ended:
            return
        if trailers and self.grpc:
            self.grpc_status = status_in_trailers(trailers)
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.bytes_out += len(body)
        self.down.respond_more(body, complete, trailers)
        if complete:
            self._end_response()
        elif self.timeout_s <= 0:
            self.down.limit(self.engine.limits.idle_timeout_s)

    def on_upstream_lost(self, upstream: "Carrier", reason: str) -> None:
        """The connection ended before the response did."""
        self.upstream = None
        if self.ended:
            return
        if self._responding:
            self.flags = "UC"
            self.down.abort(f"upstream connection termination: {reason}")
            self._end()
        elif upstream.reused and not upstream.answered:
            self._on_stale(reason)
        else:
            self.on_attempt_failed(Failure.RESET, reason)

    def _on_stale(self, reason: str) -> None:
        """A kept-alive connection that its server was about to close. Not the endpoint's failure: RFC 9112, 9.3.1."""
        self._try_fresh(self._replayable and self.request.method in IDEMPOTENT, reason)

    def on_upstream_refused(self, reason: str) -> None:
        """The other side says that it has not looked at the request: RFC 9113, 8.7."""
        self.upstream = None
        if not self.ended:
            self._try_fresh(self._replayable, reason)

    def _try_fresh(self, safe: bool, reason: str) -> None:
        """Once more to the same place, by a new connection, when that is `safe`."""
        if safe and not self._retried_stale and self.stale_pool is not None:
            self._retried_stale = True
            self.engine.recorder.increment("stale_connection_retries")
            self._connect(self.stale_pool, fresh=True)
        else:
            self.on_attempt_failed(Failure.REFUSED if safe else Failure.RESET, reason)

    @property
    @abstractmethod
    def stale_pool(self) -> "Supplier | None":
        """Where to get a fresh connection to the same place."""

    def on_head_too_large(self) -> None:
        """The connection's other end would not take the head as it is to go on. Nothing of it was sent."""
        self.upstream = None
        self._reply(431, "DPE", "the request's head is too large to be sent on")

    def on_upstream_broken(self, reason: str) -> None:
        """What came back breaks the protocol."""
        self.upstream = None
        self.engine.recorder.increment("upstream_protocol_errors")
        if self._responding:
            self.flags = "UPE"
            self.down.abort(f"upstream protocol error: {reason}")
            self._end()
        else:
            self.on_attempt_failed(Failure.PROTOCOL, reason)

    def on_try_timeout(self) -> None:
        self.upstream = None
        self.on_attempt_failed(Failure.TIMEOUT, "no response within the time of one try")

    def on_switch(self, upstream: "Upstream", response: Response, data: bytes) -> None:
        """`101`: from here on the two connections are one pipe."""
        self.status = 101
        self._responding = True
        self.upstream = None
        upstream.detach()
        self.bytes_out += len(data)

        def ended(to_upstream: int, to_caller: int) -> None:
            upstream.on_detached_end()
            self.bytes_in += to_upstream
            self.bytes_out += to_caller
            self._end()

        self.bytes_in += self.down.switch(
            self, upstream, response, self.edit_response(response.headers), data, ended
        )

    # ------------------------------------------------------------------ answering

    def _reply(self, status: int, flags: str, message: str, headers: Pairs | None = None) -> None:
        """Answer in the mesh's own name."""
        if self.ended:
            return
        self.status = status
        self.flags = flags
        self._responding = True
        if self.grpc and status >= 400:
            self.status = 200
            self.grpc_status = b"%d" % status_of(status)
            self.down.reply_grpc(self, status, message)
        else:
            self.down.reply(self, status, message, headers or [])
            self.bytes_out += len(message) + 1 if message else 0
        self._end_response()

    def _end_response(self) -> None:
        self._end()
        self.down.on_response_sent()

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        now_s = _clock()
        self.account(now_s, (now_s - self.started_s) * 1000.0)
        self.engine.on_exchange_end()


NO_TRAILERS: Final[Pairs] = []

"""A request from a caller on this host into the mesh: route, choose an endpoint, send, retry.

The order is that of the journey in ARCHITECTURE.md: the destination's rules (or those of the caller's
namespace), a backend by weight, the cluster's breaker, an endpoint by load and health, a pooled mTLS
connection. An endpoint on this host is authorised here, with the caller's identity, and reached without TLS;
its decisions are those of `incoming.py`, made about the request as a route's filters leave it.

Invariant: whatever is taken from the cluster (breaker, budget, load) is given back in `account`.
"""

import time
from typing import TYPE_CHECKING

from proxy.authorize import split_port
from proxy.balance import EndpointLoad
from proxy.embedded.accounting import count, log
from proxy.embedded.clusters import Cluster
from proxy.embedded.compiled import Leg, Listening, Target
from proxy.embedded.exchange import Exchange
from proxy.embedded.grpc import is_failure
from proxy.embedded.heads import compile_edit
from proxy.embedded.http1 import Request, Response
from proxy.embedded.runtime import NoCertificateError
from proxy.embedded.telemetry import Edge
from proxy.embedded.wheel import NEVER, Timed
from proxy.path import normalise_path
from proxy.retry import Failure
from proxy.route import MatchedRule
from proxy.snapshot import Redirect

if TYPE_CHECKING:
    from proxy.embedded.caller import Caller
    from proxy.embedded.carrier import Supplier

_clock = time.monotonic
_NOT_ITS_FAULT = frozenset(("DC", "DPE", "SI"))  # the caller went away, broke its framing, or stopped sending
_ANSWERS = {
    Failure.CONNECT: (503, "UF", "upstream connect error"),
    Failure.REFUSED: (503, "UC", "upstream connection termination"),
    Failure.RESET: (503, "UC", "upstream connection termination"),
    Failure.TIMEOUT: (504, "UT", "upstream request timeout"),
    Failure.PROTOCOL: (502, "UPE", "upstream protocol error"),
}
_FAILED_FLAGS = frozenset(flags for _, flags, _ in _ANSWERS.values())


class _Backoff(Timed):
    """The wait before another attempt."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: "Outgoing") -> None:
        super().__init__()
        self._exchange = exchange

    def on_deadline(self) -> None:
        self._exchange.try_again()


class Outgoing(Exchange):
    """`target` is None when the request names no service of the mesh."""

    __slots__ = (
        "_admitted", "_attempt", "_backoff", "_budgeted", "_cluster", "_latency_s", "_leg", "_listening", "_load",
        "_matched", "_target", "_tried", "_upstream_pool",
    )  # fmt: skip

    def __init__(self, down: "Caller", request: Request, listening: Listening, target: Target | None) -> None:
        Exchange.__init__(self, down, request)
        self._listening = listening
        self._target = target
        self._matched: MatchedRule | None = None
        self._cluster: Cluster | None = None
        self._load: EndpointLoad | None = None
        self._leg: Leg | None = None  # to the endpoint of the attempt
        self._upstream_pool: Supplier | None = None
        self._attempt = 1
        self._backoff: _Backoff | None = None
        self._tried: tuple[str, ...] = ()
        self._admitted = False
        self._budgeted = False
        self._latency_s = 0.0

    # ------------------------------------------------------------------ deciding

    def decide(self) -> None:
        target = self._target
        if target is None:
            host = self.request.host.decode("latin-1")
            self._reply(404, "NR", f'no service "{host}" in the mesh')
            return
        destination = target.destination
        if destination.protocol == "tcp":
            self._reply(400, "NR", f"{target.name} speaks plain TCP: use CONNECT or an upstream port")
            return
        if not self.host:  # HTTP/1.0 to an upstream port: HTTP/2 and most applications want one
            self.host = target.host
        timeout_s = destination.request_timeout_s
        cluster_name = destination.cluster
        per_try_s = None
        table = target.routes.table(self._listening.namespace)
        if table is not None:
            matched = table.match(self.request.method, self.path, self.query[1:], self.view)
            if matched is None:
                self._reply(404, "NR", f"no route of {target.name} matches")
                return
            self._matched = matched
            rule = matched.rule
            self.route = rule.name
            if rule.redirect is not None:
                self._redirect(matched, rule.redirect)
                return
            if not self._filter(matched):
                self._reply(500, "NR", f"route {rule.name} makes of this path one that cannot be sent")
                return
            if rule.request_timeout_s is not None:
                timeout_s = rule.request_timeout_s
            per_try_s = rule.per_try_timeout_s
            backend = matched.choose(self.engine.rng)
            cluster_name = "" if backend is None else backend.cluster
        cluster = self.engine.runtime.clusters.get(cluster_name)
        if cluster is None:
            self._reply(500, "NC", "the route has no valid backend")
            return
        self._cluster = cluster
        if not cluster.breaker.open_request():
            self._overflow()
            return
        self._admitted = True
        policy = cluster.retry.policy
        self._replay_bytes_max = policy.body_bytes_max
        if per_try_s is None:
            per_try_s = policy.per_try_timeout_s
        self.try_timeout_s = per_try_s or 0.0
        self.start_clock(timeout_s)
        self._try()

    def _filter(self, matched: MatchedRule) -> bool:
        """Make the request what will be sent, before anything is asked about it. False: no path comes of it."""
        rule = matched.rule
        if rule.request_headers is not None:
            self.headers = compile_edit(rule.request_headers).apply(self.headers)
        rewrite = rule.rewrite
        if rewrite is None:
            return True
        if rewrite.hostname is not None:
            self.host = rewrite.hostname.encode("latin-1")
        rewritten = matched.rewritten_path(self.path)
        # The caller's part and the rule's are normal each by itself, if at all: together they need not be.
        path = rewritten if rewritten == self.path else normalise_path(rewritten)
        if path is None:
            return False
        self.path_sent = path
        return True

    def _try(self) -> None:
        cluster = self._cluster
        assert cluster is not None
        load = cluster.balancer.choose(self.sent_s, self.engine.rng, self._tried)
        if load is None:
            self._reply(503, "UH", "no healthy upstream")
            return
        load.started()
        self._load = load
        listening = self._listening
        runtime = self.engine.runtime
        self._leg = None
        try:
            leg = self._leg = runtime.leg(listening, cluster, load)
            pool = leg.pool
            if self.request.upgrade and not load.endpoint.local:
                pool = runtime.pool(listening, load.endpoint, cluster, upgrade=True)
        except NoCertificateError as error:
            self._abandon_load()
            self._reply(503, "UF", str(error))
            return
        if pool is None:  # the snapshot changed between two attempts
            self.on_attempt_failed(Failure.CONNECT, "the service has left this host")
            return
        inbound = leg.inbound
        if inbound is not None:
            decision = inbound.authorize(self, listening.identity, self.down.peer_ip)
            if not decision.allowed:
                self.policy = decision.policy or decision.reason
                self.engine.recorder.increment("authz_denied")
                self._reply(403, "-", "RBAC: access denied")
                return
        self._upstream_pool = pool
        self._connect(pool)

    def _redirect(self, matched: MatchedRule, redirect: Redirect) -> None:
        scheme = redirect.scheme or "http"
        host, port = split_port(self.host.decode("latin-1"))
        host = redirect.hostname or host
        if redirect.port is not None:
            port = str(redirect.port)
        elif redirect.scheme is not None:
            port = ""
        if port in {"", "443" if scheme == "https" else "80"}:
            port = ""
        where = (
            f"{scheme}://{host}{f':{port}' if port else ''}{matched.redirected_path(self.path)}{self.query}"
        )
        self._reply(redirect.status, "-", "", [(b"location", where.encode("latin-1", "replace"))])

    @property
    def stale_pool(self) -> "Supplier | None":
        return self._upstream_pool

    # ------------------------------------------------------------------ sending

    def identity_line(self) -> bytes:
        return self._leg.identity_line if self._leg is not None else b""

    def edit_response(self, headers: list[bytes]) -> list[bytes]:
        self._latency_s = _clock() - self.sent_s
        matched = self._matched
        if matched is not None and matched.rule.response_headers is not None:
            return compile_edit(matched.rule.response_headers).apply_to_lines(headers)
        return headers

    # ------------------------------------------------------------------ trying again

    def on_attempt_failed(self, failure: Failure, reason: str) -> None:
        self._fail_load(failure.value)
        cluster = self._cluster
        assert cluster is not None
        if cluster.retry.failure(failure) and self._may_try_again():
            self._back_off(cluster)
            return
        status, flags, message = _ANSWERS[failure]
        self._reply(status, flags, f"{message}: {reason}")

    def may_retry_status(self, response: Response) -> bool:
        cluster = self._cluster
        assert cluster is not None
        told = self.grpc_status
        grpc_status = int(told) if told.isdigit() and len(told) < 3 else None
        if not cluster.retry.status(response.status, grpc_status) or not self._may_try_again():
            return False
        self._fail_load("consecutive 5xx")
        self.grpc_status = b""
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()  # its body is not worth reading
        self._back_off(cluster)
        return True

    def _may_try_again(self) -> bool:
        """Counts the attempt when it says yes."""
        cluster = self._cluster
        assert cluster is not None
        if self.ended or not cluster.retry.may_follow(self._attempt, replayable=self._replayable):
            return False
        if not self._budgeted:
            if not cluster.budget.acquire(cluster.retry.policy, cluster.breaker.requests):
                self.engine.recorder.increment("retry_budget_exhausted")
                return False
            self._budgeted = True
        self._attempt += 1
        self.engine.recorder.increment("retries")
        return True

    def _back_off(self, cluster: Cluster) -> None:
        delay_s = cluster.retry.backoff_s(self._attempt - 1, self.engine.rng)
        backoff = self._backoff = _Backoff(self)
        self.engine.wheel.arm(backoff, delay_s)

    def try_again(self) -> None:
        """The back-off is over."""
        self._backoff = None
        self.sent_s = _clock()
        self._try()

    def _leave_upstream(self) -> None:
        if self._backoff is not None:
            self._backoff.deadline_s = NEVER
            self._backoff = None
        super()._leave_upstream()

    def _fail_load(self, reason: str) -> None:
        load, self._load = self._load, None
        if load is None or self._cluster is None:
            return
        now_s = _clock()
        load.finished(now_s, now_s - self.sent_s, True)
        self._tried = (*self._tried, load.endpoint.id)
        self._cluster.observe(load.endpoint.id, True, now_s, reason)

    def _abandon_load(self) -> None:
        load, self._load = self._load, None
        if load is not None:
            load.abandoned()

    def _overflow(self) -> None:
        self._abandon_load()
        super()._overflow()

    # ------------------------------------------------------------------ the end

    def account(self, now_s: float, duration_ms: float) -> None:
        load, cluster = self._load, self._cluster
        listening = self._listening
        if load is not None and cluster is not None:
            self._settle_load(load, cluster, now_s)
        elif cluster is not None and self._tried and self.flags in _FAILED_FLAGS:
            load = cluster.balancer.loads.get(self._tried[-1])  # which the last try failed at
        endpoint = None if load is None else load.endpoint
        if self._admitted and cluster is not None:
            cluster.breaker.close_request()
            if self._budgeted:
                cluster.budget.release()
        target, leg = self._target, self._leg
        if load is not None and leg is not None:
            count(self, leg.edge, duration_ms)
        else:
            for edge in self._edges():
                count(self, edge, duration_ms)
        if self.engine.access_log is None:
            return
        log(
            self, duration_ms, reporter="source", source=listening.identity,
            destination=cluster.name if cluster is not None else target.name if target is not None else "",
            upstream="" if endpoint is None else f"{endpoint.host}:{endpoint.port}",
        )  # fmt: skip

    def _edges(self) -> list[Edge]:
        """Where a request counts that ended without an endpoint."""
        recorder, listening, leg = self.engine.recorder, self._listening, self._leg
        edges = [listening.edge(recorder, self._target, self._cluster, None)]
        if leg is not None and leg.inbound is not None:  # it was tried
            edges.append(leg.inbound.edge(recorder, listening.source, "none"))
        return edges

    def _settle_load(self, load: EndpointLoad, cluster: Cluster, now_s: float) -> None:
        self._load = None
        flags = self.flags
        if self.policy or (flags != "-" and flags in _NOT_ITS_FAULT):
            load.abandoned()
            return
        failed = self.status >= 500 or flags in {"UC", "UT", "UPE"} or is_failure(self.grpc_status)
        ended_a_row = load.failures > 0
        load.finished(now_s, self._latency_s or now_s - self.sent_s, failed)
        if failed or ended_a_row:  # one success after the other is no news to the detector
            cluster.observe(load.endpoint.id, failed, now_s, "consecutive 5xx" if flags == "-" else flags)

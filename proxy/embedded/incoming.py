"""A request from the mesh to an application on this host: who is it, may it, then send it on.

The caller's identity is what its certificate proved in the handshake. The application learns it from
`x-forwarded-client-cert`, which is ours alone to set.

Invariant: no byte of a request reaches an application before `authorize` allowed it.
"""

from typing import TYPE_CHECKING, Final

from proxy.embedded.accounting import count, log
from proxy.embedded.compiled import Inbound
from proxy.embedded.exchange import Exchange
from proxy.embedded.http1 import Request
from proxy.retry import Failure

if TYPE_CHECKING:
    from proxy.embedded.caller import Caller
    from proxy.embedded.carrier import Supplier

CALLER_FIRST_S: Final = 1.0  # how much longer than its caller a request may take here

_ANSWERS = {
    Failure.CONNECT: (503, "UF", "cannot reach the application"),
    Failure.REFUSED: (503, "UC", "the application closed the connection"),
    Failure.RESET: (503, "UC", "the application closed the connection"),
    Failure.TIMEOUT: (504, "UT", "the application did not answer in time"),
    Failure.PROTOCOL: (502, "UPE", "upstream protocol error"),
}


class Incoming(Exchange):
    """`inbound` is None when the service has left this host since the connection was made."""

    __slots__ = ("_application_pool", "_caller", "_inbound")

    def __init__(self, down: "Caller", request: Request, inbound: Inbound | None, caller: str) -> None:
        Exchange.__init__(self, down, request)
        self._inbound = inbound
        self._caller = caller
        self._application_pool: Supplier | None = None

    def decide(self) -> None:
        inbound = self._inbound
        if inbound is None:
            self._reply(503, "NR", "the service has left this host")
            return
        decision = inbound.authorize(self, self._caller, self.down.peer_ip)
        if not decision.allowed:
            self.policy = decision.policy or decision.reason
            self.engine.recorder.increment("authz_denied")
            self._reply(403, "-", "RBAC: access denied")
            return
        # The caller's clock is to strike first: it knows the route, and what a timeout says of the endpoint.
        timeout_s = inbound.service.request_timeout_s
        self.start_clock(timeout_s + CALLER_FIRST_S if timeout_s else timeout_s)
        pool = self._application_pool = self.engine.runtime.application_pool(inbound)
        self._connect(pool)

    def identity_line(self) -> bytes:
        inbound = self._inbound
        assert inbound is not None
        return inbound.forwarded_cert(self._caller)

    @property
    def stale_pool(self) -> "Supplier | None":
        return self._application_pool

    def on_attempt_failed(self, failure: Failure, reason: str) -> None:
        status, flags, message = _ANSWERS[failure]
        self._reply(status, flags, f"{message}: {reason}")

    def account(self, now_s: float, duration_ms: float) -> None:
        inbound = self._inbound
        if inbound is not None:
            count(self, inbound.edge_from(self.engine.recorder, self._caller), duration_ms)
        if self.engine.access_log is None:
            return
        log(
            self, duration_ms, reporter="destination", source=self._caller,
            destination=inbound.name if inbound is not None else "",
            upstream=inbound.application if inbound is not None else "",
        )  # fmt: skip

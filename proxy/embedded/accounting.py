"""What is told of a request at its end: counts on its edges, and a line in the access log.

Invariant: both say the same of it, whichever side tells them.
"""

from typing import Literal

from proxy.embedded.access_log import format_request
from proxy.embedded.exchange import Exchange
from proxy.embedded.grpc import label_of
from proxy.embedded.telemetry import Edge
from proxy.embedded.trace import trace_id


def count(exchange: Exchange, edge: Edge, duration_ms: float) -> None:
    """Add the request to what `edge` has counted."""
    label = label_of(exchange.grpc_status) if exchange.grpc_status else ""
    edge.count(
        exchange.status, exchange.flags, duration_ms, exchange.bytes_in, exchange.bytes_out, label
    )  # fmt: skip


def log(
    exchange: Exchange, duration_ms: float, *, reporter: Literal["source", "destination"], source: str,
    destination: str, upstream: str,
) -> None:  # fmt: skip
    """Write the line, if lines are wanted. `source` and `destination` are identities and clusters as the reporter knows
    them, `upstream` is the address the request went to; "" for what there was none of."""
    lines = exchange.engine.access_log
    if lines is None:
        return
    request = exchange.request
    lines.write(
        format_request(
            time_text=lines.timestamp(), reporter=reporter, method=request.method, host=request.host.decode("latin-1"),
            path=exchange.path + exchange.query, protocol=exchange.down.protocol(request),
            code=exchange.status, flags=exchange.flags, duration_ms=duration_ms,
            bytes_in=exchange.bytes_in, bytes_out=exchange.bytes_out, source=source, destination=destination,
            upstream=upstream, route=exchange.route, request_id=exchange.request_id.decode("latin-1"),
            trace_id=trace_id(exchange.traceparent), policy=exchange.policy,
        )
    )  # fmt: skip

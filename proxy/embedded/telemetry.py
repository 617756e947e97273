"""Golden metrics of one worker: counts and latency histograms per series, sent as deltas.

Hashing a `Series` of eleven strings for each request would cost more than routing it, so a request is counted on an
`Edge` (who calls whom, looked up once per listener and destination) under the small key `(code, flags, gRPC status)`.

Invariant: a request is counted exactly once per reporter; `take` returns each count once.
"""

from bisect import bisect_left
from dataclasses import replace
from typing import Final, Literal
from weakref import WeakValueDictionary

from proxy.plane import DURATION_BUCKETS_MS, Series, SeriesDelta

EDGES_MAX: Final = 10_000  # beyond it new combinations share one edge with empty names

Security = Literal["mutual_tls", "none"]
Reporter = Literal["source", "destination"]
EdgeKey = tuple[Reporter, str, str, str, str, str, str, str, Security]


class Edge:
    """One caller-to-destination relation seen by one reporter, or by both at once where both are this worker. Lives as
    long as a runtime refers to it."""

    __slots__ = ("__weakref__", "_recorder", "deltas", "keys")

    def __init__(self, recorder: "Recorder", *keys: EdgeKey) -> None:
        self._recorder = recorder
        self.keys = keys
        self.deltas: dict[tuple[int, str, str], SeriesDelta] = {}

    def count(
        self, code: int, flags: str, duration_ms: float, request_bytes: int, response_bytes: int, grpc_status: str = "",
    ) -> None:  # fmt: skip
        delta = self.deltas.get((code, flags, grpc_status))
        if delta is None:
            if not self.deltas:
                self._recorder.counted.append(self)
            delta = self.deltas[code, flags, grpc_status] = SeriesDelta()
        delta.requests += 1
        delta.duration_sum_ms += duration_ms
        delta.buckets[bisect_left(DURATION_BUCKETS_MS, duration_ms)] += 1
        delta.request_bytes += request_bytes
        delta.response_bytes += response_bytes


class Recorder:
    """All edges and named counters of a worker. `counted` are the edges with something to report."""

    __slots__ = ("_edges", "counted", "counters")

    def __init__(self) -> None:
        self._edges: WeakValueDictionary[EdgeKey, Edge] = WeakValueDictionary()
        self.counted: list[Edge] = []
        self.counters: dict[str, int] = {}

    def increment(self, counter: str, by: int = 1) -> None:
        self.counters[counter] = self.counters.get(counter, 0) + by

    def edge(
        self,
        reporter: Reporter,
        *,
        source: tuple[str, str, str],  # service, namespace, principal
        destination: tuple[str, str, str],
        protocol: str,
        security: Security,
    ) -> Edge:
        """The edge of these names, made when it is new."""
        key: EdgeKey = (reporter, *source, *destination, protocol, security)
        if key not in self._edges and len(self._edges) >= EDGES_MAX:
            self.increment("series_overflow")
            key = (reporter, "", "", "", "", "", "", protocol, security)
        edge = self._edges.get(key)
        if edge is None:
            edge = self._edges[key] = Edge(self, key)
        return edge

    def both(self, one: Edge, other: Edge) -> Edge:
        """What is counted on it counts on `one` and on `other`."""
        return Edge(self, *one.keys, *other.keys)

    def take(self) -> tuple[list[tuple[Series, SeriesDelta]], dict[str, int]]:
        """What was counted since the last call."""
        counted, self.counted = self.counted, []
        series: list[tuple[Series, SeriesDelta]] = []
        for edge in counted:
            deltas, edge.deltas = edge.deltas, {}
            for key in edge.keys:
                for (code, flags, grpc_status), delta in deltas.items():
                    labels = Series(*key[:-1], code, flags, key[-1], grpc_status)
                    series.append((labels, replace(delta, buckets=delta.buckets.copy())))
        counters, self.counters = self.counters, {}
        return series, counters

"""What a worker remembers of a cluster between snapshots: load, passive health, limits, retries in flight.

The decisions are those of `proxy/{balance,outlier,breaker,retry}.py`; this joins them under the cluster's name, so
that a new snapshot changes policies and endpoints without forgetting an ejection or dropping a count.

Invariant: `balancer` never draws from endpoints that `detector` has ejected, except in panic.
"""

from typing import TYPE_CHECKING, Final

from proxy import snapshot as seam
from proxy.balance import ClusterBalancer
from proxy.outlier import OutlierDetector
from proxy.plane import Ejection
from proxy.retry import RetryBudget, RetryRules

if TYPE_CHECKING:
    from proxy.embedded.engine import Engine

# An ejection raises the time of the next one; it is forgiven an interval at a time, for at most this long.
_FORGIVEN_AFTER_S: Final = 900.0


class Cluster:
    """One cluster as one worker sees it."""

    __slots__ = (
        "_engine",
        "_sweep_until_s",
        "balancer",
        "breaker",
        "budget",
        "cluster",
        "detector",
        "name",
        "retry",
    )

    def __init__(
        self, engine: "Engine", cluster: seam.Cluster, retry: RetryRules, zone: str, now_s: float
    ) -> None:
        self._engine = engine
        self._sweep_until_s = 0.0
        self.name = cluster.name
        self.cluster = cluster
        self.retry = retry
        self.budget = RetryBudget()
        self.breaker = engine.make_breaker(cluster)
        self.balancer = ClusterBalancer(cluster, zone, now_s)
        self.detector = OutlierDetector(cluster, now_s)

    def __repr__(self) -> str:
        return f"<Cluster {self.name} {self.balancer!r} {self.detector!r} {self.breaker!r}>"

    def update(self, cluster: seam.Cluster, retry: RetryRules, now_s: float) -> None:
        """A new snapshot's policies and endpoints; what was learned stays."""
        self.cluster = cluster
        self.retry = retry
        self.breaker.limits = cluster.breaker
        self.balancer.update(cluster, now_s)
        self.detector.update(cluster, now_s)
        self.balancer.eject(self.detector.ejected)

    def observe(self, endpoint: str, failed: bool, now_s: float, reason: str) -> None:
        """The outcome of one attempt."""
        if not self.detector.record(endpoint, failed, now_s, reason):
            return
        self.balancer.eject(self.detector.ejected)
        self._sweep_until_s = now_s + _FORGIVEN_AFTER_S
        self._engine.troubled.add(self)
        self._engine.recorder.increment("ejections")

    def sweep(self, now_s: float) -> bool:
        """Once a second while there is something to forgive; False when there no longer is."""
        if self.detector.sweep(now_s):
            self.balancer.eject(self.detector.ejected)
        return bool(self.detector.ejected) or now_s < self._sweep_until_s

    def ejections(self, now_s: float) -> list[Ejection]:
        if not self.detector.ejected:
            return []
        return [
            Ejection(
                cluster=self.name,
                endpoint=ejected.endpoint,
                node=ejected.endpoint.partition("/")[0],
                reason=ejected.reason,
                remaining_s=ejected.remaining_s,
                count=ejected.count,
            )
            for ejected in self.detector.ejections(now_s)
        ]

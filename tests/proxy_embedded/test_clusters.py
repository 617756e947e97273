"""What is remembered of a cluster: ejections reach the balancer, and leave it again."""

import random

from proxy.embedded.clusters import Cluster
from proxy.embedded.engine import Engine
from proxy.retry import RetryRules
from proxy.snapshot import Cluster as Seam
from proxy.snapshot import Endpoint, Outlier, RetryPolicy

ENDPOINTS = tuple(
    Endpoint(id=f"{node}/echo", node=node, host="127.0.0.1", port=1, sni="echo", identity="spiffe://x")
    for node in ("n1", "n2", "n3")
)
SEAM = Seam(
    name="echo", service="echo", namespace="default", protocol="http", endpoints=ENDPOINTS,
    outlier=Outlier(consecutive_5xx=2, base_ejection_time_s=10.0),
)  # fmt: skip


def drawn(cluster: Cluster, now_s: float) -> set[str]:
    rng = random.Random(1)
    chosen = (cluster.balancer.choose(now_s, rng) for _ in range(200))
    return {load.endpoint.node for load in chosen if load is not None}


async def test_an_ejected_endpoint_is_not_drawn_until_its_time_is_over(engine: Engine) -> None:
    cluster = Cluster(engine, SEAM, RetryRules(RetryPolicy()), "", 0.0)
    cluster.observe("n1/echo", True, 1.0, "consecutive 5xx")
    assert engine.troubled == set()
    cluster.observe("n1/echo", True, 1.0, "consecutive 5xx")
    assert engine.troubled == {cluster}
    assert drawn(cluster, 1.0) == {"n2", "n3"}
    (ejection,) = cluster.ejections(2.0)
    assert (ejection.node, ejection.reason, ejection.remaining_s, ejection.count) == (
        "n1",
        "consecutive 5xx",
        9.0,
        1,
    )
    assert cluster.sweep(5.0)
    assert drawn(cluster, 5.0) == {"n2", "n3"}
    assert cluster.sweep(11.0), "there is still something to forgive"
    assert drawn(cluster, 11.0) == {"n1", "n2", "n3"}
    assert not cluster.sweep(10_000.0)


async def test_a_new_snapshot_forgets_no_ejection(engine: Engine) -> None:
    cluster = Cluster(engine, SEAM, RetryRules(RetryPolicy()), "", 0.0)
    for _ in range(2):
        cluster.observe("n1/echo", True, 1.0, "consecutive 5xx")
    cluster.update(SEAM, RetryRules(RetryPolicy(attempts=5)), 2.0)
    assert drawn(cluster, 2.0) == {"n2", "n3"}
    assert cluster.retry.policy.attempts == 5

"""Balancing: statistics of the draws, peak-EWMA's facts, panic, locality."""

import random
from collections import Counter, deque
from dataclasses import replace
from math import exp
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balance import LATENCY_INITIAL_S, ClusterBalancer, EndpointLoad
from proxy.snapshot import Balancer, Cluster, Endpoint, Outlier


def endpoint(name: str, **changes: Any) -> Endpoint:
    return Endpoint(id=name, node=name, host="10.0.0.1", port=1, sni="c", identity="i", **changes)


def cluster(*endpoints: Endpoint, balancer: Balancer = "p2c_ewma", **changes: Any) -> Cluster:
    return Cluster(
        name="c.default.mesh:80",
        service="c",
        namespace="default",
        protocol="http",
        endpoints=endpoints,
        balancer=balancer,
        **changes,
    )


def draws(balancer: ClusterBalancer, count: int, now: float = 0.0, **options: Any) -> Counter[str]:
    rng = random.Random(7)
    found = (balancer.choose(now, rng, **options) for _ in range(count))
    return Counter(load.endpoint.id for load in found if load is not None)


def three(**changes: Any) -> ClusterBalancer:
    return ClusterBalancer(cluster(endpoint("a"), endpoint("b"), endpoint("c"), **changes), "", 0.0)


def send(load: EndpointLoad, now: float, latency_s: float, failed: bool = False) -> None:
    load.started()
    load.finished(now, latency_s, failed)


def test_an_endpoint_nothing_is_known_of_costs_30_ms() -> None:
    load = three().loads["a"]
    assert load.cost(0.0) == pytest.approx(0.030)
    assert load.latency_s(10.0) == pytest.approx(0.030 / 2.718281828)


def test_a_peak_counts_at_once_and_decays_in_ten_seconds() -> None:
    load = three().loads["a"]
    send(load, 1.0, 0.5)
    assert load.latency_s(1.0) == pytest.approx(0.5)
    assert load.latency_s(11.0) == pytest.approx(0.5 * exp(-1))
    send(load, 2.0, 0.1)
    weight = exp(-0.1)
    assert load.latency_s(2.0) == pytest.approx(0.5 * weight + 0.1 * (1 - weight))


def test_cost_grows_with_requests_in_flight() -> None:
    load = three().loads["a"]
    load.started()
    load.started()
    assert load.cost(0.0) == pytest.approx(3 * LATENCY_INITIAL_S)
    load.abandoned()
    assert load.cost(0.0) == pytest.approx(2 * LATENCY_INITIAL_S)


def test_a_slow_endpoint_gets_only_the_draws_it_is_alone_in() -> None:
    balancer = three()
    send(balancer.loads["a"], 0.0, 1.0)
    found = draws(balancer, 3000)
    assert found["a"] == 0  # two distinct endpoints are drawn, one of which is always faster
    assert found["b"] + found["c"] == 3000


def test_a_failure_counts_as_what_is_usual_so_that_it_neither_draws_nor_starves() -> None:
    balancer = three()
    for load in balancer.loads.values():
        send(load, 0.0, 0.1)
    bad = balancer.loads["a"]
    for _ in range(5):
        send(bad, 5.0, 0.001, failed=True)
    assert bad.latency_s(5.0) == pytest.approx(0.1)


@pytest.mark.parametrize("outlier", [Outlier(), Outlier(enabled=False)])
@pytest.mark.parametrize("in_flight", [1, 20])
def test_a_fast_error_attracts_no_load(outlier: Outlier, in_flight: int) -> None:
    """Nobody ejects here: the failing endpoint answers at once and so has nothing in flight, the others are slow."""
    balancer = ClusterBalancer(
        cluster(*(endpoint(name) for name in ("bad", "b", "c")), outlier=outlier), "", 0.0
    )
    rng, now = random.Random(3), 0.0
    found: Counter[str] = Counter()
    waiting: deque[EndpointLoad] = deque()
    for _ in range(20_000):
        load = balancer.choose(now, rng)
        assert load is not None
        found[load.endpoint.id] += 1
        load.started()
        if load.endpoint.id == "bad":
            load.finished(now, 0.001, failed=True)
        else:
            waiting.append(load)
        if len(waiting) >= in_flight:
            waiting.popleft().finished(now, 0.080, failed=False)
        now += 0.005
    assert found["bad"] / 20_000 < 0.02


def test_a_failing_endpoint_is_tried_again_and_wins_its_share_back() -> None:
    balancer = ClusterBalancer(cluster(endpoint("a"), endpoint("b")), "", 0.0)
    for _ in range(5):
        send(balancer.loads["a"], 0.0, 0.001, failed=True)
    rng, now, late = random.Random(5), 0.0, Counter[str]()
    for step in range(20_000):
        load = balancer.choose(now, rng)
        assert load is not None
        send(load, now, 0.020)
        now += 0.01
        if step >= 15_000:
            late[load.endpoint.id] += 1
    assert late["a"] > 500


def test_two_choices_even_out_requests_in_flight() -> None:
    def spread(kind: Balancer) -> int:
        balancer = ClusterBalancer(
            cluster(*(endpoint(f"e{index}") for index in range(20)), balancer=kind), "", 0.0
        )
        rng = random.Random(11)
        for _ in range(2000):
            load = balancer.choose(0.0, rng)
            assert load is not None
            load.started()
        pending = [load.pending for load in balancer.loads.values()]
        return max(pending) - min(pending)

    assert spread("p2c_ewma") <= 6
    assert spread("least_request") <= 6
    assert spread("random") > 15
    assert spread("round_robin") == 0


@pytest.mark.parametrize("kind", ["p2c_ewma", "least_request", "round_robin", "random"])
def test_equal_endpoints_get_equal_shares(kind: Balancer) -> None:
    balancer = ClusterBalancer(cluster(*(endpoint(name) for name in "abcd"), balancer=kind), "", 0.0)
    rng, found = random.Random(2), Counter[str]()
    for _ in range(8000):
        load = balancer.choose(0.0, rng)
        assert load is not None
        load.started()
        found[load.endpoint.id] += 1
    assert all(share == pytest.approx(2000, rel=0.1) for share in found.values())


def test_round_robin_goes_in_turn_from_anywhere() -> None:
    balancer = three(balancer="round_robin")
    rng = random.Random(4)
    order = [load.endpoint.id for _ in range(6) if (load := balancer.choose(0.0, rng))]
    assert order[:3] == order[3:]
    assert set(order) == {"a", "b", "c"}


def test_unhealthy_and_ejected_endpoints_get_nothing_until_panic() -> None:
    endpoints = [endpoint(name) for name in "abcd"]
    endpoints[0] = replace(endpoints[0], healthy=False)
    balancer = ClusterBalancer(cluster(*endpoints), "", 0.0)
    assert set(draws(balancer, 500)) == {"b", "c", "d"}
    balancer.eject({"b"})
    assert not balancer.panic  # exactly half is not below half
    assert set(draws(balancer, 500)) == {"c", "d"}
    balancer.eject({"b", "c"})
    assert balancer.panic
    assert set(draws(balancer, 500)) == {"a", "b", "c", "d"}


def test_without_panic_threshold_no_healthy_endpoint_means_none() -> None:
    balancer = ClusterBalancer(cluster(endpoint("a", healthy=False), panic_threshold_percent=0), "", 0.0)
    assert balancer.choose(0.0, random.Random(1)) is None
    assert ClusterBalancer(cluster(), "", 0.0).choose(0.0, random.Random(1)) is None


def test_a_retry_goes_elsewhere_while_there_is_an_elsewhere() -> None:
    balancer = three()
    assert set(draws(balancer, 300, avoid={"a"})) == {"b", "c"}
    assert set(draws(balancer, 300, avoid={"a", "b"})) == {"c"}
    assert set(draws(balancer, 300, avoid={"a", "b", "c"})) == {"a", "b", "c"}


def test_load_survives_a_snapshot_swap_and_strangers_start_afresh() -> None:
    balancer = three()
    load = balancer.loads["a"]
    load.started()
    send(load, 0.0, 0.9)
    balancer.update(cluster(endpoint("a"), endpoint("d")), 1.0)
    assert balancer.loads["a"] is load
    assert load.pending == 1
    assert set(balancer.loads) == {"a", "d"}
    balancer.update(cluster(endpoint("a"), endpoint("d"), balancer="random"), 1.0)
    assert set(draws(balancer, 200)) == {"a", "d"}


@pytest.mark.parametrize(("near_healthy", "share"), [(10, 1.0), (8, 1.0), (5, 0.7), (1, 0.14)])
def test_the_own_zone_is_preferred_while_enough_of_it_is_healthy(near_healthy: int, share: float) -> None:
    near = [endpoint(f"near{index}", zone="z1", healthy=index < near_healthy) for index in range(10)]
    far = [endpoint(f"far{index}", zone="z2") for index in range(10)]
    balancer = ClusterBalancer(cluster(*near, *far, locality_preferred=True), "z1", 0.0)
    found = draws(balancer, 4000)
    got = sum(count for name, count in found.items() if name.startswith("near")) / 4000
    assert got == pytest.approx(share, abs=0.03)


def test_locality_is_ignored_unless_asked_for_and_without_near_endpoints() -> None:
    endpoints = (endpoint("near", zone="z1"), endpoint("far", zone="z2"))
    assert set(draws(ClusterBalancer(cluster(*endpoints), "z1", 0.0), 200)) == {"near", "far"}
    preferred = cluster(*endpoints, locality_preferred=True)
    assert set(draws(ClusterBalancer(preferred, "z3", 0.0), 200)) == {"near", "far"}
    assert set(draws(ClusterBalancer(preferred, "z1", 0.0), 200)) == {"near"}
    assert set(draws(ClusterBalancer(preferred, "z1", 0.0), 200, avoid={"near"})) == {"far"}


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=8),
    st.sampled_from(["p2c_ewma", "least_request", "round_robin", "random"]),
    st.integers(0, 100),
    st.booleans(),
)
def test_the_choice_is_always_available(
    states: list[tuple[bool, bool]], kind: Balancer, panic: int, locality: bool
) -> None:
    endpoints = [
        endpoint(f"e{index}", healthy=healthy, zone="z1" if index % 2 else "z2")
        for index, (healthy, _) in enumerate(states)
    ]
    ejected = {f"e{index}" for index, (_, out) in enumerate(states) if out}
    balancer = ClusterBalancer(
        cluster(*endpoints, balancer=kind, panic_threshold_percent=panic, locality_preferred=locality),
        "z1",
        0.0,
    )
    balancer.eject(ejected)
    available = {each.id for each in endpoints if each.healthy and each.id not in ejected}
    assert balancer.panic == (len(available) * 100 < len(endpoints) * panic)
    wanted = {each.id for each in endpoints} if balancer.panic else available
    assert {load.endpoint.id for load in (*balancer._pool, *balancer._near)} == wanted
    assert set(draws(balancer, 30)) <= wanted
    assert (balancer.choose(0.0, random.Random(0)) is None) == (not wanted)

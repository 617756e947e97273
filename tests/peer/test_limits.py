"""Limits while edits are not settled: the tightest of all readings, exactly."""

from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from peer.catalog import PolicyEntry
from peer.compile import compile_snapshot
from peer.limits import tightest
from peer.policies import Reader
from proxy.snapshot import CircuitBreaker
from tests.peer.meshview import entry, instance, view

FIELDS = ("maxConnections", "maxPendingRequests", "maxRequests")


def traffic(*services: str, **breaker: int) -> dict[str, Any]:
    """A version that targets these services."""
    refs = [{"kind": "Service", "name": each} for each in services]
    return {"targetRefs": refs, "circuitBreaker": breaker, "timeouts": {"connect": "1s"}}


def limits(*policies: PolicyEntry, service: str = "cart") -> tuple[int, int, int]:
    """What the snapshot has for a service."""
    items = [instance("cart"), instance("pay", on=["80:9090"]), *policies]
    clusters = compile_snapshot(view(*items), version=1).snapshot.clusters
    (breaker,) = {each.breaker for each in clusters if each.name.startswith(f"{service}.")}
    return breaker.connections_max, breaker.pending_max, breaker.requests_max


def test_of_each_limit_the_least_holds_whichever_version_is_the_effective_one() -> None:
    one, two = (
        traffic("cart", maxConnections=10, maxRequests=500),
        traffic("cart", maxConnections=20, maxRequests=5),
    )
    for versions in ((one, two), (two, one)):
        assert limits(entry("TrafficPolicy", "p", *versions)) == (10, 1024, 5)
        assert limits(entry("TrafficPolicy", "p", *versions), service="pay") == (1024, 1024, 1024)


def test_a_version_that_takes_a_limit_away_does_not_take_it_away_yet() -> None:
    assert limits(entry("TrafficPolicy", "p", traffic("cart"), traffic("cart", maxRequests=5))) == (
        1024,
        1024,
        5,
    )
    assert limits(entry("TrafficPolicy", "p", traffic("pay"), traffic("cart", maxRequests=5))) == (
        1024,
        1024,
        5,
    )


def test_a_limit_above_the_default_is_none_while_another_version_does_not_give_it() -> None:
    large = traffic("cart", maxConnections=5000)
    assert limits(entry("TrafficPolicy", "p", large)) == (5000, 1024, 1024)
    assert limits(entry("TrafficPolicy", "p", large, traffic("cart"))) == (1024, 1024, 1024)
    assert limits(entry("TrafficPolicy", "p", large, traffic("pay"))) == (1024, 1024, 1024)


def test_the_next_policy_by_name_counts_where_the_first_may_not_target_the_service() -> None:
    second = entry("TrafficPolicy", "q", traffic("cart", maxConnections=3))
    unsure = entry("TrafficPolicy", "p", traffic("cart", maxConnections=10), traffic("pay"))
    sure = entry("TrafficPolicy", "p", traffic("cart", maxConnections=10), traffic("cart", maxConnections=9))
    assert limits(unsure, second) == (3, 1024, 1024)
    assert limits(sure, second) == (9, 1024, 1024)
    elsewhere = entry("TrafficPolicy", "other/q", traffic("cart", maxConnections=3))
    assert limits(unsure, elsewhere) == (10, 1024, 1024)


def test_settled_policies_are_not_named() -> None:
    policies = Reader().read(
        [entry("TrafficPolicy", "p", traffic("cart", maxRequests=5)), entry("HTTPRoute", "r", {})]
    )
    assert tightest(policies) == {}


def test_a_version_that_cannot_be_read_restricts_nothing() -> None:
    broken = {"targetRefs": [{"kind": "Service", "name": "cart"}], "circuitBreaker": {"maxRequests": -1}}
    assert limits(entry("TrafficPolicy", "p", traffic("cart", maxRequests=50), broken)) == (1024, 1024, 50)


VERSIONS = st.builds(
    lambda services, given: traffic(*services, **given),
    st.lists(st.sampled_from(["cart", "pay"]), min_size=1, max_size=2, unique=True),
    st.dictionaries(st.sampled_from(FIELDS), st.sampled_from([1, 7, 1024, 5000]), max_size=3),
)


@given(st.lists(st.lists(VERSIONS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_it_is_the_least_over_all_ways_to_settle(given_policies: list[list[dict[str, Any]]]) -> None:
    now = limits(*(entry("TrafficPolicy", f"p{n}", *versions) for n, versions in enumerate(given_policies)))
    settled = [
        limits(*(entry("TrafficPolicy", f"p{n}", version) for n, version in enumerate(choice)))
        for choice in product(*given_policies)
    ]
    assert now == tuple(map(min, zip(*settled, strict=True)))
    assert CircuitBreaker() == CircuitBreaker(connections_max=1024, pending_max=1024, requests_max=1024)

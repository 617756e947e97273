"""Concurrent edits at two whole peers: everybody sees them, the strictest reading holds, the next edit settles them."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from proxy.authorize import RequestFacts, compile_authorization
from proxy.snapshot import Snapshot
from tests.peer.test_daemon import Host, hosts, pair, service

__all__ = ["hosts"]  # a fixture


def deny(*paths: str) -> dict[str, Any]:
    rule = {"to": [{"operation": {"paths": list(paths)}}]}
    return policy("AuthorizationPolicy", "security.istio.io/v1", action="DENY", rules=[rule])


def allow(*callers: str) -> dict[str, Any]:
    sources = [{"source": {"principals": [f"cluster.local/ns/default/sa/{each}"]}} for each in callers]
    return policy("AuthorizationPolicy", "security.istio.io/v1", action="ALLOW", rules=[{"from": sources}])


def limit(**breaker: int) -> dict[str, Any]:
    return policy("TrafficPolicy", "gossamer.dev/v1", circuitBreaker=breaker)


def policy(kind: str, version: str, **spec: Any) -> dict[str, Any]:
    refs = [{"kind": "Service", "name": "shop"}]
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "one"},
        "spec": {"targetRefs": refs} | spec,
    }


async def at_once(one: Host, other: Host, mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Both edit before either hears of the other."""
    assert one.operations is not None
    assert other.operations is not None
    results = await asyncio.gather(
        one.operations.apply([mine], "mine.yaml"), other.operations.apply([theirs], "theirs.yaml")
    )
    assert [rows[0]["action"] for rows in results] == ["created", "created"]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.01)


MEANWHILE = {
    "AuthorizationPolicy": "what any of them denies is denied",
    "HTTPRoute": "the latest is in force",
    "TrafficPolicy": "the tightest of their limits hold",
}


async def conflict(host: Host, kind: str) -> bool:
    assert host.operations is not None
    (shown,) = await host.operations.get(kind, "default", "one")
    return bool(shown["status"]["conflict"])


async def both_see_it(one: Host, two: Host, kind: str) -> None:
    """In get, describe, history and check, at both, and the same version in force."""
    for host in (one, two):
        await until(partial(conflict, host, kind))
    in_force = set()
    for host in (one, two):
        assert host.operations is not None
        (shown,) = await host.operations.get(kind, "default", "one")
        in_force.add(shown["status"]["version"])
        assert {each["authorName"] for each in shown["status"]["conflicts"]} == {"host-1", "host-2"}
        described = await host.operations.describe(kind, "default", "one")
        assert {each["authorName"] for each in described["versions"]} == {"host-1", "host-2"}
        assert all(each["writtenAt"] and each["document"] for each in described["versions"])
        await until(partial(enforced, host, kind))
        described = await host.operations.describe(kind, "default", "one")
        (condition,) = [each for each in described["status"]["conditions"] if each["type"] == "Conflicted"]
        assert f"the next edit settles them; until then {MEANWHILE[kind]}" in condition["message"]
        rows = await host.operations.history(kind, "default", "one")
        assert [row["state"] for row in rows] == ["conflicting", "conflicting"]
        assert await host.checked("conflicts") == ("warn", f"concurrent edits: {kind}/default/one")
    assert len(in_force) == 1


async def enforced(host: Host, kind: str) -> bool:
    """Whether the data plane's own word on it says that there is a conflict."""
    assert host.daemon is not None
    status = host.daemon.dataplane.statuses.get(f"{kind}/default/one")
    return status is not None and any(each.type == "Conflicted" for each in status.conditions)


async def settled(one: Host, two: Host, kind: str, document: dict[str, Any]) -> None:
    """One edit, made at one peer by somebody who saw both, ends it at both."""
    assert two.operations is not None
    (row,) = await two.operations.apply([document], "f.yaml", wait_percent=100)
    assert row["action"] == "configured"
    for host in (one, two):
        assert host.operations is not None
        assert not await conflict(host, kind)
        (shown,) = await host.operations.get(kind, "default", "one")
        assert shown["spec"] == document["spec"]
        assert await host.checked("conflicts") == ("ok", "none")
        latest = (await host.operations.history(kind, "default", "one"))[0]
        assert (latest["state"], len(latest["replaced"])) == ("current", 2)


def snapshot(host: Host) -> Snapshot:
    return host.plane.snapshots[-1]


def allowed(host: Host, path: str, caller: str = "web") -> bool:
    (inbound,) = {each.authorization for each in snapshot(host).inbound if each.service == "shop"}
    facts = RequestFacts(principal=f"spiffe://cluster.local/ns/default/sa/{caller}", method="GET", path=path)
    return compile_authorization(inbound).decide(facts).allowed


@pytest.fixture
async def shops(hosts: Any) -> tuple[Host, Host]:
    """Two peers, each with a shop."""
    one, two = await pair(hosts)
    for host in (one, two):
        assert host.operations is not None
        await host.operations.register([service("shop", address=host.address)], "shop.yaml")
    return one, two


async def test_what_either_edit_denies_is_denied_until_somebody_settles_it(shops: tuple[Host, Host]) -> None:
    one, two = shops
    await at_once(one, two, deny("/a"), deny("/b"))
    await both_see_it(one, two, "AuthorizationPolicy")
    for host in (one, two):
        assert [allowed(host, path) for path in ("/a", "/b", "/c")] == [False, False, True]
    await settled(one, two, "AuthorizationPolicy", deny("/b"))
    for host in (one, two):
        assert [allowed(host, path) for path in ("/a", "/b", "/c")] == [True, False, True]


async def test_only_whom_both_edits_allow_is_allowed(shops: tuple[Host, Host]) -> None:
    one, two = shops
    await at_once(one, two, allow("web", "job"), allow("web", "ops"))
    await both_see_it(one, two, "AuthorizationPolicy")
    for host in (one, two):
        assert [allowed(host, "/", caller) for caller in ("web", "job", "ops")] == [True, False, False]
    await settled(one, two, "AuthorizationPolicy", allow("web", "ops"))
    for host in (one, two):
        assert [allowed(host, "/", caller) for caller in ("web", "job", "ops")] == [True, False, True]


async def test_the_tighter_of_two_limits_holds(shops: tuple[Host, Host]) -> None:
    one, two = shops
    await at_once(
        one, two, limit(maxConnections=10, maxRequests=500), limit(maxConnections=20, maxRequests=5)
    )
    await both_see_it(one, two, "TrafficPolicy")

    def limits(host: Host) -> set[tuple[int, int]]:
        return {(each.breaker.connections_max, each.breaker.requests_max) for each in snapshot(host).clusters}

    assert limits(one) == limits(two) == {(10, 5)}
    await settled(one, two, "TrafficPolicy", limit(maxConnections=20, maxRequests=500))
    assert limits(one) == limits(two) == {(20, 500)}


async def test_an_edit_survives_a_deletion_that_did_not_see_it(shops: tuple[Host, Host]) -> None:
    one, two = shops
    assert one.operations is not None
    assert two.operations is not None
    await one.operations.apply([deny("/a")], "f.yaml", wait_percent=100)
    await asyncio.gather(
        one.operations.delete([("AuthorizationPolicy", "default", "one")]),
        two.operations.apply([deny("/a", "/b")], "f.yaml"),
    )

    async def same() -> bool:
        states = [
            [row["version"] for row in await host.operations.history("AuthorizationPolicy", "default", "one")]
            for host in (one, two)
            if host.operations is not None
        ]
        return len(states[0]) == 3 and set(states[1]) <= set(states[0])

    await until(same)
    for host in (one, two):
        await until(partial(_denies, host))
        assert not await conflict(host, "AuthorizationPolicy")


async def _denies(host: Host) -> bool:
    return not allowed(host, "/a") and not allowed(host, "/b")


async def test_several_documents_are_one_edit_at_the_peer_they_are_applied_at(
    shops: tuple[Host, Host],
) -> None:
    one, _ = shops
    assert one.operations is not None
    names = [f"p{number}" for number in range(20)]

    def served() -> list[int]:
        """How many of them were in force, snapshot by snapshot."""
        return [
            len(each.authorization.deny)
            for shown in one.plane.snapshots
            for each in shown.inbound
            if each.service == "shop"
        ]

    documents = [deny(f"/{name}") | {"metadata": {"name": name}} for name in names]
    rows = await one.operations.apply(documents, "f.yaml", wait_percent=100)
    assert [row["name"] for row in rows] == names
    assert served()[-1] == 20
    await one.operations.delete(
        [("AuthorizationPolicy", "default", name) for name in names], wait_percent=100
    )
    assert served()[-1] == 0
    assert set(served()) == {0, 20}

"""Keeping a plane served: once for a burst, whole or not at all, and again when what was in the way has gone."""

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

import peer.compile
import peer.dataplane
from peer.catalog import PolicyEntry, ServiceInstance, ServicePort, View
from peer.dataplane import DataPlane, Situation
from peer.sockets import BindError, ListeningSockets, Places
from proxy.plane import Applied, Rejected
from proxy.snapshot import Limits, Snapshot
from tests.peer.meshview import entry

HOST = "127.10.4.2"
W = b"w" * 16


class Plane:
    """Remembers what it was given; rejects while `reason` says why."""

    def __init__(self) -> None:
        self.reason = ""
        self.applied: list[Snapshot] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def apply(self, snapshot: Snapshot, sockets: Mapping[str, socket.socket]) -> Applied | Rejected:
        await self.gate.wait()
        assert {listener.name for listener in snapshot.listeners} <= set(sockets)
        if self.reason:
            return Rejected(version=snapshot.version, reason=self.reason)
        self.applied.append(snapshot)
        return Applied(version=snapshot.version)


def view(*upstreams: int, zone: str = "") -> View:
    local = ServiceInstance(
        node="me", node_name="me", host=HOST, inbound_port=0, zone=zone, reachable=True, namespace="default",
        name="shop", account="shop", address=HOST,
        ports=(ServicePort(name="", port=80, target=8080, protocol="http"),), labels=(), health="unknown",
        upstreams=tuple(("default", "cart", 0, port) for port in upstreams),
    )  # fmt: skip
    return View(node="me", node_name="me", trust_domain="cluster.local", zone=zone, services=(local,))


class Desk:
    def __init__(self) -> None:
        self.situation = Situation(view=view(), heads={}, certificates={}, trust_bundle_pem=b"")
        self.plane = Plane()
        self.asked = 0
        places = Places(bind=HOST, loopback=HOST, inbound_port=0, outbound_port=0)
        self.dataplane = DataPlane(
            plane=self.plane,  # type: ignore[arg-type]
            sockets=ListeningSockets(places),
            situation=self._situation,
            limits=Limits(),
        )
        self.running = asyncio.create_task(self.dataplane.run())

    def _situation(self) -> Situation:
        self.asked += 1
        return self.situation

    def becomes(self, **changes: Any) -> None:
        self.situation = replace(self.situation, **changes)
        self.dataplane.changed()


@pytest.fixture
async def desk() -> Any:
    made = Desk()
    yield made
    made.running.cancel()
    await asyncio.gather(made.running, return_exceptions=True)
    made.dataplane.sockets.close()


def free_port() -> int:
    with socket.socket() as held:
        held.bind((HOST, 0))
        return int(held.getsockname()[1])


def reachable(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((HOST, port)) == 0


async def test_a_burst_of_changes_is_one_snapshot(desk: Desk) -> None:
    for seq in range(1, 100):
        desk.becomes(heads={W: seq})
    await desk.dataplane.wait_enforced({W: 99})
    assert desk.asked == 1
    assert len(desk.plane.applied) == 1


async def test_what_changes_nothing_for_the_plane_is_enforced_without_it(desk: Desk) -> None:
    desk.becomes(heads={W: 1})
    await desk.dataplane.wait_enforced({W: 1})
    desk.becomes(heads={W: 2})
    await desk.dataplane.wait_enforced({W: 2})
    assert [snapshot.version for snapshot in desk.plane.applied] == [1]


async def test_a_rejected_snapshot_leaves_the_last_one_and_is_tried_again(
    desk: Desk, until: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(peer.dataplane, "RETRY_S", 0.01)
    desk.becomes(heads={W: 1})
    await desk.dataplane.wait_enforced({W: 1})
    served = desk.dataplane.served
    desk.plane.reason = "a worker is gone"
    desk.becomes(heads={W: 2}, view=view(zone="b"))
    await until(lambda: desk.asked > 4)
    assert desk.dataplane.rejected == "a worker is gone"
    assert desk.dataplane.served is served
    assert desk.dataplane.enforced == {W: 1}
    assert [record.message for record in caplog.records].count("snapshot_rejected") == 1
    desk.plane.reason = ""
    await desk.dataplane.wait_enforced({W: 2})
    assert desk.dataplane.rejected == ""


async def test_a_change_that_is_being_made_keeps_its_port_and_one_undone_gives_it_back(
    desk: Desk, until: Any
) -> None:
    port = free_port()
    desk.dataplane.reserve(view(port))
    desk.becomes(heads={W: 1})
    await desk.dataplane.wait_enforced({W: 1})
    assert reachable(port)
    desk.dataplane.settle()
    await until(lambda: not reachable(port))


async def test_a_port_in_use_is_refused_before_anything_changes(desk: Desk) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port, other = taken.getsockname()[1], free_port()
        with pytest.raises(BindError, match=str(port)):
            desk.dataplane.reserve(view(port, other))
    assert not reachable(other)


async def test_a_port_lost_meanwhile_keeps_the_last_snapshot_and_comes_back_by_itself(
    desk: Desk, monkeypatch: Any, until: Any
) -> None:
    monkeypatch.setattr(peer.dataplane, "RETRY_S", 0.01)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        desk.becomes(heads={W: 1}, view=view(port))
        await until(lambda: str(port) in desk.dataplane.rejected)
        assert desk.plane.applied == []
    await desk.dataplane.wait_enforced({W: 1})
    assert reachable(port)


# ------------------------------------------------------------------ bad policies


def timeouts(name: str, seconds: str = "5s", seq: int = 1) -> PolicyEntry:
    made = entry(
        "TrafficPolicy",
        name,
        {"targetRefs": [{"kind": "Service", "name": name}], "timeouts": {"request": seconds}},
    )
    return replace(made, versions=(replace(made.versions[0], seq=seq),))


async def test_a_mistake_of_the_compiler_is_logged_once_and_enforces_the_rest(
    desk: Desk, monkeypatch: Any, caplog: Any
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a mistake")

    caplog.set_level("DEBUG")
    monkeypatch.setattr(peer.compile, "with_traffic_policy", broken)
    for seq in (1, 2):
        desk.becomes(heads={W: seq}, view=replace(view(zone=str(seq)), policies=(timeouts("shop"),)))
        await desk.dataplane.wait_enforced({W: seq})
    assert not desk.dataplane.statuses["TrafficPolicy/default/shop"].accepted
    assert desk.dataplane.rejected == ""
    [told] = [record for record in caplog.records if record.message == "policy_quarantined"]
    assert told.fields["policy"] == "TrafficPolicy/default/shop"
    [debug] = [record for record in caplog.records if "policy_broke_the_compiler" in record.message]
    assert "ZeroDivisionError: a mistake" in debug.message

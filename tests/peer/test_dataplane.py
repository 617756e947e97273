"""Keeping a plane served: once for a burst, whole or not at all, and again when what was in the way has gone."""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

import peer.blame
import peer.compile
import peer.dataplane
from peer.blame import Situation
from peer.catalog import PolicyEntry, ServiceInstance, ServicePort, View
from peer.dataplane import DataPlane
from peer.quarantine import DEADLY, REJECTED
from peer.sockets import BindError, ListeningSockets, Places
from proxy.plane import Applied, OldWorker, Plane, Rejected, Telemetry
from proxy.snapshot import AuthzPolicy, AuthzRule, Limits, Snapshot
from tests.loopback import network
from tests.peer.meshview import OTHER, authz, entry, instance, route

HOST = f"{network(3)}.1"
W = b"w" * 16


class Remembering(Plane):
    """Remembers what it was given; rejects while `reason` says why."""

    def __init__(self) -> None:
        self.reason = ""
        self.applied: list[Snapshot] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.judge: Callable[[Snapshot], Rejected | None] = lambda _: None
        self.seen: list[Snapshot] = []
        self.ended: Callable[[int], None]

    def watch(self, ended: Callable[[int], None]) -> None:
        self.ended = ended

    async def apply(self, snapshot: Snapshot, sockets: Mapping[str, socket.socket]) -> Applied | Rejected:
        await self.gate.wait()
        assert {listener.name for listener in snapshot.listeners} <= set(sockets)
        self.seen.append(snapshot)
        rejected = self.judge(snapshot)
        if rejected is not None:
            return replace(rejected, version=snapshot.version)
        if self.reason:
            return Rejected(version=snapshot.version, reason=self.reason)
        self.applied.append(snapshot)
        return Applied(version=snapshot.version)

    async def start(self) -> None:
        """There is nothing to start."""

    async def drain(self, timeout_s: float) -> None:
        """There is nothing under way."""

    async def stop(self) -> None:
        """There is nothing to end."""

    def observations(self) -> Telemetry:
        return Telemetry(series={}, counters={}, ejections=(), connections=0)

    def processes(self) -> tuple[int, ...]:
        return ()

    async def bequeath(self) -> tuple[OldWorker, ...]:
        return ()

    async def adopt(self, workers: Sequence[OldWorker], drain_s: float) -> None:
        """There is nobody to adopt."""


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
        self.plane = Remembering()
        self.asked = 0
        places = Places(bind=HOST, loopback=HOST, inbound_port=0, outbound_port=0)
        self.dataplane = DataPlane(
            plane=self.plane,
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


async def test_what_has_to_be_prepared_is_in_pieces_between_which_the_loop_runs(desk: Desk) -> None:
    steps: list[str] = []
    loop = asyncio.get_running_loop()

    def read_ahead() -> bool:
        assert steps[-1:] != ["piece"]  # something else ran in between
        if steps.count("piece") == 3:
            return True
        steps.append("piece")
        loop.call_soon(steps.append, "other")
        return False

    desk.dataplane.read_ahead = read_ahead
    desk.becomes(heads={W: 1})
    await desk.dataplane.wait_enforced({W: 1})
    assert steps == ["piece", "other"] * 3
    assert desk.asked == 1


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


def mesh(*policies: PolicyEntry, zone: str = "") -> View:
    """The host's own service, and every service that a policy names, elsewhere."""
    services = tuple(instance(policy.name, OTHER) for policy in policies if policy.name != "shop")
    return replace(view(zone=zone), policies=policies, services=(*view().services, *services))


def obeyed(snapshot: Snapshot) -> dict[str, float]:
    """The request timeouts of services whose policy is in force."""
    return {d.service: d.request_timeout_s for d in snapshot.destinations if d.request_timeout_s != 15.0}


def refuse(
    *poison: float, fault: Any = "snapshot", name: bool = False
) -> Callable[[Snapshot], Rejected | None]:
    def judge(snapshot: Snapshot) -> Rejected | None:
        guilty = [service for service, timeout_s in obeyed(snapshot).items() if timeout_s in poison]
        if not guilty:
            return None
        keys = tuple(f"TrafficPolicy/default/{service}" for service in guilty) if name else ()
        return Rejected(version=0, reason=f"cannot do {guilty[0]}", fault=fault, policies=keys)

    return judge


def verdicts(desk: Desk) -> dict[str, str]:
    """Names of the policies that are not in force, and why."""
    return {
        key.rpartition("/")[2]: status.conditions[0].reason
        for key, status in desk.dataplane.statuses.items()
        if not status.accepted
    }


async def test_the_policies_a_reject_names_are_quarantined_and_the_rest_is_served(desk: Desk) -> None:
    desk.plane.judge = refuse(7.0, name=True)
    many = [timeouts(f"s{n:02}", "7s" if n in (3, 5) else "5s") for n in range(40)]
    desk.becomes(heads={W: 1}, view=mesh(*many))
    await desk.dataplane.wait_enforced({W: 1})
    assert verdicts(desk) == {"s03": REJECTED, "s05": REJECTED}
    assert len(obeyed(desk.plane.applied[-1])) == 38
    assert len(desk.plane.seen) == 2
    assert desk.dataplane.rejected == ""


async def test_nobody_named_exactly_the_culprits_are_found_among_what_is_new(desk: Desk, caplog: Any) -> None:
    old = [timeouts(f"old{n:02}") for n in range(30)]
    desk.becomes(heads={W: 1}, view=mesh(*old))
    await desk.dataplane.wait_enforced({W: 1})
    desk.plane.judge = refuse(7.0)
    new = [timeouts(f"new{n:02}", "7s" if n in (3, 17) else "5s") for n in range(32)]
    desk.plane.seen.clear()
    desk.becomes(heads={W: 2}, view=mesh(*old, *new))
    await desk.dataplane.wait_enforced({W: 2})
    assert verdicts(desk) == {"new03": REJECTED, "new17": REJECTED}
    condition = desk.dataplane.statuses["TrafficPolicy/default/new03"].conditions[0]
    assert condition.message == "cannot do new03"
    assert len(obeyed(desk.plane.applied[-1])) == 60
    assert len(desk.plane.seen) <= 24
    assert all(len(obeyed(snapshot)) >= 30 for snapshot in desk.plane.seen), "what was served stays in force"
    told = [record.fields["policy"] for record in caplog.records if record.message == "policy_quarantined"]
    assert sorted(told) == ["TrafficPolicy/default/new03", "TrafficPolicy/default/new17"]

    desk.plane.seen.clear()  # what is known is not tried again
    desk.becomes(heads={W: 3}, view=mesh(*old, *new, zone="b"))
    await desk.dataplane.wait_enforced({W: 3})
    assert len(desk.plane.seen) == 1
    assert set(verdicts(desk)) == {"new03", "new17"}


async def test_the_version_before_stays_in_force_until_an_edit_is_tried_anew(desk: Desk) -> None:
    desk.becomes(heads={W: 1}, view=mesh(timeouts("shop", "5s")))
    await desk.dataplane.wait_enforced({W: 1})
    desk.plane.judge = refuse(7.0)
    desk.becomes(heads={W: 2}, view=mesh(timeouts("shop", "7s", seq=2)))
    await desk.dataplane.wait_enforced({W: 2})
    assert obeyed(desk.plane.applied[-1]) == {"shop": 5.0}
    assert verdicts(desk) == {"shop": REJECTED}
    [condition] = desk.dataplane.statuses["TrafficPolicy/default/shop"].conditions
    assert condition.message == "cannot do shop; version w0:1 stays in force"
    desk.becomes(heads={W: 3}, view=mesh(timeouts("shop", "6s", seq=3)))
    await desk.dataplane.wait_enforced({W: 3})
    assert obeyed(desk.plane.applied[-1]) == {"shop": 6.0}
    assert verdicts(desk) == {}
    desk.becomes(heads={W: 4}, view=mesh(timeouts("shop", "7s", seq=4)))
    await desk.dataplane.wait_enforced({W: 4})
    desk.becomes(heads={W: 5}, view=mesh())
    await desk.dataplane.wait_enforced({W: 5})
    assert obeyed(desk.plane.applied[-1]) == {}, "what is deleted goes, in quarantine or not"
    assert len(desk.dataplane.quarantine) == 0


async def test_until_the_culprits_of_the_first_snapshot_are_found_nobody_is_let_in(desk: Desk) -> None:
    desk.plane.judge = refuse(7.0)
    lock = authz("lock", {}, action="DENY")
    desk.becomes(
        heads={W: 1}, view=mesh(lock, *(timeouts(f"s{n}", "7s" if n == 2 else "5s") for n in range(4)))
    )
    await desk.dataplane.wait_enforced({W: 1})
    *tried, last = desk.plane.applied
    assert tried
    nobody = AuthzPolicy(name="gossamer-system/starting", variants=((AuthzRule(),),))
    assert all(nobody in each.authorization.deny for snapshot in tried for each in snapshot.inbound)
    assert [[p.name for p in each.authorization.deny] for each in last.inbound] == [["default/lock"]] * 2
    assert verdicts(desk) == {"s2": REJECTED}


async def test_what_no_policy_is_to_blame_for_quarantines_none(desk: Desk, until: Any) -> None:
    desk.becomes(heads={W: 1}, view=mesh(timeouts("shop")))
    await desk.dataplane.wait_enforced({W: 1})
    desk.plane.judge = lambda snapshot: Rejected(version=0, reason="bad zone") if snapshot.zone else None
    desk.becomes(heads={W: 2}, view=mesh(timeouts("shop", "6s", seq=2), zone="bad"))
    await until(lambda: desk.dataplane.rejected == "bad zone")
    assert len(desk.dataplane.quarantine) == 0
    assert desk.dataplane.enforced == {W: 1}
    assert obeyed(desk.plane.applied[-1]) == {"shop": 5.0}


async def test_a_plane_that_is_busy_is_no_reason_to_search(desk: Desk, until: Any) -> None:
    desk.plane.judge = lambda _: Rejected(version=0, reason="a worker starts", fault="plane")
    desk.becomes(heads={W: 1}, view=mesh(timeouts("shop")))
    await until(lambda: desk.dataplane.rejected == "a worker starts")
    assert len(desk.plane.seen) == 1
    assert len(desk.dataplane.quarantine) == 0


async def test_an_earlier_version_that_is_refused_later_goes_too(desk: Desk) -> None:
    desk.becomes(heads={W: 1}, view=mesh(timeouts("shop", "5s")))
    await desk.dataplane.wait_enforced({W: 1})
    desk.plane.judge = refuse(7.0, name=True)
    desk.becomes(heads={W: 2}, view=mesh(timeouts("shop", "7s", seq=2)))
    await desk.dataplane.wait_enforced({W: 2})
    desk.plane.judge = refuse(5.0, 7.0, name=True)
    desk.plane.seen.clear()
    desk.becomes(heads={W: 3}, view=mesh(timeouts("shop", "7s", seq=2), zone="b"))
    await desk.dataplane.wait_enforced({W: 3})
    assert len(desk.plane.seen) == 2
    assert obeyed(desk.plane.applied[-1]) == {}
    assert verdicts(desk) == {"shop": REJECTED}


async def test_tries_are_bounded(desk: Desk, monkeypatch: Any) -> None:
    monkeypatch.setattr(peer.blame, "TRIES_MAX", 6)
    desk.plane.judge = refuse(7.0)
    desk.becomes(heads={W: 1}, view=mesh(*(timeouts(f"s{n}", "7s") for n in range(20))))
    await desk.dataplane.wait_enforced({W: 1})
    assert len(desk.plane.seen) <= 9
    assert len(verdicts(desk)) == 20


# ------------------------------------------------------------------ snapshots on which workers end


async def test_all_that_is_new_in_a_deadly_snapshot_is_quarantined_without_trying(desk: Desk) -> None:
    desk.becomes(heads={W: 1}, view=mesh(timeouts("old")))
    await desk.dataplane.wait_enforced({W: 1})
    desk.plane.judge = refuse(7.0, fault="deadly")
    desk.plane.seen.clear()
    new = (timeouts("bad", "7s"), timeouts("bystander", "6s"), timeouts("old", "6s", seq=2))
    desk.becomes(heads={W: 2}, view=mesh(*new))
    await desk.dataplane.wait_enforced({W: 2})
    assert verdicts(desk) == {"bad": DEADLY, "bystander": DEADLY, "old": DEADLY}
    assert obeyed(desk.plane.applied[-1]) == {"old": 5.0}
    assert len(desk.plane.seen) == 2


async def test_two_ends_of_workers_on_probation_bring_the_last_good_policies_back(
    desk: Desk, monkeypatch: Any, until: Any
) -> None:
    clock = 0.0
    monkeypatch.setattr(DataPlane, "_now_s", lambda _: clock)
    desk.becomes(heads={W: 1}, view=mesh(timeouts("shop"), timeouts("kept")))
    await desk.dataplane.wait_enforced({W: 1})
    clock = 40.0
    new = (timeouts("shop", "7s", seq=2), timeouts("kept"), timeouts("more", "6s"))
    desk.becomes(heads={W: 2}, view=mesh(*new))
    await desk.dataplane.wait_enforced({W: 2})
    desk.plane.ended(desk.plane.applied[-1].version)
    desk.becomes(heads={W: 3}, view=mesh(*new, zone="b"))  # something else changes in between
    await desk.dataplane.wait_enforced({W: 3})
    assert verdicts(desk) == {}
    desk.plane.ended(desk.plane.applied[-1].version)
    await until(lambda: verdicts(desk) == {"shop": DEADLY, "more": DEADLY})
    last = desk.plane.applied[-1]
    assert obeyed(last) == {"shop": 5.0, "kept": 5.0}
    assert last.zone == "b", "all else is as new as it was"
    [condition] = desk.dataplane.statuses["TrafficPolicy/default/shop"].conditions
    assert "ended 2 times within 30 s of serving it; version w0:1 stays in force" in condition.message


async def test_thousands_of_policies_at_once_do_not_hold_up_the_loop(desk: Desk) -> None:
    many = [
        timeouts(f"s{n % 100}-{n}") if n % 2 else route(f"r{n}", f"s{n % 100}", {"name": "shop"})
        for n in range(5000)
    ]
    desk.becomes(heads={W: 1}, view=replace(view(), policies=tuple(many)))
    done = asyncio.create_task(desk.dataplane.wait_enforced({W: 1}))
    turns = 0
    async with asyncio.timeout(60):
        while not done.done():
            await asyncio.sleep(0.001)
            turns += 1
    assert turns > 20, "reading and compiling all of them is one turn of the loop"
    assert len(desk.dataplane.statuses) == 5000

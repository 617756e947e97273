"""Bad policies that restrict access, and mistakes of ours: what the data plane serves meanwhile."""

from dataclasses import replace
from typing import Any

import pytest

import peer.blame
import peer.dataplane
from peer.catalog import PolicyEntry, View
from peer.dataplane import DataPlane
from peer.quarantine import DEADLY, ENDS_UNPROVEN_MAX, REJECTED, SUSPECTED
from proxy.authorize import RequestFacts, compile_authorization
from proxy.plane import Rejected
from proxy.resources.resource import ROOT_NAMESPACE
from proxy.snapshot import Snapshot
from tests.peer.meshview import authz
from tests.peer.test_dataplane import Desk, W, desk, timeouts, verdicts, view

__all__ = ["desk"]  # a fixture


def holding(*policies: PolicyEntry, zone: str = "") -> View:
    return replace(view(zone=zone), policies=policies)


def edit(policy: PolicyEntry, seq: int) -> PolicyEntry:
    return replace(policy, versions=tuple(replace(each, seq=seq) for each in policy.versions))


def denying(name: str, path: str) -> PolicyEntry:
    return authz(name, {"to": [{"operation": {"paths": [path]}}]}, action="DENY")


def allowed(snapshot: Snapshot, path: str) -> bool:
    (shop,) = {each.authorization for each in snapshot.inbound}
    return compile_authorization(shop).decide(RequestFacts(path=path)).allowed


def names(snapshot: Snapshot) -> set[str]:
    return {policy.name for each in snapshot.inbound for policy in each.authorization.deny}


async def becomes(desk: Desk, seq: int, *policies: PolicyEntry) -> Snapshot:
    desk.becomes(heads={W: seq}, view=holding(*policies, zone=str(seq)))
    await desk.dataplane.wait_enforced({W: seq})
    return desk.plane.applied[-1]


async def test_an_edit_that_cannot_be_read_leaves_the_version_before_in_force(desk: Desk) -> None:
    good, newer = denying("p", "/a"), edit(authz("p", {}, newer=1), 2)
    await becomes(desk, 1, good)
    last = await becomes(desk, 2, newer)
    assert (allowed(last, "/a"), allowed(last, "/b")) == (False, True)
    assert verdicts(desk) == {"p": "Invalid"}
    message = desk.dataplane.statuses["AuthorizationPolicy/default/p"].message
    assert message.endswith("version w0:1 stays in force")
    assert desk.dataplane.set_aside.keys() == {"AuthorizationPolicy/default/p"}, "the mesh hears of it"
    assert allowed(await becomes(desk, 3, newer), "/b"), "for as long as it is so"
    last = await becomes(desk, 4, edit(authz("p", {}, newer=2), 3))
    assert (allowed(last, "/a"), allowed(last, "/b")) == (False, True)
    assert allowed(await becomes(desk, 5, edit(denying("p", "/c"), 4)), "/a")
    assert verdicts(desk) == {}
    assert names(await becomes(desk, 6)) == set()


async def test_without_a_version_before_nobody_is_let_in_until_it_is_mended(desk: Desk) -> None:
    last = await becomes(desk, 1, authz("p", newer=1))
    assert not allowed(last, "/")
    assert verdicts(desk) == {"p": "Invalid"}
    assert not allowed(await becomes(desk, 2, edit(authz("p", newer=2), 2)), "/"), (
        "no version was ever obeyed"
    )
    assert allowed(await becomes(desk, 3, edit(denying("p", "/a"), 3)), "/")
    assert verdicts(desk) == {}


async def test_what_the_plane_refuses_keeps_out_whom_it_may_have_been_meant_for(desk: Desk) -> None:
    def judge(snapshot: Snapshot) -> Rejected | None:
        if not names(snapshot) or not allowed(snapshot, "/b"):
            return None
        return Rejected(version=0, reason="cannot do it", policies=("AuthorizationPolicy/default/p",))

    desk.plane.judge = judge
    last = await becomes(desk, 1, denying("p", "/a"))
    assert not allowed(last, "/b")
    assert verdicts(desk) == {"p": REJECTED}
    assert desk.dataplane.statuses["AuthorizationPolicy/default/p"].message.startswith("nobody is let in")


def deadly(*poison: str) -> Any:
    """Workers end on routes' timeouts of 7 s where "route" is in `poison`, and on authorization policies so named."""

    def judge(snapshot: Snapshot) -> Rejected | None:
        bad_route = "route" in poison and any(each.request_timeout_s == 7.0 for each in snapshot.destinations)
        bad = {
            policy.name
            for each in snapshot.inbound
            for policy in each.authorization.deny
            if policy.variants[0][0].operations
        }
        return Rejected(version=0, reason="ended", fault="deadly") if bad_route or bad & {*poison} else None

    return judge


async def test_one_that_ends_workers_takes_no_restriction_of_another_along(desk: Desk) -> None:
    await becomes(desk, 1)
    desk.plane.judge = deadly("route")
    poison = timeouts("shop", "7s")
    last = await becomes(desk, 2, denying(f"{ROOT_NAMESPACE}/p", "/a"), denying("q", "/b"), poison)
    assert [allowed(last, path) for path in ("/a", "/b", "/c")] == [False, False, True]
    assert verdicts(desk) == {"shop": DEADLY}


async def test_who_may_write_in_one_namespace_cannot_shut_the_mesh(desk: Desk) -> None:
    await becomes(desk, 1)
    desk.plane.judge = deadly("default/poison")
    root = denying(f"{ROOT_NAMESPACE}/p", "/a")
    last = await becomes(desk, 2, root, denying("poison", "/b"))
    assert verdicts(desk) == {"poison": DEADLY}
    assert names(last) == {f"{ROOT_NAMESPACE}/p", "default/poison"}
    assert not allowed(last, "/c"), "its own namespace is shut, as its author could have written"
    assert len(desk.plane.seen) == 5


async def test_the_same_while_it_serves(desk: Desk, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    clock = 0.0
    monkeypatch.setattr(DataPlane, "_now_s", lambda _: clock)
    await becomes(desk, 1)
    clock = 40.0
    root, poison = denying(f"{ROOT_NAMESPACE}/p", "/a"), denying("poison", "/b")
    await becomes(desk, 2, root, poison, timeouts("shop", "6s"))
    for held in ({"shop": DEADLY}, {"shop": DEADLY, "poison": DEADLY}):
        for _ in range(2):
            desk.plane.ended(desk.plane.applied[-1].version)
        await until(lambda held=held: verdicts(desk) == held)
    assert names(desk.plane.applied[-1]) == {f"{ROOT_NAMESPACE}/p", "default/poison"}


async def test_a_peer_that_joins_a_mesh_with_a_poison_in_it_gets_to_serve(desk: Desk, until: Any) -> None:
    """It has never seen the mesh without."""
    policies = (denying(f"{ROOT_NAMESPACE}/p", "/a"), denying("q", "/b"), timeouts("shop", "6s"))
    await becomes(desk, 1, *policies)
    for _ in range(ENDS_UNPROVEN_MAX - 1):
        desk.plane.ended(desk.plane.applied[-1].version)
    await becomes(desk, 2, *policies)
    assert verdicts(desk) == {}, "a start can be rough for other reasons"
    desk.plane.ended(desk.plane.applied[-1].version)
    await until(lambda: verdicts(desk) == {"shop": SUSPECTED})
    last = desk.plane.applied[-1]
    assert [allowed(last, path) for path in ("/a", "/b", "/c")] == [False, False, True]
    assert desk.dataplane.set_aside.keys() == {"TrafficPolicy/default/shop"}
    for _ in range(ENDS_UNPROVEN_MAX):
        desk.plane.ended(desk.plane.applied[-1].version)
    await until(lambda: verdicts(desk) == {"shop": SUSPECTED, "q": SUSPECTED})
    await becomes(desk, 3, *policies[:2], edit(timeouts("shop", "5s"), 2))
    assert verdicts(desk) == {"q": SUSPECTED}, "an edit is tried"


async def test_what_restricts_most_is_tried_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever publishes more bad policies than can be tried has none of it shut."""
    monkeypatch.setattr(peer.blame, "TRIES_MAX", 6)
    await becomes(desk, 1)
    bad = {f"default/a{n}" for n in range(20)}

    def judge(snapshot: Snapshot) -> Rejected | None:
        obeyed = {
            p.name
            for each in snapshot.inbound
            for p in each.authorization.deny
            if p.variants[0][0].operations
        }
        return Rejected(version=0, reason="bad") if obeyed & bad else None

    desk.plane.judge = judge
    await becomes(desk, 2, *(denying(name.removeprefix("default/"), "/x") for name in sorted(bad)),
                  denying(f"{ROOT_NAMESPACE}/p", "/a"))  # fmt: skip
    assert verdicts(desk).keys() == {f"a{n}" for n in range(20)}


async def test_a_policy_on_which_handing_over_breaks_is_found(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await becomes(desk, 1)

    def judge(snapshot: Snapshot) -> None:
        if "default/bad" in names(snapshot) and not allowed(snapshot, "/bad") and allowed(snapshot, "/"):
            raise OverflowError("a number it cannot hold")

    desk.plane.judge = judge
    last = await becomes(desk, 2, denying("bad", "/bad"), denying(f"{ROOT_NAMESPACE}/good", "/good"))
    assert verdicts(desk) == {"bad": REJECTED}
    assert not allowed(last, "/good")
    assert "snapshot_broke_the_plane" in caplog.text


async def test_holding_many_costs_no_more_for_each(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a mesh's policies are new to a peer that starts; gossip runs on the same loop."""
    await becomes(desk, 1)
    asked = 0
    key_of = peer.blame.key_of

    def counting(entry: PolicyEntry) -> str:
        nonlocal asked
        asked += 1
        return key_of(entry)

    monkeypatch.setattr(peer.blame, "key_of", counting)
    desk.plane.judge = deadly("route")
    many = [timeouts(f"s{n}", "6s") for n in range(300)]
    await becomes(desk, 2, timeouts("shop", "7s"), *many)
    assert len(verdicts(desk)) == 301
    assert asked < 10 * len(many)


async def test_a_mistake_of_ours_in_what_is_no_policy_ends_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(peer.dataplane, "RETRY_S", 0.01)
    served = await becomes(desk, 1, denying("p", "/a"))
    with monkeypatch.context() as broken:
        broken.setattr(peer.compile, "_reachable", lambda *_: 1 / 0)
        desk.becomes(heads={W: 2})
        await until(lambda: "ZeroDivisionError" in desk.dataplane.rejected)
        await until(lambda: desk.asked > 4)
        assert desk.plane.applied[-1] is served
        assert not desk.running.done()
        assert len([r for r in caplog.records if r.message == "view_broke_the_compiler"]) == 1
    await desk.dataplane.wait_enforced({W: 2})
    assert (desk.dataplane.rejected, verdicts(desk)) == ("", {})

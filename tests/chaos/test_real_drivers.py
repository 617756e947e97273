"""The drivers of real meshes, before anything is started: what they lack, what resolves, what is judged."""

import asyncio
import random
from pathlib import Path
from typing import cast

import pytest

from chaos.drivers.driver import Driver, DriverError
from chaos.drivers.fabric import Loopback, Router, Switch
from chaos.drivers.names import Names
from chaos.drivers.quota import Quotas
from chaos.drivers.real import NetnsDriver, ProcessDriver
from chaos.drivers.real_node import RealNode
from chaos.drivers.real_requests import Request, Requests, share_of, silent_sides
from chaos.drivers.real_watch import Policies, Views
from chaos.drivers.toxiproxy import ToxiproxyDriver
from chaos.experiment import Experiment, parse
from chaos.hypothesis import Invariant
from chaos.journal import Journal
from chaos.plan import resolve

NETNS, PROCESS, TOXIPROXY = NetnsDriver(), ProcessDriver(), ToxiproxyDriver()


def experiment(method: str, *, topology: str = "nodes: 4", more: str = "") -> Experiment:
    return resolve(
        parse(f"title: x\ntopology: {{{topology}}}\nmethod:\n- {{at: 1s, {method}}}\n{more}", "f.yaml")
    )


@pytest.mark.parametrize(
    ("driver", "method", "words"),
    [
        (NETNS, "fault: clock, offset: 1", "the clock of a real host is everybody's"),
        (NETNS, "fault: certificates, how: expire", "see the driver sim"),
        (NETNS, "fault: signers, how: revoke", "one signer, who founds it: see the driver sim"),
        (NETNS, "fault: signers, count: 2", "one signer, who founds it: see the driver sim"),
        (NETNS, "fault: version, version: 2", "see the driver sim"),
        (NETNS, "fault: kill, power: true", "power is everybody's: see the driver sim"),
        (NETNS, "fault: byzantine, lie: replay", "runs the real code"),
        (NETNS, "fault: tcp, how: reset", "see the driver toxiproxy"),
        (NETNS, "fault: disk, how: lying-fsync", "see the driver sim"),
        (NETNS, "fault: slow, each: 1ms", "give blocked and running"),
        (PROCESS, "fault: dns", "see the driver netns"),
        (PROCESS, "fault: partition", "see the driver netns"),
        (PROCESS, "fault: swizzle", "see the driver netns"),
        (TOXIPROXY, "fault: tcp, how: reset", "name one"),
    ],
)
def test_what_cannot_be_done_is_said_with_who_can(driver: Driver, method: str, words: str) -> None:
    (lack,) = driver.lacks(experiment(method))
    assert words in lack.why


@pytest.mark.parametrize(
    ("topology", "more", "words"),
    [
        ("nodes: 41", "", "41 real peers are too many"),
        ("nodes: 4, signers: 3", "", "see the driver sim"),
        ("nodes: 4, certificates: 60s", "", "see the driver sim"),
        ("nodes: 4", "rollbacks: [{at: 0s, fault: pause}]", "nothing else is done afterwards"),
        ("nodes: 4, start: cold, services: [{name: a, on: [n1]}]", "", "give warm"),
        ("nodes: 4", "steady-state-hypothesis: {invariants: [queues-are-bounded]}", "from outside a peer"),
    ],
)
def test_what_the_rest_of_a_file_asks_for_in_vain_is_said(topology: str, more: str, words: str) -> None:
    (lack,) = NETNS.lacks(experiment("fault: pause", topology=topology, more=more))
    assert words in lack.why


@pytest.mark.parametrize(
    ("driver", "method"),
    [
        (NETNS, "fault: dns"),
        (NETNS, "fault: signers"),
        (NETNS, "fault: certificates, how: revoke"),
        (PROCESS, "fault: certificates, how: revoke"),
        (PROCESS, "fault: descriptors, limit: 64"),
        (PROCESS, "fault: poison, effect: deny-all"),
    ],
)
def test_what_can_be_done_is_not_lacked(driver: Driver, method: str) -> None:
    assert driver.lacks(experiment(method)) == ()


def test_names_resolve_on_each_node_until_they_do_not(tmp_path: Path) -> None:
    names = Names({"gsmx-n0": "10.0.0.1", "gsmx-n1": "10.0.0.2"}, tmp_path)
    names.up()
    tables = [tmp_path / space / "hosts" for space in ("gsmx-n0", "gsmx-n1")]
    whole, inode = tables[0].read_text(), tables[0].stat().st_ino
    assert "10.0.0.2 n1.chaos.internal\n" in whole
    names.resolve(0, works=False)
    assert "chaos.internal" not in tables[0].read_text()
    assert "localhost" in tables[0].read_text()
    assert tables[1].read_text() == whole
    names.resolve(0, works=True)
    assert tables[0].read_text() == whole
    assert tables[0].stat().st_ino == inode, "processes that run have this very file over theirs"
    down = [["rm", "-rf", str(tmp_path / space)] for space in ("gsmx-n0", "gsmx-n1")]
    assert names.commands_down() == down, "what was there before stays"
    assert Names({"gsmx-n0": "10.0.0.1"}, tmp_path / "new").commands_down()[-1][0] == "rmdir"


def test_seeds_are_names_where_names_are_to_fail() -> None:
    assert Router("gsmx", 2).seed(1) == Router("gsmx", 2).host(1)
    for named in (Router("gsmx", 2, named=True), Switch("gsmx", 2, 1, named=True)):
        assert named.seed(1) == "n1.chaos.internal"
        assert ["rm", "-rf", "/etc/netns/gsmx-n1"] in named.commands_down()
    assert Loopback("127.64.1").seed(1) == "127.64.1.2"


def node(name: str, tmp_path: Path) -> RealNode:
    return RealNode(name, "127.64.1.1", (), tmp_path / name, zone="", profile="lan", mark="none")


def test_a_policy_that_was_acknowledged_is_there_and_one_that_was_deleted_is_not(tmp_path: Path) -> None:
    policies = Policies([node("n0", tmp_path)], random.Random(1), deletes=0.0, size=1)
    policies.acknowledged = {"p1": "n0", "p2": "n1", "p3": "n1"}
    policies.deleted = {"p3": "n1"}
    held = {"n0": frozenset({"p1", "p3"}), "n1": frozenset({"p1", "p2"})}
    assert [(each.invariant, each.node) for each in policies.broken(held, 1.0)] == [
        (Invariant.NO_LOSS.value, "n0"),
        (Invariant.NO_RESURRECTION.value, "n0"),
    ]


def test_what_a_revoked_node_said_counts_for_nothing(tmp_path: Path) -> None:
    policies = Policies([node("n0", tmp_path)], random.Random(1), deletes=0.0, size=1)
    policies.acknowledged = {"p1": "n0", "p2": "n1", "p3": "n0"}
    policies.deleted = {"p3": "n1"}
    policies.disown("n1")
    assert policies.broken({"n0": frozenset({"p1", "p3"})}, 1.0) == []
    assert policies.broken({"n0": frozenset({"p1"})}, 1.0) == []
    assert policies.unknown == {"p2"}
    (lost,) = policies.broken({"n0": frozenset()}, 1.0)
    assert "p1" in lost.what


def test_lanes_begin_with_the_story(tmp_path: Path) -> None:
    now = 9.0
    views = Views([node("n0", tmp_path)], lambda: now, [])
    asyncio.run(views.look())
    now = 0.1
    views.begin()
    asyncio.run(views.look())
    (lane,) = views.lanes()
    assert [at_s for at_s, _ in lane.truth] == [0.1]
    assert [seen.at_s for seen in lane.seen] == [0.1]


# ------------------------------------------------------------------ shares of processors


def test_a_share_of_a_processor_by_cgroups_of_version_1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    quotas = Quotas("gsmx", tmp_path)
    with pytest.raises(DriverError, match="no cgroup controller"):
        quotas.check()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").touch()
    quotas.check()
    quotas.limit("n1", [7], 0.2)
    group = tmp_path / "cpu" / "gsmx-n1"
    told = {each.name: each.read_text() for each in group.iterdir()}
    assert told == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "20000", "cgroup.procs": "7"}
    with pytest.raises(DriverError, match="not empty"):
        quotas.lift("n1")  # a directory, which no kernel empties
    assert (group / "cpu.cfs_quota_us").read_text() == "-1"
    assert (tmp_path / "cpu" / "cgroup.procs").read_text() == "7", "back where it came from"
    quotas.lift("n2")
    assert quotas.commands_down(["n1"]) == [["rmdir", str(group)]]


def test_a_share_of_a_processor_by_cgroups_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    quotas = Quotas("gsmx", tmp_path)
    quotas.check()
    quotas.limit("n1", [], 0.001)
    assert (tmp_path / "gsmx-n1" / "cpu.max").read_text() == "1000 100000", "the kernel takes no less"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    with pytest.raises(DriverError, match="not empty"):
        quotas.lift("n1")
    assert (tmp_path / "gsmx-n1" / "cpu.max").read_text() == "max 100000"


def test_where_no_group_can_be_made_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="give blocked and running"):
        Quotas("gsmx", tmp_path / "nowhere").limit("n1", [7], 0.2)


# ------------------------------------------------------------------ requests


def caller(tmp_path: Path, name: str, *told: tuple[float, bool]) -> Requests:
    process = cast("asyncio.subprocess.Process", None)  # it is never asked
    requests = [Request(at, ok, 200 if ok else 503, forbidden=False) for at, ok in told]
    return Requests(node(name, tmp_path), "echo", process, requests)


SERVED = """title: x
topology: {nodes: 4, services: [{name: echo, on: [n1]}]}
workload: {requests: [{service: echo, from: [n0, n3], rate: 1}]}
method: [{at: 1s, for: 20s, fault: partition, groups: [[n0, n1], [n2, n3]]}]
"""


def test_a_side_that_has_the_service_and_gets_nothing_from_it_is_told(tmp_path: Path) -> None:
    experiment = resolve(parse(SERVED, "f.yaml"))
    callers = [caller(tmp_path, "n0", (105.0, False), (130.0, True)), caller(tmp_path, "n3", (105.0, False))]
    (silent,) = silent_sides(callers, experiment, {0: (100.0, 120.0)})
    assert (silent.invariant, silent.what) == (
        "each-side-keeps-serving",
        "n0 got nothing from echo on its side of halves",
    )
    assert silent_sides(callers, experiment, {0: (100.0, 104.0)}) == [], "too short to say"
    callers[0] = caller(tmp_path, "n0", (101.0, False), (110.0, True))
    assert silent_sides(callers, experiment, {0: (100.0, 120.0)}) == []
    assert share_of(callers) == pytest.approx(1 / 3)
    assert share_of([]) is None


def test_a_control_run_is_the_same_with_nothing_done(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[int, float, float | None]] = []

    def once(_self: object, each: Experiment, _progress: object, control: float | None) -> Journal:
        runs.append((len(each.method), each.timeline_s, control))
        return Journal(experiment=each, driver="process", seed=1, figures={"success": 0.5})

    monkeypatch.setattr(ProcessDriver, "_once", once)
    given = experiment(
        "for: 4s, fault: pause", more="steady-state-hypothesis: {bounds: {success-against-control: 90%}}"
    )
    PROCESS.run(given, lambda _done, _total, _what: None)
    assert runs == [(0, 5.0, None), (1, 5.0, 0.5)]
    runs.clear()
    PROCESS.run(experiment("for: 4s, fault: pause"), lambda _done, _total, _what: None)
    assert runs == [(1, 5.0, None)]

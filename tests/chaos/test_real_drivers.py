"""The drivers of real meshes, before anything is started: what they lack, what resolves, what is judged."""

import random
from pathlib import Path

import pytest

from chaos.drivers.driver import Driver
from chaos.drivers.fabric import Loopback, Router, Switch
from chaos.drivers.names import Names
from chaos.drivers.real import NetnsDriver, ProcessDriver
from chaos.drivers.real_node import RealNode
from chaos.drivers.real_watch import Policies
from chaos.drivers.toxiproxy import ToxiproxyDriver
from chaos.experiment import Experiment, parse
from chaos.hypothesis import Invariant
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
        (NETNS, "fault: byzantine, lie: replay", "runs the real code"),
        (NETNS, "fault: tcp, how: reset", "see the driver toxiproxy"),
        (NETNS, "fault: disk, how: lying-fsync", "not implemented"),
        (NETNS, "fault: slow, each: 1ms", "give blocked and running"),
        (NETNS, "fault: poison, effect: kills-worker", "no policy that ends a worker is known"),
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

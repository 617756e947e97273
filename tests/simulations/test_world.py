"""Hosts that crash, restart, stop, lag and leave; the nodes are real."""

import gc
import random
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from gossip.config import DATAGRAM_BYTES_MAX
from gossip.member import State
from peer.messages import DatagramReceived, Draft, Lagged, MemberMoved, SendDatagram, Tick, Written
from peer.node import Node
from simulations.host import INBOX_DATAGRAMS_MAX, Host, Keeps
from simulations.loop import SimulationError
from simulations.network import Latency, apart
from simulations.world import REAL_CRYPTO_MAX, World

Build = Callable[..., World]


def inputs_of(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Any]]:
    """What its node is given from now on."""
    given: list[tuple[float, Any]] = []
    node = host.node
    assert node is not None
    step = node.step

    def noting(now: float, event: Any) -> Any:
        given.append((now, event))
        return step(now, event)

    monkeypatch.setattr(node, "step", noting)
    return given


@pytest.mark.parametrize("crypto", ["real", "model"])
def test_nodes_that_join_through_one_seed_see_one_another(mesh_of: Build, crypto: str) -> None:
    world = mesh_of(8, crypto=crypto)
    assert all(len(host.states()) == 8 for host in world.hosts)
    assert world.live() == world.hosts


@pytest.mark.parametrize("power", [False, True])
def test_a_crash_is_noticed_and_a_restart_is_the_same_node_with_a_higher_boot(
    mesh_of: Build, power: bool
) -> None:
    world = mesh_of(6)
    host = world.hosts[3]
    node, boot = host.id, host.boot
    world.crash(host, power=power)
    assert host not in world.live()
    assert world.run_until(lambda: world.all_see(host, State.DEAD), within_s=20) is not None
    assert world.converged()
    world.restart(host)
    assert world.run_until(world.converged, within_s=10) is not None
    assert host.id == node
    assert host.boot > boot
    assert all(len(other.states()) == 6 for other in world.hosts)


def test_a_host_that_lost_its_identity_is_another_node_and_the_old_one_dies(mesh_of: Build) -> None:
    world = mesh_of(5)
    host = world.hosts[2]
    old = host.id
    world.restart(host, Keeps.NOTHING)
    assert host.id != old
    assert world.run_until(world.converged, within_s=30) is not None
    assert all(other.states()[old] is State.DEAD for other in world.hosts if other is not host)


def test_a_host_that_lost_its_disk_gets_its_own_journal_back_before_it_writes(mesh_of: Build) -> None:
    world = mesh_of(4)
    host, answers = world.hosts[1], []
    world.on_written.append(lambda _host, written: answers.append(written))
    world.write(host, Draft(kind="note", key="k", payload=b"one"))
    world.run(3)
    world.restart(host, Keeps.IDENTITY)
    assert host.node is not None
    assert host.node.journal.get(host.id, "note", "k") is None
    world.write(host, Draft(kind="note", key="k", payload=b"two"))
    world.run(5)
    assert [type(answer) for answer in answers] == [Written, Written]
    assert [answer.records[0].seq for answer in answers] == [1, 2]
    assert not any(other.node.journal.forks for other in world.hosts if other.node)


def test_what_was_acknowledged_survives_a_crash_of_the_writer_alone(mesh_of: Build) -> None:
    world = mesh_of(1)
    host, answers = world.hosts[0], []
    world.on_written.append(lambda _host, written: answers.append(written))
    world.write(host, Draft(kind="note", key="k", payload=b"v"))
    world.run(0.0005)
    assert answers == []  # not before it is on disk
    world.run(0.01)
    assert len(answers) == 1
    world.restart(host)
    assert host.node is not None
    record = host.node.journal.get(host.id, "note", "k")
    assert record is not None
    assert record.payload == b"v"


@pytest.mark.parametrize(("power", "kept"), [(False, True), (True, False)])
def test_what_a_lying_disk_said_it_had_goes_with_the_power_only(
    mesh_of: Build, power: bool, kept: bool
) -> None:
    world = mesh_of(1)
    host, lives = world.hosts[0], []
    world.on_life.append(lambda _host, what: lives.append(what))
    host.disk.lie()
    world.write(host, Draft(kind="note", key="k", payload=b"v"))
    world.run(0.1)
    world.crash(host, power=power)
    assert lives == (["crash"] if kept else ["crash", "disk lost"])
    assert bool(host.disk.records) is kept


def test_who_leaves_is_seen_as_left_and_its_process_ends(mesh_of: Build) -> None:
    world = mesh_of(5)
    host = world.hosts[4]
    world.leave(host)
    world.run(3)
    assert not host.up
    assert host.departed
    assert world.all_see(host, State.LEFT)
    world.restart(host)
    assert world.run_until(world.converged, within_s=10) is not None


def test_a_stopped_process_is_given_late_timers_first_and_then_what_waited(
    mesh_of: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = mesh_of(3)
    host = world.hosts[1]
    given = inputs_of(host, monkeypatch)
    world.stop(host)
    world.run(3)
    assert given == []
    assert host.inbox
    resumed_at = world.now
    world.resume(host)
    world.run(0.01)
    assert [type(event) for _, event in given[:2]] == [Lagged, Tick]
    assert given[0][1].lag_s == pytest.approx(3, abs=1.0)
    assert DatagramReceived in {type(event) for _, event in given}
    assert given[0][0] == resumed_at
    assert not host.inbox
    assert world.run_until(world.converged, within_s=10) is not None


def test_the_buffer_of_a_stopped_process_is_bounded(mesh_of: Build) -> None:
    world = mesh_of(3)
    host = world.hosts[1]
    world.stop(host)
    for _ in range(INBOX_DATAGRAMS_MAX + 10):
        world._datagram(host, DatagramReceived(source=world.hosts[0].address, data=b"x"))
    assert host.datagrams_waiting == INBOX_DATAGRAMS_MAX
    assert host.traffic.datagrams_overflowed == 10
    world.resume(host)
    world.run(1)
    assert host.datagrams_waiting == 0


def test_a_slow_host_takes_its_time_for_each_input_and_nothing_overtakes(
    mesh_of: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = mesh_of(3, crypto="real")
    host = world.hosts[1]
    host.service_s = 0.05
    given = inputs_of(host, monkeypatch)
    for number in range(4):
        world._datagram(host, DatagramReceived(source=world.hosts[0].address, data=bytes([number])))
    world.run(1)
    mine = [
        (at, event) for at, event in given if isinstance(event, DatagramReceived) and len(event.data) == 1
    ]
    assert [event.data[0] for _, event in mine] == [0, 1, 2, 3]
    assert mine[-1][0] - mine[0][0] >= 0.15 - 1e-6
    times = [at for at, event in given if not isinstance(event, Lagged | Tick)]
    assert all(later - sooner >= 0.05 - 1e-6 for sooner, later in pairwise(times))


def test_costs_make_what_is_sent_leave_later(mesh_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = mesh_of(2, crypto="real", within=Latency(base_s=0.001))
    slow = mesh_of(2, crypto="model", within=Latency(base_s=0.001))
    for world, least_s, most_s in ((quick, 0.002, 0.002), (slow, 0.00206, 0.0022)):
        given = inputs_of(world.hosts[0], monkeypatch)
        world.run(1.5)
        tick = next(index for index, (_, event) in enumerate(given) if isinstance(event, Tick))
        answer = next(at for at, event in given[tick:] if isinstance(event, DatagramReceived))
        assert least_s - 1e-6 <= answer - given[tick][0] <= most_s + 1e-6


def test_a_clock_that_is_wrong_is_what_the_node_sees(mesh_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    world = mesh_of(4)
    host = world.hosts[2]
    world.set_clock(host, offset_s=2.0, drift=0.001)
    given = inputs_of(host, monkeypatch)
    world.run(10)
    assert given[0][0] - world.now > -10
    assert given[-1][0] == pytest.approx(world.now + 2, abs=1.2)
    assert all(later >= sooner for (sooner, _), (later, _) in pairwise(given))
    world.set_clock(host, offset_s=-2.0)
    world.run(20)
    assert all(later >= sooner for (sooner, _), (later, _) in pairwise(given))
    assert given[-1][0] == pytest.approx(world.now - 2, abs=1.2)
    assert world.converged()


def test_two_halves_bury_each_other_and_find_together_again(mesh_of: Build) -> None:
    world = mesh_of(6)
    world.network.cut("halves", apart([[0, 1, 2], [3, 4, 5]]))
    world.run(30)
    assert world.hosts[0].states()[world.hosts[5].id] is State.DEAD
    assert not world.converged()
    world.network.heal()
    assert world.run_until(world.converged, within_s=60) is not None


def test_observers_hear_of_moves_with_the_host_they_happened_at(mesh_of: Build) -> None:
    world = mesh_of(4)
    moves: list[tuple[str, MemberMoved]] = []
    world.on_moved.append(lambda host, moved: moves.append((host.name, moved)))
    world.crash(world.hosts[3])
    world.run(15)
    buried = [name for name, moved in moves if moved.member.state is State.DEAD]
    assert sorted(buried) == ["n0", "n1", "n2"]


def test_an_address_can_move_to_another_host(mesh_of: Build) -> None:
    world = mesh_of(4)
    first, second = world.hosts[2], world.hosts[3]
    world.crash(first)
    world.restart(second, address=first.address)
    assert world.host_at(second.address) is second
    assert world.run_until(world.converged, within_s=40) is not None


def test_a_node_that_ticks_without_end_is_an_error_and_no_hang(mesh_of: Build) -> None:
    world = mesh_of(2, crypto="real")

    class Stuck(Node):
        def __init__(self) -> None:
            self.deadline = world.now

        def step(self, _now: float, _event: Any) -> list[Any]:
            return []

    world.hosts[1].node = Stuck()
    with pytest.raises(SimulationError, match="n1 ticks without end"):
        world.run(5)


def test_a_datagram_too_large_for_the_wire_is_an_error(
    mesh_of: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = mesh_of(2, crypto="real")
    host = world.hosts[1]
    assert host.node is not None
    for size in (DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX + 1):
        large = SendDatagram(address=world.hosts[0].address, data=bytes(size))
        monkeypatch.setattr(host.node, "step", lambda _now, _event, large=large: [large])
        if size > DATAGRAM_BYTES_MAX:
            with pytest.raises(SimulationError, match="n1 sends a datagram of 1401 bytes"):
                world.arrive(host, Tick())
        else:
            world.arrive(host, Tick())


def test_what_nodes_and_faults_draw_leaves_the_dice_of_all_others_as_they_were(mesh_of: Build) -> None:
    world = mesh_of(3)

    def streams() -> dict[str, random.Random]:
        nodes = {host.name: host.node.engine._parts.rng for host in world.hosts if host.node is not None}
        return {"network": world.network.rng, "faults": world.faults_rng} | nodes

    assert len(streams()) == 5
    for drawing in streams():
        before = {name: rng.getstate() for name, rng in streams().items()}
        streams()[drawing].random()
        assert [name for name, rng in streams().items() if rng.getstate() != before[name]] == [drawing]
    assert len({rng.getstate() for rng in streams().values()}) == 5


def test_what_all_nodes_know_is_there_once_however_many_they_are() -> None:
    """Memory for each node is the same in a mesh four times as large: what grows with n is shared."""

    def bytes_each(count: int) -> float:
        gc.collect()
        tracemalloc.start()
        try:
            world = World(size=count, crypto="model")
            for _ in range(count):
                world.add()
            world.start_warm(world.hosts)
            world.run(1.0)
            world.crash(world.hosts[0])
            gc.collect()
            return tracemalloc.get_traced_memory()[0] / count
        finally:
            tracemalloc.stop()

    few, many = bytes_each(50), bytes_each(200)
    assert many < 1.2 * few < 60_000


def test_keys_and_signatures_are_real_where_few_hosts_are_expected() -> None:
    assert World(size=REAL_CRYPTO_MAX).mesh.is_real
    assert not World(size=REAL_CRYPTO_MAX + 1).mesh.is_real
    assert World(size=REAL_CRYPTO_MAX + 1, crypto="real").mesh.is_real
    assert not World(size=3, crypto="model").mesh.is_real

"""The driver `sim`: each fault happens and is undone; what does not hold is found; runs replay exactly."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from chaos.drivers.sim import SimDriver
from chaos.drivers.sim_faults import Hands
from chaos.experiment import Experiment, parse
from chaos.hypothesis import Invariant
from chaos.journal import Journal
from chaos.plan import resolve
from gossip.member import State
from simulations.disk import Disk
from simulations.host import Host
from simulations.world import World


def experiment(method: str, *, nodes: int = 5, more: str = "") -> Experiment:
    return resolve(parse(f"title: x\ntopology: {{nodes: {nodes}}}\nmethod:\n{method}\n{more}", "f.yaml"))


def run(given: Experiment) -> Journal:
    driver = SimDriver()
    assert driver.lacks(given) == ()
    return driver.run(given, lambda _done, _total, _what: None)


FAULTS = {
    "{fault: partition}": lambda world: bool(world.network.walls),
    "{fault: loss, share: 50%}": lambda world: world.network.loss_of(0, 1) == 0.5,
    "{fault: loss, share: 50%, direction: in, pick: {nodes: [n1]}}": lambda world: (
        world.network.loss_of(0, 1) == 0.5 and world.network.loss_of(1, 0) == 0
    ),
    "{fault: loss, share: 100%, pick: {nodes: [n0]}, to: [n1]}": lambda world: (
        world.network.loss_of(0, 1) == 1 and world.network.loss_of(0, 2) == 0
    ),
    "{fault: delay, delay: 1s, pick: {nodes: [n0]}}": lambda world: (
        world.network.delay_s(0, 1) > 1 > world.network.delay_s(1, 0)
    ),
    "{fault: disorder, duplicate: 50%, reorder: 10%}": lambda world: (
        (world.network.duplication, world.network.reordering) == (0.5, 0.1)
    ),
    "{fault: kill, pick: {nodes: [n1]}}": lambda world: not world.hosts[1].up,
    "{fault: pause, pick: {nodes: [n1]}}": lambda world: world.hosts[1].stopped,
    "{fault: slow, each: 10ms, pick: {nodes: [n1]}}": lambda world: world.hosts[1].service_s == 0.01,
    "{fault: slow, blocked: 1s, running: 1s, pick: {nodes: [n1]}}": lambda world: world.hosts[1].stalls > 0,
    "{fault: leave, pick: {nodes: [n1]}}": lambda world: world.all_see(world.hosts[1], State.LEFT),
    "{fault: clock, offset: 7, pick: {nodes: [n1]}}": lambda world: (
        abs(world.now_of(world.hosts[1]) - world.now - 7) < 1e-6
    ),
    "{fault: disk, how: full, pick: {nodes: [n1]}}": lambda world: world.hosts[1].disk.full,
    "{fault: disk, how: lying-fsync, pick: {nodes: [n1]}}": lambda world: (
        world.hosts[1].disk.synced_before_lie is not None
    ),
    "{fault: disorder, corrupt: 20%, replay: 10%}": lambda world: (
        (world.network.corruption, world.network.replaying) == (0.2, 0.1)
    ),
    "{fault: loss, share: 20%, burst: 5}": lambda world: world.network.burst == 5,
    "{fault: byzantine, lie: replay, pick: {nodes: [n1]}}": lambda world: world.hosts[1].liar is not None,
    "{fault: swizzle, every: 200ms, pick: {count: 3}}": lambda world: len(world.network.walls) == 3,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_stands_while_it_lasts_and_is_undone(fault: str) -> None:
    holds: Callable[[World], bool] = FAULTS[fault]
    given = experiment(f"- {{at: 0s, for: 4s, {fault[1:-1]}}}")
    world = World(seed=1, size=5)
    for index in range(5):
        world.add(seeds=tuple(range(min(2, index))))
    world.start_warm(world.hosts)
    world.run(5)
    hands, event = Hands(world, given), given.method[0]
    assert not holds(world)
    hands.begin(0, event)
    world.run(2)
    assert holds(world)
    world.run(2)
    hands.end(0, event)
    world.run(0.1)
    assert not holds(world)
    assert world.run_until(world.converged, within_s=60) is not None


def test_conditions_that_overlap_add_up_and_end_by_themselves() -> None:
    given = experiment(
        "- {at: 0s, for: 4s, fault: loss, share: 50%}\n"
        "- {at: 0s, for: 2s, fault: loss, share: 50%, pick: {nodes: [n1]}}"
    )
    world = World(seed=1, size=5)
    for _ in range(5):
        world.add()
    hands = Hands(world, given)
    for number, event in enumerate(given.method):
        hands.begin(number, event)
    assert world.network.loss_of(0, 1) == pytest.approx(0.75)
    assert world.network.loss_of(2, 3) == pytest.approx(0.5)
    hands.end(0, given.method[0])
    assert world.network.loss_of(0, 1) == pytest.approx(0.5)
    assert world.network.loss_of(2, 3) == 0
    hands.end(1, given.method[1])
    assert world.network.plain


def test_a_full_disk_refuses_writes_and_loses_nothing() -> None:
    journal = run(
        experiment(
            "- {at: 1s, for: 8s, fault: disk, how: full, pick: {share: 60%}}\n"
            "- {at: 12s, for: 2s, fault: kill, pick: {all: true}}",
            more="workload: {policies: {every: 200ms}}",
        )
    )
    assert journal.status == "completed"
    assert journal.figures["acknowledged"]


def test_a_backup_is_the_database_as_the_timeline_began_and_is_doubted() -> None:
    """Put back while nobody else runs, it may be too old for ever: nothing is written on it."""
    given = experiment(
        "- {at: 15s, for: 5s, fault: kill, keeps: backup, pick: {nodes: [n1]}}",
        more="workload: {policies: {every: 200ms}}",
    )
    assert run(given).status == "completed"
    alone = experiment(
        "- {at: 10s, for: 10s, fault: kill, pick: {nodes: [n0, n2, n3, n4]}}\n"
        "- {at: 11s, for: 1s, fault: kill, keeps: backup, pick: {nodes: [n1]}}",
        more="workload: {policies: {every: 200ms}}",
    )
    journal = run(alone)
    assert journal.status == "completed"


@pytest.mark.parametrize("doubts", [True, False])
def test_an_old_backup_that_is_believed_uses_numbers_twice(
    doubts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not doubts:
        remember = Disk.put_back

        def forgets(self: Disk) -> None:
            remember(self)
            self.doubt = False

        monkeypatch.setattr(Disk, "put_back", forgets)
        monkeypatch.setattr("peer.memory.FIRST_SYNC_S_MAX", 0.0)
    journal = run(
        experiment(
            "- {at: 12s, for: 4s, fault: partition, groups: [[n0, n2, n3, n4], [n1]]}\n"
            "- {at: 13s, for: 1s, fault: kill, keeps: backup, pick: {nodes: [n1]}}",
            more="workload: {policies: {every: 100ms, keys: 100}}",
        )
    )
    broken = {violation.invariant for violation in journal.violations}
    assert (Invariant.NO_REUSE.value in broken) is not doubts


def test_restarts_roll_one_after_the_other() -> None:
    journal = run(experiment("- {at: 1s, fault: restart, every: 3s, graceful: true}", nodes=4))
    downs = sorted(at_s for lane in journal.lanes for at_s, truth in lane.truth if truth == "down")
    assert len(downs) == 4
    assert all(later - earlier > 2.5 for earlier, later in pairwise(downs))
    assert journal.status == "completed"


def test_newcomers_are_members_in_the_end() -> None:
    journal = run(experiment("- {at: 1s, fault: join, count: 3}"))
    assert [lane.node for lane in journal.lanes][5:] == ["n5", "n6", "n7"]
    assert journal.status == "completed"


def test_the_same_experiment_has_the_same_digest() -> None:
    given = experiment(
        "- {at: 1s, for: 5s, fault: flap, every: 1s}\n- {at: 2s, for: 5s, fault: loss, share: 30%}",
        more="workload: {policies: {every: 300ms, deletes: 20%}, churn: {every: 3s, down: 1s}}",
    )
    one, other = run(given), run(given)
    assert one.digest
    assert one.digest == other.digest
    assert one.data() | {"took_s": 0} == other.data() | {"took_s": 0}
    assert run(given.model_copy(update={"seed": 2})).digest != one.digest


def test_a_brief_run_ends_at_the_first_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    more = "workload: {policies: {every: 100ms}}"
    given = experiment("- {at: 1s, for: 20s, fault: pause, pick: {nodes: [n1]}}", more=more)
    monkeypatch.setattr("simulations.invariants.DRIFT_MS_MAX", -(10**9))
    journal = SimDriver().run(given, lambda _done, _total, _what: None, brief=True)
    assert journal.status == "failed"
    assert journal.lasted_s < 8
    assert run(given).lasted_s > 20


def test_a_bound_that_is_missed_is_a_violation() -> None:
    journal = run(
        experiment(
            "- {at: 1s, fault: kill}",
            more="steady-state-hypothesis: {within: 20s, bounds: {detects: 100ms, heals: 1ms}}",
        )
    )
    assert journal.status == "failed"
    assert {violation.invariant for violation in journal.violations} == {"detects", "heals"}


def test_kills_are_timed_until_all_know() -> None:
    journal = run(
        experiment(
            "- {at: 1s, for: 15s, fault: kill}", more="steady-state-hypothesis: {bounds: {detects: 10s}}"
        )
    )
    assert journal.status == "completed"
    assert 0.5 < (journal.figures["detected_s"] or 0) < 10


def test_a_death_nobody_died_is_a_false_positive() -> None:
    """A member whose words are all lost is buried, though it runs and no partition keeps it from anybody."""
    journal = run(
        experiment(
            "- {at: 1s, for: 20s, fault: loss, share: 100%, direction: out, pick: {nodes: [n2]}}",
            more="steady-state-hypothesis: {bounds: {false-positives: 0}}",
        )
    )
    assert [violation.invariant for violation in journal.violations] == ["false-positives"]


@pytest.mark.parametrize(
    ("method", "more", "place"),
    [
        ("- {at: 1s, fault: bandwidth, bytes-per-second: 1000}", "", "method[0]"),
        ("- {at: 1s, fault: partition, traffic: data}", "", "method[0]"),
        ("- {at: 1s, fault: descriptors, limit: 64}", "", "method[0]"),
        (
            "- {at: 1s, fault: kill}",
            "steady-state-hypothesis: {invariants: [services-answer]}",
            "steady-state-hypothesis.invariants",
        ),
        (
            "- {at: 1s, fault: kill}",
            "steady-state-hypothesis: {bounds: {success: 99%}}",
            "steady-state-hypothesis.bounds",
        ),
    ],
)
def test_says_what_it_cannot_do(method: str, more: str, place: str) -> None:
    (lack,) = SimDriver().lacks(experiment(method, more=more))
    assert lack.place == place
    assert lack.why


def test_finds_what_a_broken_core_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that answers before it has written: an acknowledged policy is lost when the plug is pulled."""

    def acknowledged_early(self: World, host: Host, batch: object) -> None:
        from peer.messages import Persist, Persisted

        assert isinstance(batch, Persist)
        if batch.ticket:
            self.arrive(host, Persisted(ticket=batch.ticket))

    monkeypatch.setattr(World, "_persist", acknowledged_early)
    given = experiment(
        "- {at: 4s, for: 2s, fault: kill, power: true, pick: {all: true}}",
        nodes=3,
        more="workload: {policies: {every: 200ms}}\nsteady-state-hypothesis: {within: 20s}",
    )
    broken = {violation.invariant for violation in run(given).violations}
    assert broken & {Invariant.NO_LOSS.value, Invariant.NO_REUSE.value, Invariant.JOURNALS.value}

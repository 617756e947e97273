"""Each table at a small size: the rows it should have, figures that make sense, the same ones for the same seed."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from gossip.config import lan
from gossip.member import State
from simulations.faults import Crash, happen
from simulations.tables import TABLES, crowds, heal, healthy, loss, slow, speed, spread, traffic
from simulations.tables.anomaly import stand_still
from simulations.tables.ground import NEVER_S, cold, config_of, push_pull_bytes_per_s, warm
from simulations.tables.table import Options, Row
from simulations.tables.watch import Awaited, Move, Watch
from simulations.world import World

Measure = Callable[..., list[Row]]


@pytest.fixture
def measure() -> Measure:
    """`measure("crash", nodes=(12,))`: the rows of that table."""

    def rows(name: str, **options: Any) -> list[Row]:
        return list(TABLES[name].measure(Options(**options)))

    return rows


def of(rows: list[Row], **wanted: Any) -> Row:
    """The one row with these values."""
    (row,) = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    return row


# ---------------------------------------------------------------------- ground and watch


def test_a_warm_world_is_settled_and_its_nodes_are_gone_when_it_ends() -> None:
    before = gc.get_threshold()
    with warm(301, profile="lan", seed=1) as world:  # so many that the world freezes what it begins with
        assert world.converged()
        node = weakref.ref(world.hosts[7].node)
        assert node() is not None
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() > before
    assert node() is None
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


def test_a_cold_world_runs_nothing() -> None:
    with cold(5, profile="lan", seed=1) as world:
        assert [host.up for host in world.hosts] == [False] * 5


def test_push_pull_is_off_only_where_it_is_too_much_to_simulate() -> None:
    assert config_of("lan", 300) == lan()
    assert config_of("lan", 301).push_pull_interval_s == NEVER_S
    assert config_of("lan", 301, push_pull=True) == lan()
    assert config_of("lan", 32, push_pull=False).push_pull_interval_s == NEVER_S


def test_the_push_pull_worked_out_is_what_push_pull_sends() -> None:
    nodes, lasts_s = 12, 300.0
    with warm(nodes, profile="memberlist", seed=1) as world:
        before = sum(host.traffic.stream_bytes_sent for host in world.hosts)
        world.run(lasts_s)
        took_place = sum(host.traffic.stream_bytes_sent for host in world.hosts) - before
    with warm(nodes, profile="memberlist", seed=1, push_pull=False) as world:
        worked_out = push_pull_bytes_per_s(world, "memberlist")
    assert worked_out == pytest.approx(took_place / nodes / lasts_s, rel=0.1)


def test_a_watch_counts_a_suspicion_once_and_a_verdict_at_everybody() -> None:
    with warm(8, profile="lan", seed=1) as world, Watch(world) as watch:
        victim = world.hosts[3]
        with Awaited(world, victim.id, State.DEAD, frozenset({0, 1, 2, 4, 5, 6, 7})) as awaited:
            happen(world, Crash(host=3))
            world.run(8)
        world.run(1)
    assert awaited.complete()
    assert watch.accusations({victim.id}) == 1
    assert watch.count(State.DEAD, {victim.id}) == 7
    assert watch.count(State.DEAD, {victim.id}, observers={0, 1}) == 2
    assert watch.first(State.DEAD, victim.id, since=awaited.since) == awaited.seen
    assert watch.accusations({host.id for host in world.hosts} - {victim.id}) == 0


def test_a_watch_that_ended_hears_no_more() -> None:
    with warm(5, profile="lan", seed=1) as world:
        with Watch(world) as watch:
            pass
        happen(world, Crash(host=3))
        world.run(8)
        assert watch.moves == []


# ---------------------------------------------------------------------- the tables


def test_crash_lan_detects_faster_than_memberlist_and_accuses_nobody_else(measure: Measure) -> None:
    rows = measure("crash", nodes=(16,), runs=4)
    assert [row["profile"] for row in rows] == ["lan", "memberlist"]
    ours, theirs = rows
    assert ours["p50"] < theirs["p50"] / 2
    for row in rows:
        assert row["crashes"] == 4
        assert 0.5 < row["first"] <= row["p50"] <= row["p99"] <= row["all_max"]
        assert (row["false_verdicts"], row["false_suspicions"]) == (0, 0)


def test_crash_at_a_size_where_the_dead_stay_dead(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.tables.crash.RESTARTED_NODES_MAX", 10)
    (row,) = measure("crash", nodes=(16,), runs=3, profiles=("lan",))
    assert 1 <= row["crashes"] <= 3
    assert row["false_verdicts"] == 0


def test_slow_finds_the_blocked_and_counts_verdicts_about_the_healthy(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "LASTS_S", 20.0)
    monkeypatch.setattr(slow, "BLOCKED_S", (0.128, 16.384))
    monkeypatch.setattr(slow, "SLOW", (4,))
    rows = measure("slow", nodes=(16,))
    cells = [(row["slow"], row["blocked_s"], row["profile"]) for row in rows]
    assert cells == [
        *[(0, 0.0, profile) for profile in ("lan", "memberlist")],
        *[(4, 0.128, profile) for profile in ("lan", "memberlist")],
        *[(4, 16.384, profile) for profile in ("lan", "memberlist")],
        *[("all", "all", profile) for profile in ("lan", "memberlist", "lan / memberlist")],
    ]
    assert of(rows, slow=0, profile="lan")["false_positives"] == 0
    assert of(rows, slow=4, blocked_s=0.128, profile="lan")["first"] is None
    ours = of(rows, blocked_s=16.384, profile="lan")
    assert ours["first"] < of(rows, blocked_s=16.384, profile="memberlist")["first"]
    for row in rows:
        if row["profile"] != "lan / memberlist":
            assert row["at_healthy"] <= row["false_positives"]


def test_slow_processes_that_are_stopped_come_with_the_large_rows(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "LASTS_LARGE_S", 10.0)
    monkeypatch.setattr(slow, "BLOCKED_S", (2.048,))
    monkeypatch.setattr(slow, "SLOW_LARGE", (3,))
    rows = measure("slow", nodes=(8,), profiles=("lan",), runs=1, large=True)
    assert [(row["what"], row["slow"]) for row in rows] == [
        (what, slow) for what in ("messages", "process") for slow in (0, 3, "all")
    ]
    assert of(rows, what="process", slow="all")["at_healthy"] == 0


def test_messages_of_a_blocked_member_wait_until_its_block_ends() -> None:
    with cold(3, profile="lan", seed=1) as world:
        stand_still(world, {1}, blocked_s=10.0, running_s=1.0)
        way_s = world.network.within.base_s, world.network.within.base_s + world.network.within.jitter_s
        assert way_s[0] <= world.network.delay_s(0, 2) <= way_s[1]
        assert world.network.delay_s(0, 1) == pytest.approx(10.0)
        assert 10 + way_s[0] <= world.network.delay_s(1, 0) <= 10 + way_s[1]
        world.run(10.5)  # it runs now
        assert way_s[0] <= world.network.delay_s(1, 0) <= way_s[1]
        assert world.network.delay_s(0, 1) <= way_s[1]
        world.run(1)  # and is blocked again, for another 9.5 s
        assert world.network.delay_s(0, 1) == pytest.approx(9.5)
        assert not world.network.plain


def test_loss_of_nothing_accuses_nobody_and_half_of_all_does(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "LOSSES", (0.0, 0.5))
    monkeypatch.setattr(loss, "LASTS_S", 15.0)
    rows = measure("loss", nodes=(16,))
    for profile in ("lan", "memberlist"):
        quiet = of(rows, loss="0%", profile=profile)
        assert (quiet["verdicts"], quiet["accused"], quiet["refuted_per_hour"]) == (0, 0, 0)
        assert of(rows, loss="50%", profile=profile)["accused"] > 0


def test_healthy_watches_for_as_long_as_asked(measure: Measure) -> None:
    (row,) = measure("healthy", nodes=(12,), runs=2, profiles=("lan",))
    assert row["node_hours"] == pytest.approx(12 * 2 * 60 / 3600)
    assert row["verdicts"] == 0
    assert row["floor"] == pytest.approx(1.75)


def test_a_refutation_ends_the_suspicion_of_its_observer_only() -> None:
    watch = Watch(World(seed=1, crypto="model"))
    node, rank = b"n" * 16, (1, 0)
    watch.moves += [
        Move(10.0, 1, node, rank, State.ALIVE, State.SUSPECT),
        Move(10.1, 2, node, rank, State.ALIVE, State.SUSPECT),
        Move(10.5, 1, node, (1, 1), State.SUSPECT, State.ALIVE),
        Move(11.0, 2, node, rank, State.SUSPECT, State.DEAD),
    ]
    assert healthy._refuted_after(watch) == [pytest.approx(0.5)]


def test_spread_reaches_everybody_in_about_as_many_rounds_as_the_theory_says(measure: Measure) -> None:
    rows = measure("spread", nodes=(24,), runs=2)
    assert [(row["loss"], row["profile"]) for row in rows] == [
        (share, profile) for share in ("0%", "30%", "50%") for profile in ("lan", "memberlist")
    ]
    for row in rows:
        assert row["missed"] == 0
        assert row["half"] <= row["most"] <= row["everybody"] <= row["everybody_max"]
        assert 1 <= row["rounds_half"] <= row["rounds_most"] <= row["rounds_all"] <= 3 * row["log2"]
    assert of(rows, loss="0%", profile="lan")["everybody"] < 0.2


def test_a_generation_is_one_more_than_that_of_the_teller_and_unknown_behind_a_stream() -> None:
    with cold(6, profile="lan", seed=1) as world:
        hosts = world.hosts
        tellers = {1: hosts[0], 2: hosts[1], 3: hosts[2], 5: hosts[4]}  # 4 had it by a stream
        generations = {0: 0}
        for index in (3, 1, 2, 5):
            spread._settle(index, tellers, generations)
        assert generations == {0: 0, 1: 1, 2: 2, 3: 3}


def test_traffic_idle_is_a_ping_and_an_answer_a_second_and_churn_costs_more(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        traffic, "CHURN_SHARE_PER_S", 0.01
    )  # small meshes hardly ever change at the real rate
    monkeypatch.setattr(traffic, "IDLE_S", 20.0)
    monkeypatch.setattr(traffic, "CHURN_S", 30.0)
    monkeypatch.setattr(traffic, "DOWN_S", 10.0)
    monkeypatch.setattr(traffic, "CHURNED_BEFORE_S", 10.0)
    monkeypatch.setattr(traffic, "COMPARED_WITH", 12)
    rows = measure("traffic", nodes=(12,))
    for row in rows:
        busy = row["what"] != "idle"
        assert row["datagrams"] > 2.05 if busy else row["datagrams"] == pytest.approx(2.0, rel=0.02)
        assert (row["stream_bytes"] > 0) == busy
        assert row["push_pull_bytes"] > 0
        assert row["total_bytes"] == pytest.approx(
            row["udp_bytes"] + row["stream_bytes"] + row["push_pull_bytes"]
        )
    assert of(rows, what="idle", profile="lan")["against"] == 1.0


def test_heal_brings_all_views_together_whatever_the_cut(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heal, "MINUTE_S", 15.0)
    rows = measure("heal", nodes=(9,), runs=1)
    assert [row["shape"] for row in rows[::2]] == ["halves", "bridge", "majorities ring", "one way"]
    for row in rows:
        assert row["healed"] == row["runs"] == 1
        assert row["median"] <= row["max"] < 60


def test_heal_measures_the_rows_asked_for_one_by_one(measure: Measure) -> None:
    (row,) = measure("heal", nodes=(9,), runs=1, profiles=("lan",), cuts=("halves",), cut_s=12.0)
    assert (row["shape"], row["cut_s"], row["healed"]) == ("halves", 12, 1)


def test_joins_ends_with_everybody_known_to_everybody(measure: Measure) -> None:
    for row in measure("joins", nodes=(16,)):
        assert 0 < row["took"] < 30
        assert row["streams"] >= 15
        assert row["false_verdicts"] == 0


def test_restarts_leave_no_ghosts(measure: Measure) -> None:
    for row in measure("restarts", nodes=(6,)):
        assert row["known"] == row["live"] == 6
        assert row["took"] < 30


def test_quarter_buries_the_dead_and_nobody_else(measure: Measure) -> None:
    ours, theirs = measure("quarter", nodes=(16,))
    for row in (ours, theirs):
        assert row["killed"] == 4
        assert row["p50"] <= row["p99"] <= row["took"]
        assert row["false_verdicts"] == 0
    assert ours["p50"] < theirs["p50"]


def test_speed_is_measured_in_a_process_of_its_own(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "LASTS_S_MAX", 20.0)
    timed = speed.timed(12, "lan", 1)
    assert timed["lasts_s"] == 20.0
    assert timed["events"] > 0
    (row,) = measure("speed", nodes=(12,), profiles=("lan",))
    assert row["lasts_s"] == 120.0  # the other process knows nothing of what was patched here
    assert row["per_cpu_s"] > 1


# ---------------------------------------------------------------------- the same seed


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that take long, shortened."""
    monkeypatch.setattr(slow, "LASTS_S", 10.0)
    monkeypatch.setattr(slow, "BLOCKED_S", (2.048,))
    monkeypatch.setattr(slow, "SLOW", (3,))
    monkeypatch.setattr(loss, "LASTS_S", 5.0)
    monkeypatch.setattr(heal, "MINUTE_S", 10.0)
    monkeypatch.setattr(crowds, "RESTARTS_EACH", 3)
    monkeypatch.setattr(spread, "LOSSES", (0.3,))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", [name for name in TABLES if name != "speed"])
def test_the_same_seed_gives_the_same_rows(measure: Measure, name: str) -> None:
    options = {"nodes": (6,), "runs": 1, "profiles": ("lan",)}
    rows = measure(name, **options)
    assert rows == measure(name, **options)
    assert rows


def test_another_seed_gives_other_rows(measure: Measure) -> None:
    options = {"nodes": (8,), "runs": 1, "profiles": ("lan",)}
    assert measure("crash", **options) != measure("crash", seed=2, **options)


def test_every_row_has_the_columns_of_its_table_and_no_others(measure: Measure) -> None:
    for name in ("crash", "spread", "joins"):
        keys = {column.key for column in TABLES[name].columns}
        for row in measure(name, nodes=(8,), runs=1, profiles=("lan",)):
            assert set(row) <= keys

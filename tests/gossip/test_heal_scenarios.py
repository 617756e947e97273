"""Partitions that heal, after uber/ringpop-go's `swim/heal_partition_test.go` (TestPartitionHealWithFaulties,
_WithMissing, _WithFaultyAndMissing1-3, _SemiParition, _WithMultiplePartitions, _GetsTriggeredWhenTimePasses,
TestHealBeforeBootstrap, _HealFail, _HealFail2, _HealMaxFails) and the table behind it in `heal_partition.go`.

Taken: who believes what of whom when the network comes back, and whether anybody must reincarnate. Different here:
there is no healer to call, dead members and seeds are contacted for ever at a capped rate; a node that meets its own
accusation refutes by itself, so reincarnation and merge are one phase; the bound is one cap of the back-off and the
few round trips after it.
"""

import itertools

import pytest

from gossip.config import lan
from gossip.events import Join, MembersReceived, RequestSync, SyncFailed, Tick
from gossip.member import State
from gossip.message import Ping
from tests.gossip.company import OWN, Company, alive_of, dead_of, left_of, silent
from tests.gossip.world import START, World, engine_of, identity_of, members_payload, suspicion

HEALED_S = lan().contact_backoff_s_max + lan().contact_interval_s + 5  # one cap, one turn, some round trips
CONDEMNED_S = 90.0


def meshes(*sizes: int, seed: int = 1) -> tuple[World, list[list[str]]]:
    """Meshes a0 a1 …, b0 b1 …, … that have never heard of each other, and cannot talk to each other yet."""
    world = World(seed=seed)
    groups = [
        [f"{letter}{index}" for index in range(size)] for letter, size in zip("abcdefg", sizes, strict=False)
    ]
    world.partition(*groups)
    for group in groups:
        for name in group:
            world.start(name, seeds=() if name == group[0] else [group[0]])
    world.run(5)
    return world, groups


def introduce(world: World, to: list[str], of: list[str]) -> None:
    """Let each of `to` hear of all of `of`, as from a stream peer that knew them once."""
    for name in to:
        for data in members_payload(world.hosts[of[0]].engine):
            world.step(world.hosts[name], MembersReceived(node=None, data=data))


def believe_dead(world: World, at: list[str], of: list[str]) -> None:
    """Let `at` know `of` and find that none of them answers."""
    introduce(world, at, of)
    world.run_until(
        lambda: all(world.hosts[name].states()[other] is State.DEAD for name in at for other in of),
        within_s=CONDEMNED_S,
    )


def ranks(world: World) -> dict[str, tuple[int, int]]:
    return {host.name: host.engine.members()[0].rank for host in world.up()}


def reborn(world: World, names: list[str]) -> list[bool]:
    """Whether each of `names` has had to raise its incarnation, which everybody must know by now."""
    known = {m.name: m.rank for host in world.up() for m in host.engine.members()}
    assert known == ranks(world)
    return [ranks(world)[name] > (1, 0) for name in names]


# ---------------------------------------------------------------- meshes
def test_two_sides_that_think_each_other_dead_merge_and_everybody_reincarnates() -> None:
    world, (a, b) = meshes(5, 5)
    introduce(world, b, a)
    believe_dead(world, a, b)
    believe_dead(world, b, a)
    world.heal()
    world.run_until(world.converged, within_s=HEALED_S)
    assert all(reborn(world, a + b))


def test_two_sides_that_do_not_know_each_other_merge_by_one_stream_and_nobody_reincarnates() -> None:
    world, (a, b) = meshes(5, 5)
    world.heal()
    world.step(world.hosts["a0"], Join(seeds=(world.hosts["b0"].address,)))
    world.run_until(world.converged, within_s=HEALED_S)
    assert not any(reborn(world, a + b))
    assert world.changes(State.SUSPECT, State.DEAD) == []


@pytest.mark.parametrize(("knowing", "unknowing"), [("a", "b"), ("b", "a")])
def test_where_one_side_thinks_the_other_dead_and_is_unknown_to_it_the_accused_reincarnate(
    knowing: str, unknowing: str
) -> None:
    world, (a, b) = meshes(5, 4)
    sides = {"a": a, "b": b}
    believe_dead(world, sides[knowing], sides[unknowing])
    assert not set(sides[knowing]) & set(world.hosts[sides[unknowing][0]].states())
    world.heal()
    world.run_until(world.converged, within_s=HEALED_S)
    assert all(reborn(world, sides[unknowing]))
    assert not any(reborn(world, sides[knowing]))


def test_where_each_side_thinks_half_of_the_other_dead_and_does_not_know_the_rest_all_merge() -> None:
    world, (a, b) = meshes(3, 3)
    introduce(world, b, a)
    believe_dead(world, a, b)
    believe_dead(world, b, a)
    for name in ("a3", "b3"):
        world.partition([*a, "a3"], [*b, "b3"])
        world.start(name, seeds=[f"{name[0]}0"])
    world.run(5)
    world.heal()
    world.run_until(world.converged, within_s=HEALED_S)
    assert all(reborn(world, a + b))
    assert not any(reborn(world, ["a3", "b3"]))


def test_where_one_side_thinks_the_other_alive_and_is_unknown_to_it_they_merge_without_any_accusation() -> (
    None
):
    world, (a, b) = meshes(5, 5)
    world.heal()
    introduce(world, a, b)
    world.run_until(world.converged, within_s=HEALED_S)
    assert not any(reborn(world, a + b))
    assert world.changes(State.DEAD) == []


def test_many_parts_some_thought_dead_and_one_unknown_become_one() -> None:
    world, (a, *others) = meshes(4, 1, 1, 1, 2, 2)
    for part in others[:-1]:
        introduce(world, a, part)
    world.run_until(
        lambda: all(world.hosts["a0"].states()[name] is State.DEAD for part in others[:-1] for name in part),
        within_s=3 * CONDEMNED_S,
    )
    world.heal()
    world.step(world.hosts[others[-1][0]], Join(seeds=(world.hosts["a0"].address,)))
    world.run_until(world.converged, within_s=HEALED_S)


def test_a_part_that_heals_only_partly_is_healed_by_the_part_in_between() -> None:
    """b can reach both a and c, which never reach each other: everybody hears of everybody and refutes in time."""
    world, (a, b, c) = meshes(2, 2, 2)
    introduce(world, a + b, c)
    believe_dead(world, a, b)
    between = {("a", "c"), ("c", "a")}
    world.blocked = lambda source, target: (source[0], target[0]) in between
    world.run_until(world.converged, within_s=2 * HEALED_S)
    assert len(world.hosts["a0"].states()) == 6


def test_a_host_still_starting_is_dead_at_most_until_it_is_up() -> None:
    world, (a, b) = meshes(3, 1)
    world.pause("b0")
    introduce(world, a, b)
    world.heal()
    world.run_until(
        lambda: all(world.hosts[name].states()["b0"] is State.DEAD for name in a), within_s=CONDEMNED_S
    )
    world.resume("b0")
    world.run_until(world.converged, within_s=HEALED_S)


# ---------------------------------------------------------------- knocking
def test_a_dead_member_is_knocked_at_ever_more_rarely_up_to_the_cap_and_for_ever() -> None:
    company = Company("t", "a")
    silent(company.peers["t"])
    company.run_until("t", State.DEAD, within_s=CONDEMNED_S)
    company.peers["t"].heard.clear()
    company.outputs.clear()
    died, hours = company.now, 1
    company.run(3600.0 * hours)
    node = identity_of("t").id
    pings = [at for at, _ in company.messages("t", Ping)]
    streams = [at for at, o in company.outputs if isinstance(o, RequestSync) and o.node == node]
    knocks = sorted([*pings, *streams])
    assert streams == knocks[3 :: lan().contact_stream_every]  # there are networks that carry no UDP
    gaps = [later - earlier for earlier, later in itertools.pairwise([died, *knocks])]
    cap_s = lan().contact_backoff_s_max + 2 * lan().contact_interval_s
    assert max(gaps) <= cap_s
    assert gaps[0] < gaps[3] < max(gaps)
    assert (
        len(knocks) <= 3600 * hours / (0.75 * lan().contact_backoff_s_max) + 10
    )  # each after a random share


def test_without_seeds_and_without_dead_there_is_nothing_to_heal() -> None:
    engine = engine_of(OWN)
    assert engine.step(START, Join(seeds=())) == []
    outputs = []
    while (now := engine.deadline or START) < START + 600:
        outputs += engine.step(now, Tick())
    assert outputs == []


def test_seeds_that_all_fail_are_tried_for_ever_at_one_rate_in_all_and_hurt_nobody() -> None:
    company = Company("a")
    count = 20
    company.step(Join(seeds=tuple((f"10.66.0.{index + 1}", 7946) for index in range(count))))
    company.outputs.clear()
    company.run(600.0)
    asked = [
        at for at, o in company.outputs if isinstance(o, RequestSync) and o.address[0].startswith("10.66.")
    ]
    assert (
        min(later - earlier for earlier, later in itertools.pairwise(asked))
        >= lan().contact_interval_s - 0.001
    )
    assert len(asked) >= count * (600 / lan().contact_backoff_s_max) / 2
    assert company.state("a") is State.ALIVE
    assert company.engine.statistics().health == 0
    assert company.engine.step(company.now, SyncFailed(address=("10.66.0.1", 7946))) == []


# ---------------------------------------------------------------- one exchange, member by member
ADDRESS = ("10.9.0.1", 7946)


def believing(state: State, rank: tuple[int, int]) -> Company:
    """A company that believes `s` to be in `state` at `rank`."""
    company = Company("s", "a", "b", "c")
    company.say("a", alive_of("s", rank, address=ADDRESS))
    match state:
        case State.SUSPECT:
            company.say("a", suspicion("a", "s", rank))
        case State.DEAD:
            company.say("a", dead_of("s", "abc", rank))
        case State.LEFT:
            company.say("a", left_of("s", rank))
        case State.ALIVE:
            pass
    assert (company.state("s"), company.member("s").rank) == (state, rank)
    return company


@pytest.mark.parametrize("ours", list(State))
@pytest.mark.parametrize("theirs", [(1, 1), (1, 2), (1, 3), (2, 0)])
def test_the_other_sides_alive_wins_only_above_what_is_believed_here(
    ours: State, theirs: tuple[int, int]
) -> None:
    company = believing(ours, (1, 2))
    company.stream(alive_of("s", theirs, address=ADDRESS))
    higher = theirs > (1, 2)
    assert company.member("s").rank == max(theirs, (1, 2))
    assert company.state("s") is (State.ALIVE if higher else ours)


@pytest.mark.parametrize("ours", list(State))
@pytest.mark.parametrize("theirs", [(1, 1), (1, 2), (1, 3)])
def test_the_other_sides_death_counts_only_for_the_incarnation_believed_here(
    ours: State, theirs: tuple[int, int]
) -> None:
    """A death above comes with the Alive it is about, which a payload tells first."""
    company = believing(ours, (1, 2))
    company.stream(alive_of("s", theirs, address=ADDRESS), dead_of("s", "abc", theirs))
    state = company.state("s")
    if theirs < (1, 2) or not (ours in (State.ALIVE, State.SUSPECT) or theirs > (1, 2)):
        assert state is ours
    else:
        assert state in (State.SUSPECT, State.DEAD)
    assert company.member("s").rank == max(theirs, (1, 2))


@pytest.mark.parametrize("ours", list(State))
@pytest.mark.parametrize("theirs", [(1, 1), (1, 2), (1, 3), (2, 0)])
def test_the_other_sides_leave_wins_from_what_is_believed_here_on(
    ours: State, theirs: tuple[int, int]
) -> None:
    company = believing(ours, (1, 2))
    company.stream(left_of("s", theirs))
    assert company.state("s") is (State.LEFT if theirs >= (1, 2) else ours)
    assert company.member("s").rank == max(theirs, (1, 2))


@pytest.mark.parametrize(
    ("theirs", "after"), [((1, 0), (1, 2)), ((1, 1), (1, 2)), ((1, 2), (1, 3)), ((1, 9), (1, 2))]
)
def test_the_accused_itself_reincarnates_for_its_present_incarnation_only(
    theirs: tuple[int, int], after: tuple[int, int]
) -> None:
    company = Company("a", "b", "c")
    company.say("a", suspicion("a", OWN), suspicion("a", OWN, (1, 1)))
    assert company.engine.members()[0].rank == (1, 2)
    company.stream(dead_of(OWN, "abc", theirs))
    assert company.engine.members()[0].rank == after
    assert company.engine.members()[0].state is State.ALIVE

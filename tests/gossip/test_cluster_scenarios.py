"""Small clusters under faults of the network, after scalecube-cluster's `MembershipProtocolTest` (initial phase, no
outbound or no inbound for one, for some, for all, two partitions in a row, a long partition and removal, restarts on
new and on the same addresses, few seeds, joining without inbound).

Taken: who cannot send to or hear whom, in which order, and who must be trusted, suspected or gone at the end.
Different here: a link that fails between two members only makes nobody suspect, since relays and streams go around
it; what was removed is dead until its credential has expired and only then gone; an id outlives its address.
"""

from collections import Counter

import pytest

from gossip.config import lan
from gossip.events import MembersReceived
from gossip.member import State
from tests.gossip.company import Company, alive_of, chunk
from tests.gossip.world import START, World, credential_of, identity_of, suspicion

CONDEMNED_S = 90.0
HEALED_S = lan().contact_backoff_s_max + lan().contact_interval_s + 5
NAMES = ("a", "b", "c", "d")


def cluster(*names: str, seed: int = 3) -> World:
    """A converged mesh in which everybody has all the others as seeds."""
    world = World(seed=seed)
    for name in names:
        world.start(name, seeds=list(world.hosts))
    world.run_until(world.converged, within_s=30)
    world.run(5)
    return world


def gone(world: World, at: str, *names: str) -> bool:
    return all(world.hosts[at].states()[name] is State.DEAD for name in names)


def no_duplicates(world: World) -> None:
    """Each id once, and each address with at most one living member."""
    for host in world.up():
        members = host.engine.members()
        assert max(Counter(member.id for member in members).values()) == 1
        assert max(Counter(member.address for member in members if member.live).values()) == 1
        assert max(Counter(member.name for member in members).values()) == 1


# ---------------------------------------------------------------- faults between some
@pytest.mark.parametrize("cut", ["c cannot send to b", "c cannot hear b", "both"])
@pytest.mark.parametrize("count", [3, 4])
def test_a_fault_between_two_members_only_is_no_reason_to_suspect_either(cut: str, count: int) -> None:
    world = cluster(*NAMES[:count])
    pairs = {"c cannot send to b": {("c", "b")}, "c cannot hear b": {("b", "c")}}.get(
        cut, {("b", "c"), ("c", "b")}
    )
    world.blocked = lambda source, target: (source, target) in pairs
    world.run(60)
    assert world.changes(State.SUSPECT, State.DEAD) == []
    assert world.converged()


@pytest.mark.parametrize("direction", ["deaf", "mute", "cut off"])
def test_one_member_lost_is_condemned_by_the_rest_and_trusted_again_afterwards(direction: str) -> None:
    world = cluster("a", "b", "c")
    world.blocked = lambda source, target: (
        (direction != "deaf" and source == "b") or (direction != "mute" and target == "b")
    )
    world.run_until(lambda: gone(world, "a", "b") and gone(world, "c", "b"), within_s=CONDEMNED_S)
    assert world.hosts["a"].states()["c"] is world.hosts["c"].states()["a"] is State.ALIVE
    world.heal()
    world.run_until(world.converged, within_s=HEALED_S)
    no_duplicates(world)


def test_a_second_partition_on_top_of_the_first_heals_with_it() -> None:
    world = cluster("a", "b", "c")
    world.partition(["b"], ["a", "c"])
    world.run_until(lambda: gone(world, "a", "b") and gone(world, "b", "a", "c"), within_s=CONDEMNED_S)
    world.partition(["a"], ["b"], ["c"])
    world.run_until(lambda: gone(world, "a", "b", "c") and gone(world, "c", "a", "b"), within_s=CONDEMNED_S)
    world.heal()
    world.run_until(world.converged, within_s=HEALED_S)
    no_duplicates(world)


def test_partitions_one_after_another_each_heal() -> None:
    world = cluster(*NAMES)
    for sides in ((["a", "b"], ["c", "d"]), (["a", "c"], ["b", "d"]), (["a"], ["b", "c", "d"])):
        world.partition(*sides)
        world.run_until(
            lambda sides=sides: all(
                gone(world, name, *other)
                for one in sides
                for other in sides
                if one is not other
                for name in one
            ),
            within_s=CONDEMNED_S,
        )
        world.heal()
        world.run_until(world.converged, within_s=HEALED_S)
    no_duplicates(world)


@pytest.mark.parametrize("fault", ["nobody hears", "nobody sends"])
def test_when_all_lose_all_each_is_alone_and_all_find_each_other_again(fault: str) -> None:
    world = cluster(*NAMES)
    world.blocked = lambda source, target: True
    world.run_until(
        lambda: all(gone(world, one, *(other for other in NAMES if other != one)) for one in NAMES),
        within_s=3 * CONDEMNED_S,
    )
    for host in world.up():
        assert host.states()[host.name] is State.ALIVE
    if fault == "nobody sends":
        world.run(3 * lan().contact_backoff_s_max)  # so long that every back-off is at its cap
    world.heal()
    world.run_until(world.converged, within_s=HEALED_S)


def test_a_fault_shorter_than_a_probe_is_not_even_noticed() -> None:
    world = cluster(*NAMES)
    world.blocked = lambda source, target: True
    world.run(lan().probe_interval_s / 10)
    world.heal()
    world.run(20)
    assert world.changes(State.SUSPECT, State.DEAD) == []


# ---------------------------------------------------------------- removal
def test_a_member_dead_until_its_credential_expires_is_gone_and_its_old_statements_do_not_bring_it_back() -> (
    None
):
    company = Company("a", "b")
    brief = credential_of("s", ttl_s=300)
    old = alive_of("s", (1, 5), credential=brief)
    company.say("a", old, suspicion("a", "s", (1, 5)))
    company.run_until("s", State.DEAD, within_s=CONDEMNED_S)
    company.run(START + 300 + lan().reap_grace_s + 15 - company.now)
    assert company.engine.member(identity_of("s").id) is None
    company.say("a", old, alive_of("s", (9, 9), credential=brief))
    company.step(MembersReceived(node=None, data=chunk(old)))
    assert company.engine.member(identity_of("s").id) is None
    assert company.engine.statistics().dead == 0


def test_a_member_that_renews_in_time_is_never_removed() -> None:
    company = Company("s", "a")
    address = company.peers["s"].speaker.address
    for incarnation in range(1, 6):
        renewed = credential_of("s", issued_at=int(company.now), ttl_s=300)
        company.say("s", alive_of("s", (1, incarnation), address=address, credential=renewed))
        company.run(200.0)
        assert (company.state("s"), company.member("s").credential) == (State.ALIVE, renewed)
    company.run(100.0 + 15)
    assert company.state("s") is State.DEAD


# ---------------------------------------------------------------- restarts
@pytest.mark.parametrize("noticed", [State.ALIVE, State.SUSPECT, State.DEAD])
@pytest.mark.parametrize("moved", [False, True])
def test_two_of_four_restart_with_their_ids_and_are_the_same_members(noticed: State, moved: bool) -> None:
    world = cluster(*NAMES)
    for name in "cd":
        world.crash(name)
    if noticed is not State.ALIVE:
        wanted = (noticed, State.DEAD)
        world.run_until(
            lambda: all(world.hosts[at].states()[name] in wanted for at in "ab" for name in "cd"),
            within_s=CONDEMNED_S,
        )
    for index, name in enumerate("cd"):
        world.restart(name, seeds="ab", address=(f"10.7.0.{index + 1}", 7946) if moved else None)
    assert world.run_until(world.converged, within_s=HEALED_S) < 10
    world.run(10)
    assert world.converged()
    assert all(len(host.engine.members()) == 4 for host in world.up())
    no_duplicates(world)


def test_two_of_four_replaced_by_other_ids_on_the_same_addresses_stay_dead_and_are_not_knocked_at() -> None:
    world = cluster(*NAMES)
    for name in "cd":
        world.crash(name)
    for name in "cd":
        world.start(f"new-{name}", seeds="ab", address=world.hosts[name].address)
    world.run_until(world.converged, within_s=CONDEMNED_S)
    world.run_until(lambda: all(gone(world, at, "c", "d") for at in "ab"), within_s=CONDEMNED_S)
    world.run(60)
    assert world.converged()
    no_duplicates(world)
    for name in ("new-c", "new-d"):
        assert world.hosts[name].engine.members()[0].rank == (1, 0)


def test_all_seeds_restart_at_once_and_the_mesh_is_whole_again() -> None:
    world = World(seed=9)
    for name in NAMES:
        world.start(
            name, seeds=["a", "b"] if name in "cd" else [seed for seed in "ab" if seed in world.hosts]
        )
    world.run_until(world.converged, within_s=30)
    for name in "ab":
        world.restart(name, seeds=[])
    world.run_until(world.converged, within_s=HEALED_S)
    no_duplicates(world)


def test_seeds_that_come_back_without_any_memory_or_seed_of_their_own_are_found_by_the_rest() -> None:
    world = World(seed=9)
    for name in NAMES:
        world.start(name, seeds=["a"] if name != "a" else [])
    world.run_until(world.converged, within_s=30)
    world.crash("a")
    world.run_until(lambda: all(gone(world, at, "a") for at in "bcd"), within_s=CONDEMNED_S)
    world.restart("a", seeds=[], boot=1)
    world.run_until(lambda: world.hosts["a"].engine.members()[0].rank > (1, 0), within_s=HEALED_S)
    world.hosts["a"].boot = world.hosts["a"].engine.boot
    world.run_until(world.converged, within_s=HEALED_S)


# ---------------------------------------------------------------- joining
def test_a_chain_of_seeds_makes_one_mesh() -> None:
    world = World(seed=4)
    for name, seeds in (("a", ""), ("b", "a"), ("c", "a"), ("d", "b"), ("e", "b"), ("f", "e")):
        world.start(name, seeds=seeds)
    world.run_until(world.converged, within_s=10)
    assert world.changes(State.SUSPECT, State.DEAD) == []


def test_a_ring_of_seeds_started_the_wrong_way_round_makes_one_mesh() -> None:
    world = World(seed=4)
    addresses = {name: (f"10.3.0.{index + 1}", 7946) for index, name in enumerate(NAMES)}
    for name, address in addresses.items():
        world.start(name, address=address)
    for name, seed in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True):
        world.restart(name, seeds=seed)
    world.run_until(world.converged, within_s=HEALED_S)
    no_duplicates(world)


def test_who_joins_without_hearing_anything_is_alone_and_joins_when_it_hears() -> None:
    world = cluster("a", "b")
    world.blocked = lambda source, target: target == "c"
    world.start("c", seeds=["a"])
    world.run(10)
    assert world.hosts["c"].states() == {"c": State.ALIVE}
    assert {name: state for name, state in world.hosts["a"].states().items() if name != "c"} == {
        "a": State.ALIVE,
        "b": State.ALIVE,
    }
    world.heal()
    world.run_until(world.converged, within_s=HEALED_S)


def test_many_join_at_once_through_one_seed_and_nobody_is_there_twice() -> None:
    world = World(seed=5)
    world.start("seed")
    for index in range(15):
        world.start(f"n{index}", seeds=["seed"])
    world.run_until(world.converged, within_s=10)
    no_duplicates(world)
    assert world.changes(State.SUSPECT, State.DEAD) == []
    for host in world.up():
        joined = [o.member.id for _, o in host.outputs if hasattr(o, "previous") and o.previous is None]
        assert max(Counter(joined).values()) == 1

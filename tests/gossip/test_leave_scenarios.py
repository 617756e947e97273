"""Leaving and coming back, after hashicorp/serf's `serf_test.go` (TestSerf_joinLeave, _joinLeaveJoin,
_leaveRejoinDifferentRole, _eventsLeave_avoidInfiniteLeaveRebroadcast, _Leave_SnapshotRecovery, _reconnect,
_forceLeave*), `serf_internals_test.go` (leave and join intents that arrive early, old or newer) and scalecube's
`MembershipProtocolTest` (leave before alive, leave only, leave of a suspect).

Taken: the order in which a leave, a return and a crash happen or are heard, and what everybody must end up with.
Different here: a leave is the subject's signed statement at a rank of its own, so order is decided by rank alone and
no intent is kept for members never heard of; whoever else wants a member gone evicts it (revocation), there is no
forced leave.
"""

import itertools

import pytest

from gossip.config import lan
from gossip.events import Evict, Join, Leave, LeaveSpread, MemberChanged, MembersReceived, SetMeta
from gossip.member import State
from gossip.message import Ping
from gossip.statement import Alive, Left
from tests.gossip.company import OWN, Company, alive_of, dead_of, left_of
from tests.gossip.world import World, identity_of, members_payload, suspicion

HEALED_S = lan().contact_backoff_s_max + lan().contact_interval_s + 5
CONDEMNED_S = 90.0
LEFT_OR_NEVER_HEARD = (State.LEFT, None)


def mesh(count: int, seed: int = 2) -> World:
    world = World(seed=seed)
    world.start_many(count)
    world.run_until(world.converged, within_s=30)
    world.run(5)
    return world


def leave(world: World, name: str, *, spread: bool = True) -> None:
    """`name` says good-bye; its process ends when that has spread, or at once."""
    host = world.hosts[name]
    already = len(world.outputs(LeaveSpread, name))
    world.step(host, Leave())
    if spread:
        world.run_until(
            lambda: len(world.outputs(LeaveSpread, name)) > already, within_s=lan().leave_timeout_s + 1
        )


# ---------------------------------------------------------------- one node
def test_who_leaves_and_joins_again_is_alive_with_what_it_now_says() -> None:
    world = mesh(4)
    leave(world, "h3")
    assert world.all_see("h3", State.LEFT)
    world.crash("h3")
    world.run(20)
    host = world.restart("h3")
    world.step(host, SetMeta(meta={"role": "bar"}))
    world.run_until(world.converged, within_s=10)
    world.run(5)
    for other in world.up():
        assert [m.meta for m in other.engine.members() if m.name == "h3"] == [{"role": "bar"}]


def test_a_node_that_left_is_neither_probed_nor_knocked_at() -> None:
    company = Company("a", "b")
    company.say("a", left_of("a", (1, 1)))
    company.peers["a"].heard.clear()
    company.run(300.0)
    assert company.messages("a", Ping) == []
    assert company.state("a") is State.LEFT


def test_a_node_that_left_stays_left_whatever_is_replayed_of_its_life() -> None:
    company = Company("s", "a", "b")
    history = [alive_of("s", (1, incarnation)) for incarnation in range(3)]
    for statement in history:
        company.say("a", statement)
    company.say("a", left_of("s", (1, 3)))
    for name, statement in itertools.product("ab", [*history, suspicion("b", "s", (1, 2))]):
        company.say(name, statement)
        company.stream(statement)
    assert (company.state("s"), company.member("s").rank) == (State.LEFT, (1, 3))


@pytest.mark.parametrize("rounds", [1, 5, 20])
def test_a_node_that_leaves_and_rejoins_again_and_again_is_alive_in_the_end_and_never_accused(
    rounds: int,
) -> None:
    world = mesh(5)
    host = world.hosts["h4"]
    for index in range(rounds):
        world.step(host, Leave())
        world.run(0.01 * (index % 7))
        world.step(host, Join(seeds=(world.hosts["h0"].address,)))
        world.run(0.01 * (index % 5))
    world.run_until(world.converged, within_s=HEALED_S)
    rank = host.engine.members()[0].rank
    assert rank == (1, 2 * rounds)
    world.run(10)
    assert world.converged()
    assert all(m.rank == rank for h in world.up() for m in h.engine.members() if m.name == "h4")
    assert world.changes(State.SUSPECT, State.DEAD, of="h4") == []


def test_a_storm_of_leaves_and_restarts_ends_with_the_last_life_alone() -> None:
    world = mesh(5)
    for index in range(8):
        leave(world, "h4", spread=index % 2 == 0)
        world.crash("h4")
        world.run(0.3 * (index % 3))
        world.restart("h4")
        world.run(0.2 * (index % 4))
    world.run_until(world.converged, within_s=HEALED_S)
    world.run(10)
    assert world.converged()
    assert all(len(host.engine.members()) == 5 for host in world.up())


def test_who_leaves_and_crashes_before_the_leave_is_out_is_gone_for_everybody_all_the_same() -> None:
    world = mesh(5)
    world.lost = lambda source, target: source == "h4"
    leave(world, "h4", spread=False)
    world.crash("h4")
    world.lost = lambda source, target: False
    world.run_until(
        lambda: all(host.states()["h4"] in (State.DEAD, State.LEFT) for host in world.up()),
        within_s=CONDEMNED_S,
    )


@pytest.mark.parametrize("heard_by", [1, 2])
def test_a_leave_that_few_have_heard_reaches_all_others_through_them(heard_by: int) -> None:
    world = mesh(6)
    few = {f"h{index}" for index in range(heard_by)}
    world.lost = lambda source, target: source == "h5" and target not in few
    world.step(world.hosts["h5"], Leave())
    world.run(1.0)
    world.crash("h5")
    world.run_until(lambda: world.all_see("h5", State.LEFT), within_s=lan().push_pull_interval_s)
    world.run(30)
    assert world.all_see("h5", State.LEFT)


def test_a_leave_behind_a_partition_is_known_on_the_other_side_after_it() -> None:
    world = mesh(6)
    world.partition(["h0", "h1", "h2"], ["h3", "h4", "h5"])
    world.run(1.0)
    leave(world, "h5")
    world.crash("h5")
    world.run_until(
        lambda: all(world.hosts[name].states()["h5"] is State.DEAD for name in ("h0", "h1", "h2")),
        within_s=CONDEMNED_S,
    )
    world.heal()
    world.run_until(lambda: world.converged() and world.all_see("h5", State.LEFT), within_s=2 * HEALED_S)


def test_a_restart_that_forgot_it_had_left_rises_above_its_own_leave() -> None:
    """Stale memory: the same boot number again, at incarnation 0, while all know a leave of that boot."""
    world = mesh(4)
    world.step(world.hosts["h3"], SetMeta(meta={"life": 1}))
    leave(world, "h3")
    world.crash("h3")
    world.run(5)
    host = world.restart("h3", boot=1)
    world.run_until(lambda: host.engine.members()[0].rank > (1, 2), within_s=10)
    host.boot = host.engine.boot
    world.run_until(world.converged, within_s=10)
    assert all(m.meta == {"version": "1"} for h in world.up() for m in h.engine.members() if m.name == "h3")


def test_a_suspect_that_leaves_has_left_and_is_not_condemned() -> None:
    company = Company("s", "a", "b")
    company.say("a", suspicion("a", "s"))
    company.say("b", left_of("s", (1, 1)))
    company.run(CONDEMNED_S)
    assert [change[2] for change in company.changes("s")] == [State.ALIVE, State.SUSPECT, State.LEFT]


def test_a_member_condemned_that_turns_out_to_have_left_has_left() -> None:
    world = mesh(5)
    world.blocked = lambda source, target: source == "h4"
    world.run_until(
        lambda: all(host.states()["h4"] is State.DEAD for host in world.up() if host.name != "h4"),
        within_s=CONDEMNED_S,
    )
    world.heal()
    leave(world, "h4")
    world.crash("h4")
    world.run_until(lambda: world.all_see("h4", State.LEFT), within_s=HEALED_S)


# ---------------------------------------------------------------- everybody
def test_everybody_leaves_and_everybody_comes_back() -> None:
    world = mesh(5)
    for name in list(world.hosts):
        world.step(world.hosts[name], Leave())
    world.run(lan().leave_timeout_s + 1)
    assert len(world.outputs(LeaveSpread)) == 5
    assert all(host.states()[host.name] is State.LEFT for host in world.up())
    for name in list(world.hosts):
        world.restart(name, seeds=["h0"] if name != "h0" else [])
    world.run_until(world.converged, within_s=HEALED_S)
    assert world.changes(State.DEAD) == []


def test_everybody_leaves_in_turn_and_rejoins_in_the_same_process() -> None:
    world = mesh(4)
    for name in list(world.hosts):
        leave(world, name)
        assert world.all_see(name, State.LEFT)
        world.step(world.hosts[name], Join(seeds=()))
        world.run_until(world.converged, within_s=HEALED_S)
    assert world.changes(State.SUSPECT, State.DEAD) == []


def test_the_last_one_left_alone_leaves_too() -> None:
    world = mesh(2)
    for name in ("h1", "h0"):
        leave(world, name)
        world.crash(name)
    assert [name for _, name, _ in world.outputs(LeaveSpread)] == ["h0", "h1"]


# ---------------------------------------------------------------- the order in which things are heard
LIFE = (
    alive_of("s", (1, 1)),
    left_of("s", (1, 2)),
    alive_of("s", (1, 3)),
    left_of("s", (1, 4)),
)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_in_whatever_order_two_leaves_and_a_return_are_heard_the_last_one_said_counts(
    order: tuple[int, ...],
) -> None:
    """As serf's rebroadcast of leaves heard out of order: who missed the return must still count the second leave."""
    company = Company("s", "a", "b")
    for index in order:
        company.say("a", LIFE[index])
    assert (company.state("s"), company.member("s").rank) == (State.LEFT, (1, 4))
    told = len(company.changes("s"))
    for statement in LIFE:
        company.say("b", statement)
    assert len(company.changes("s")) == told


def test_a_second_leave_by_who_is_thought_gone_is_told_on_in_place_of_the_first() -> None:
    company = Company("s", "a", "b")
    company.say("a", left_of("s", (1, 1)))
    company.run(10.0)
    company.peers["b"].heard.clear()
    company.say("a", left_of("s", (1, 3)))
    company.run(5.0)
    assert {statement.rank for statement in company.told(Left, "s") if isinstance(statement, Left)} >= {
        (1, 3)
    }
    for statement in company.peers["b"].statements():
        assert not isinstance(statement, Left) or statement.rank == (1, 3)


def test_a_leave_of_a_member_never_heard_of_is_nothing_to_remember() -> None:
    company = Company("a", "b")
    company.say("a", left_of("s", (1, 5)))
    company.run(60.0)
    assert company.engine.member(identity_of("s").id) is None
    assert company.changes("s") == []


def test_who_hears_the_leave_before_the_alive_knows_better_as_soon_as_it_asks_around() -> None:
    """No intent is kept: the late Alive makes a member, whose first accuser is told by anybody that it has left."""
    world = mesh(4)
    late = world.hosts["h0"]
    world.lost = lambda source, target: target == "h0"
    newcomer = world.start("brief", seeds=["h1"], address=("10.5.5.5", 7946))
    world.run_until(
        lambda: all(world.hosts[h].states().get("brief") is State.ALIVE for h in ("h1", "h2", "h3")),
        within_s=5,
    )
    alive = members_payload(newcomer.engine)
    leave(world, "brief")
    world.crash("brief")
    world.lost = lambda source, target: False
    for data in alive:
        world.step(late, MembersReceived(node=None, data=data))
    world.run_until(
        lambda: all(host.states().get("brief") in LEFT_OR_NEVER_HEARD for host in world.up()),
        within_s=CONDEMNED_S,
    )
    assert world.changes(State.DEAD, of="brief") == []


# ---------------------------------------------------------------- evicted instead of forced to leave
@pytest.mark.parametrize("state", [State.ALIVE, State.DEAD, State.LEFT])
def test_an_evicted_member_is_out_in_whatever_state_it_was_and_cannot_come_back(state: State) -> None:
    company = Company("s", "a", "b")
    match state:
        case State.DEAD:
            company.peers["s"].answers = company.peers["s"].relayed = company.peers["s"].streams = False
            company.run_until("s", State.DEAD, within_s=CONDEMNED_S)
        case State.LEFT:
            company.say("a", left_of("s", (1, 1)))
        case _:
            pass
    assert company.state("s") is state
    company.step(Evict(node=identity_of("s").id, reason="revoked"))
    assert company.state("s") is State.DEAD
    rejected = len(company.rejected())
    company.say("a", alive_of("s", (7, 0)), left_of("s", (7, 1)))
    company.stream(alive_of("s", (8, 0)))
    assert company.state("s") is State.DEAD
    assert len(company.rejected()) >= rejected + 2
    for peer in company.peers.values():
        peer.heard.clear()
    company.run(60.0)
    assert company.told(Alive, "s") == []
    assert company.peers["s"].heard == []


def test_what_an_evicted_member_has_signed_against_others_no_longer_counts() -> None:
    """Two of the three suspicions that make a death true were signed by members since revoked."""
    company = Company("s", "a", "b", "x", "y")
    company.say("x", suspicion("x", "s"))
    company.say("y", suspicion("y", "s"))
    for name in "xy":
        company.step(Evict(node=identity_of(name).id, reason="revoked"))
    company.say("a", suspicion("a", "s"))
    company.run(2 * lan().suspicion_mult_alone * lan().probe_interval_s)
    assert company.state("s") is not State.DEAD


def test_a_proof_one_of_whose_signers_was_revoked_is_worth_what_the_others_signed() -> None:
    company = Company("s", "a", "b", "c", "x")
    company.step(Evict(node=identity_of("x").id, reason="revoked"))
    company.say("a", dead_of("s", "xab"))
    assert company.state("s") is State.SUSPECT
    company.say("a", dead_of("s", "xabc"))
    assert company.state("s") is State.DEAD


def test_the_driver_hears_of_an_own_leave_and_return_once_each() -> None:
    company = Company("a")
    for event in (Leave(), Leave(), Join(seeds=()), Join(seeds=())):
        company.step(event)
    own = [
        o.member.state for _, o in company.outputs if isinstance(o, MemberChanged) and o.member.name == OWN
    ]
    assert own == [State.LEFT, State.ALIVE]

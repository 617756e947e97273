import gc
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from sys import setprofile
from types import FrameType

from gossip.census import Census
from gossip.entry import Entry
from gossip.events import Address
from gossip.member import Member, State
from gossip.roster import Roster
from gossip.statement import Dead, Suspect, decode_statement
from tests.gossip.world import Speaker, credential_of, identity_of, suspicion

ADDRESS = ("10.9.9.9", 7946)


def entry_of(
    name: str, *, state: State = State.ALIVE, since: float = 0.0, address: Address = ADDRESS
) -> Entry:
    alive = Speaker(name, address=address).alive()
    member = Member(
        id=alive.node,
        name=name,
        address=alive.address,
        state=state,
        incarnation=0,
        boot=1,
        zone="",
        meta={},
        credential=credential_of(name),
        since=since,
    )
    return Entry(member=member, alive=alive, encoded=alive.encode())


def roster_of(count: int, *, members_max: int = 1000) -> Roster:
    roster = Roster(own=identity_of("own").id, members_max=members_max)
    for index in range(count):
        assert roster.add(entry_of(f"m{index}"))
    return roster


def test_members_are_found_by_id_and_by_the_sender_field() -> None:
    roster = roster_of(3)
    node = identity_of("m1").id
    assert roster.get(node) is roster.by_prefix(node[:8])
    roster.remove(node)
    assert roster.get(node) is None
    assert roster.by_prefix(node[:8]) is None


def test_size_counts_live_members_and_this_node() -> None:
    roster = roster_of(3)
    assert roster.size == 4
    for name, state in (("m0", State.SUSPECT), ("m1", State.DEAD)):
        entry = roster.get(identity_of(name).id)
        assert entry is not None
        roster.change(entry, replace(entry.member, state=state))
    assert roster.size == 3
    suspect = roster.get(identity_of("m0").id)
    alive = roster.get(identity_of("m2").id)
    assert suspect is not None
    assert alive is not None
    assert roster.able(suspect.member) == 2  # m2 and this node
    assert roster.able(alive.member) == 1  # this node; m0 is suspect itself


def test_a_full_roster_gives_the_place_of_the_member_gone_longest() -> None:
    roster = roster_of(3, members_max=3)
    assert not roster.add(entry_of("new"))
    for name, since in (("m0", 20.0), ("m2", 10.0)):
        entry = roster.get(identity_of(name).id)
        assert entry is not None
        roster.change(entry, replace(entry.member, state=State.DEAD, since=since))
    assert roster.add(entry_of("new"))
    assert roster.get(identity_of("m2").id) is None
    assert len(roster) == 3


def test_who_comes_back_or_is_removed_makes_no_room() -> None:
    roster = roster_of(3, members_max=3)
    for name, state, since in (
        ("m0", State.LEFT, 5.0),
        ("m1", State.DEAD, 6.0),
        ("m1", State.LEFT, 9.0),
        ("m0", State.ALIVE, 10.0),
        ("m2", State.DEAD, 7.0),
    ):
        entry = roster.get(identity_of(name).id)
        assert entry is not None
        roster.change(entry, replace(entry.member, state=state, since=since))
    assert roster.add(entry_of("first"))
    roster.remove(identity_of("first").id)
    assert roster.add(entry_of("second"))
    assert roster.add(entry_of("third"))
    assert not roster.add(entry_of("fourth"))
    assert {member.name for member in roster.members()} == {"m0", "second", "third"}


def work_of(act: Callable[[], object]) -> int:
    """How many calls it makes, resumed generators included."""
    calls = 0

    def count(_frame: FrameType, _event: str, _value: object) -> None:
        nonlocal calls
        calls += 1

    gc.disable()  # who listens to the collector would be counted too
    setprofile(count)
    try:
        act()
    finally:
        setprofile(None)
        gc.enable()
    return calls


def work_when_full(members: int) -> tuple[int, int]:
    """What a newcomer costs a full roster where nobody is gone, and one where half are."""
    roster = Roster(own=identity_of("own").id, members_max=members)
    template, newcomer = entry_of("m"), entry_of("new")
    for index in range(members):
        node, address = index.to_bytes(8, "big") + bytes(8), ("10.9.0.1", index)
        member = replace(template.member, id=node, address=address)
        assert roster.add(Entry(member=member, alive=template.alive, encoded=b""))
    refused = work_of(lambda: roster.add(newcomer))
    for entry in list(roster.entries())[::2]:
        roster.change(entry, replace(entry.member, state=State.DEAD, since=float(entry.member.id[7])))
    taken = work_of(lambda: roster.add(newcomer))
    assert roster.get(newcomer.member.id) is newcomer
    return refused, taken


def test_a_full_roster_does_not_look_at_everybody_to_take_somebody_in() -> None:
    few, many = work_when_full(64), work_when_full(2048)
    assert many[0] == few[0]
    assert many[1] <= few[1] + 32  # a few more halvings; 1,984 members more are not looked at


def test_two_ids_of_one_prefix_cannot_displace_each_other() -> None:
    roster = roster_of(1)
    twin = entry_of("twin")
    twin.member = replace(twin.member, id=identity_of("m0").id[:8] + b"x" * 8)
    assert not roster.add(twin)


def test_witnesses_are_the_same_for_everyone_and_never_the_suspect() -> None:
    names = [f"m{index}" for index in range(10)]
    suspect = identity_of("m3").id
    chosen = []
    for own in names[4:]:
        roster = Roster(own=identity_of(own).id, members_max=100)
        for name in reversed(names):
            if name != own:
                roster.add(entry_of(name))
        chosen.append(roster.witnesses(suspect, 3))
    assert all(witnesses == chosen[0] for witnesses in chosen)
    assert len(set(chosen[0])) == 3
    assert suspect not in chosen[0]


def test_witnessing_is_spread_over_the_mesh() -> None:
    roster = roster_of(20)
    load: dict[bytes, int] = {}
    for index in range(20):
        for node in roster.witnesses(identity_of(f"m{index}").id, 3):
            load[node] = load.get(node, 0) + 1
    assert len(load) >= 14
    assert max(load.values()) <= 9


def test_samples_follow_the_rng_alone_and_are_all_members_live() -> None:
    roster = roster_of(20)
    entry = roster.get(identity_of("m3").id)
    assert entry is not None
    roster.change(entry, replace(entry.member, state=State.DEAD))
    first = [entry.member.id for entry in roster.sample_live(random.Random(1), 5)]
    assert first == [entry.member.id for entry in roster.sample_live(random.Random(1), 5)]
    assert len(set(first)) == 5
    assert len(roster.sample_live(random.Random(1), 50)) == 19
    assert entry not in roster.sample_live(random.Random(1), 50)


def test_suspects_are_sampled_as_live_but_not_as_alive() -> None:
    roster = roster_of(3)
    entry = roster.get(identity_of("m0").id)
    assert entry is not None
    roster.change(entry, replace(entry.member, state=State.SUSPECT))
    assert len(roster.sample_live(random.Random(1), 9)) == 3
    alive = roster.sample_alive(random.Random(1), 9, but=identity_of("m1").id)
    assert [other.member.name for other in alive] == ["m2"]


def test_samples_reach_everybody_alike() -> None:
    roster, rng = roster_of(40), random.Random(7)
    drawn = Counter(entry.member.id for _ in range(4000) for entry in roster.sample_live(rng, 3))
    assert len(drawn) == 40
    assert 200 < min(drawn.values()) <= max(drawn.values()) < 400  # 300 each, give or take six deviations


def census_of(count: int) -> Census:
    members = [
        (Speaker(f"m{index}", address=("10.9.0.1", index)).alive(), credential_of(f"m{index}"))
        for index in range(1, count + 1)
    ]
    return Census(members, since=0.0)


def test_a_census_is_shared_and_only_what_was_dealt_with_becomes_a_nodes_own() -> None:
    census = census_of(10)
    own = identity_of("m4").id
    first, second = (Roster(own=own, members_max=100, census=census) for _ in range(2))
    assert (first.size, first.others, len(first)) == (10, 9, 9)
    assert {member.name for member in first.members()} == {f"m{index}" for index in range(1, 11)} - {"m4"}
    entry = first.get(identity_of("m1").id)
    assert entry is not None
    first.change(entry, replace(entry.member, state=State.DEAD))
    assert (first.size, second.size) == (9, 10)
    assert first.holder(entry.member.address) is None
    first.remove(entry.member.id)
    assert first.get(entry.member.id) is None
    assert first.member(entry.member.id) is None
    assert second.member(entry.member.id) is not None
    assert first.add(entry_of("m1"))
    assert first.size == 10


def test_with_and_without_a_census_a_roster_answers_alike() -> None:
    own = identity_of("m12").id
    plain = Roster(own=own, members_max=100)
    shared = Roster(own=own, members_max=100, census=census_of(12))
    for index in range(1, 12):
        plain.add(entry_of(f"m{index}"))
    for roster in (plain, shared):
        for name, state in (("m3", State.DEAD), ("m5", State.SUSPECT), ("m7", State.LEFT)):
            entry = roster.get(identity_of(name).id)
            assert entry is not None
            roster.change(entry, replace(entry.member, state=state))
        roster.add(entry_of("late"))
        roster.remove(identity_of("m7").id)
    assert plain.size == shared.size
    assert [plain.at_rank(rank) for rank in range(plain.size)] == [
        shared.at_rank(rank) for rank in range(shared.size)
    ]
    for subject in range(1, 13):
        node = identity_of(f"m{subject}").id
        assert plain.witnesses(node, 3) == shared.witnesses(node, 3)
    assert [m.id for m in plain.members()] == [m.id for m in shared.members()]
    assert [plain.count(state) for state in State] == [shared.count(state) for state in State]


def test_the_lately_dead_are_those_of_the_last_moments() -> None:
    roster = roster_of(5)
    for name, at in (("m0", 10.0), ("m1", 20.0), ("m2", 30.0)):
        entry = roster.get(identity_of(name).id)
        assert entry is not None
        roster.change(entry, replace(entry.member, state=State.DEAD, since=at))
    assert list(roster.lately_dead(35.0, 20.0)) == [identity_of("m1").id, identity_of("m2").id]
    rng = random.Random(1)
    assert {entry.member.name for entry in roster.sample_dead(rng, 5)} == {"m1", "m2"}
    assert len(roster.sample_dead(rng, 1)) == 1
    back = roster.get(identity_of("m1").id)
    assert back is not None
    roster.change(back, replace(back.member, state=State.ALIVE, since=36.0))
    assert list(roster.lately_dead(36.0, 20.0)) == [identity_of("m2").id]
    roster.mourn_no_more(identity_of("m2").id)
    assert roster.sample_dead(rng, 5) == []


def test_expiry_is_looked_for_only_when_one_is_due() -> None:
    roster = roster_of(3)
    ends = credential_of("m0").expires_at
    assert roster.expiring(ends - 1, 60.0) == ([], [])
    expired, gone = roster.expiring(ends, 60.0)
    assert (len(expired), gone) == (3, [])
    for entry in expired:
        roster.change(entry, replace(entry.member, state=State.DEAD))
    assert roster.expiring(ends + 59, 60.0) == ([], [])
    expired, gone = roster.expiring(ends + 60, 60.0)
    assert (expired, len(gone)) == ([], 3)


def test_an_address_belongs_to_the_live_member_announced_there_last() -> None:
    roster = roster_of(1)
    address = entry_of("m0").member.address
    assert roster.holder(address) == identity_of("m0").id
    roster.add(entry_of("m1"))  # the same address under another id: a host that was set up anew
    assert roster.holder(address) == identity_of("m1").id
    old = roster.get(identity_of("m0").id)
    assert old is not None
    roster.change(old, replace(old.member, state=State.DEAD))
    assert roster.holder(address) == identity_of("m1").id


def test_suspicions_stay_single_until_there_is_a_verdict() -> None:
    entry = entry_of("s", state=State.SUSPECT)
    entry.evidence = {identity_of(accuser).id: suspicion(accuser, "s") for accuser in ("a", "b")}
    assert [type(decode_statement(proof)) for proof in entry.proofs()] == [Suspect, Suspect]
    entry.member = replace(entry.member, state=State.DEAD)
    (proof,) = map(decode_statement, entry.proofs())
    assert isinstance(proof, Dead)
    assert [s.accuser for s in proof.suspicions] == [identity_of("a").id, identity_of("b").id]
    entry.member = replace(entry.member, state=State.ALIVE)
    assert entry.proofs() == ()


def test_a_new_life_of_a_peer_forgets_what_its_old_one_knew() -> None:
    link = entry_of("m").link
    link.accept(10)
    link.learn(knows_us=True)
    link.proved = ("10.0.0.1", 1)
    link.enter(2)
    assert (link.boot, link.knows_us, link.doubted, link.proved) == (2, False, True, None)
    assert link.fresh(10)


def test_the_own_rank_follows_those_who_come_and_go() -> None:
    roster, own = roster_of(0), identity_of("own").id
    names = [f"m{index}" for index in range(12)]
    for name in names:
        assert roster.add(entry_of(name))
        assert roster.own_rank == sum(entry.member.id < own for entry in roster.live())
    assert 0 < roster.own_rank < len(names)
    for name in names:
        entry = roster.get(identity_of(name).id)
        assert entry is not None
        roster.change(entry, replace(entry.member, state=State.DEAD))
        assert roster.own_rank == sum(entry.member.id < own for entry in roster.live())

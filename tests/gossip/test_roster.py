import random
from dataclasses import replace

from gossip.member import Member, State
from gossip.roster import Entry, Roster
from gossip.statement import Dead, Suspect, decode_statement
from tests.gossip.world import Speaker, credential_of, identity_of, suspicion


def entry_of(name: str, *, state: State = State.ALIVE, since: float = 0.0) -> Entry:
    alive = Speaker(name).alive()
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


def test_samples_follow_the_rng_alone() -> None:
    roster = roster_of(20)
    first = [entry.member.id for entry in roster.sample(random.Random(1), roster.live(), 5)]
    assert first == [entry.member.id for entry in roster.sample(random.Random(1), roster.live(), 5)]
    assert len(roster.sample(random.Random(1), roster.live(), 50)) == 20


def test_suspicions_stay_single_until_there_is_a_verdict() -> None:
    entry = entry_of("s", state=State.SUSPECT)
    for accuser in ("a", "b"):
        entry.evidence[identity_of(accuser).id] = suspicion(accuser, "s")
    assert [type(decode_statement(proof)) for proof in entry.proofs()] == [Suspect, Suspect]
    entry.member = replace(entry.member, state=State.DEAD)
    (proof,) = map(decode_statement, entry.proofs())
    assert isinstance(proof, Dead)
    assert [s.accuser for s in proof.suspicions] == [identity_of("a").id, identity_of("b").id]
    entry.member = replace(entry.member, state=State.ALIVE)
    assert entry.proofs() == ()


def test_a_new_life_of_a_peer_forgets_what_its_old_one_knew() -> None:
    link = entry_of("m").link
    link.window.accept(10)
    link.knows_us, link.proved = True, ("10.0.0.1", 1)
    link.enter(2)
    assert (link.boot, link.knows_us, link.proved) == (2, False, None)
    assert link.window.fresh(10)

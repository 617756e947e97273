"""What an elector helps with: each reason for a refusal, and one liar with a crowd of friends."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trust.ceremony.network import Network, founded, outcome, people, reshare
from trust.ceremony.bearing import OVERLOOKED_MAX, check_change
from trust.ceremony.bodies import Join, Opening
from trust.ceremony.electorate import by_id
from trust.ceremony.events import Members, Wish
from trust.ceremony.gathering import Gathering, Standing
from trust.ceremony.growth import SignerRules
from trust.ceremony.selection import check_opening
from trust.ceremony.statement import Kind, state
from trust.epoch import succession
from trust.errors import CeremonyError
from trust.identity import NodeIdentity

RULES = SignerRules()
CROWD = people(9, 77)


def ids(identities: Iterable[NodeIdentity]) -> frozenset[bytes]:
    return frozenset(each.id for each in identities)


def judged(
    signers: int,
    new: Iterable[NodeIdentity],
    rules: SignerRules = RULES,
    excused: Iterable[bytes] = (),
    **seen: Any,
) -> None:
    """One elector's judgement of a change."""
    record, _, old = founded(signers)
    chosen = ids(new)
    members = replace(Members(known=ids([*old, *CROWD])), **seen)
    check_change(
        chosen, rules.threshold_of(len(chosen)), succession(record), rules, members, excused=frozenset(excused)
    )  # fmt: skip


def test_a_signer_is_left_out_with_cause_only() -> None:
    _, _, old = founded(5)
    first = ids(old[:1])
    with pytest.raises(CeremonyError, match="would be left out, and it is a signer that is here"):
        judged(5, old[1:])
    for cause in ("away", "barred"):
        judged(5, old[1:], **{cause: first})
    judged(5, old[1:], excused=first)


def test_a_seat_is_free_when_its_signer_is_revoked_or_gone_and_not_when_it_is_away_or_silent() -> None:
    _, _, old = founded(5)
    first, new = ids(old[:1]), [*old[1:], CROWD[0]]
    with pytest.raises(CeremonyError, match="1 newcomers are to sign and 0 of 5 seats are free"):
        judged(5, new, away=first)
    judged(5, new, away=first, gone=first)
    judged(5, new, barred=first)
    with pytest.raises(CeremonyError, match="1 newcomers are to sign and 0 of 5 seats are free"):
        judged(5, new, excused=first)


def test_the_seat_of_one_that_is_convicted_is_free() -> None:
    record, _, old = founded(5)
    new = [*old[1:], CROWD[0]]
    opening = Opening(
        threshold=3, dealers=tuple(sorted(ids(old[1:4]))), receivers=by_id(each.public_key for each in new), joins=()
    )  # fmt: skip
    seen = Members(known=ids([*old, *CROWD]))
    for convicted in (frozenset(), ids(old[:1])):
        with pytest.raises(CeremonyError) if not convicted else nullcontext():
            check_opening(opening, succession(record), RULES, seen=seen, convicted=convicted)


def test_the_seat_of_one_that_was_a_signer_and_is_away_is_held() -> None:
    _, _, old = founded(4)
    judged(4, [*old, CROWD[0]])
    with pytest.raises(CeremonyError, match="0 of 5 seats are free"):
        judged(4, [*old, CROWD[0]], held=1)


def test_newcomers_are_never_enough_to_sign() -> None:
    _, _, old = founded(3)
    judged(3, [*old, *CROWD[:2]])
    rules = SignerRules(signers=7)
    with pytest.raises(CeremonyError, match=r"4 newcomers would be enough to sign \(4\)"):
        judged(3, [*old, *CROWD[:4]], rules)
    gone = ids(old[:1])
    with pytest.raises(CeremonyError, match=r"2 newcomers would be enough to sign \(2\)"):
        judged(3, [old[1], *CROWD[:2]], away=ids(old), gone=ids(old))
    judged(3, [*old[1:], CROWD[0]], away=gone, gone=gone)


def test_who_holds_the_root_alone_decides_alone_and_where_one_is_enough_newcomers_may_be_too() -> None:
    judged(1, CROWD[:3])
    record, _, old = founded(3, rules=SignerRules(signers=3, threshold=1))
    rules = SignerRules(signers=5, threshold=1)
    check_change(ids([*old, *CROWD[:2]]), 1, succession(record), rules, Members(known=ids([*old, *CROWD])))


def test_no_crowd_overtakes_those_who_were_here_before() -> None:
    _, _, old = founded(4)
    rank = {each.id: 1000 + at for at, each in enumerate(CROWD)}
    ripe = ids(CROWD)
    for at, each in enumerate(CROWD):
        if at <= OVERLOOKED_MAX:
            judged(4, [*old, each], ripe=ripe, rank=rank)
            continue
        with pytest.raises(CeremonyError, match=f"{at} that could have been members for longer"):
            judged(4, [*old, each], ripe=ripe, rank=rank)
    late = CROWD[-1]
    judged(4, [*old, late], ripe=ids(CROWD[-2:]), rank=rank)  # the others are not there long enough
    judged(4, [*old, late], ripe=ripe, rank=dict.fromkeys(rank, 1000))  # all were here before this elector
    unknown = {node: at for node, at in rank.items() if node != late.id}
    with pytest.raises(CeremonyError, match="8 that could"):
        judged(4, [*old, late], ripe=ripe - {late.id}, rank=unknown)


def test_an_order_overrules_seats_and_ranks_for_its_own_group_only() -> None:
    group = CROWD[:3]
    judged(3, group, ordered=ids(group))
    with pytest.raises(CeremonyError, match="it is a signer that is here"):
        judged(3, [*CROWD[:2], CROWD[4]], ordered=ids(group))
    with pytest.raises(CeremonyError, match="would be left out, and the order names it"):
        judged(3, CROWD[:2], ordered=ids(group))
    judged(3, CROWD[:2], ordered=ids(group), excused=ids(CROWD[2:3]))


@given(st.integers(2, 5), st.sets(st.integers(0, 13)))
def test_the_signers_of_today_stay_in_charge_whatever_is_proposed(count: int, picked: set[int]) -> None:
    """While all are here: every group an elector bears holds all of them, and no t of it are strangers."""
    _, _, old = founded(count)
    new = [each for at, each in enumerate([*old, *CROWD]) if at in picked]
    try:
        judged(count, new)
    except CeremonyError:
        return
    assert ids(old) <= ids(new)
    assert len(ids(new) - ids(old)) < RULES.threshold_of(len(new))


# ---------------------------------------------------------------------- in a ceremony


def takeover(
    count: int, friends: int, honest: Wish, seed: int = 0
) -> tuple[Network, NodeIdentity, list[NodeIdentity]]:
    """One signer of `count`, which leads the first attempt, wishes for its friends, who are members; the others for
    what they think right."""
    record, shares, old = founded(count)
    crowd = people(friends, 99)
    network, electorate = reshare(record, shares, old, crowd, seed=seed, rules=RULES)
    evil = next(each for each in old if each.id == electorate.leader(0))
    seen = Members(known=ids([*old, *crowd]))
    for each in [*old, *crowd]:
        wish = network.nodes[each.id].replay[1]
        network.nodes[each.id].replay = [seen, wish if each is evil or each in crowd else honest]
    return network, evil, crowd


@pytest.mark.parametrize("count", [2, 3, 5])
def test_one_signer_and_as_many_friends_as_the_threshold_do_not_take_the_root(count: int) -> None:
    today = founded(count)[0].value.keys
    network, evil, crowd = takeover(count, count, Wish(keys=today))
    honest = [node for node in network.electors if node != evil.id]
    network.run(60, lambda: all(network.nodes[node].sealed for node in honest))
    records = {each.record.digest: each.record for node in network.nodes.values() for each in node.sealed}
    for record in records.values():
        assert not set(record.value.ids) & ids(crowd)
    refused = [each for node in honest for each in network.nodes[node].refused]
    assert {each.node for each in refused} <= {evil.id}
    assert records, "what the others wish for happens"


def test_an_elector_that_refuses_says_so_once_for_each_attempt_and_goes_on() -> None:
    record, _, old = founded(5)
    network, evil, _ = takeover(5, 5, Wish(keys=None))
    network.run(40, lambda: False)
    assert not any(node.sealed for node in network.nodes.values())
    for each in old:
        if each.id == evil.id:
            continue
        refused = network.nodes[each.id].refused
        assert refused
        assert len({one.attempt for one in refused}) == len(refused)
        assert all(
            (one.node == evil.id and "newcomers" in one.reason) or "left out" in one.reason for one in refused
        )
        machine = network.nodes[each.id].machine
        assert machine is not None
        status = machine.status()
        assert status.refused is not None
        assert status.refused[0] == evil.id
    assert record.epoch == 0


def test_who_refuses_loses_no_seat_by_it() -> None:
    """One elector has not heard yet of a newcomer; the others have. Nobody leaves it out for that."""
    record, shares, old = founded(3)
    new = [*old, *people(2, 5)]
    network, _ = reshare(record, shares, old, new, rules=RULES)
    for each in new:
        network.nodes[each.id].replay[0] = Members(known=ids(new))
    network.nodes[old[0].id].replay = [Members(known=ids(old))]
    assert not network.run(8)
    late = network.nodes[old[0].id]
    assert late.refused
    assert late.machine is not None
    late.machine.step(network.now, Members(known=ids(new)))
    late.replay = [Members(known=ids(new))]
    assert network.run(60)
    assert set(outcome(network).value.ids) == ids(new)


def test_left_out_is_whom_this_elector_waited_for_or_as_many_say_so_as_have_the_root() -> None:
    record, _, old = founded(5)
    electorate = succession(record)
    gathering = Gathering(electorate, Standing())
    me, silent, other = old[0].id, old[4].id, old[3].id

    def opening(blaming: int) -> Opening:
        joins = tuple(
            state(
                each, electorate.ceremony, 1, Kind.JOIN, Join(able=True, blamed=(silent,)).encode()
            ).encode()
            for each in old[1 : 1 + blaming]
        )
        keys = by_id(each.public_key for each in old[:4])
        return Opening(threshold=3, dealers=electorate.ids[:3], receivers=keys, joins=joins)

    assert gathering.excused(opening(2), me) == frozenset()
    assert gathering.excused(opening(3), me) == {silent}
    gathering.blame([other], 1)
    gathering.refuse(me, 1)
    assert gathering.excused(opening(0), me) == {other}


def test_who_refuses_again_and_again_is_blamed_in_the_end() -> None:
    record, _, old = founded(3)
    electorate = succession(record)
    gathering = Gathering(electorate, Standing())
    join = Join(able=True, blamed=(old[1].id,))
    said = state(old[1], electorate.ceremony, 1, Kind.JOIN, join.encode())
    for _ in range(7):
        gathering.left(said, join, 1)
    assert gathering.blamed(1) == ()
    gathering.left(said, join, 1)
    assert gathering.blamed(1) == (old[1].id,)

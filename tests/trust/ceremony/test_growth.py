"""Who should be the signers: the steps of growth, replacement, hysteresis, and never a group that cannot sign."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trust.ceremony.network import people
from trust.ceremony.growth import Candidate, SignerRules, wish
from trust.errors import CeremonyError
from trust.identity import node_id

NOW = 100_000.0
PEOPLE = [each.public_key for each in people(9)]
RULES = SignerRules()


def members(
    keys: list[bytes], *, gone: dict[bytes, float] | None = None, revoked: frozenset[bytes] = frozenset()
) -> dict[bytes, Candidate]:
    gone = gone or {}
    return {
        node_id(key): Candidate(
            key=key, alive=key not in gone, since=NOW - gone.get(key, 1000.0), revoked=key in revoked
        )
        for key in keys
    }


def test_grows_from_one_to_three_to_five_and_stays() -> None:
    today: tuple[bytes, ...] = (PEOPLE[0],)
    sizes = []
    for count in range(1, 10):
        wanted = wish(today, RULES.threshold_of(len(today)), members(PEOPLE[:count]), RULES, NOW)
        today = wanted or today
        sizes.append((RULES.threshold_of(len(today)), len(today)))
    assert sizes == [(1, 1), (1, 1), (2, 3), (2, 3), *[(3, 5)] * 5]


def test_who_has_just_come_is_not_taken_yet() -> None:
    candidates = members(PEOPLE[:3])
    fresh = {node: Candidate(key=c.key, alive=True, since=NOW - 1) for node, c in candidates.items()}
    assert wish(PEOPLE[:1], 1, fresh, RULES, NOW) is None


def test_a_signer_that_is_gone_for_long_is_replaced_and_not_before() -> None:
    signers = PEOPLE[:5]
    for away, changed in ((RULES.gone_s - 1, False), (RULES.gone_s, True)):
        wanted = wish(signers, 3, members(PEOPLE, gone={signers[0]: away}), RULES, NOW)
        assert (wanted is not None) == changed
    assert wanted is not None
    assert signers[0] not in wanted
    assert set(signers[1:]) < set(wanted)


def test_a_signer_that_is_gone_is_not_dropped_where_nobody_replaces_it() -> None:
    signers = PEOPLE[:5]
    assert wish(signers, 3, members(signers, gone={signers[0]: 10_000}), RULES, NOW) is None


def test_a_revoked_signer_goes_in_any_case() -> None:
    signers = PEOPLE[:5]
    wanted = wish(signers, 3, members(signers, revoked=frozenset(signers[:1])), RULES, NOW)
    assert wanted is not None
    assert set(wanted) == set(signers[1:])


def test_nothing_is_wished_that_today_s_signers_cannot_do() -> None:
    signers = PEOPLE[:5]
    gone = dict.fromkeys(signers[:3], 10_000.0)
    assert wish(signers, 3, members(PEOPLE, gone=gone), RULES, NOW) is None


def test_nodes_that_see_the_same_wish_the_same_whatever_the_order() -> None:
    candidates = members(PEOPLE)
    backwards = dict(reversed(candidates.items()))
    wanted = wish(PEOPLE[:3], 2, candidates, RULES, NOW)
    assert wanted == wish(reversed(PEOPLE[:3]), 2, backwards, RULES, NOW)
    assert wanted is not None
    assert set(PEOPLE[:3]) < set(wanted)


@given(st.sets(st.integers(0, 8), min_size=1, max_size=7), st.data())
@settings(max_examples=500)
def test_a_wish_can_sign_is_new_and_settles(signing: set[int], data: st.DataObject) -> None:
    signers = [PEOPLE[at] for at in sorted(signing)]
    away = data.draw(st.dictionaries(st.sampled_from(PEOPLE), st.sampled_from([1.0, 10_000.0])))
    revoked = data.draw(st.frozensets(st.sampled_from(PEOPLE), max_size=3))
    candidates = members(PEOPLE, gone=away, revoked=revoked)
    threshold = RULES.threshold_of(len(signers))
    wanted = wish(signers, threshold, candidates, RULES, NOW)
    if wanted is None:
        return
    assert set(wanted) != set(signers)
    assert not set(wanted) & revoked
    alive = [key for key in wanted if key not in away]
    assert len(alive) >= RULES.threshold_of(len(wanted))
    new = len(set(wanted) - set(signers))
    assert threshold == 1 or new < RULES.threshold_of(len(wanted)), "newcomers alone never sign"
    for _ in range(3):  # large steps are taken one after another
        again = wish(wanted, RULES.threshold_of(len(wanted)), candidates, RULES, NOW)
        if again is None:
            return
        lost = set(wanted) - set(again)
        assert lost <= {key for key, since in away.items() if since >= RULES.gone_s}, (
            "a seat is given up for cause"
        )
        assert len(again) >= len(wanted)
        wanted = again
    raise AssertionError("it does not settle")


def test_a_set_number_and_threshold_are_kept() -> None:
    rules = SignerRules(signers=4, threshold=3)
    wanted = wish(PEOPLE[:1], 1, members(PEOPLE), rules, NOW)
    assert wanted is not None
    assert (len(wanted), rules.threshold_of(4)) == (4, 3)


@pytest.mark.parametrize(("signers", "threshold"), [(0, None), (17, None), (3, 4), (3, 0), (None, 6)])
def test_rules_that_contradict_each_other_are_refused(signers: int | None, threshold: int | None) -> None:
    with pytest.raises(CeremonyError):
        SignerRules(signers=signers, threshold=threshold)


def test_who_has_been_a_member_for_longest_comes_first_whatever_its_id() -> None:
    candidates = members(PEOPLE)
    for order in (PEOPLE, PEOPLE[::-1]):
        aged = {node: replace(each, joined=order.index(each.key)) for node, each in candidates.items()}
        fresh = [key for key in order if key not in PEOPLE[3:6]]
        wanted = wish(PEOPLE[3:6], 2, aged, RULES, NOW)
        assert wanted is not None
        assert set(wanted) == {*PEOPLE[3:6], *fresh[:2]}


def test_a_crowd_of_ground_ids_does_not_come_before_older_members() -> None:
    crowd = [each.public_key for each in people(200, 66)]
    candidates = members([*PEOPLE[:5], *crowd])
    aged = {node: replace(each, joined=100 + (each.key in crowd)) for node, each in candidates.items()}
    wanted = wish(PEOPLE[:3], 2, aged, RULES, NOW)
    assert wanted is not None
    assert set(wanted) == set(PEOPLE[:5])


def test_newcomers_that_could_sign_alone_come_in_steps() -> None:
    rules = SignerRules(signers=9)
    today: tuple[bytes, ...] = tuple(PEOPLE[:3])
    sizes = []
    while (wanted := wish(today, rules.threshold_of(len(today)), members(PEOPLE), rules, NOW)) is not None:
        assert len(set(wanted) - set(today)) < rules.threshold_of(len(wanted))
        today = wanted
        sizes.append(len(today))
    assert sizes == [6, 9]


def test_a_seat_that_is_held_is_nobody_else_s() -> None:
    candidates = members(PEOPLE, gone={PEOPLE[0]: 10})
    held = {node: replace(each, served=each.key == PEOPLE[0]) for node, each in candidates.items()}
    assert wish(PEOPLE[1:5], 3, held, RULES, NOW) is None
    wanted = wish(PEOPLE[1:5], 3, candidates, RULES, NOW)
    assert wanted is not None
    assert len(wanted) == 5

"""The line of roots: what leads to it, what counts when, and that every question about "the root" has the same answer
for one key as for a line of one."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trust.rolled import DAY_S, DOMAIN, NOW, authority, first_certificate, rollover, roots
from trust.authority import root_certificate, root_fingerprint
from trust.errors import RolloverError, SvidError
from trust.roots import (
    NOT_SIGNED,
    ROLLOVERS_MAX,
    Roots,
    check_pinned,
    is_root,
    newest_of,
    refusal,
    roots_from,
    signer_of,
)

MESSAGE = b"something that a root signs"


def key(number: int) -> bytes:
    return authority(number).root_public


def test_a_line_of_one_says_what_its_key_says() -> None:
    line, public = roots(), key(0)
    good, bad = authority(0).sign(MESSAGE), authority(1).sign(MESSAGE)
    for now in (None, 0.0, NOW, NOW * 2):
        for root in (line, public):
            assert refusal(root, MESSAGE, good, now) == ""
            assert refusal(root, MESSAGE, bad, now) == NOT_SIGNED
            assert is_root(root, public)
            assert not is_root(root, key(1))
            assert newest_of(root) == signer_of(root, MESSAGE, good) == public
    assert line.ends_at(public) is None
    assert line.accepted(NOW) == line.line == (public,)


def test_an_older_root_counts_until_its_overlap_ends_and_is_history_after() -> None:
    line = roots(rollover(0, 1))
    signature = authority(0).sign(MESSAGE)
    ends_at = NOW + DAY_S
    assert line.accepted(ends_at - 1) == (key(0), key(1))
    assert line.accepted(ends_at) == (key(1),)
    assert refusal(line, MESSAGE, signature, ends_at - 1) == ""
    assert "was retired 2 hours ago" in refusal(line, MESSAGE, signature, ends_at + 7200)
    assert refusal(line, MESSAGE, signature, None) == "", "records made long ago stay authentic"
    assert refusal(line, MESSAGE, signature, ends_at + 7200, grace_s=DAY_S) == ""
    assert "retired" in refusal(line, MESSAGE, signature, ends_at + DAY_S, grace_s=DAY_S)


def test_a_compromised_root_has_no_grace() -> None:
    line = roots(rollover(0, 1, compromised=True, overlap_s=600))
    signature = authority(0).sign(MESSAGE)
    assert refusal(line, MESSAGE, signature, NOW + 599) == ""
    assert "given up as compromised" in refusal(line, MESSAGE, signature, NOW + 600, grace_s=DAY_S)
    assert line.compromised(key(0))
    assert not line.compromised(key(1))


def test_the_roots_before_a_compromised_one_end_with_it() -> None:
    """Two weeks for the first one; a day later it turns out that somebody else holds it."""
    soon = rollover(1, 2, compromised=True, overlap_s=600)
    line = roots(rollover(0, 1, overlap_s=14 * DAY_S), soon)
    end = soon.terms.ends_at
    signature = authority(0).sign(MESSAGE)
    assert line.accepted(end - 1) == (key(0), key(1), key(2))
    assert line.accepted(end) == (key(2),)
    assert line.ends_at(key(0)) == end
    assert refusal(line, MESSAGE, signature, end - 1) == ""
    assert "given up as compromised" in refusal(line, MESSAGE, signature, end, grace_s=DAY_S)
    assert line.compromised(key(0))
    retired = roots(rollover(0, 1, overlap_s=600), soon)
    assert retired.ends_at(key(0)) == NOW + 600, "and none is called back"
    assert not refusal(retired, MESSAGE, signature, end - 1, grace_s=14 * DAY_S)
    assert refusal(retired, MESSAGE, signature, end, grace_s=14 * DAY_S)
    later = roots(rollover(0, 1, compromised=True, overlap_s=600), rollover(1, 2))
    assert not later.compromised(key(1))


def test_a_step_counts_once_and_waits_for_the_one_before_it() -> None:
    line = roots()
    with pytest.raises(RolloverError, match="not known here"):
        line.add(rollover(1, 2))
    assert line.add(rollover(0, 1))
    assert not line.add(rollover(0, 1))
    assert line.add(rollover(1, 2))
    assert line.line == (key(0), key(1), key(2))
    assert line.rollovers == (rollover(0, 1), rollover(1, 2))
    assert line.added == 2


def test_forged_foreign_looping_and_overlong_lines_are_refused() -> None:
    line = roots(rollover(0, 1))
    forged = replace(rollover(1, 2), by_old=authority(0).sign(rollover(1, 2).terms.old_bytes()))
    with pytest.raises(RolloverError, match="did not sign"):
        line.add(forged)
    with pytest.raises(RolloverError, match="of trust domain"):
        line.add(rollover(1, 2, trust_domain="other.local"))
    with pytest.raises(RolloverError, match="leads back"):
        line.add(rollover(1, 0))
    for number in range(1, ROLLOVERS_MAX):
        assert line.add(rollover(number, number + 1))
    with pytest.raises(RolloverError, match="at most"):
        line.add(rollover(ROLLOVERS_MAX, ROLLOVERS_MAX + 1))
    assert len(line) == ROLLOVERS_MAX + 1
    assert line.newest == key(ROLLOVERS_MAX)


def test_of_two_successors_the_first_stays_and_both_are_the_proof() -> None:
    for first, second in ((1, 2), (2, 1)):
        line = roots(rollover(0, first))
        assert not line.add(rollover(0, second))
        assert not line.add(rollover(0, 3))
        assert line.newest == key(first)
        assert line.conflicts == ((rollover(0, first), rollover(0, second)),)
        assert key(second) not in line
    line = roots(rollover(0, 1))
    assert not line.add(rollover(0, 1, overlap_s=2 * DAY_S)), "the same successor is no conflict"
    assert not line.conflicts


@given(st.permutations([0, 1, 2, 3]), st.integers(min_value=0, max_value=3))
def test_whatever_the_order_in_which_steps_come_the_line_is_the_same(order: list[int], twice: int) -> None:
    line = roots()
    waiting = [*order, twice]
    for _ in range(len(waiting)):
        for number in waiting:
            with contextlib.suppress(RolloverError):  # it comes before the one it follows on
                line.add(rollover(number, number + 1))
    assert line.line == tuple(key(number) for number in range(5))


def test_who_knows_one_root_of_a_line_follows_it_from_there() -> None:
    told = [rollover(0, 1).encode(), rollover(1, 2).encode()]
    line = roots_from(first_certificate(), told, DOMAIN)
    assert line.newest == key(2)
    now = NOW + DAY_S + 10  # root 0 was retired, root 1 is about to be
    check_pinned(line, root_fingerprint(key(1)), now)
    check_pinned(line, root_fingerprint(key(2)), now)
    with pytest.raises(SvidError, match="was retired"):
        check_pinned(line, root_fingerprint(key(0)), now)
    with pytest.raises(SvidError, match="another mesh"):
        check_pinned(line, root_fingerprint(key(3)), now)
    check_pinned(line, root_fingerprint(key(0)), now, member=True)
    with pytest.raises(SvidError, match="has not heard yet of the root that is known here"):
        check_pinned(
            roots_from(first_certificate(), told[:1], DOMAIN), root_fingerprint(key(2)), NOW, member=True
        )
    with pytest.raises(RolloverError, match="step twice"):
        roots_from(first_certificate(), [told[0], told[0]], DOMAIN)
    with pytest.raises(SvidError):
        roots_from(root_certificate(authority(0), "other.local", NOW), told, DOMAIN)


def test_a_member_does_not_follow_a_root_that_was_given_up_as_compromised() -> None:
    told = [rollover(0, 1, compromised=True, overlap_s=600).encode()]
    line = roots_from(first_certificate(), told, DOMAIN)
    check_pinned(line, root_fingerprint(key(0)), NOW + 599, member=True)
    with pytest.raises(SvidError, match="join again"):
        check_pinned(line, root_fingerprint(key(0)), NOW + 600, member=True)


def test_each_root_has_its_certificate_and_nothing_secret_shows() -> None:
    line = roots(rollover(0, 1))
    assert line.certificate(key(0)) == first_certificate()
    assert line.certificate(key(1)) == rollover(0, 1).certificate
    assert line.step_from(key(0)) == rollover(0, 1)
    assert line.step_from(key(1)) is None
    assert repr(line).count("->") == 1
    assert Roots(first_certificate(), DOMAIN).by_fingerprint(bytes(32)) is None

"""Rollovers: terms have one encoding and bounds, and nothing counts that not both roots have signed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trust.rolled import DAY_S, DOMAIN, NOW, authority, rollover, terms
from trust.authority import root_certificate
from trust.errors import RolloverError
from trust.rollover import (
    COMPROMISED_S,
    OVERLAP_S_MAX,
    OVERLAP_S_MIN,
    ROLLOVER_BYTES_MAX,
    SWITCH_S_MAX,
    conflict,
    decode_rollover,
    decode_terms,
    verify_rollover,
)


def test_a_rollover_survives_its_encoding_and_verifies() -> None:
    for made in (rollover(0, 1), rollover(0, 1, compromised=True, overlap_s=600)):
        assert decode_rollover(made.encode()) == made
        assert decode_terms(made.terms.encode()) == made.terms
        assert len(made.encode()) <= ROLLOVER_BYTES_MAX
        verify_rollover(made, DOMAIN)


def test_each_half_is_needed_and_neither_stands_for_the_other() -> None:
    made = rollover(0, 1)
    for altered, reason in (
        (replace(made, by_old=bytes(64)), "old root .* did not sign"),
        (replace(made, by_new=bytes(64)), "new root .* did not sign"),
        (replace(made, by_old=made.by_new, by_new=made.by_old), "did not sign"),
        (replace(made, by_new=authority(1).sign(made.terms.old_bytes())), "new root .* did not sign"),
        (replace(made, by_old=authority(2).sign(made.terms.old_bytes())), "old root .* did not sign"),
        (replace(made, terms=replace(made.terms, overlap_s=2 * DAY_S)), "did not sign"),
        (replace(made, terms=replace(made.terms, new=authority(2).root_public)), "did not sign"),
        (replace(made, certificate=root_certificate(authority(2), DOMAIN, NOW)), "another root's"),
        (
            replace(made, certificate=root_certificate(authority(1), "other.local", NOW)),
            "certificate in the rollover",
        ),
        (replace(made, certificate=b""), "certificate in the rollover"),
    ):
        with pytest.raises(RolloverError, match=reason):
            verify_rollover(altered, DOMAIN)
    with pytest.raises(RolloverError, match="of trust domain"):
        verify_rollover(made, "other.local")


@given(st.binary(max_size=1200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for decode in (decode_rollover, decode_terms):
        try:
            assert decode(data).encode() == data
        except RolloverError:
            pass


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_altered_byte_goes_unnoticed(at: int, by: int) -> None:
    made = rollover(0, 1)
    data = bytearray(made.encode())
    data[at % len(data)] ^= by
    with pytest.raises(RolloverError):
        verify_rollover(decode_rollover(bytes(data)), DOMAIN)


def test_an_overlap_has_bounds() -> None:
    for overlap_s in (OVERLAP_S_MIN - 1, OVERLAP_S_MAX + 1):
        with pytest.raises(RolloverError, match="an overlap lasts from"):
            terms(0, 1, overlap_s=overlap_s)
    with pytest.raises(RolloverError, match="of a compromised root"):
        terms(0, 1, compromised=True, overlap_s=COMPROMISED_S + 1)
    terms(0, 1, overlap_s=OVERLAP_S_MIN), terms(0, 1, overlap_s=OVERLAP_S_MAX)


def test_terms_say_when_the_new_root_signs_and_when_the_old_one_ends() -> None:
    short, long = terms(0, 1, overlap_s=400), terms(0, 1, overlap_s=30 * DAY_S)
    assert (short.switch_at, short.ends_at) == (NOW + 100, NOW + 400)
    assert (long.switch_at, long.ends_at) == (NOW + SWITCH_S_MAX, NOW + 30 * DAY_S)


def test_a_root_does_not_follow_on_itself_and_later_formats_are_named() -> None:
    with pytest.raises(RolloverError, match="does not follow on itself"):
        terms(0, 0)
    later = bytearray(terms(0, 1).encode())
    later[1] = 2
    with pytest.raises(RolloverError, match="of format 2"):
        decode_terms(bytes(later))


def test_two_successors_of_one_root_are_a_conflict_and_nothing_else_is() -> None:
    made = rollover(0, 1)
    assert conflict(made, rollover(0, 2))
    assert not conflict(made, rollover(0, 1, overlap_s=2 * DAY_S))
    assert not conflict(made, rollover(1, 2))

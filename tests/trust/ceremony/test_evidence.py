"""Who is guilty: judged from the statements alone, and an accusation that proves nothing convicts the accuser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trust.ceremony.network import people
from trust.ceremony.bodies import Join, check_body, decode_join
from trust.ceremony.electorate import founding
from trust.ceremony.evidence import accusation, contradicts, judge
from trust.ceremony.statement import (
    BODY_BYTES_MAX,
    FRAME_BYTES_MAX,
    STATEMENT_BYTES_MAX,
    Closed,
    Kind,
    Locked,
    Said,
    Statement,
    Want,
    decode_frame,
    decode_statement,
    encode_frame,
    state,
)
from trust.errors import CeremonyError

ANN, BOB, EVE = people(3)
ELECTORATE = founding("cluster.local", [each.public_key for each in (ANN, BOB, EVE)])
NAME = ELECTORATE.ceremony


def says(kind: Kind, body: bytes, attempt: int = 0, ceremony: bytes = NAME) -> Statement:
    return state(EVE, ceremony, attempt, kind, body)


def guilty(*parts: Statement) -> bytes:
    return judge(state(ANN, NAME, 0, Kind.ACCUSE, accusation(*parts)), ELECTORATE)


def test_two_words_at_one_place_convict_their_author() -> None:
    assert guilty(says(Kind.CONFIRM, bytes(32)), says(Kind.CONFIRM, b"\1" * 32)) == EVE.id


def test_joining_without_the_lock_one_confirmed_convicts() -> None:
    confirm = says(Kind.CONFIRM, bytes(32), attempt=2)
    assert guilty(confirm, says(Kind.JOIN, Join(able=True).encode(), attempt=3)) == EVE.id
    honest = Join(able=True, lock=2, locked=bytes(32))
    assert guilty(confirm, says(Kind.JOIN, honest.encode(), attempt=3)) == ANN.id
    assert guilty(confirm, says(Kind.JOIN, Join(able=True).encode(), attempt=2)) == ANN.id


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [says(Kind.CONFIRM, bytes(32))],
        [says(Kind.CONFIRM, bytes(32))] * 2,
        [says(Kind.CONFIRM, bytes(32)), says(Kind.CONFIRM, b"\1" * 32, attempt=1)],
        [says(Kind.CONFIRM, bytes(32)), says(Kind.PREPARE, b"\1" * 32)],
        [says(Kind.CONFIRM, bytes(32)), says(Kind.CONFIRM, b"\1" * 32, ceremony=bytes(32))],
        [says(Kind.ACCUSE, b"\x90"), says(Kind.ACCUSE, b"\x91\xc4\0")],
        [says(Kind.OPEN, b"nonsense"), says(Kind.DEAL, b"nonsense")],
        [says(Kind.CONFIRM, bytes(32))] * 4,
    ],
)  # fmt: skip
def test_what_proves_nothing_convicts_the_accuser(parts: list[Statement]) -> None:
    assert guilty(*parts) == ANN.id


def test_forged_statements_convict_the_accuser() -> None:
    forged = Statement(ceremony=NAME, sender=EVE.public_key, attempt=0, kind=Kind.CONFIRM, body=b"\1" * 32)
    assert guilty(says(Kind.CONFIRM, bytes(32)), forged) == ANN.id


def test_statements_of_two_nodes_never_contradict_each_other() -> None:
    other = state(BOB, NAME, 0, Kind.CONFIRM, b"\1" * 32)
    assert not contradicts(says(Kind.CONFIRM, bytes(32)), other)


@given(st.binary(max_size=300))
def test_arbitrary_accusations_convict_the_accuser(body: bytes) -> None:
    assert judge(state(ANN, NAME, 0, Kind.ACCUSE, body), ELECTORATE) == ANN.id


@given(st.sampled_from(Kind), st.binary(max_size=400))
def test_arbitrary_bodies_raise_nothing_but_the_ceremony_s_error(kind: Kind, body: bytes) -> None:
    try:
        check_body(kind, body)
    except CeremonyError:
        return


@given(st.booleans(), st.integers(-1, 2**40), st.lists(st.binary(min_size=16, max_size=16), max_size=16))
def test_a_join_comes_back_as_it_was_encoded(able: bool, lock: int, blamed: list[bytes]) -> None:
    join = Join(able=able, lock=lock, locked=bytes(32) if lock >= 0 else b"", blamed=tuple(blamed))
    assert decode_join(join.encode()) == join


@pytest.mark.parametrize(
    "frame",
    [
        Said(statement=says(Kind.ECHO, b"x")),
        Want(attempt=3, kinds=5),
        Locked(value=b"v", prepares=(b"a", b"b")),
        Closed(record=b"r"),
    ],
)
def test_frames_come_back_as_they_were_encoded(frame: Said | Want | Locked | Closed) -> None:
    assert decode_frame(encode_frame(NAME, frame)) == frame


def test_the_largest_statement_of_each_kind_fits_its_frame_and_one_byte_more_does_not() -> None:
    for kind, most in BODY_BYTES_MAX.items():
        recipient = ANN.id if kind is Kind.SHARE else b""
        said = state(EVE, NAME, 0, kind, bytes(most), recipient)
        data = encode_frame(NAME, Said(statement=said))
        assert len(data) <= FRAME_BYTES_MAX
        assert len(said.encode()) <= STATEMENT_BYTES_MAX
        assert decode_frame(data) == Said(statement=said)
        over = Statement(
            ceremony=NAME, sender=EVE.public_key, attempt=0, kind=kind, recipient=recipient, body=bytes(most + 1)
        )  # fmt: skip
        with pytest.raises(CeremonyError):
            decode_statement(over.encode())


def test_a_statement_does_not_print_what_it_says() -> None:
    assert "736563726574" not in repr(says(Kind.ECHO, b"secret"))
    assert "secret" not in repr(says(Kind.ECHO, b"secret"))

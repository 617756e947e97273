from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.codec import pack, unpack_array
from gossip.errors import LimitError, MalformedError
from gossip.statement import (
    META_BYTES_MAX,
    STATEMENT_BYTES_MAX,
    Dead,
    Statement,
    decode_statement,
    sign_alive,
    sign_left,
)
from tests.gossip.world import Speaker, credential_of, identity_of, suspicion
from trust.identity import verify

ALIVE = Speaker("a").alive()
DEAD = Dead(
    subject=identity_of("s").id, boot=1, incarnation=0, suspicions=(suspicion("a", "s"), suspicion("b", "s"))
)
STATEMENTS: list[Statement] = [
    ALIVE,
    ALIVE.slim(),
    suspicion("a", "s"),
    DEAD,
    sign_left(identity_of("a"), rank=(1, 4)),
]


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: type(s).__name__)
def test_statements_round_trip(statement: Statement) -> None:
    assert decode_statement(statement.encode()) == statement


def test_signatures_cover_every_field_and_are_told_apart_by_domain() -> None:
    key = identity_of("a").public_key
    assert verify(key, ALIVE.signing_bytes(), ALIVE.signature)
    for change in (
        {"boot": 2},
        {"incarnation": 9},
        {"address": ("10.0.0.9", 1)},
        {"zone": "z2"},
        {"meta": ()},
        {"node": bytes(16)},
        {"credential_digest": bytes(16)},
    ):
        assert not verify(key, replace(ALIVE, **change).signing_bytes(), ALIVE.signature)
    suspect, left = suspicion("a", "s"), sign_left(identity_of("a"), rank=(1, 0))
    assert len({s.signing_bytes()[:16] for s in (ALIVE, suspect, left)}) == 3
    assert not verify(key, replace(suspect, accuser=bytes(16)).signing_bytes(), suspect.signature)


def test_the_slim_form_has_the_same_signature() -> None:
    assert ALIVE.slim().signing_bytes() == ALIVE.signing_bytes()
    assert len(ALIVE.slim().encode()) < 200 < len(ALIVE.encode()) <= STATEMENT_BYTES_MAX


def test_a_credential_other_than_the_one_signed_for_is_malformed() -> None:
    other = replace(ALIVE, credential=credential_of("b").encode())
    with pytest.raises(MalformedError, match="credential"):
        decode_statement(other.encode())


def test_the_largest_alive_fits_its_bound() -> None:
    credential = replace(
        credential_of("a"), name="n" * 63, services=tuple(f"{'x' * 30}/{'y' * 30}{i}" for i in range(3))
    )
    meta = {f"k{i}": "v" * 8 for i in range(14)}
    alive = sign_alive(
        identity_of("a"),
        credential,
        boot=2**64 - 1,
        incarnation=2**64 - 1,
        address=("fd00::1", 65535),
        zone="z" * 64,
        meta=meta,
    )
    assert len(alive.encode()) <= STATEMENT_BYTES_MAX
    assert decode_statement(alive.encode()) == alive


@pytest.mark.parametrize(
    "wrong",
    [
        {"meta": {"k": "v" * META_BYTES_MAX}},
        {"meta": {f"k{i}": 1 for i in range(17)}},
        {"zone": "z" * 65},
        {"address": ("host.example", 1)},
        {"address": ("10.0.0.1", 0)},
    ],
)
def test_what_cannot_be_announced_is_refused_before_anything_is_signed(wrong: dict[str, object]) -> None:
    fields = {"boot": 1, "incarnation": 0, "address": ("10.0.0.1", 1), "zone": "", "meta": {}} | wrong
    with pytest.raises(LimitError):
        sign_alive(identity_of("a"), credential_of("a"), **fields)


@given(st.binary(max_size=STATEMENT_BYTES_MAX + 50))
def test_any_bytes_are_a_statement_or_malformed(data: bytes) -> None:
    try:
        decode_statement(data)
    except MalformedError:
        pass


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=80)
    | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(STATEMENTS), st.data())
def test_any_field_replaced_is_a_statement_or_malformed(statement: Statement, data: st.DataObject) -> None:
    values = unpack_array(statement.encode(), size_max=STATEMENT_BYTES_MAX)
    values[data.draw(st.integers(0, len(values) - 1))] = data.draw(_VALUES)
    try:
        decode_statement(pack(values))
    except MalformedError:
        pass

"""Peers without a mesh: bootstrap tokens, cards, and proofs that hold for one stream and one secret only."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.bootstrap import (
    BootstrapSecret,
    Card,
    Greeting,
    check_proof,
    decode_card,
    decode_greeting,
    new_bootstrap_secret,
    parse_bootstrap,
    prove,
    transcript,
)
from trust.codec import UNIX_S_MAX
from trust.errors import BootstrapError, TrustError
from trust.identity import NodeIdentity

ONE, TWO = NodeIdentity.from_seed(b"1" * 32), NodeIdentity.from_seed(b"2" * 32)
SECRET, OTHER = BootstrapSecret(b"s" * 32), BootstrapSecret(b"o" * 32)


def card(identity: NodeIdentity, **changes: object) -> Card:
    fields = Card(
        public_key=identity.public_key, name="one", host="127.0.0.1", port=7946, trust_domain="cluster.local",
        expect=3, threshold=2, started_at=1_800_000_000,
    )  # fmt: skip
    return replace(fields, **changes).signed(identity)


def test_a_token_is_read_as_it_was_made_and_never_printed() -> None:
    secret = new_bootstrap_secret(random.Random(1).randbytes, 1_800_000_000)
    assert parse_bootstrap(f" {secret.text}\n") == secret
    assert secret.text not in repr(secret)
    assert secret.secret.hex() not in repr(secret)


def test_a_token_ends_and_its_end_is_part_of_the_secret() -> None:
    secret = new_bootstrap_secret(random.Random(1).randbytes, 1_800_000_000)
    secret.check(1_800_000_000 - 1)
    with pytest.raises(BootstrapError, match="ended 2 hours ago: make another one"):
        secret.check(1_800_000_000 + 7200)
    later = replace(secret, expires_at=secret.expires_at + 1)
    assert parse_bootstrap(later.text) == later != secret
    assert later.mac("caller", b"t") != secret.mac("caller", b"t")
    SECRET.check(2**40)
    assert parse_bootstrap(SECRET.text) == SECRET, "one of before has no end of its own"
    assert parse_bootstrap(replace(secret, expires_at=UNIX_S_MAX).text).expires_at == UNIX_S_MAX


@pytest.mark.parametrize(
    "text", ["", "gsm1.abc", "gsb1.", "gsb1.abc", "gsb1.\u00e4", SECRET.text[:-1], SECRET.text + "A"]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(BootstrapError):
        parse_bootstrap(text)


@given(st.integers(5, len(SECRET.text) - 2), st.sampled_from("ABCabc019-_"))
def test_a_copying_mistake_is_found_and_not_repeated(at: int, letter: str) -> None:
    wrong = SECRET.text[:at] + letter + SECRET.text[at + 1 :]
    if wrong != SECRET.text:
        with pytest.raises(BootstrapError, match="copy it again") as caught:
            parse_bootstrap(wrong)
        assert wrong not in str(caught.value)


def test_cards_and_greetings_are_read_as_they_were_made() -> None:
    greeting = Greeting(card=card(ONE), nonce=b"n" * 32)
    assert decode_greeting(greeting.encode()) == greeting
    assert greeting.card.node == ONE.id
    assert greeting.card.address == ("127.0.0.1", 7946)


def test_a_card_is_its_holder_s() -> None:
    forged = replace(card(ONE), name="two")
    with pytest.raises(BootstrapError, match="not signed by its holder"):
        decode_card(forged.encode())
    with pytest.raises(BootstrapError):
        decode_card(card(ONE, name="no name").encode())
    with pytest.raises(BootstrapError):
        decode_card(card(ONE, trust_domain="No Domain").encode())


@given(st.binary(max_size=300))
def test_hostile_bytes_are_refused(data: bytes) -> None:
    for decode in (decode_card, decode_greeting):
        with pytest.raises(TrustError):
            decode(data)


def agreed(certificate: bytes = b"der", nonce: bytes = b"n" * 32) -> bytes:
    return transcript(
        certificate, Greeting(card=card(ONE), nonce=nonce), Greeting(card=card(TWO), nonce=b"m" * 32)
    )


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_proof_holds_for_its_role_stream_and_nonce_only(secret: BootstrapSecret | None) -> None:
    proof = prove(ONE, secret, "caller", agreed())
    check_proof(proof, card(ONE), secret, "caller", agreed())
    for role, what, who in (
        ("answerer", agreed(), ONE),
        ("caller", agreed(certificate=b"other"), ONE),
        ("caller", agreed(nonce=b"o" * 32), ONE),
        ("caller", agreed(), TWO),
    ):
        with pytest.raises(BootstrapError, match="somebody is in between"):
            check_proof(proof, card(who), secret, role, what)


@pytest.mark.parametrize(
    ("theirs", "mine", "words"),
    [
        (OTHER, SECRET, "another bootstrap secret"),
        (None, SECRET, "was not given the bootstrap secret"),
        (SECRET, None, "was given a bootstrap secret"),
    ],
)
def test_who_has_not_the_same_secret_is_told_so(
    theirs: BootstrapSecret | None, mine: BootstrapSecret | None, words: str
) -> None:
    proof = prove(ONE, theirs, "caller", agreed())
    with pytest.raises(BootstrapError, match=words):
        check_proof(proof, card(ONE), mine, "caller", agreed())


def test_a_proof_cannot_be_stripped_of_its_secret_half() -> None:
    proof = prove(ONE, SECRET, "caller", agreed())
    for cut in (proof[:64], proof[:-1], proof[:63], b""):
        with pytest.raises(BootstrapError):
            check_proof(cut, card(ONE), SECRET, "caller", agreed())

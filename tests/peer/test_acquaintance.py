"""Introductions between peers that have no mesh in common: what is a proof, and what is a refusal."""

from typing import Any

import pytest

from peer.acquaintance import KNOWN, REFUSED, Introducer, UnacquaintedError
from trust.bootstrap import NONCE_BYTES, Card, Greeting, prove, transcript
from trust.identity import NodeIdentity

CALLER, ANSWERER = (NodeIdentity.from_seed(letter * 32) for letter in (b"c", b"a"))


def card(identity: NodeIdentity, name: str) -> Card:
    return Card(
        public_key=identity.public_key, name=name, host="127.0.0.1", port=7946, trust_domain="d", expect=3,
        threshold=2, started_at=1,
    ).signed(identity)  # fmt: skip


class Wire:
    """A stream whose other end says what it was given to say."""

    def __init__(self, *said: bytes) -> None:
        self.said, self.heard = list(said), []

    async def read(self) -> bytes:
        return self.said.pop(0)

    def write(self, frame: bytes) -> None:
        self.heard.append(frame)

    async def flush(self) -> None:
        pass


@pytest.fixture
def answerer(monkeypatch: Any) -> Introducer:
    mine = Greeting(card=card(ANSWERER, "answerer"), nonce=bytes(NONCE_BYTES))
    monkeypatch.setattr(Introducer, "_greeting", lambda _self: mine)
    return Introducer(ANSWERER, lambda: mine.card, None)


async def test_a_proof_that_begins_like_a_refusal_is_a_proof(answerer: Introducer) -> None:
    """One signature in 256 does."""
    for number in range(10_000):
        greeting = Greeting(card=card(CALLER, "caller"), nonce=number.to_bytes(NONCE_BYTES, "big"))
        proof = prove(CALLER, None, "caller", transcript(b"der", greeting, answerer._greeting()))
        if proof[:1] == REFUSED:
            break
    wire: Any = Wire(greeting.encode(), proof)
    assert (await answerer.answer(wire, b"der")).name == "caller"
    assert wire.heard[-1] == KNOWN


@pytest.mark.parametrize("reason", [b"", b"no", b"w" * 400])
async def test_a_caller_that_does_not_go_on_says_why(answerer: Introducer, reason: bytes) -> None:
    greeting = Greeting(card=card(CALLER, "caller"), nonce=bytes(NONCE_BYTES))
    wire: Any = Wire(greeting.encode(), REFUSED + reason)
    with pytest.raises(UnacquaintedError, match=f"caller does not go on: {reason.decode()}$"):
        await answerer.answer(wire, b"der")
    assert len(wire.heard) == 2, "who refuses is answered no more"

"""What founders may leave behind at one another is bounded."""

from typing import Any

import pytest

from peer.acquaintance import Introducer
from peer.founders import INBOX_EACH_BYTES_MAX, INBOX_MAX, LETTER_BYTES_MAX, Founders
from peer.io.stream import StreamError
from peer.meeting import MET_MAX, Meeting
from trust.bootstrap import Card
from trust.ceremony.statement import pack_many
from trust.identity import NodeIdentity


def card(number: int) -> Card:
    identity = NodeIdentity.from_seed(number.to_bytes(32, "big"))
    return Card(
        public_key=identity.public_key, name=f"n{number}", host="127.0.0.1", port=7946, trust_domain="d", expect=3,
        threshold=2, started_at=number,
    ).signed(identity)  # fmt: skip


@pytest.fixture
async def founders():
    async def nothing(*_: Any) -> None:
        raise AssertionError("nobody was called")

    identity = NodeIdentity.from_seed(bytes(31) + b"\1")
    meeting = Meeting(card(1))
    made = Founders(
        meeting, Introducer(identity, lambda: meeting.me, None), seeds=(), certificate=b"", running=nothing,
        sign=nothing,
    )  # fmt: skip
    yield made
    await made.close()


async def test_the_inbox_is_bounded_and_letters_have_a_size(founders):
    node = card(2).node
    founders._received(node, bytes(LETTER_BYTES_MAX + 1))
    for number in range(INBOX_MAX + 5):
        founders._received(node, b"%d" % number)
    letters = founders.letters()
    assert letters == [(node, b"%d" % number) for number in range(INBOX_MAX)]
    assert founders.letters() == []


async def test_one_founder_s_letters_are_bounded_in_bytes_and_others_find_room(founders):
    large = bytes(LETTER_BYTES_MAX)
    for _ in range(INBOX_MAX):
        founders._received(card(2).node, large)
    founders._received(card(3).node, b"small")
    letters = founders.letters()
    assert sum(len(letter) for _, letter in letters) <= INBOX_EACH_BYTES_MAX + 5
    assert letters[-1] == (card(3).node, b"small")
    founders._received(card(2).node, large)
    assert len(founders.letters()) == 1


async def test_refusals_and_names_are_bounded(founders):
    for number in range(MET_MAX * 8):
        founders.refuse((f"h{number}", 1), f"reason {number}")
        founders._met(card(number + 2))
    assert len(founders.refused) == len(founders._loud) == 4 * MET_MAX


async def test_those_heard_of_are_bounded_and_forgeries_are_not_heard(founders):
    cards = [card(number).encode() for number in range(2, MET_MAX + 12)]
    for at in range(0, len(cards), 16):
        founders.hear_of(pack_many(cards[at : at + 16]))
    assert len(founders._heard_of) == MET_MAX
    founders._heard_of.clear()
    founders.hear_of(b"garbage")
    founders.hear_of(pack_many([cards[0][:-1] + bytes([cards[0][-1] ^ 1])]))
    assert founders._heard_of == {}


async def test_whom_it_has_not_met_it_does_not_dial(founders):
    with pytest.raises(StreamError, match="no founder that is known"):
        await founders.dial(card(2).node)


async def test_the_same_refusal_is_told_once(founders, caplog):
    for _ in range(3):
        founders.refuse(("127.0.0.1", 1), "it has another secret")
    assert caplog.text.count("founder_refused") == 1
    assert founders.refused == {("127.0.0.1", 1): "it has another secret"}

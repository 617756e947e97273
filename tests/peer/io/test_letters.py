"""Letters between members: delivered as their sender's, lost rather than kept, and never more than fits."""

import asyncio

import pytest

from peer.channels import node_of
from peer.io import letters as module
from peer.io.letters import WAITING_BYTES_MAX, WAITING_MAX, Letters
from peer.io.stream import StreamError, connect, greet

PURPOSE = b"letters-test"


class Office:
    """A member's letters over real channels."""

    def __init__(self, post, addresses):
        self.post, self.got, self.addresses, self.dials = post, [], addresses, 0
        self.letters = Letters(self._dial, node_of, lambda node, letter: self.got.append((node, letter)))
        post.channels.handle(PURPOSE, self.letters.serve)
        addresses[post.person.identity.id] = post.address

    async def _dial(self, node):
        self.dials += 1
        if node not in self.addresses:
            raise StreamError("unknown")
        stream = await connect(self.addresses[node], self.post.channels.context_for(node))
        await greet(stream, PURPOSE)
        return stream


@pytest.fixture
async def offices(live, post):
    addresses = {}
    made = [Office(await post(live.member(number)), addresses) for number in (1, 2)]
    yield made
    for each in made:
        await each.letters.close()


def ids(offices):
    return [each.post.person.identity.id for each in offices]


async def test_letters_arrive_in_order_as_their_sender_s(offices, until):
    one, two = offices
    a, b = ids(offices)
    for number in range(20):
        one.letters.send(b, b"%d" % number)
    await until(lambda: len(two.got) == 20)
    assert two.got == [(a, b"%d" % number) for number in range(20)]
    assert one.dials == 1


async def test_an_answer_takes_the_stream_that_is_there(offices, until):
    one, two = offices
    a, b = ids(offices)
    one.letters.send(b, b"hello")
    await until(lambda: two.got)
    two.letters.send(a, b"hello yourself")
    await until(lambda: one.got)
    assert one.got == [(b, b"hello yourself")]
    assert two.dials == 0


async def test_letters_to_nobody_are_lost_and_the_next_call_waits(offices, until):
    one, _ = offices
    nobody = bytes(16)
    one.letters.send(nobody, b"x")
    await until(lambda: one.letters.lost == 1)
    one.letters.send(nobody, b"y")
    assert one.letters.lost == 2
    assert one.dials == 1
    await asyncio.sleep(module.PAUSE_S_MIN)
    one.letters.send(nobody, b"z")
    await until(lambda: one.letters.lost == 3)
    assert one.dials == 2


async def test_what_waits_for_a_stream_is_bounded(offices):
    one, _ = offices
    _, b = ids(offices)
    for _ in range(WAITING_MAX + 2):
        one.letters.send(b, b"x")
    assert one.letters.lost == 2
    one.letters.send(b, bytes(WAITING_BYTES_MAX))
    assert one.letters.lost == 3


async def test_a_stream_that_ended_is_replaced(offices, until):
    one, two = offices
    _, b = ids(offices)
    one.letters.send(b, b"first")
    await until(lambda: two.got)
    one.letters.cut(lambda _stream: True)
    await until(lambda: not one.letters._live)
    one.letters.send(b, b"second")
    await until(lambda: len(two.got) == 2)
    assert one.dials == 2


async def test_streams_on_which_nothing_passes_end(offices, until, monkeypatch):
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    one, two = offices
    _, b = ids(offices)
    one.letters.send(b, b"first")
    await until(lambda: two.got)
    await until(lambda: not one.letters._live and not two.letters._live)


async def test_closed_letters_are_lost(offices):
    one, _ = offices
    _, b = ids(offices)
    await one.letters.close()
    one.letters.send(b, b"x")
    assert one.letters.lost == 1

"""The node's streams on real sockets: each begins, carries frames and ends once, whatever happens between."""

from typing import Any

import pytest

from peer.messages import StreamClosed, StreamFrame, StreamOpened


def closed(post: Any) -> list[StreamClosed]:
    return [event for event in post.heard if isinstance(event, StreamClosed)]


async def test_frames_go_both_ways_and_each_side_hears_of_the_end_once(
    live: Any, post: Any, until: Any
) -> None:
    one, two = await post(live.member(1)), await post(live.member(2))
    one.channels.exchanges.open(7, two.address, two.person.identity.id)
    await until(lambda: one.heard and two.heard)
    assert one.heard == [StreamOpened(stream=7, node=two.person.identity.id, inbound=False)]
    assert two.heard == [StreamOpened(stream=2, node=one.person.identity.id, inbound=True)]
    one.channels.exchanges.send(7, b"there")
    two.channels.exchanges.send(2, b"back")
    await until(lambda: len(one.heard) == len(two.heard) == 2)
    assert one.heard[1] == StreamFrame(stream=7, data=b"back")
    assert two.heard[1] == StreamFrame(stream=2, data=b"there")
    one.channels.exchanges.close(7)
    await until(lambda: closed(one) and closed(two))
    assert (len(closed(one)), len(closed(two))) == (1, 1)
    one.channels.exchanges.send(7, b"late")
    one.channels.exchanges.close(7)


async def test_what_was_sent_before_the_end_arrives(live: Any, post: Any, until: Any) -> None:
    one, two = await post(live.member(1)), await post(live.member(2))
    one.channels.exchanges.open(1, two.address, None)
    await until(lambda: one.heard)
    frames = [bytes([n]) * 60_000 for n in range(20)]
    for frame in frames:
        one.channels.exchanges.send(1, frame)
    one.channels.exchanges.close(1)
    await until(lambda: closed(two))
    assert [event.data for event in two.heard if isinstance(event, StreamFrame)] == frames


@pytest.mark.parametrize("wrong", ["address", "node", "revoked"])
async def test_a_stream_that_never_began_has_ended_with_the_reason(
    live: Any, post: Any, until: Any, wrong: str
) -> None:
    one, two = await post(live.member(1)), await post(live.member(2))
    address, node = two.address, two.person.identity.id
    if wrong == "address":
        address = ("127.0.0.1", 1)
    elif wrong == "node":
        node = live.member(3).identity.id
    else:
        address = one.address  # whoever answers there is another node
    one.channels.exchanges.open(1, address, node)
    await until(lambda: closed(one))
    (end,) = closed(one)
    assert end.stream == 1
    assert end.reason
    assert not any(isinstance(event, StreamOpened) and event.stream == 1 for event in one.heard)


async def test_a_call_given_up_before_it_was_answered_leaves_nothing(
    live: Any, post: Any, until: Any
) -> None:
    one, two = await post(live.member(1)), await post(live.member(2))
    one.channels.exchanges.open(1, two.address, None)
    one.channels.exchanges.close(1)
    await until(lambda: one.channels.exchanges._tasks == {})
    assert one.heard == []


async def test_the_other_side_going_away_ends_the_stream(live: Any, post: Any, until: Any) -> None:
    one, two = await post(live.member(1)), await post(live.member(2))
    one.channels.exchanges.open(1, two.address, None)
    await until(lambda: one.heard)
    await two.channels.close()
    await until(lambda: closed(one))
    assert len(closed(one)) == 1

"""Who enforces what: questions and answers, and waiting for enough members."""

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.member import Member, State
from peer.api import ApiError
from peer.enforcement import (
    WRITERS_MAX,
    Standing,
    decode_answer,
    decode_question,
    encode_question,
    survey,
    wait_enforced,
)
from peer.estimate import Count
from peer.io.stream import ASK, StreamError, connect, greet

writers = st.binary(min_size=16, max_size=16)


@given(st.sets(st.tuples(writers, st.integers(0, 2**60)), max_size=200))
def test_a_question_comes_back_in_parts_of_a_bounded_size(dots: set[tuple[bytes, int]]) -> None:
    found: list[tuple[bytes, int]] = []
    for frame in encode_question(dots):
        part = decode_question(frame)
        assert 0 < len(part) <= WRITERS_MAX
        found += part
    assert found == sorted(dots)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=20)
    | st.floats(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.binary(max_size=200) | values.map(msgpack.packb))
def test_any_bytes_are_a_question_or_refused(data: bytes) -> None:
    try:
        dots = decode_question(data)
    except StreamError:
        return
    assert all(isinstance(writer, bytes) and isinstance(seq, int) for writer, seq in dots)


@given(st.binary(max_size=50) | values.map(msgpack.packb))
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    try:
        held, enforced = decode_answer(data)
    except StreamError:
        return
    assert {type(held), type(enforced)} == {bool}


@pytest.mark.parametrize(
    "pairs", [[[4_000_000_000, 1]], [["w" * 16, 1]], [[b"w" * 17, 1]], {}, 7, [[b"w", 1.5]], [1]]
)
def test_a_number_is_no_writer(pairs: Any) -> None:
    """A writer of four thousand million would be that many bytes of memory, were it taken at its word."""
    with pytest.raises(StreamError, match="not a question"):
        decode_question(msgpack.packb(pairs))


async def test_an_answer_says_what_is_held_and_what_is_enforced(live: Any, post: Any) -> None:
    server, caller = await post(live.member(1)), await post(live.member(2))
    server.heads[b"w" * 16] = 3
    stream = await connect(server.address, caller.channels.context_for(None))
    await greet(stream, ASK)
    for seq, answer in ((3, True), (4, False), (0, True)):
        stream.write(encode_question([(b"w" * 16, seq)])[0])
        assert decode_answer(await stream.read()) == (answer, answer)
    stream.write(b"\xc1")
    assert await stream.read() == b""
    await stream.closed()


class Plane:
    """The local data plane: enforces everything at once."""

    async def wait_obeyed(self, _dots: Any) -> None: ...

    def obeys(self, _dots: Any) -> bool:
        return True


def daemon_of(live: Any, caller: Any, *others: Any, dead: int = 0) -> Any:
    def member(person: Any, address: Any, state: State = State.ALIVE) -> Member:
        return Member(
            id=person.identity.id, name=person.credential.name, address=address, state=state, incarnation=1,
            boot=1, zone="", meta={}, credential=person.credential, since=0.0,
        )  # fmt: skip

    members = [member(caller.person, caller.address), *(member(p.person, p.address) for p in others)]
    members += [member(live.member(100 + n), ("127.0.0.1", 1), State.DEAD) for n in range(dead)]
    return SimpleNamespace(
        node=SimpleNamespace(engine=SimpleNamespace(members=lambda: tuple(members))),
        identity=caller.person.identity,
        dataplane=Plane(),
        channels=caller.channels,
        journal=SimpleNamespace(heads=caller.heads),
        rng=random.Random(1),
    )


async def test_it_returns_when_enough_members_enforce(live: Any, post: Any) -> None:
    one, two, three = [await post(live.member(n)) for n in (1, 2, 3)]
    two.heads[b"w" * 16] = 5
    daemon = daemon_of(live, one, two, three, dead=2)
    await wait_enforced(daemon, [(b"w" * 16, 5)], share=0.6, timeout_s=10)
    with pytest.raises(ApiError, match=r"enforced by only 2 of 3 members.*missing: node-3") as refusal:
        await wait_enforced(daemon, [(b"w" * 16, 5)], share=1.0, timeout_s=0.3)
    assert refusal.value.code == 3
    three.heads[b"w" * 16] = 6
    await wait_enforced(daemon, [(b"w" * 16, 5)], share=1.0, timeout_s=10)


async def test_more_writers_than_fit_one_question_are_asked_for_in_parts(live: Any, post: Any) -> None:
    one, two = await post(live.member(1)), await post(live.member(2))
    reach = {bytes([n // 256, n % 256]) * 8: n for n in range(1, 200)}
    two.heads.update(reach)
    await wait_enforced(daemon_of(live, one, two), reach.items(), share=1.0, timeout_s=10)
    del two.heads[max(reach)]
    with pytest.raises(ApiError):
        await wait_enforced(daemon_of(live, one, two), reach.items(), share=1.0, timeout_s=0.2)


async def test_nothing_to_wait_for_is_nothing_waited(live: Any, post: Any) -> None:
    one, two = await post(live.member(1)), await post(live.member(2))
    await wait_enforced(daemon_of(live, one, two), {}, share=1.0, timeout_s=10)
    await wait_enforced(daemon_of(live, one, two), [(b"w" * 16, 5)], share=0.0, timeout_s=10)


async def test_progress_is_told_as_it_goes_and_ends_with_the_result(live: Any, post: Any) -> None:
    one, two = await post(live.member(1)), await post(live.member(2))
    told: list[Count] = []
    waiting = asyncio.create_task(
        wait_enforced(
            daemon_of(live, one, two), [(b"w" * 16, 5)], share=1.0, timeout_s=10, progress=told.append
        )
    )
    while not told or told[-1].enforced < 1:
        await asyncio.sleep(0.001)
    two.heads[b"w" * 16] = 5
    result = await waiting
    assert told[0] == Count(
        members=2, asked=2, enforced=0, missing=("node-1", "node-2"), seconds=told[0].seconds
    )
    assert (result.enforced, result.asked, result.missing) == (2, 2, ())
    assert told[-1] == result
    assert [each.enforced for each in told] == sorted(each.enforced for each in told)


@pytest.mark.parametrize(("state", "counted"), [(State.LEFT, 2), (State.DEAD, 3)])
async def test_who_leaves_meanwhile_is_not_waited_for_but_who_seems_dead_is(
    live: Any, post: Any, state: State, counted: int
) -> None:
    one, two, three = [await post(live.member(n)) for n in (1, 2, 3)]
    two.heads[b"w" * 16] = 5
    daemon = daemon_of(live, one, two, three)
    told: list[Count] = []
    waiting = asyncio.create_task(
        wait_enforced(daemon, [(b"w" * 16, 5)], share=1.0, timeout_s=1, progress=told.append)
    )
    while not told or told[-1].enforced < 2:
        await asyncio.sleep(0.001)
    *others, last = daemon.node.engine.members()
    daemon.node.engine.members = lambda: (*others, replace(last, state=state))
    if state is State.LEFT:
        assert (await waiting).asked == counted
    else:  # cut off from here it may still serve what it had
        with pytest.raises(ApiError, match=r"only 2 of 3 members after 1 s; missing: node-3"):
            await waiting
    assert told[-1].asked == counted


async def test_a_member_that_hangs_keeps_nobody_else_from_being_asked(
    live: Any, post: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("peer.enforcement.AT_ONCE_MAX", 1)
    monkeypatch.setattr("peer.enforcement.TURN_S", 0.1)
    one, two = await post(live.member(1)), await post(live.member(2))
    two.heads[b"w" * 16] = 5
    daemon = daemon_of(live, one, two)
    with silent() as addresses:
        deaf = [_at(live.member(50 + n), address) for n, address in enumerate(addresses)]
        members = (*deaf, *daemon.node.engine.members())
        daemon.node.engine.members = lambda: members
        result = await wait_enforced(daemon, [(b"w" * 16, 5)], share=0.5, timeout_s=10)
    assert result.missing == ("node-50", "node-51")


async def test_more_members_than_can_be_asked_are_sampled(live: Any, post: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("peer.estimate.ASKED_MAX", 4)
    one, two = await post(live.member(1)), await post(live.member(2))
    two.heads[b"w" * 16] = 5
    daemon = daemon_of(live, one, two)
    nowhere = [_at(live.member(50 + n), ("127.0.0.1", 1)) for n in range(8)]
    members = (*daemon.node.engine.members(), *nowhere)
    daemon.node.engine.members = lambda: members
    with pytest.raises(
        ApiError, match=r"of 4 members asked at random \(an estimated .* of all 10, with 95 %"
    ):
        await wait_enforced(daemon, [(b"w" * 16, 5)], share=1.0, timeout_s=0.3)
    live_members, rows = await survey(daemon, [(b"w" * 16, 5)], within_s=5)
    assert (live_members, len(rows)) == (10, 4)


async def test_a_survey_tells_enforced_held_missing_and_unreachable(live: Any, post: Any) -> None:
    one, two, three, four = [await post(live.member(n)) for n in (1, 2, 3, 4)]
    reach = {b"w" * 16: 5, b"x" * 16: 1}
    one.heads |= reach
    two.heads |= reach
    three.heads[b"w" * 16] = 9  # not all of it
    four.heads |= reach
    four.stale.append(True)
    daemon = daemon_of(live, one, two, three, four)
    members = (*daemon.node.engine.members(), _at(live.member(50), ("127.0.0.1", 1)))
    daemon.node.engine.members = lambda: members
    count, rows = await survey(daemon, reach.items(), within_s=5)
    assert count == 5
    assert {member.name: standing for member, standing in rows} == {
        "node-1": Standing.ENFORCED,
        "node-2": Standing.ENFORCED,
        "node-3": Standing.MISSING,
        "node-4": Standing.HELD,
        "node-50": Standing.UNREACHABLE,
    }


async def test_a_survey_ends_in_time_whoever_hangs(live: Any, post: Any) -> None:
    one = await post(live.member(1))
    daemon = daemon_of(live, one)
    with silent() as addresses:
        members = (*daemon.node.engine.members(), _at(live.member(50), addresses[0]))
        daemon.node.engine.members = lambda: members
        begun = asyncio.get_running_loop().time()
        _, rows = await survey(daemon, [(b"w" * 16, 5)], within_s=0.2)
        assert asyncio.get_running_loop().time() - begun < 2.0
    assert [standing for _, standing in rows] == [Standing.ENFORCED, Standing.UNREACHABLE]


@contextmanager
def silent() -> Iterator[list[tuple[str, int]]]:
    """Two addresses that take connections and say nothing."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    try:
        yield [each.getsockname() for each in listening]
    finally:
        for each in listening:
            each.close()


def _at(person: Any, address: tuple[str, int]) -> Member:
    return Member(
        id=person.identity.id, name=person.credential.name, address=address, state=State.ALIVE, incarnation=1,
        boot=1, zone="", meta={}, credential=person.credential, since=0.0,
    )  # fmt: skip

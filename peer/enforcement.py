"""Asking other peers how far they are: which part of a writer's journal they hold, and which part they enforce.

    caller -> "ask"                               purpose, on a stream with a member's certificate
    caller -> [[writer, seq], ...]  MessagePack   the records asked about
    answer -> [held, enforced]      MessagePack   whether the journal goes as far, and whether the snapshot being
    served was made from it with none of these records set aside

`gossamer apply --wait` asks every live member (a random sample of them where they are many, `peer/estimate.py`), again
until enough enforce it or the time is up. `gossamer describe` asks each once.

Invariant: an answer says only yes or no about records the asker names; nothing else of a peer is told.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgpack

from gossip.member import Member, State
from peer.api import ApiError
from peer.estimate import Count, choose
from peer.io.stream import ASK, FrameStream, StreamError, connect, greet
from trust.identity import ID_BYTES

if TYPE_CHECKING:
    from peer.daemon import Daemon

WRITERS_MAX: Final = 64
Dots: TypeAlias = Collection[tuple[bytes, int]]  # records: (writer, seq)
AT_ONCE_MAX: Final = 32
AGAIN_S: Final = 0.05
TURN_S: Final = 1.0  # with one member, before others get their turn
COUNT_AGAIN_S: Final = 0.25  # members leave without an answer
ASKING_S_MAX: Final = 30.0  # on one stream; whoever waits longer calls again


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """The answering side. `node_of(stream)` is who asks; strangers are not answered."""

    heads: Callable[[], Mapping[bytes, int]]
    enforces: Callable[[Dots], bool]
    node_of: Callable[[FrameStream], bytes | None]

    async def serve(self, stream: FrameStream, _purpose: bytes) -> None:
        """Answer questions for a while, until the caller goes (a handler of `peer/io/listen.py`)."""
        if self.node_of(stream) is None:
            raise StreamError("only members may ask")
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + ASKING_S_MAX
        while loop.time() < ends_at:
            frame = await stream.read()
            if not frame:
                return
            dots = decode_question(frame)
            answer = [_reaches(self.heads(), dots), self.enforces(dots)]
            stream.write(msgpack.packb(answer))
            await stream.flush()


def encode_question(dots: Dots) -> list[bytes]:
    """The frames that ask about these records, each about a part of them."""
    pairs = [[writer, seq] for writer, seq in sorted(set(dots))]
    parts = [pairs[start : start + WRITERS_MAX] for start in range(0, len(pairs), WRITERS_MAX)]
    return [msgpack.packb(part) for part in parts]


def decode_question(frame: bytes) -> tuple[tuple[bytes, int], ...]:
    """Inverse of `encode_question`, for one frame. Raises StreamError."""
    pairs: Any
    try:
        pairs = msgpack.unpackb(frame, max_array_len=WRITERS_MAX, max_bin_len=ID_BYTES, max_map_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise StreamError(f"not a question: {error}") from error
    if not isinstance(pairs, list):
        raise StreamError("not a question: not a list")
    dots: list[tuple[bytes, int]] = []
    for pair in pairs:
        match pair:
            case [bytes(writer), int(seq)]:
                dots.append((writer, seq))
            case _:
                raise StreamError("not a question: not pairs of a writer and a number")
    return tuple(dots)


def decode_answer(frame: bytes) -> tuple[bool, bool]:
    """(held, enforced). Raises StreamError."""
    try:
        match msgpack.unpackb(frame, max_array_len=2, max_map_len=0):
            case [bool(held), bool(enforced)]:
                return held, enforced
    except (ValueError, msgpack.UnpackException) as error:
        raise StreamError(f"not an answer: {error}") from error
    raise StreamError("not an answer")


def _reaches(heads: Mapping[bytes, int], dots: Dots) -> bool:
    return all(heads.get(writer, 0) >= seq for writer, seq in dots)


async def wait_enforced(
    daemon: "Daemon",
    dots: Dots,
    *,
    share: float,
    timeout_s: float,
    progress: Callable[[Count], None] = lambda _count: None,
) -> Count:
    """Return when `share` (0 to 1) of the live members enforce these records: of all of them, or of a random sample
    where they are many. `progress` is told as it goes. Raises ApiError with code 3 when they do not in time; what was
    published stays published."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    members = {m.id: m for m in daemon.node.engine.members() if m.live}
    asked = choose(list(members.values()), daemon.rng)
    done: set[bytes] = set()
    at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def follow(member: Member) -> None:
        if member.id == daemon.identity.id:
            await daemon.dataplane.wait_obeyed(dots)
        else:
            await _until_enforced(daemon, member, dots, at_once)
        done.add(member.id)

    def count() -> Count:
        """Whoever has left meanwhile is no member any more. Who seems dead is: its data plane may go on serving, out
        of this node's sight."""
        left = {m.id for m in daemon.node.engine.members() if m.state is State.LEFT}
        counted = [m for m in asked if m.id in done or m.id not in left]
        return Count(
            members=sum(node not in left or node in done for node in members),
            asked=len(counted),
            enforced=len(done),
            missing=tuple(sorted(m.name for m in counted if m.id not in done)),
            seconds=loop.time() - begun,
        )

    tasks = {asyncio.create_task(follow(member)) for member in asked}
    try:
        async with asyncio.timeout(timeout_s):
            pending = set(tasks)
            while pending and not (now := count()).reaches(share):
                progress(now)
                _, pending = await asyncio.wait(
                    pending, return_when=asyncio.FIRST_COMPLETED, timeout=COUNT_AGAIN_S
                )
    except TimeoutError:
        pass  # judged below
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    result = count()
    progress(result)
    if not result.reaches(share):
        raise ApiError(
            f"published, but enforced by only {result.words()} after {timeout_s:g} s; "
            f"missing: {result.missing_words()}",
            code=3,
        )
    return result


async def _until_enforced(daemon: "Daemon", member: Member, dots: Dots, at_once: asyncio.Semaphore) -> None:
    """Ask again and again, in turns: who is slow or out of reach keeps nobody else from being asked."""
    questions = encode_question(dots)
    while questions:
        try:
            async with at_once, asyncio.timeout(TURN_S), _asking(daemon, member) as stream:
                while questions:
                    stream.write(questions[0])
                    _, enforced = decode_answer(await stream.read())
                    if enforced:
                        del questions[0]  # what is enforced once is not taken back
                    else:
                        await asyncio.sleep(AGAIN_S)
        except (StreamError, TimeoutError):
            await asyncio.sleep(AGAIN_S)  # unreachable, restarting or slow: asked again until the time is up


@asynccontextmanager
async def _asking(daemon: "Daemon", member: Member) -> AsyncIterator[FrameStream]:
    """A stream to put questions on. Raises StreamError."""
    stream = await connect(member.address, daemon.channels.context_for(member.id))
    try:
        await greet(stream, ASK)
        yield stream
    except BaseException:
        stream.abort()  # whoever did not answer would not say good-bye either
        raise
    await stream.closed()


# ------------------------------------------------------------------ who holds it


class Standing(Enum):
    """How far a member is with some records."""

    ENFORCED = "enforced"  # the snapshot it serves was made with them, and none is in quarantine
    HELD = "held"
    MISSING = "missing"
    UNREACHABLE = "unreachable"  # it did not answer in time


async def survey(
    daemon: "Daemon", dots: Dots, *, within_s: float
) -> tuple[int, list[tuple[Member, Standing]]]:
    """How many live members there are, and how far each of them is, or each of a random sample where they are many;
    in order of name. Takes `within_s` at most."""
    members = [m for m in daemon.node.engine.members() if m.live]
    asked = choose(members, daemon.rng)
    found: dict[bytes, Standing] = {}
    at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def ask(member: Member) -> None:
        if member.id == daemon.identity.id:
            found[member.id] = _standing(_reaches(daemon.journal.heads, dots), daemon.dataplane.obeys(dots))
            return
        try:
            async with at_once, asyncio.timeout(TURN_S), _asking(daemon, member) as stream:
                held = enforced = True
                for question in encode_question(dots):
                    stream.write(question)
                    answer = decode_answer(await stream.read())
                    held, enforced = held and answer[0], enforced and answer[1]
            found[member.id] = _standing(held, enforced)
        except (StreamError, TimeoutError):
            pass  # unreachable

    tasks = [asyncio.create_task(ask(member)) for member in asked]
    if tasks:
        await asyncio.wait(tasks, timeout=within_s)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    rows = [(member, found.get(member.id, Standing.UNREACHABLE)) for member in asked]
    return len(members), sorted(rows, key=lambda row: (row[0].name, row[0].id))


def _standing(held: bool, enforced: bool) -> Standing:
    return Standing.ENFORCED if enforced else Standing.HELD if held else Standing.MISSING

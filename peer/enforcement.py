"""Asking other peers how far they are: which part of a writer's journal they hold, and which part they enforce.

    caller -> "ask"                               purpose, on a stream with a member's certificate
    caller -> [[writer, seq], ...]  MessagePack
    answer -> [held, enforced]      MessagePack   whether all of it is in the journal, and in the snapshot
    being served

`gossamer apply --wait` asks every live member, again until enough enforce it or the time is up.

Invariant: an answer says only yes or no about records the asker names; nothing else of a peer is told.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack

from gossip.member import Member
from peer.api import ApiError
from peer.io.stream import ASK, FrameStream, StreamError, connect, greet
from trust.identity import ID_BYTES

if TYPE_CHECKING:
    from peer.daemon import Daemon

WRITERS_MAX: Final = 64
AT_ONCE_MAX: Final = 16
AGAIN_S: Final = 0.05
ASKING_S_MAX: Final = 30.0  # on one stream; whoever waits longer calls again


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """The answering side. `node_of(stream)` is who asks; strangers are not answered."""

    heads: Callable[[], Mapping[bytes, int]]
    enforced: Callable[[], Mapping[bytes, int]]
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
            reach = decode_question(frame)
            answer = [_reaches(self.heads(), reach), _reaches(self.enforced(), reach)]
            stream.write(msgpack.packb(answer))
            await stream.flush()


def encode_question(reach: Mapping[bytes, int]) -> list[bytes]:
    """The frames that ask about `reach`, each about a part of it."""
    pairs = [[writer, seq] for writer, seq in sorted(reach.items())]
    parts = [pairs[start : start + WRITERS_MAX] for start in range(0, len(pairs), WRITERS_MAX)]
    return [msgpack.packb(part) for part in parts]


def decode_question(frame: bytes) -> dict[bytes, int]:
    """Inverse of `encode_question`, for one frame. Raises StreamError."""
    pairs: Any
    try:
        pairs = msgpack.unpackb(frame, max_array_len=WRITERS_MAX, max_bin_len=ID_BYTES, max_map_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise StreamError(f"not a question: {error}") from error
    if not isinstance(pairs, list):
        raise StreamError("not a question: not a list")
    reach: dict[bytes, int] = {}
    for pair in pairs:
        match pair:
            case [bytes(writer), int(seq)]:
                reach[writer] = seq
            case _:
                raise StreamError("not a question: not pairs of a writer and a number")
    return reach


def decode_answer(frame: bytes) -> tuple[bool, bool]:
    """(held, enforced). Raises StreamError."""
    try:
        match msgpack.unpackb(frame, max_array_len=2, max_map_len=0):
            case [bool(held), bool(enforced)]:
                return held, enforced
    except (ValueError, msgpack.UnpackException) as error:
        raise StreamError(f"not an answer: {error}") from error
    raise StreamError("not an answer")


def _reaches(heads: Mapping[bytes, int], reach: Mapping[bytes, int]) -> bool:
    return all(heads.get(writer, 0) >= seq for writer, seq in reach.items())


async def wait_enforced(
    daemon: "Daemon", reach: Mapping[bytes, int], *, share: float, timeout_s: float
) -> None:
    """Return when `share` (0 to 1) of the live members enforce `reach`. Raises ApiError with code 3 when they do not
    in time; what was published stays published."""
    members = [m for m in daemon.node.engine.members() if m.live]
    done: set[bytes] = set()
    at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def follow(member: Member) -> None:
        if member.id == daemon.identity.id:
            await daemon.dataplane.wait_enforced(reach)
        else:
            async with at_once:
                await _until_enforced(daemon, member, reach)
        done.add(member.id)

    tasks = {asyncio.create_task(follow(member)) for member in members}
    try:
        async with asyncio.timeout(timeout_s):
            pending = set(tasks)
            while pending and len(done) < share * len(members):
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        pass  # judged below
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if len(done) < share * len(members):
        missing = sorted(m.name for m in members if m.id not in done)
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ApiError(
            f"published, but enforced by only {len(done)} of {len(members)} members after {timeout_s:g} s; "
            f"missing: {', '.join(missing[:5])}{more}",
            code=3,
        )


async def _until_enforced(daemon: "Daemon", member: Member, reach: Mapping[bytes, int]) -> None:
    questions = encode_question(reach)
    while True:
        try:
            stream = await connect(member.address, daemon.channels.context_for(member.id))
            try:
                await greet(stream, ASK)
                while questions:
                    stream.write(questions[0])
                    _, enforced = decode_answer(await stream.read())
                    if enforced:
                        del questions[0]  # what is enforced once is not taken back
                    else:
                        await asyncio.sleep(AGAIN_S)
                return
            finally:
                await stream.closed()
        except StreamError:
            await asyncio.sleep(AGAIN_S)  # unreachable or restarting: asked again until the time is up

"""One stream from a coordinator to a signer: opened when there is something to say, closed when there is nothing more.

What cannot be delivered is told at once (`lost`), so that the coordinator asks somebody else; a signer that could not
be reached is left in peace for RETRY_S, and what is sent to it meanwhile is lost too. After a failure nothing is
repeated here: the coordinator decides what to ask anew.

Invariant: `lost` is never called from within `send`, and `heard` only with frames of the node that was dialled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from peer.io.stream import FrameStream, StreamError
from trust.errors import SessionError
from trust.identity import format_id

log = logging.getLogger("gossamer.signing")

RETRY_S: Final = 1.0
IDLE_S: Final = 30.0  # below what the signer allows, so that it is the caller who ends a stream
WAITING_MAX: Final = 256  # frames while the stream is being opened


class SignLink:
    """The stream to `node`. `heard(node, frame)` may raise SessionError; `lost(node)`: answers may be missing."""

    def __init__(
        self,
        node: bytes,
        dial: Callable[[bytes], Awaitable[FrameStream]],
        heard: Callable[[bytes, bytes], None],
        lost: Callable[[bytes], None],
    ) -> None:
        self._node, self._dial = node, dial
        self._heard, self._lost = heard, lost
        self._loop = asyncio.get_running_loop()
        self._stream: FrameStream | None = None
        self._waiting: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._owed = 0  # answers that have not come
        self._retry_at = float("-inf")
        self._reason = ""

    @property
    def away(self) -> str:
        """Why it could not be reached a moment ago; "" when it may be reached."""
        return self._reason if self._loop.time() < self._retry_at else ""

    def send(self, frame: bytes) -> None:
        """Send, open the stream first, or say later in this turn that it is lost."""
        if self.away or len(self._waiting) >= WAITING_MAX:
            self._loop.call_soon(self._lost, self._node)
            return
        self._owed += 1
        if self._stream is not None:
            self._stream.write(frame)
            return
        self._waiting.append(frame)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="signer's stream")

    def end(self) -> asyncio.Task[None] | None:
        """Close; the task that does."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    async def _run(self) -> None:
        reason = "it closed the stream"
        try:
            stream = await self._dial(self._node)
            try:
                self._stream = stream
                for frame in self._waiting:
                    stream.write(frame)
                self._waiting.clear()
                while frame := await stream.read(IDLE_S):
                    self._heard(self._node, frame)  # what is garbage is no answer: one more is owed then
                    self._owed = max(0, self._owed - 1)
            finally:
                self._stream = None
                stream.abort()
        except (StreamError, SessionError) as error:
            reason = str(error)
        finally:
            self._task = None
            owed, self._owed = self._owed, 0
            self._waiting.clear()
        if owed:
            self._reason, self._retry_at = reason, self._loop.time() + RETRY_S
            fields = {"signer": format_id(self._node), "reason": reason}
            log.info("signer_lost", extra={"fields": fields})
            self._lost(self._node)

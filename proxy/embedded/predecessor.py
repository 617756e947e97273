"""A worker of the process that this one has taken over from: it serves on, until it is drained.

It is no child of this process, so its end is seen on a pidfd. What it counts until then is counted here.

Invariant: it is asked to drain once, and gone at the latest END_S_MAX after that is over, or the channel to it.
"""

import asyncio
import contextlib
import logging
import os
import select
import signal
from collections.abc import Callable
from typing import Final

from proxy.embedded.ipc import Report
from proxy.embedded.link import Link, WorkerGoneError
from proxy.plane import OldWorker

END_S_MAX: Final = 5.0

log = logging.getLogger("gossamer.proxy")


class Predecessor:
    """One such worker. Make it with `adopt`; whoever made it calls `retire` or `end`."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._link: Link

    def __repr__(self) -> str:
        return f"<Predecessor pid={self.pid}>"

    @classmethod
    async def adopt(cls, old: OldWorker, report: Callable[[Report], None]) -> "Predecessor | None":
        """None when it has ended already."""
        try:
            descriptor = os.pidfd_open(old.pid)
        except ProcessLookupError:
            old.stream.close()
            return None
        adopted = cls(old.pid, descriptor)
        # That it ends by itself costs what it was serving, and nothing is to be done about it.
        adopted._link = await Link.over(old.stream, report, lambda: None, unread=old.unread)
        return adopted

    async def retire(self, drain_s: float) -> None:
        """Let it finish what it is serving, and end it."""
        try:
            await self._link.drain(drain_s)
        except (TimeoutError, WorkerGoneError):
            log.warning("data plane worker %s of the process before did not finish draining", self.pid)
        await self.end()

    async def end(self) -> None:
        """It ends because its channel does; if it does not, by force."""
        self._link.give_up()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if not await asyncio.to_thread(_ended, descriptor, END_S_MAX):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)

    def bequeath(self) -> OldWorker | None:
        """For the process that takes over from this one in turn."""
        left = self._link.bequeath()
        return None if left is None else OldWorker(pid=self.pid, stream=left[0], unread=left[1])


def _ended(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))

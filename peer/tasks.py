"""The parts of a peer that run beside one another, for as long as it runs.

A part that is gone would be missed silently: its end by an error ends the peer, and its supervisor starts it again.

Invariant: while the peer is not stopping, no part ends by an error untold.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine

log = logging.getLogger("gossamer.peer")


class Tasks:
    """`fail` is told why the peer cannot go on. Set `stopping` when parts may be given up."""

    def __init__(self, fail: Callable[[str], None]) -> None:
        self.stopping = False
        self._fail = fail
        self._tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        """Begin a part. It may come to its end."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    async def end(self) -> None:
        """Cancel them all, and wait until they are gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if self.stopping:
            return
        error = asyncio.CancelledError("given up") if task.cancelled() else task.exception()
        if error is not None:
            log.critical("task_failed", extra={"fields": {"task": task.get_name()}}, exc_info=error)
            self._fail(f"{task.get_name()}: {error!r}")

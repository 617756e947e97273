"""The running peer's side of an upgrade in place: find a successor, hand everything to it, and go.

Invariant: until the successor has said that it could take over, nothing of this peer has changed.
"""

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from peer import takeover
from peer.admin.server import AdminServer
from peer.api import ApiError
from peer.io.datadir import DataDirLock
from peer.takeover import EXIT_HANDED_OVER, Estate, HandoverError, Successor, become_shell, own_command

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.peer")


class Upgrade:
    """`found` is set when there is a successor: then `hand_over` ends this process."""

    def __init__(
        self, daemon: "Daemon", lock: DataDirLock, shell: int, command: list[str] | None = None
    ) -> None:
        self._daemon = daemon
        self._lock = lock
        self._shell = shell
        self._command = command or own_command()
        self._successor: Successor | None = None
        self._looking = False
        self._tasks: set[asyncio.Task[int | None]] = set()
        self.found = asyncio.Event()

    async def find(self) -> int:
        """Start the process that takes over; its process id. Raises ApiError: this one goes on."""
        if not self._daemon.ready.is_set():
            raise ApiError("this peer is still entering the mesh; upgrade it when it is ready")
        if self._looking or self._successor is not None:
            raise ApiError("an upgrade is under way")
        self._looking = True
        try:
            self._successor = await takeover.offer(self._command)
        except HandoverError as error:
            log.error("upgrade_failed", extra={"fields": {"reason": str(error)}})
            raise ApiError(f"not upgraded: {error}") from error
        finally:
            self._looking = False
        self.found.set()
        return self._successor.pid

    def ask(self) -> None:
        """As `find`, for a signal: what comes of it is in the log."""
        task = asyncio.create_task(self._try())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try(self) -> int | None:
        try:
            return await self.find()
        except ApiError as error:
            log.warning("not_upgraded", extra={"fields": {"reason": str(error)}})
            return None

    async def dismiss(self) -> None:
        """This peer is stopped instead."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._successor is not None:
            await self._successor.dismiss()

    async def hand_over(self, admin: AdminServer) -> NoReturn:
        """Fall silent, pass everything on, and end, or become the successor's shell. Raises OSError when the successor
        has ended: then nothing is left to go on with."""
        successor = self._successor
        assert successor is not None
        log.info("handing_over", extra={"fields": {"to": successor.pid}})
        lock = self._lock.copy()  # the database closes the other one
        sockets = admin.listening()
        await admin.close(keep=True)
        theirs, workers = await self._daemon.lifecycle.bequeath()
        lock.name_holder(successor.pid)
        estate = Estate(
            lock=lock.descriptor,
            sockets=theirs | sockets,
            workers=workers,
            shell=self._shell or os.getpid(),
        )
        successor.bequeath(estate)
        if not self._shell:
            become_shell(successor.pid, lock.file)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_HANDED_OVER)  # nothing may be tidied up any more: it all belongs to the successor

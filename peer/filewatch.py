"""Carries out what the files of `services.d/` say.

Invariant: a file that cannot be carried out whole changes nothing, and is told about until it can.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from peer.api import ApiError
from peer.io.servicefiles import POLL_S, FileChange, ServiceFiles
from peer.local import COMMAND, LocalServices

log = logging.getLogger("gossamer.services")

AGAIN_S: Final = (
    10.0  # a file that could not be carried out is tried again: what was in its way may have passed
)


class FileWatch:
    """The files of one directory as sources of local services."""

    def __init__(
        self, directory: Path, local: LocalServices, *, poll_s: float = POLL_S, again_s: float = AGAIN_S
    ) -> None:
        self._directory = directory
        self._files = ServiceFiles(directory)
        self._local = local
        self._poll_s = poll_s
        self._again_s = again_s
        self._refused: dict[str, str] = {}

    @property
    def problems(self) -> list[str]:
        """Files that are not obeyed as they are, and why."""
        return [*self._refused.values(), *self._files.problems.values()]

    async def read(self) -> None:
        """Carry out what is there now."""
        await self._carry_out(await asyncio.to_thread(self._files.scan))

    async def run(self) -> None:
        """Carry out what changes, for ever."""
        tried_at = time.monotonic()
        while True:
            await asyncio.sleep(self._poll_s)
            if self._refused and time.monotonic() - tried_at >= self._again_s:
                tried_at = time.monotonic()
                await self._read_all_again()
            else:
                await self._carry_out(await asyncio.to_thread(self._files.scan))

    async def _read_all_again(self) -> None:
        """Take up every file as if it were new, and let go what files said that are no longer there."""
        files = ServiceFiles(self._directory)
        changes = await asyncio.to_thread(files.scan)
        if not files.in_force and self._directory in files.problems:
            return  # it cannot be read, which says nothing of what is in it
        self._files = files
        there = {str(path) for path in (*self._files.in_force, *self._files.problems)}
        known = {r.source for r in self._local.services.values() if r.source != COMMAND}
        gone = [FileChange(path=Path(source), services=()) for source in sorted(known - there)]
        before, self._refused = self._refused, {}
        await self._carry_out([*gone, *changes], told=before)

    async def _carry_out(self, changes: Iterable[FileChange], told: Mapping[str, str] | None = None) -> None:
        """`told`: what was said of refused files already, and need not be said again."""
        for change in changes:
            path = str(change.path)
            if change.problem:
                self._tell(change.problem, told or {}, path)
                continue
            before = [r.spec for r in self._local.services.values() if r.source == path]
            try:
                await self._local.replace_file(path, change.services)
            except ApiError as error:
                self._files.refused(change.path, before)
                self._refused[path] = f"{path}: {error}"
                self._tell(self._refused[path], told or {}, path)
            else:
                self._refused.pop(path, None)
        self._forget_gone()

    def _forget_gone(self) -> None:
        """Refused files that are no longer there: they were never obeyed, so nothing else changes."""
        self._refused = {path: why for path, why in self._refused.items() if Path(path).exists()}

    def _tell(self, problem: str, told: Mapping[str, str], path: str) -> None:
        if told.get(path) != problem:
            log.error("service_file", extra={"fields": {"problem": problem}})

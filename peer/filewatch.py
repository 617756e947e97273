"""Carries out what the files of `services.d/` say.

Invariant: a file that cannot be carried out whole changes nothing, and is told about until it can.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from peer.api import ApiError
from peer.io.servicefiles import FileChange, ServiceFiles
from peer.local import LocalServices

log = logging.getLogger("gossamer.services")


class FileWatch:
    """The files of one directory as sources of local services."""

    def __init__(self, directory: Path, local: LocalServices) -> None:
        self._files = ServiceFiles(directory)
        self._local = local
        self._refused: dict[str, str] = {}

    @property
    def problems(self) -> list[str]:
        """Files that are not obeyed as they are, and why."""
        return [*self._refused.values(), *self._files.problems.values()]

    async def read(self) -> None:
        """Carry out what is there now."""
        await self._carry_out(self._files.scan())

    async def run(self) -> None:
        """Carry out what changes, for ever."""
        async for changes in self._files.watch():
            await self._carry_out(changes)

    async def _carry_out(self, changes: Iterable[FileChange]) -> None:
        for change in changes:
            if change.problem:
                log.error("service_file", extra={"fields": {"problem": change.problem}})
                continue
            path = str(change.path)
            before = [r.spec for r in self._local.services.values() if r.source == path]
            try:
                await self._local.replace_file(path, change.services)
            except ApiError as error:
                self._files.refused(change.path, before)
                self._refused[path] = f"{path}: {error}"
                log.error("service_file", extra={"fields": {"problem": self._refused[path]}})
            else:
                self._refused.pop(path, None)

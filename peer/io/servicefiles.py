"""The directory of service files, watched by looking at it every second.

Polling and not inotify: it needs no dependency, works on every file system (bind mounts, network shares, the symlinks
of a mounted ConfigMap), and a second is soon enough for a file somebody edits.

A file counts as a whole: with one fault in it, what it said before stands, and the fault is told once. A file that is
still being written is left until it has stopped changing. A directory or file that cannot be looked at (permissions, a
failing disk) is not one that is gone: what it said stands. A service belongs to the file that has it; a second file
with the same service is a fault of that file until the first one gives it up.

Invariant: after the changes of a scan are carried out in order, `in_force` is what is registered, and no service is in
it twice. A file that others may write is not obeyed: checks may run commands.
"""

import asyncio
import stat
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peer.yamlfile import YamlFileError, read_text
from proxy.resources import ResourceError, ServiceSpec, load_yaml, parse_service_documents

POLL_S: Final = 1.0
FILES_MAX: Final = 1000
PROBLEMS_TOLD_MAX: Final = 5
_SUFFIXES: Final = (".yaml", ".yml")

_Signature = tuple[int, int, int]  # modification time (ns), size, inode


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """What a file says now: its services, none when it is gone. With a `problem` (words naming file and field) nothing
    changed, and `services` is what stands from before."""

    path: Path
    services: tuple[ServiceSpec, ...]
    problem: str = ""


class ServiceFiles:
    """The files of one directory, which may not exist yet. Not for use from two threads at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._first = True
        self._looked_at: dict[Path, _Signature] = {}  # as of the last scan
        self._taken: dict[Path, _Signature] = {}  # as of when the file was read
        self._in_force: dict[Path, tuple[ServiceSpec, ...]] = {}
        self._pending: dict[
            Path, tuple[ServiceSpec, ...]
        ] = {}  # valid, but another file has one of the services
        self._told: dict[Path, str] = {}

    @property
    def in_force(self) -> Mapping[Path, tuple[ServiceSpec, ...]]:
        """What each file contributes."""
        return self._in_force

    @property
    def problems(self) -> Mapping[Path, str]:
        """The files that are not obeyed as they are, and why."""
        return self._told

    async def watch(self, interval_s: float = POLL_S) -> AsyncIterator[list[FileChange]]:
        """The changes of each scan that found any, for ever. The disk is read in a thread."""
        while True:
            await asyncio.sleep(interval_s)
            changes = await asyncio.to_thread(self.scan)
            if changes:
                yield changes

    def scan(self) -> list[FileChange]:
        """What has changed since the last scan, in the order in which it must be carried out. Never raises."""
        present, problem = self._look()
        changes = list(self._gone(present))
        settled = self._settled(present)
        for path in settled:
            self._taken[path] = present[path]
            self._pending.pop(path, None)
            try:
                self._pending[path] = self._parse(path)
            except (ResourceError, YamlFileError) as error:
                changes += self._refuse(path, _words(error))
        if changes or settled:
            changes += self._admit()
        if problem:
            changes += self._refuse(self._directory, f"{self._directory}: {problem}")
        else:
            self._told.pop(self._directory, None)
        self._looked_at = present
        self._first = False
        return changes

    def refused(self, path: Path, before: Iterable[ServiceSpec] = ()) -> None:
        """The caller could not carry out the latest change of `path`, and `before` stands. It is offered again when
        another file changes."""
        self._pending[path] = self._in_force.pop(path, ())
        standing = tuple(before)
        if standing:
            self._in_force[path] = standing

    def _look(self) -> tuple[dict[Path, _Signature], str]:
        """The files there are, and what is wrong with the directory."""
        found: dict[Path, _Signature] = {}
        try:
            paths = sorted(
                path
                for path in self._directory.iterdir()
                if path.suffix in _SUFFIXES and not path.name.startswith(".")
            )
        except FileNotFoundError:
            return found, ""
        except OSError as error:
            return dict(self._looked_at), f"cannot be read: {error.strerror}"
        for path in paths[:FILES_MAX]:
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # gone since it was listed
            except OSError:
                if path in self._looked_at:
                    found[path] = self._looked_at[path]
                continue
            if stat.S_ISREG(status.st_mode):
                found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found, f"more than {FILES_MAX} service files" if len(paths) > FILES_MAX else ""

    def _gone(self, present: Mapping[Path, _Signature]) -> Iterable[FileChange]:
        for path in [path for path in self._taken if path not in present]:
            del self._taken[path]
            self._pending.pop(path, None)
            self._told.pop(path, None)
            if self._in_force.pop(path, None) is not None:
                yield FileChange(path=path, services=())

    def _settled(self, present: Mapping[Path, _Signature]) -> list[Path]:
        """Files that changed and have stopped changing: seen alike twice, or last modified a while ago."""
        now_ns = time.time_ns()
        return [
            path
            for path, signature in present.items()
            if self._taken.get(path) != signature
            and (
                self._first
                or self._looked_at.get(path) == signature
                or now_ns - signature[0] > POLL_S * 1_000_000_000
            )
        ]

    def _parse(self, path: Path) -> tuple[ServiceSpec, ...]:
        for item in (path, self._directory):
            try:
                mode = item.stat().st_mode
            except OSError as error:
                raise YamlFileError(f"{item}: cannot be read: {error.strerror}") from error
            if mode & stat.S_IWOTH:
                raise YamlFileError(f"{item}: everybody can write it (chmod o-w {item})")
        return parse_service_documents(load_yaml(read_text(path), str(path)), str(path))

    def _admit(self) -> Iterable[FileChange]:
        """Bring pending files into force, as long as one of them can be: each may free what another waits for."""
        progress = True
        while progress:
            progress = False
            for path, services in sorted(self._pending.items()):
                if self._clash(path, services):
                    continue
                progress = True
                del self._pending[path]
                self._told.pop(path, None)
                before = self._in_force.get(path)
                self._in_force[path] = services
                if services != before:
                    yield FileChange(path=path, services=services)
        for path, services in sorted(self._pending.items()):
            yield from self._refuse(path, self._clash(path, services))

    def _clash(self, path: Path, services: tuple[ServiceSpec, ...]) -> str:
        keys = {service.key for service in services}
        for other, theirs in self._in_force.items():
            if other != path:
                for service in theirs:
                    if service.key in keys:
                        return f"{path}: service {service.key}: is registered by {other} already"
        return ""

    def _refuse(self, path: Path, problem: str) -> Iterable[FileChange]:
        if self._told.get(path) != problem:
            self._told[path] = problem
            yield FileChange(path=path, services=self._in_force.get(path, ()), problem=problem)


def _words(error: ResourceError | YamlFileError) -> str:
    if isinstance(error, YamlFileError):
        return str(error)
    more = len(error.problems) - PROBLEMS_TOLD_MAX
    told = "; ".join(error.problems[:PROBLEMS_TOLD_MAX])
    return f"{told}; and {more} more" if more > 0 else told

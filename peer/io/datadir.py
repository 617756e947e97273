"""The data directory: private, and one running peer's at a time.

The lock is an flock on `<data_dir>/lock`: the kernel drops it with the process, however that ends, so that there is
no stale lock to clear after a crash. The file holds the pid of its holder for the message only.

Invariant: while a DataDirLock is held no other process holds one on the same directory. A directory that is not
evidently a peer's never has its permissions changed.
"""

import fcntl
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from peer.io.keys import make_directory, reason

LOCK_NAME: Final = "lock"
_PROOF: Final = frozenset({LOCK_NAME, "keys", "store.db"})  # a peer has lived here
_PREPARED: Final = (".yaml", ".yml", ".log", "services.d")


class DataDirError(Exception):
    """The directory cannot be a peer's; the message names it. Nothing in it was changed."""


class DataDirBusy(DataDirError):  # noqa: N818  it says what is so, as BlockingIOError does
    """Another process holds it. `pid` is None when it could not be read."""

    def __init__(self, directory: Path, pid: int | None) -> None:
        by = f"by process {pid}" if pid is not None else "by another process"
        super().__init__(
            f"data directory {directory} is in use {by}; every peer needs its own (--data-dir or GOSSAMER_DATA_DIR)"
        )
        self.directory = directory
        self.pid = pid


class DataDirLock:
    """A held lock. Closing it, or the end of the process, releases it."""

    def __init__(self, directory: Path, descriptor: int) -> None:
        self.directory = directory
        self._descriptor = descriptor

    @property
    def file(self) -> Path:
        return self.directory / LOCK_NAME

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def copy(self) -> "DataDirLock":
        """The same lock once more: it is held until both are closed."""
        return DataDirLock(self.directory, os.dup(self._descriptor))

    def name_holder(self, pid: int) -> None:
        """Write down whom the lock is held by. Raises OSError."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % pid, 0)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def inherit_lock(directory: Path, descriptor: int) -> DataDirLock:
    """The lock that another process took and has handed over. Raises DataDirError: it is not this directory's."""
    try:
        held, wanted = os.fstat(descriptor), (directory / LOCK_NAME).stat()
        if (held.st_dev, held.st_ino) != (wanted.st_dev, wanted.st_ino):
            raise DataDirError(f"data directory {directory} is not the one that the peer before used")
        lock = DataDirLock(directory, descriptor)
        lock.name_holder(os.getpid())
    except OSError as error:
        raise DataDirError(f"data directory {directory}: {error.strerror}") from error
    return lock


def lock_data_dir(directory: Path) -> DataDirLock:
    """Make the directory (0700) if need be and take its lock. Raises DataDirBusy or DataDirError."""
    try:
        make_directory(directory)
        _make_private(directory)
        # Not inherited by exec; a forked child would keep the lock alive, so workers are spawned, never forked.
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        what = f"data directory {directory}"
        if error.filename == str(directory / LOCK_NAME):
            what += f": {LOCK_NAME}"
        raise DataDirError(f"{what}: {reason(Path(error.filename or directory), error)}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock = DataDirLock(directory, descriptor)
        lock.name_holder(os.getpid())
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).strip()
        os.close(descriptor)
        raise DataDirBusy(directory, int(holder) if holder.isdigit() else None) from error
    except OSError as error:
        os.close(descriptor)
        raise DataDirError(f"data directory {directory}: {error.strerror}") from error
    return lock


def holder(directory: Path) -> int | None:
    """The process that holds the directory, or held it last; None when nobody ever did."""
    try:
        text = (directory / LOCK_NAME).read_bytes()[:32].strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def wait_ended(pid: int, *, timeout_s: float, poll_s: float = 0.05) -> bool:
    """Wait until the process has ended (a zombie has); False when it still runs after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while _runs(pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def _runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[:1] not in ([b"Z"], [b"X"])


def _make_private(directory: Path) -> None:
    status = directory.stat()
    mode = stat.S_IMODE(status.st_mode)
    if not mode & 0o077:
        return
    if status.st_uid != os.geteuid():
        raise DataDirError(
            f"data directory {directory} belongs to user {status.st_uid}, and others can enter it"
        )
    if not _is_ours(entry.name for entry in directory.iterdir()):
        raise DataDirError(
            f"data directory {directory} is open to others (mode {mode:04o}) and holds files that are not a peer's; "
            f"name a directory of its own, or close it with: chmod 700 {directory}"
        )
    directory.chmod(0o700)


def _is_ours(names: Iterable[str]) -> bool:
    """A peer's directory, or one somebody prepared for it with service files and a configuration."""
    present = set(names)
    return not _PROOF.isdisjoint(present) or all(name.endswith(_PREPARED) for name in present)

"""What makes a node itself, in private files: its seed, its credential, the mesh's root, its boot number.

Files and not rows, because they must survive a corrupt database. A write goes to a temporary file that is fsynced
and renamed over the old one, then the directory is fsynced: after a crash at any instant a reader finds the old
content or the new, never a part.

Boot numbers order the lives of one node: nonces and replay windows hang on them, so a number is durable
before it is used and never used again, whatever the clock says.

Invariant: a seed is written once and never replaced; a secret that others can read is refused, not used.
"""

import contextlib
import enum
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from peer.io.stale import Boot, file_mark

BOOT_MAX: Final = 2**63 - 1
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
_SEED_BYTES: Final = 32
_TEMPORARY: Final = ".tmp"


class KeyFile(enum.Enum):
    """The files, by the name they have on disk."""

    NODE_SEED = "node.key"
    CREDENTIAL = "node.credential"
    ROOT_CERTIFICATE = "root.der"
    AUTHORITY_SEED = "authority.key"
    CERTIFICATES = "certificates"
    BOOT = "boot"
    ROOTS = "roots"
    ROLLOVER_REQUEST = "rollover-request"
    ROLLOVER_VOTE = "rollover-vote"
    EPOCHS = "epochs"
    FOUNDERS = "founders"
    FOUNDER_SINCE = "founder-since"


_SEEDS: Final = frozenset({KeyFile.NODE_SEED, KeyFile.AUTHORITY_SEED})
_SECRETS: Final = _SEEDS | {KeyFile.CERTIFICATES}  # it holds the certificates' keys


class KeyFileError(Exception):
    """A key file cannot be used or written; the message names it. What was on disk is unchanged."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The directory of key files. The data directory's lock must be held by this process."""

    directory: Path

    @classmethod
    def open(cls, data_dir: Path) -> Self:
        """Make `<data_dir>/keys` (0700) if need be and clear what a crash left half-written."""
        directory = data_dir / "keys"
        try:
            make_directory(directory)
            directory.chmod(0o700)
            for leftover in directory.glob("*" + _TEMPORARY):
                with contextlib.suppress(OSError):  # what cannot be written can still be removed
                    _overwrite(leftover)
                leftover.unlink()
        except OSError as error:
            raise KeyFileError(f"{directory}: {reason(directory, error)}") from error
        return cls(directory)

    def path(self, file: KeyFile) -> Path:
        return self.directory / file.value

    def read(self, file: KeyFile) -> bytes | None:
        """The content, or None where there is no such file yet."""
        path = self.path(file)
        data = read_private(path, secret=file in _SECRETS)
        if data is None:
            return None
        if file in _SEEDS and len(data) != _SEED_BYTES:
            raise KeyFileError(f"{path}: is damaged: {len(data)} bytes where a key has {_SEED_BYTES}")
        if not 0 < len(data) <= FILE_BYTES_MAX:
            raise KeyFileError(f"{path}: is damaged: {len(data)} bytes")
        return data

    def write(self, file: KeyFile, data: bytes) -> None:
        """Replace the content, durable when it returns. A seed is written once: another one is refused."""
        if file in _SEEDS:
            if len(data) != _SEED_BYTES:
                raise AssertionError(f"a seed has {_SEED_BYTES} bytes")
            present = self.read(file)
            if present is not None:
                if present != data:
                    raise KeyFileError(
                        f"{self.path(file)}: holds another key already, and it is not replaced"
                    )
                return
        elif not 0 < len(data) <= FILE_BYTES_MAX:
            raise AssertionError(f"{file.value} of {len(data)} bytes")
        write_private(self.path(file), data)

    def last_boot(self) -> Boot | None:
        """The boot number given out last, or None where there is none yet."""
        path = self.path(KeyFile.BOOT)
        text = self.read(KeyFile.BOOT)
        if text is None:
            return None
        if not text.strip().isdigit() or int(text) > BOOT_MAX:
            raise KeyFileError(
                f"{path}: is damaged; if this host's clock is right, remove the file and start again"
            )
        return Boot(int(text), self.mark(KeyFile.BOOT))

    def next_boot(
        self, now_ms: int, *, above: int = 0, reserve: Callable[[int], None] = lambda _: None
    ) -> int:
        """A boot number above `above` and every earlier one: max(last + 1, now_ms), durable before it is returned.
        `reserve` is called with it before it is written."""
        last = self.last_boot()
        least = max(above, last.number if last is not None else 0) + 1
        boot = max(least, now_ms)
        if not 0 < boot <= BOOT_MAX:
            raise KeyFileError(f"{self.path(KeyFile.BOOT)}: no boot number is left above {least - 1}")
        reserve(boot)
        self.write(KeyFile.BOOT, b"%d\n" % boot)
        return boot

    def mark(self, file: KeyFile) -> str:
        """Which file it is (`peer/io/stale.py`); it changes with each write."""
        try:
            return file_mark(self.path(file))
        except OSError as error:
            raise KeyFileError(f"{self.path(file)}: cannot be read: {error.strerror}") from error


def read_private(path: Path, *, secret: bool) -> bytes | None:
    """The content, at most FILE_BYTES_MAX and one byte; None where there is no such file. Raises KeyFileError, also
    where others can read a `secret`."""
    try:
        with path.open("rb") as stream:
            if secret:
                _refuse_shared(path, os.fstat(stream.fileno()))
            return stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {reason(path, error)}") from error


def _refuse_shared(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise KeyFileError(
            f"{path}: others can read this key (mode {mode:04o}); if nobody has, make it private with: chmod 600 {path}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyFileError(f"{path}: belongs to user {status.st_uid}, not to this peer's user {os.geteuid()}")


def write_private(path: Path, data: bytes) -> None:
    """Put `data` at `path` (mode 0600) atomically and durably. Raises KeyFileError with the old content in place."""
    temporary = path.with_name(path.name + _TEMPORARY)
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                os.fchmod(descriptor, 0o600)
                stream.write(data)
                stream.flush()
                os.fsync(descriptor)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):  # the first failure is the one to tell
                _overwrite(temporary)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        fsync_directory(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from error


def replace_secret(path: Path, data: bytes) -> None:
    """Like `write_private`, and what was there before is overwritten once the new content is durable: a file that is
    renamed over leaves its bytes behind. Raises KeyFileError: the content is the old or, where only the overwriting
    failed, the new."""
    with contextlib.ExitStack() as held:
        try:
            before = held.enter_context(path.open("r+b")) if path.exists() else None
        except OSError as error:
            raise KeyFileError(f"{path}: cannot be opened: {error.strerror}") from error
        write_private(path, data)
        try:
            if before is not None:
                _fill(before)
        except OSError as error:
            raise KeyFileError(f"{path}: what it held before cannot be erased: {error.strerror}") from error


def erase_private(path: Path) -> None:
    """Overwrite the file and remove it, durable when it returns; nothing where there is none. What a file system keeps
    elsewhere (a journal, a snapshot, a worn block) is out of reach. Raises KeyFileError."""
    try:
        _overwrite(path)
        path.unlink()
        fsync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be removed: {error.strerror}") from error


def _overwrite(path: Path) -> None:
    with path.open("r+b") as stream:
        _fill(stream)


def _fill(stream: BinaryIO) -> None:
    """Zeros in the place of all that is there, durable."""
    stream.seek(0)
    stream.write(bytes(os.fstat(stream.fileno()).st_size))
    stream.flush()
    os.fsync(stream.fileno())


def reason(path: Path, error: OSError) -> str:
    """What the system says of `path`, and where permissions are missing whose it is."""
    words = error.strerror or str(error)
    if not isinstance(error, PermissionError):
        return words
    for each in (path, *path.parents):
        try:
            owner = each.stat().st_uid
        except OSError:
            continue  # behind a directory that may not be entered
        return f"{words} ({each} belongs to user {owner}, this peer runs as user {os.geteuid()})"
    return words


def make_directory(directory: Path) -> None:
    """Make a directory (0700) and those above it, durable when it returns. Raises OSError."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        fsync_directory(each.parent)


def fsync_directory(directory: Path) -> None:
    """Make renames in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

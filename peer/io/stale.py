"""Whether a whole database is an old one: put back from a backup, a copy, or without the log it had.

A database cannot tell that by what is in it. Three things beside it can:

- *Which file it is.* It remembers its inode with the inode's generation, a number that ext4, XFS and Btrfs give anew
  with each use of an inode (a number freed by `rm` is the first to be given out again). In another file it is a copy.
- *Which lives it knows.* A boot number is written into it before it goes to `keys/boot`. Where the key file has a
  higher one, the database has missed a life. It remembers which file `keys/boot` was, too: that one is replaced at
  every start, so a directory written over in place with all its old files has the boot file of a later life.
- *Whether it was closed.* While it is open it says so in its main file. A database that was not closed has a log, be it
  an empty one; without it, what was acknowledged last is gone.

What stays hidden: database and log put back together, over the same files, from the same life; a log cut at the end of
a transaction by a disk that lied about its fsync; a snapshot of the whole disk. There the first exchange with another
peer tells, for which own writes wait.

Invariant: nothing that a crash at any instant leaves behind is called old.
"""

import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = "file"  # in meta: the mark of the file the database was last trusted in
BOOT: Final = "boot"  # in meta: the highest boot number given out, and the mark of the file it was written to
OPEN: Final = "open"  # in meta, when the database was not closed
_GET_GENERATION: Final = 0x80007601 | struct.calcsize("l") << 16  # FS_IOC_GETVERSION, linux/fs.h


@dataclass(frozen=True, slots=True)
class Boot:
    """The content of `keys/boot`, and the mark of the file it was read from or written to ("" where not known)."""

    number: int
    mark: str = ""

    def encode(self) -> bytes:
        return f"{self.number} {self.mark}".encode()


def decode_boot(data: bytes | None) -> Boot:
    """What a database has of it; Boot(0) where it has nothing."""
    number, _, mark = (data or b"0").decode().partition(" ")
    return Boot(int(number), mark)


def file_mark(path: Path) -> str:
    """Which file this is: inode, and generation where the file system tells one. Raises OSError. Not for a database
    that is open: the first close of a file drops every lock this process has on it (sqlite.org/howtocorrupt.html)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        inode = os.fstat(descriptor).st_ino
        try:
            generation = fcntl.ioctl(descriptor, _GET_GENERATION, bytes(struct.calcsize("l")))
        except OSError:  # tmpfs, overlayfs
            return str(inode)
        return f"{inode}.{int.from_bytes(generation[:4], 'little')}"
    finally:
        os.close(descriptor)


def staleness(known: Callable[[str], bytes | None], *, mark: str, log_found: bool, last: Boot | None) -> str:
    """Why a database may hold less than was written, or "". `known`: its meta table. `mark`: of its file. `log_found`:
    a log was beside it before it was opened. `last`: what `keys/boot` says."""
    file = (known(FILE) or b"").decode()
    if file and not _same(file, mark):
        return "it is another file than the one last written: a copy, or restored from a backup"
    if known(OPEN) and not log_found:
        return "it was not closed, and its log is gone"
    boot = known(BOOT)
    if boot is not None and last is not None:
        own = decode_boot(boot)
        if last.number > own.number:
            return "it knows nothing of this peer's last start: it was restored from a backup"
        if last.number == own.number and own.mark and not _same(own.mark, last.mark):
            return "the files around it are others than those last written: restored from a backup"
    return ""


def _same(then: str, now: str) -> bool:
    """Whether two marks are of one file; what earlier builds wrote has no generation."""
    return then == now or ("." not in then and then == now.partition(".")[0])

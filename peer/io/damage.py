"""Telling a damaged database from a whole one, and keeping what is left of it as evidence.

The layout of the write-ahead log is SQLite's (sqlite.org/fileformat2.html, section 4): a header of 32 bytes, then
frames of 24 bytes and a page each, which carry the header's salts and, in the last of a transaction, the size of the
database.

Invariant: nothing is deleted; a name that exists is never taken.
"""

import os
import shutil
import struct
import time
import zlib
from pathlib import Path
from typing import Final

from peer.io.keys import fsync_directory

SIDE_FILES: Final = ("", "-wal", "-shm")
_HEADER: Final = struct.Struct(">IIIIIIII")  # magic, format, page size, checkpoint, salt 1, salt 2, checksum
_FRAME: Final = struct.Struct(
    ">IIIIII"
)  # page, size of the database after a commit (else 0), salts, checksum
_MAGIC: Final = frozenset({0x377F0682, 0x377F0683})
_PAGE_BYTES_MAX: Final = 65_536


def row_crc(row: tuple[object, ...]) -> int:
    """CRC-32 of a row's values, each with its length so that none can flow into the next."""
    crc = 0
    for value in row:
        data = (
            value if isinstance(value, bytes) else str(value).encode()
        )  # numbers, and in damaged rows anything
        crc = zlib.crc32(data, zlib.crc32(b"%d:" % len(data), crc))
    return crc


def header_damaged(log: Path) -> bool:
    """Whether frames follow a header that is not whole, for which SQLite passes over all of them. The header is synced
    before the first frame is written, so that no crash leaves this."""
    try:
        with log.open("rb") as stream:
            head = stream.read(_HEADER.size)
            if not stream.read(_FRAME.size):
                return False
    except FileNotFoundError:
        return False
    words = _HEADER.unpack(head)
    return words[0] not in _MAGIC or _checksum(head[:24], big_endian=bool(words[0] & 1)) != words[6:]


def _checksum(data: bytes, *, big_endian: bool) -> tuple[int, int]:
    """SQLite's, of an even number of 32-bit words."""
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def commits_after(log: Path, frames: int) -> int:
    """How many commits of this log's own generation lie behind its first `frames` frames, which are those SQLite
    found valid. Frames of an earlier generation have other salts and do not count."""
    commits = 0
    try:
        with log.open("rb") as stream:
            head = stream.read(_HEADER.size)
            if len(head) < _HEADER.size:
                return 0
            magic, _, page_bytes, _, salt_1, salt_2, _, _ = _HEADER.unpack(head)
            if magic not in _MAGIC or not 0 < page_bytes <= _PAGE_BYTES_MAX:
                return 0
            stream.seek(frames * (_FRAME.size + page_bytes), os.SEEK_CUR)
            while len(frame := stream.read(_FRAME.size)) == _FRAME.size:
                _, size, frame_salt_1, frame_salt_2, _, _ = _FRAME.unpack(frame)
                if size and (frame_salt_1, frame_salt_2) == (salt_1, salt_2):
                    commits += 1
                stream.seek(page_bytes, os.SEEK_CUR)
    except FileNotFoundError:
        return 0
    return commits


def move_aside(path: Path) -> Path:
    """Rename a database and its log to `<name>.corrupt-<UTC time>`; the new name of the database."""
    aside = _free_name(path)
    for suffix in SIDE_FILES:
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(aside.with_name(aside.name + suffix))
    fsync_directory(path.parent)
    return aside


def keep_aside(path: Path) -> Path:
    """Give a file the second name `<name>.corrupt-<UTC time>`, which is returned, so that it outlives the first. That
    takes no room; where the file system has no second names it is copied."""
    aside = _free_name(path)
    try:
        aside.hardlink_to(path)
    except OSError:
        try:
            shutil.copy2(path, aside)
            with aside.open("rb") as stream:
                os.fsync(stream.fileno())
        except OSError:
            aside.unlink(missing_ok=True)
            raise
    fsync_directory(path.parent)
    return aside


def _free_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    return aside

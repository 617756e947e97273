"""Shares of roots that were made and given up here before anybody here heard that the old root had named them.

    keys/unnamed-<digest>.key    the old root, the epoch with which the other one begins, and this node's share of it

No signer knows for sure that a root was not named: whoever announced it may be cut off, and what the old root has
signed counts for ever. Were all to erase their shares when a request ends, the mesh would go over to a root that nobody
can sign with. So a share waits until the old root is followed: by this root, then it counts, or by another one.

Invariant: at most KEPT_MAX are kept, the newest; nothing is signed with them.
"""

import logging
from pathlib import Path
from typing import Final

from peer.io.keys import KeyFileError, Keys, erase_private, read_private, write_private
from trust.codec import Reader, pack
from trust.epoch import RECORD_BYTES_MAX, EpochRecord, decode_epoch
from trust.errors import EpochError, TrustError
from trust.group import SCALAR_BYTES, Secret, decode_scalar
from trust.groupkey import KeyShare, identifier_of
from trust.identity import KEY_BYTES

log = logging.getLogger("gossamer.custody")

KEPT_MAX: Final = 4  # only who governs the mesh has roots made

_LABEL: Final = "gossamer/unnamed-share/1"
_FILES: Final = "unnamed-*.key"


def set_aside(keys: Keys, old: bytes, record: EpochRecord, share: KeyShare) -> None:
    """Keep this node's `share` of the root that begins with `record` and may follow on `old` (a public key); durable
    when it returns. Raises KeyFileError."""
    write_private(_path(keys, record), pack([_LABEL, old, record.encode(), share.secret.expose()]))
    kept = sorted(keys.directory.glob(_FILES), key=lambda path: path.stat().st_mtime_ns)
    for path in kept[:-KEPT_MAX]:
        erase_private(path)


def find(keys: Keys, record: EpochRecord, node: bytes) -> KeyShare | None:
    """The share of `node` of the root that begins with `record`, if it was set aside. Raises KeyFileError."""
    path = _path(keys, record)
    packed = read_private(path, secret=True)
    if packed is None:
        return None
    try:
        _, kept, scalar = _decode(packed)
        if kept.digest != record.digest:
            raise EpochError("it is of another epoch than its name says")
        return KeyShare(record.group, identifier_of(node), Secret(scalar))
    except TrustError as error:
        log.error("share_unreadable", extra={"fields": {"file": str(path), "reason": str(error)}})
        return None


def drop(keys: Keys, root: bytes) -> None:
    """Erase those that cannot be named any more: they would have followed on another root than `root`, which is in
    force. What fails is logged, and tried again at the next start."""
    for path in sorted(keys.directory.glob(_FILES)):
        try:
            packed = read_private(path, secret=True) or b""
            if not any(packed) or _decode(packed)[0] != root:
                erase_private(path)
        except (TrustError, KeyFileError) as error:
            log.warning("share_kept", extra={"fields": {"file": str(path), "reason": str(error)}})


def _decode(packed: bytes) -> tuple[bytes, EpochRecord, bytes]:
    reader = Reader(
        packed, count=4, bytes_max=RECORD_BYTES_MAX + 320, what="a share's file", error=EpochError
    )
    if reader.text(len(_LABEL)) != _LABEL:
        raise EpochError("this is not a share's file of this version")
    old, record = reader.raw(KEY_BYTES), decode_epoch(reader.blob(RECORD_BYTES_MAX))
    return old, record, decode_scalar(reader.raw(SCALAR_BYTES))


def _path(keys: Keys, record: EpochRecord) -> Path:
    return keys.directory / f"unnamed-{record.digest.hex()[:16]}.key"

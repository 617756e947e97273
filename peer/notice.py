"""What a node tells the mesh about a policy that is not in force on it: the payload of the kind `quarantine`.

A node tells of QUARANTINES_PER_NODE_MAX policies, the first by key, and as many are believed: one author's bad policies
cost the mesh that many small records for each node, and no more.

Invariant: what was decoded is bounded in every field, and encoding it gives the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from crdt.codec import MalformedError, pack, unpack
from trust.identity import ID_BYTES

QUARANTINE_BYTES_MAX: Final = 1024
QUARANTINES_PER_NODE_MAX: Final = 16
REASON_CHARS_MAX: Final = 40
MESSAGE_BYTES_MAX: Final = 200
VERSIONS_MAX: Final = 16


class NoticeError(ValueError):
    """The payload is no notice. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Which edits of a policy (writer, seq) a node does not obey, and why."""

    version: tuple[tuple[bytes, int], ...]
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A notice, and the node whose it is."""

    node: bytes
    node_name: str
    notice: Notice


def encode_notice(notice: Notice) -> bytes:
    """What is too long is cut."""
    message = notice.message.encode()[:MESSAGE_BYTES_MAX].decode(errors="ignore")
    return pack(
        {
            "version": [[writer, seq] for writer, seq in notice.version[:VERSIONS_MAX]],
            "reason": notice.reason[:REASON_CHARS_MAX],
            "message": message,
        }
    )


def decode_notice(payload: bytes) -> Notice:
    """Raises NoticeError."""
    try:
        data: Any = unpack(payload, bytes_max=QUARANTINE_BYTES_MAX)
    except MalformedError as error:
        raise NoticeError(str(error)) from error
    match data:
        case {"version": [*version], "reason": str(reason), "message": str(message)}:
            pass
        case _:
            raise NoticeError("quarantine: not a notice")
    if not reason.isalpha() or not reason.isascii() or len(reason) > REASON_CHARS_MAX:
        raise NoticeError("quarantine: the reason must be one word")
    if len(message.encode()) > MESSAGE_BYTES_MAX or not message.isprintable():
        raise NoticeError("quarantine: the message must be one short line")
    if len(version) > VERSIONS_MAX:
        raise NoticeError("quarantine: too many versions")
    dots = []
    for dot in version:
        match dot:
            case [bytes(writer), int(seq)] if len(writer) == ID_BYTES and type(seq) is int and seq > 0:
                dots.append((writer, seq))
            case _:
                raise NoticeError("quarantine: a version is pairs of a writer and a number")
    return Notice(version=tuple(dots), reason=reason, message=message)


def changes(wanted: Mapping[str, bytes], told: Mapping[str, bytes]) -> dict[str, bytes]:
    """The payloads to write, b"" for what is to be taken back."""
    new = {key: payload for key, payload in wanted.items() if told.get(key) != payload}
    return new | {key: b"" for key in told if key not in wanted}

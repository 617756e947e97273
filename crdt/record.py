"""A record: one signed statement of one writer about one key, and the only thing that is replicated.

A writer numbers its records 1, 2, 3, … without holes. A newer record of the same (writer, kind, key) supersedes the
older one, so what a writer says at any moment, its *live set*, is small however long its history is. Two more signed
fields let anybody check a copy of it that came through strangers:

`floor`  Everything the writer published at or below this seq is void. That is how tombstones go: a late copy of an
         old record can never count again.
`rest`   A hash of the writer's other live records (`rest_hash`). With it a record says what its writer's whole journal
         is, and only that set meets it: a courier can delay what others wrote, but not leave out part of it unnoticed,
         and the writer cannot have one record stand for two journals. The hash is that of a sum, so that it follows a
         change at the price of the change; why nobody finds two sets of one sum is told in crdt.fingerprint.

Payloads are opaque here. An empty payload is a deletion (a tombstone).

Invariant: one record has one encoding, and the signature covers all of it under the label "gossamer/record/2".
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, shake_256
from typing import Any, Final, TypeAlias

from crdt.clock import HLC_MAX, Dot
from crdt.codec import CrdtError, MalformedError, pack_flat, unpack

Context: TypeAlias = tuple[tuple[bytes, int], ...]

RECORD_BYTES_MAX: Final = 240 * 1024  # one record and its envelope fit into one stream frame of 256 KiB
KIND_BYTES_MAX: Final = 32
KINDS_SHARED_MAX: Final = 64
KEY_BYTES_MAX: Final = 512
CONTEXT_ENTRIES_MAX: Final = 512  # one for each writer who ever edited the key
SEQ_MAX: Final = 2**48 - 1
WRITER_BYTES: Final = 16
SIGNATURE_BYTES: Final = 64
DIGEST_BYTES: Final = 256
DIGEST_MASK: Final = 2 ** (8 * DIGEST_BYTES) - 1
REST_BYTES: Final = 32

_FORMAT: Final = 2
_LABEL: Final = b"gossamer/record/2\0"
_KIND: Final = re.compile(r"[a-z][a-z0-9._-]*\Z")
_FIELDS: Final = 11
_FIXED_BYTES_MAX: Final = 160  # every field but kind, key, payload and context, at its largest
_CONTEXT_ENTRY_BYTES_MAX: Final = 2 + WRITER_BYTES + 9


class RecordError(CrdtError):
    """A record of our own making would break a bound. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """See the module's docstring. `context` is sorted by writer: the dots of this key its author had seen."""

    writer: bytes
    seq: int
    kind: str
    key: str
    payload: bytes
    context: Context = ()
    hlc: int
    floor: int
    rest: bytes
    signature: bytes

    @property
    def dot(self) -> Dot:
        return Dot(self.writer, self.seq)

    @property
    def deleted(self) -> bool:
        """Whether this is a tombstone."""
        return not self.payload

    def signing_bytes(self) -> bytes:
        """What the signature is over: everything but the signature, behind a label of its own."""
        return _LABEL + pack_flat(_content(self))

    def __repr__(self) -> str:
        what = "deletes" if self.deleted else f"{len(self.payload)} bytes for"
        return f"Record({self.writer.hex()[:8]}:{self.seq} {what} {self.kind}/{self.key})"


def encode_record(record: Record) -> bytes:
    """The wire and disk form."""
    return pack_flat([*_content(record), record.signature])


def decode_record(data: bytes) -> Record:
    """Inverse of `encode_record`. Says nothing about the signature. Raises MalformedError."""
    fields = unpack(
        data, bytes_max=RECORD_BYTES_MAX, depth_max=2, items_max=_FIELDS + 2 * CONTEXT_ENTRIES_MAX
    )
    if not isinstance(fields, list) or len(fields) != _FIELDS or fields[0] != _FORMAT:
        raise MalformedError(f"not a record of format {_FORMAT}")
    _, writer, seq, kind, key, payload, flat, hlc, floor, rest, signature = fields
    if not _typed(fields) or len(flat) % 2:
        raise MalformedError("a record's field has the wrong type")
    record = Record(
        writer=writer,
        seq=seq,
        kind=_shared(kind) if len(kind) <= KIND_BYTES_MAX else kind,
        key=key,
        payload=payload,
        context=tuple(zip(flat[::2], flat[1::2], strict=True)),
        hlc=hlc,
        floor=floor,
        rest=rest,
        signature=signature,
    )
    fault = record_fault(record)
    if fault is not None:
        raise MalformedError(fault)
    return record


@lru_cache(maxsize=KINDS_SHARED_MAX)
def _shared(kind: str) -> str:
    """One string for each of the few kinds that many records have. Python 3.12 never forgets what `sys.intern` took,
    and this is before any signature is checked."""
    return kind


def record_fault(record: Record) -> str | None:
    """Why the record cannot be: a bound or a rule of its shape that it breaks. Types are taken for granted."""
    if len(record.writer) != WRITER_BYTES:
        return f"writer of {len(record.writer)} bytes, not {WRITER_BYTES}"
    if not 1 <= record.seq <= SEQ_MAX:
        return f"seq {record.seq} is not within 1 and {SEQ_MAX}"
    if len(record.kind) > KIND_BYTES_MAX or _KIND.match(record.kind) is None:
        return f"kind must be 1 to {KIND_BYTES_MAX} characters of a-z 0-9 . _ -, starting with a letter"
    try:
        key_bytes = len(record.key.encode())
    except UnicodeEncodeError:
        return "key is not Unicode text"
    if key_bytes > KEY_BYTES_MAX:
        return f"key of {key_bytes} bytes, at most {KEY_BYTES_MAX}"
    if len(record.context) > CONTEXT_ENTRIES_MAX:
        return f"context of {len(record.context)} entries, at most {CONTEXT_ENTRIES_MAX}"
    previous = b""
    for writer, seq in record.context:
        if type(writer) is not bytes or type(seq) is not int or len(writer) != WRITER_BYTES:
            return "context must be pairs of writer and seq"
        if writer <= previous:
            return "context is not sorted by writer"
        if not 1 <= seq <= (record.seq - 1 if writer == record.writer else SEQ_MAX):
            return f"context names seq {seq}, which its author cannot have seen"
        previous = writer
    if not 0 < record.hlc <= HLC_MAX:
        return f"stamp {record.hlc} is not a stamp"
    if not 0 <= record.floor < record.seq:
        return f"floor {record.floor} is not below seq {record.seq}"
    if len(record.rest) != REST_BYTES:
        return f"hash of the rest has {len(record.rest)} bytes, not {REST_BYTES}"
    if len(record.signature) != SIGNATURE_BYTES:
        return f"signature of {len(record.signature)} bytes, not {SIGNATURE_BYTES}"
    if record_bytes(record) > RECORD_BYTES_MAX:
        return f"more than {RECORD_BYTES_MAX} bytes"
    return None


def record_bytes(record: Record) -> int:
    """An upper bound of the encoded size, at most 70 bytes above it, without encoding."""
    return (
        _FIXED_BYTES_MAX
        + len(record.kind)
        + len(record.key.encode())
        + len(record.payload)
        + _CONTEXT_ENTRY_BYTES_MAX * len(record.context)
    )


def same_content(one: Record, other: Record) -> bool:
    """Whether both say the same, were they signed twice or once."""
    return one == other or one.signing_bytes() == other.signing_bytes()


def content_digest(record: Record) -> int:
    """`DIGEST_BYTES` of what the record says, as an integer: addends of fingerprints (crdt.fingerprint)."""
    return int.from_bytes(shake_256(record.signing_bytes()).digest(DIGEST_BYTES), "big")


def rest_hash(digest: int) -> bytes:
    """What a record signs of the others: `digest` is the sum of their content digests."""
    return blake2b((digest & DIGEST_MASK).to_bytes(DIGEST_BYTES, "big"), digest_size=REST_BYTES).digest()


def _content(record: Record) -> list[Any]:
    return [
        _FORMAT,
        record.writer,
        record.seq,
        record.kind,
        record.key,
        record.payload,
        [part for entry in record.context for part in entry],
        record.hlc,
        record.floor,
        record.rest,
    ]


_TYPES: Final = (int, bytes, int, str, str, bytes, list, int, int, bytes, bytes)


def _typed(fields: list[Any]) -> bool:
    return all(type(field) is wanted for field, wanted in zip(fields, _TYPES, strict=True))

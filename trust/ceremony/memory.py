"""What a participant must find again after a crash, as bytes.

Its own statements, so that it never makes a second one at the same place; the seed of its dealing, so that it can go on
dealing; shares it accepted, for a value may be decided without it; its lock; who is convicted; the outcome. Of what
others said the current attempt is kept, which saves asking again. Nonces are not: an attempt in which they were
promised and not used is given up.

Invariant: `decode_memory` gives what was encoded, or raises CeremonyError: then the vote of this node in this epoch is
lost, for it cannot know any more what it voted.
"""

from dataclasses import dataclass, field
from typing import Final

from trust.ceremony.dkg import SEED_BYTES
from trust.ceremony.electorate import DIGEST_BYTES
from trust.ceremony.lock import Lock
from trust.ceremony.statement import ATTEMPT_MAX, Statement, decode_statement, pack_many, unpack_many
from trust.codec import Reader, pack
from trust.epoch import RECORD_BYTES_MAX, VALUE_BYTES_MAX, decode_value
from trust.errors import CeremonyError, EpochError
from trust.group import SCALAR_BYTES

MEMORY_BYTES_MAX: Final = 4 * 1024 * 1024
STATEMENTS_MAX: Final = 1024
ACCEPTED_MAX: Final = 16

_LABEL: Final = "gossamer/ceremony-memory/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """See the module's theory. Nothing of it is printed but where the ceremony stands."""

    ceremony: bytes
    attempt: int  # -1 before the first
    said: tuple[Statement, ...] = field(repr=False)
    seed: bytes = field(repr=False)  # empty if this node does not deal
    accepted: tuple[bytes, ...] = field(repr=False)  # scalars
    lock: Lock | None = field(repr=False)
    convictions: tuple[Statement, ...] = field(repr=False)
    record: bytes = field(repr=False)  # empty while undecided


def encode_memory(memory: Memory) -> bytes:
    """The bytes to store."""
    lock = memory.lock
    return pack(
        [
            _LABEL,
            memory.ceremony,
            memory.attempt + 1,
            pack_many([each.encode() for each in memory.said]),
            memory.seed,
            b"".join(memory.accepted),
            b"" if lock is None else lock.value.encode(),
            0 if lock is None else lock.attempt,
            pack_many([] if lock is None else list(lock.prepares)),
            pack_many([each.encode() for each in memory.convictions]),
            memory.record,
        ]
    )


def decode_memory(data: bytes) -> Memory:
    """Inverse of `encode_memory`. Raises CeremonyError. Signatures are not checked again: it is this node's own
    file."""
    reader = Reader(
        data, count=11, bytes_max=MEMORY_BYTES_MAX, what="a ceremony's memory", error=CeremonyError
    )
    if reader.text(len(_LABEL)) != _LABEL:
        raise CeremonyError("this is not a ceremony's memory of this version")
    ceremony, attempt = reader.raw(DIGEST_BYTES), reader.integer(ATTEMPT_MAX) - 1
    said = _statements(reader.blob(MEMORY_BYTES_MAX))
    seed, accepted = reader.blob(SEED_BYTES), reader.blob(ACCEPTED_MAX * SCALAR_BYTES)
    value, locked = reader.blob(VALUE_BYTES_MAX), reader.integer(ATTEMPT_MAX)
    prepares = unpack_many(reader.blob(MEMORY_BYTES_MAX))
    convictions = _statements(reader.blob(MEMORY_BYTES_MAX))
    record = reader.blob(RECORD_BYTES_MAX)
    if len(seed) not in {0, SEED_BYTES} or len(accepted) % SCALAR_BYTES:
        raise CeremonyError("a ceremony's memory is cut off")
    try:
        lock = Lock(attempt=locked, value=decode_value(value), prepares=prepares) if value else None
    except EpochError as error:
        raise CeremonyError(f"a ceremony's memory holds a broken lock: {error}") from None
    scalars = tuple(accepted[at : at + SCALAR_BYTES] for at in range(0, len(accepted), SCALAR_BYTES))
    return Memory(
        ceremony=ceremony, attempt=attempt, said=said, seed=seed, accepted=scalars, lock=lock,
        convictions=convictions, record=record,
    )  # fmt: skip


def _statements(data: bytes) -> tuple[Statement, ...]:
    return tuple(decode_statement(each) for each in unpack_many(data, count_max=STATEMENTS_MAX))

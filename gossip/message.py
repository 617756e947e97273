"""The body of a datagram: one message, what the sender knows of the receiver, and what rides along.

| message      | answered by          | paper                                                                     |
|--------------|----------------------|---------------------------------------------------------------------------|
| Ping         | Ack                  | SWIM 3.1                                                                  |
| PingRequest  | Ack or Nack, relayed | SWIM 3.1; the nack is Lifeguard's: "I am fine, but it does not answer me" |
| Gossip       | nothing              | memberlist: statements and records between probes                         |

`known_boot` is the boot number at which the sender of the body knows its receiver (0: not at all). It is how a node
learns, from whatever datagram comes next, whether it must still introduce itself to a peer (gossip/courier.py).
Both it and the sequence number have a fixed width, so that an ack is never larger than its ping.

Pings, acks and requests carry the fingerprint of the sender's journal; `settled` says that it has not changed
lately, so that the receiver can tell a difference that matters from a push still under way.
"""

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from gossip.codec import as_array, as_bool, as_bytes, pack, unpack_array
from gossip.config import DATAGRAM_BYTES_MAX, PAYLOAD_BYTES_MAX
from gossip.errors import MalformedError
from gossip.statement import STATEMENT_BYTES_MAX
from trust.identity import ID_BYTES

FINGERPRINT_BYTES: Final = 16
SEQUENCE_MAX: Final = 2**32 - 1
_ITEMS_MAX: Final = 64  # statements, and records, in one datagram; nearly always the size limit comes first
QUEUED_ITEMS_MAX: Final = (
    48  # of them from a queue; the rest is for what is said to this receiver in particular
)
_NUMBERS: Final = struct.Struct(">IQ")  # sequence, known boot
_PING, _ACK, _PING_REQUEST, _NACK, _GOSSIP = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    sequence: int
    fingerprint: bytes
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    sequence: int
    fingerprint: bytes
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PingRequest:
    """Carries a fingerprint too, so that it is no smaller than the Ack that answers it."""

    sequence: int
    target: bytes
    fingerprint: bytes
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack:
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gossip:
    pass


Message: TypeAlias = Ping | Ack | PingRequest | Nack | Gossip


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """`updates` are encoded statements, `payloads` opaque records."""

    message: Message
    known_boot: int
    updates: tuple[bytes, ...]
    payloads: tuple[bytes, ...]


def item_bytes(data: bytes) -> int:
    """How many bytes `data` takes as a list item."""
    return len(data) + (2 if len(data) < 256 else 3)


# The arrays of a body may need two more bytes each once they hold more than fifteen items.
FRAMING_BYTES: Final = 4


def encode_body(body: Body) -> bytes:
    """The bytes that are then sealed."""
    match body.message:
        case Ping(sequence=sequence, fingerprint=fingerprint, settled=settled):
            kind, target = _PING, b""
        case Ack(sequence=sequence, fingerprint=fingerprint, settled=settled):
            kind, target = _ACK, b""
        case PingRequest(sequence=sequence, target=target, fingerprint=fingerprint, settled=settled):
            kind = _PING_REQUEST
        case Nack(sequence=sequence):
            kind, target, fingerprint, settled = _NACK, b"", b"", False
        case Gossip():
            kind, sequence, target, fingerprint, settled = _GOSSIP, 0, b"", b"", False
    numbers = _NUMBERS.pack(sequence, body.known_boot)
    return pack([kind, numbers, target, fingerprint, settled, list(body.updates), list(body.payloads)])


def decode_body(data: bytes) -> Body:
    """Inverse of `encode_body`. Raises MalformedError."""
    values = unpack_array(data, size_max=DATAGRAM_BYTES_MAX, length=7)
    kind, numbers, target, fingerprint, settled, updates, payloads = values
    sequence, known_boot = _NUMBERS.unpack(as_bytes(numbers, "numbers", size=_NUMBERS.size))
    return Body(
        message=_message(kind, sequence, target, fingerprint, settled),
        known_boot=known_boot,
        updates=tuple(
            as_bytes(item, "update", size_max=STATEMENT_BYTES_MAX)
            for item in as_array(updates, "updates", length_max=_ITEMS_MAX)
        ),
        payloads=tuple(
            as_bytes(item, "payload", size_max=PAYLOAD_BYTES_MAX)
            for item in as_array(payloads, "payloads", length_max=_ITEMS_MAX)
        ),
    )


def _message(kind: object, sequence: int, target: object, fingerprint: object, settled: object) -> Message:
    match kind:
        case 1 | 2 | 3:
            digest = as_bytes(fingerprint, "fingerprint", size=FINGERPRINT_BYTES)
            quiet = as_bool(settled, "settled")
            if kind == _PING:
                return Ping(sequence=sequence, fingerprint=digest, settled=quiet)
            if kind == _ACK:
                return Ack(sequence=sequence, fingerprint=digest, settled=quiet)
            whom = as_bytes(target, "target", size=ID_BYTES)
            return PingRequest(sequence=sequence, target=whom, fingerprint=digest, settled=quiet)
        case 4:
            return Nack(sequence=sequence)
        case 5:
            return Gossip()
        case _:
            raise MalformedError("no known message")

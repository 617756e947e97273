"""The body of a datagram: one message, what the sender knows of the receiver, and what rides along.

| message      | answered by          | paper                                                                     |
|--------------|----------------------|---------------------------------------------------------------------------|
| Ping         | Ack                  | SWIM 3.1                                                                  |
| PingRequest  | Ack or Nack, relayed | SWIM 3.1; the nack is Lifeguard's: "I am fine, but it does not answer me" |
| Gossip       | nothing              | memberlist: statements and records between probes                         |

`known_boot` is the boot number at which the sender of the body knows its receiver (0: not at all). It is how a node
learns, from whatever datagram comes next, whether it must still introduce itself to a peer (gossip/courier.py).
Both it and the sequence number have a fixed width, so that an ack is never larger than its ping.

Pings, acks and requests carry the fingerprint of the sender's journal and the root of its member list
(gossip/digest.py); `settled` and `members_settled` say that they have not changed lately, so that the receiver can
tell a difference that matters from a push still under way.
"""

import struct
from typing import Final, NamedTuple, TypeAlias

from gossip.codec import as_array, as_bytes, as_uint, pack, unpack_array
from gossip.config import DATAGRAM_BYTES_MAX, PAYLOAD_BYTES_MAX
from gossip.digest import ROOT_BYTES
from gossip.errors import MalformedError
from gossip.statement import STATEMENT_BYTES_MAX
from gossip.value import value
from trust.identity import ID_BYTES

FINGERPRINT_BYTES: Final = 16
SEQUENCE_MAX: Final = 2**32 - 1
_ITEMS_MAX: Final = 64  # statements, and records, in one datagram; nearly always the size limit comes first
QUEUED_ITEMS_MAX: Final = (
    48  # of them from a queue; the rest is for what is said to this receiver in particular
)
_NUMBERS: Final = struct.Struct(">IQ")  # sequence, known boot
_SETTLED, _MEMBERS_SETTLED = 1, 2
_PING, _ACK, _PING_REQUEST, _NACK, _GOSSIP = 1, 2, 3, 4, 5


@value
class Ping:
    sequence: int
    fingerprint: bytes
    settled: bool
    members: bytes
    members_settled: bool


@value
class Ack:
    sequence: int
    fingerprint: bytes
    settled: bool
    members: bytes
    members_settled: bool


@value
class PingRequest:
    """Carries fingerprints too, so that it is no smaller than the Ack that answers it."""

    sequence: int
    target: bytes
    fingerprint: bytes
    settled: bool
    members: bytes
    members_settled: bool


@value
class Nack:
    sequence: int


@value
class Gossip:
    pass


Message: TypeAlias = Ping | Ack | PingRequest | Nack | Gossip


class Body(NamedTuple):
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
    message = body.message
    target, heads, flags = b"", b"", 0
    match message:
        case Ping():
            kind, sequence = _PING, message.sequence
            heads, flags = _heads(message)
        case Ack():
            kind, sequence = _ACK, message.sequence
            heads, flags = _heads(message)
        case PingRequest():
            kind, sequence, target = _PING_REQUEST, message.sequence, message.target
            heads, flags = _heads(message)
        case Nack():
            kind, sequence = _NACK, message.sequence
        case Gossip():
            kind, sequence = _GOSSIP, 0
    numbers = _NUMBERS.pack(sequence, body.known_boot)
    return pack([kind, numbers, target, heads, flags, list(body.updates), list(body.payloads)])


def _heads(message: Ping | Ack | PingRequest) -> tuple[bytes, int]:
    """Fingerprint and root, and which of them are settled."""
    flags = _SETTLED * message.settled | _MEMBERS_SETTLED * message.members_settled
    return message.fingerprint + message.members, flags


def decode_body(data: bytes) -> Body:
    """Inverse of `encode_body`. Raises MalformedError."""
    values = unpack_array(data, size_max=DATAGRAM_BYTES_MAX, length=7)
    kind, numbers, target, heads, flags, updates, payloads = values
    sequence, known_boot = _NUMBERS.unpack(as_bytes(numbers, "numbers", size=_NUMBERS.size))
    return Body(
        _message(kind, sequence, target, heads, flags),
        known_boot,
        () if updates == [] else _items(updates, "updates", size_max=STATEMENT_BYTES_MAX),
        () if payloads == [] else _items(payloads, "payloads", size_max=PAYLOAD_BYTES_MAX),
    )


def _items(value: object, field: str, *, size_max: int) -> tuple[bytes, ...]:
    items = as_array(value, field, length_max=_ITEMS_MAX)
    return tuple([as_bytes(item, field, size_max=size_max) for item in items]) if items else ()


def _message(kind: object, sequence: int, target: object, heads: object, flags: object) -> Message:
    match kind:
        case 1 | 2 | 3:
            digests = as_bytes(heads, "fingerprints", size=FINGERPRINT_BYTES + ROOT_BYTES)
            quiet = as_uint(flags, "flags", maximum=_SETTLED | _MEMBERS_SETTLED)
            fingerprint, members = digests[:FINGERPRINT_BYTES], digests[FINGERPRINT_BYTES:]
            settled, members_settled = bool(quiet & _SETTLED), bool(quiet & _MEMBERS_SETTLED)
            if kind == _PING_REQUEST:
                return PingRequest(
                    sequence=sequence,
                    target=as_bytes(target, "target", size=ID_BYTES),
                    fingerprint=fingerprint,
                    settled=settled,
                    members=members,
                    members_settled=members_settled,
                )
            return (Ping if kind == _PING else Ack)(
                sequence=sequence,
                fingerprint=fingerprint,
                settled=settled,
                members=members,
                members_settled=members_settled,
            )
        case 4:
            return Nack(sequence=sequence)
        case 5:
            return Gossip()
        case _:
            raise MalformedError("no known message")

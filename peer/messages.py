"""What goes into the node and what comes out of it: the closed unions of `peer/node.py`.

The driver (`peer/driver.py` on real sockets, a simulator on virtual ones) turns the world into inputs and outputs
into deeds. Membership's own messages (`gossip/events.py`) pass through where they mean the same, so that a datagram is
not wrapped again on its way in or out.

Invariant: every message is immutable, and no message holds a live object of the shell (socket, file, future).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

from crdt.delta import Equivocation
from crdt.record import Record
from gossip import events as membership
from gossip.events import Address
from gossip.member import Member, State
from trust.credential import Credential


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A record to be written in this node's name. `payload` b"" deletes the key.

    `context` is the causal context of the author's edit: the versions it replaces.
    """

    kind: str
    key: str
    payload: bytes
    context: tuple[tuple[bytes, int], ...] = ()


# ------------------------------------------------------------------ inputs

DatagramReceived: TypeAlias = membership.Datagram
Tick: TypeAlias = membership.Tick


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """An authenticated stream: `node` is the other end's id as its certificate says."""

    stream: int
    node: bytes
    inbound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFrame:
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed:
    """The stream ended or, for one this node asked for, never began."""

    stream: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persisted:
    ticket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistFailed:
    ticket: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Write records in this node's name, all or none. Answered by `Written` once they are on disk."""

    request: int
    drafts: tuple[Draft, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinSeeds:
    """Contact these addresses and merge with whoever answers. Answered by `Joined`."""

    request: int
    seeds: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Depart:
    """Leave the mesh for good or for a while. Answered by `Departed` when it has been told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lagged:
    """The event loop ran `lag_s` seconds late."""

    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialRenewed:
    credential: Credential


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaChanged:
    """What this node says about itself besides its address (inbound port, signer, draining)."""

    meta: Mapping[str, int | str | bool]


Input = (
    DatagramReceived
    | Tick
    | StreamOpened
    | StreamFrame
    | StreamClosed
    | Persisted
    | PersistFailed
    | Write
    | JoinSeeds
    | Depart
    | Lagged
    | CredentialRenewed
    | MetaChanged
)


# ------------------------------------------------------------------ outputs

SendDatagram: TypeAlias = membership.Send


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStream:
    """Open a stream to `address`; if `node` is given, only that node may answer."""

    stream: int
    address: Address
    node: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFrame:
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseStream:
    stream: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Put this on disk in one transaction; answer with `Persisted` (or `PersistFailed`).

    Ticket 0 wants no answer: what is lost with it comes back from the peers.
    """

    ticket: int
    put: tuple[Record, ...] = ()
    delete: tuple[Record, ...] = ()  # removed first
    heads: Mapping[bytes, int] = field(default_factory=dict)
    introductions: Mapping[bytes, bytes] = field(default_factory=dict)
    forks: tuple[Equivocation, ...] = ()  # proofs that their writers equivocated


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The records are durable here. `error` says why nothing was written, if so; `invalid` that it is the fault of what
    was to be written, whoever writes it."""

    request: int
    records: tuple[Record, ...] = ()
    error: str = ""
    invalid: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """`contacted` seeds answered and were merged with; `failed` maps the others to the reason."""

    request: int
    contacted: tuple[Address, ...]
    failed: Mapping[Address, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Departed:
    """The leave has been spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """Records or members changed: views made from them are stale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synced:
    """State has been exchanged whole with another node that knows the mesh, for the first time since this one
    started; where this node doubts its own, with as many as it takes to be sure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberMoved:
    """A member's state changed; `previous` None means it is new."""

    member: Member
    previous: State | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """The node was revoked, or has equivocated: what it holds open here is to be closed."""

    node: bytes


class Level(Enum):
    """How loud a note is."""

    DEBUG = auto()
    INFO = auto()
    WARNING = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something for the log: an event in a word and its fields. Never holds a secret."""

    level: Level
    event: str
    fields: Mapping[str, str | int | float]


Output = (
    SendDatagram
    | OpenStream
    | SendFrame
    | CloseStream
    | Persist
    | Written
    | Joined
    | Departed
    | StateChanged
    | Synced
    | MemberMoved
    | Evicted
    | Note
)

"""What goes into the engine and what comes out: two closed unions of frozen dataclasses.

The driver (peer/run.py, simulations/host.py) turns sockets, streams and its one timer into inputs and carries out
the outputs in order. `Address` is (IP literal, port); node ids are 16 raw bytes; times are Unix seconds.

Invariant: an output asks or tells, it never returns a value; whatever comes of it comes back as an input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gossip.member import Member, State
from trust.credential import Credential

Address: TypeAlias = tuple[str, int]
MetaValue: TypeAlias = int | str | bool
Meta: TypeAlias = Mapping[str, MetaValue]


# ---------------------------------------------------------------- inputs
@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """A UDP datagram came in from `source`."""

    source: Address
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The clock has reached `Engine.deadline`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """Enter the mesh through these addresses, and keep trying them for ever while none is a live member."""

    seeds: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Say good-bye; `LeaveSpread` comes out when it has been told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersReceived:
    """One chunk of statements (gossip/sync.py) arrived on a stream whose TLS peer is `node`."""

    node: bytes | None
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFailed:
    """The stream a `RequestSync` asked for could not be had, or broke."""

    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """This node's credential was renewed."""

    credential: Credential


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMeta:
    """Tell the mesh other metadata of this node."""

    meta: Meta


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Push an opaque record (at most PAYLOAD_BYTES_MAX) epidemically, the first transmissions at once."""

    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLag:
    """The driver's event loop ran `lag_s` late: what looked like silence of others may have been our own."""

    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evict:
    """`node` was revoked: drop it, and believe nothing it signs."""

    node: bytes
    reason: str


Input: TypeAlias = (
    Datagram
    | Tick
    | Join
    | Leave
    | MembersReceived
    | SyncFailed
    | Renewed
    | SetMeta
    | Publish
    | LoopLag
    | Evict
)


# ---------------------------------------------------------------- outputs
@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send one datagram."""

    address: Address
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSync:
    """Open a stream to `address` (who must be `node`, unless None) and exchange members and journal."""

    address: Address
    node: bytes | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChanged:
    """A member appeared (`previous` None), changed state, or changed address, boot, zone, metadata or credential."""

    member: Member
    previous: State | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A record not heard lately arrived from `node` (who forwarded it, not necessarily who wrote it)."""

    node: bytes
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverged:
    """A peer's journal fingerprint differs from ours and no push in flight explains it."""

    node: bytes
    address: Address
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Bytes were refused and changed nothing. `source` is None for what came on a stream."""

    source: Address | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressConflict:
    """`member` announces the address at which `holder` lives, as far as is known here: a host set up anew, or two that
    were given one address. Who answers there will be believed, and the other one found dead."""

    member: Member
    holder: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveSpread:
    """The leave has been told as often as it should be, or nobody is there to hear it."""


Output: TypeAlias = (
    Send | RequestSync | MemberChanged | Heard | Diverged | Rejected | AddressConflict | LeaveSpread
)

"""What goes into the engine and what comes out: two closed unions of values (gossip/value.py).

The driver (peer/run.py, simulations/host.py) turns sockets, streams and its one timer into inputs and carries out
the outputs in order. `Address` is (IP literal, port); node ids are 16 raw bytes; times are Unix seconds.

Invariant: an output asks or tells, it never returns a value; whatever comes of it comes back as an input.
"""

from collections.abc import Mapping
from typing import TypeAlias

from gossip.member import Member, State
from gossip.value import value
from trust.credential import Credential

Address: TypeAlias = tuple[str, int]
MetaValue: TypeAlias = int | str | bool
Meta: TypeAlias = Mapping[str, MetaValue]


# ---------------------------------------------------------------- inputs
@value
class Datagram:
    """A UDP datagram came in from `source`."""

    source: Address
    data: bytes


@value
class Tick:
    """The clock has reached `Engine.deadline`."""


@value
class Join:
    """Enter the mesh through these addresses, and keep trying them for ever while none is a live member."""

    seeds: tuple[Address, ...]


@value
class Leave:
    """Say good-bye; `LeaveSpread` comes out when it has been told."""


@value
class MembersReceived:
    """One chunk of statements (gossip/sync.py) arrived on a stream whose TLS peer is `node`."""

    node: bytes | None
    data: bytes


@value
class SyncFailed:
    """The stream a `RequestSync` asked for could not be had, or broke."""

    address: Address


@value
class Renewed:
    """This node's credential was renewed."""

    credential: Credential


@value
class SetMeta:
    """Tell the mesh other metadata of this node."""

    meta: Meta


@value
class Publish:
    """Push an opaque record (at most PAYLOAD_BYTES_MAX) epidemically, the first transmissions at once."""

    payload: bytes


@value
class LoopLag:
    """The driver's event loop ran `lag_s` late: what looked like silence of others may have been our own."""

    lag_s: float


@value
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
@value
class Send:
    """Send one datagram."""

    address: Address
    data: bytes


@value
class RequestSync:
    """Open a stream to `address` (who must be `node`, unless None) and exchange members and journal."""

    address: Address
    node: bytes | None
    reason: str


@value
class MemberChanged:
    """A member appeared (`previous` None), changed state, or changed address, boot, zone, metadata or credential."""

    member: Member
    previous: State | None


@value
class Heard:
    """A record not heard lately arrived from `node` (who forwarded it, not necessarily who wrote it)."""

    node: bytes
    payload: bytes


@value
class Diverged:
    """A peer's journal fingerprint differs from ours and no push in flight explains it."""

    node: bytes
    address: Address
    fingerprint: bytes


@value
class Rejected:
    """Bytes were refused and changed nothing. `source` is None for what came on a stream."""

    source: Address | None
    reason: str


@value
class AddressConflict:
    """`member` announces the address at which `holder` lives, as far as is known here: a host set up anew, or two that
    were given one address. Who answers there will be believed, and the other one found dead."""

    member: Member
    holder: Member


@value
class LeaveSpread:
    """The leave has been told as often as it should be, or nobody is there to hear it."""


Output: TypeAlias = (
    Send | RequestSync | MemberChanged | Heard | Diverged | Rejected | AddressConflict | LeaveSpread
)

"""What goes into a ceremony's machine and what comes out of it, and how patient it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from trust.epoch import EpochRecord
from trust.errors import CeremonyError
from trust.groupkey import KeyShare

BACKOFF_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long to wait for what, in seconds. Raises CeremonyError when the parts do not fit together."""

    gather_s: float = 1.0  # the leader, for electors that are slow to join, once a quorum has
    open_s: float = 4.0  # for the leader's opening
    attempt_s: float = 10.0  # for the rest of an attempt, doubled up to BACKOFF_MAX times as attempts fail
    resend_s: float = 0.5  # before asking again for what is missing, doubled while nothing comes
    resend_s_max: float = 15.0
    pace_s: float = 0.25  # between two attempts, so that nobody can hurry the others through them
    pace_s_max: float = 15.0

    def __post_init__(self) -> None:
        if not 0 < self.gather_s < self.open_s <= self.attempt_s:
            raise CeremonyError(
                "a ceremony gathers for less time than it waits for an opening, and that for the rest"
            )
        if not (0 < self.resend_s <= self.resend_s_max and 0 < self.pace_s <= self.pace_s_max):
            raise CeremonyError("a ceremony's shortest waits are longer than its longest")


# ------------------------------------------------------------------ inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """`data`, a frame, came over a mutually authenticated stream from `node` (id)."""

    node: bytes
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The deadline has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """These should be the signers (public keys), by this node's judgement; None for no change. Says nothing at a
    founding: there all founders are meant."""

    keys: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """The members as this node sees them. Node ids. What an elector makes of them is said in `bearing`."""

    known: frozenset[bytes]  # they may become signers
    barred: frozenset[bytes] = frozenset()  # they must not be, electors neither: revoked
    away: frozenset[bytes] = frozenset()  # signers that are not among the living now
    gone: frozenset[bytes] = (
        frozenset()
    )  # those of them that are away for so long that others take their seats
    held: int = 0  # seats of those that were signers not long ago and are away, but not for so long
    ripe: frozenset[bytes] = frozenset()  # no signers, and could be: here for long enough
    rank: Mapping[bytes, int] = field(default_factory=dict)  # of `known`: the lower, the longer a member
    ordered: frozenset[bytes] = frozenset()  # the group that operators ordered for this epoch; empty for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The record of this epoch came by another way (the journal). Encoded; it is verified."""

    record: bytes = field(repr=False)


Input: TypeAlias = Received | Tick | Wish | Members | Learned


# ------------------------------------------------------------------ outputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Put `data` in the place of what was stored for this ceremony, on disk, in a file for this user alone, *before*
    doing anything else that is asked for; if that fails, drop all other outputs and the machine, and restart from
    what is stored. It is secret."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a frame to `node` over an authenticated, encrypted stream. May be lost."""

    node: bytes
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The epoch is decided. `share` is this node's of the new key, None if it has none (it is no signer, or its share
    has to be repaired). Store the share and publish the record; then, and not before, the share of the old epoch may
    go."""

    record: EpochRecord
    share: KeyShare | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Convicted:
    """`node` is guilty. `evidence` is an encoded ACCUSE that convinces everybody."""

    node: bytes
    evidence: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """The attempt before `attempt` came to nothing. `awaited` are those from whom nothing fitting came."""

    attempt: int
    reason: str
    awaited: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """This elector does not carry out the opening of `attempt` by `node`."""

    node: bytes
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """What `node` sent was malformed, forged or out of place."""

    node: bytes
    reason: str


Output: TypeAlias = Store | Send | Sealed | Convicted | Retrying | Refused | Rejected


# ------------------------------------------------------------------ for people


@dataclass(frozen=True, slots=True, kw_only=True)
class CeremonyStatus:
    """Where a ceremony stands, for people."""

    epoch: int
    attempt: int
    stage: str
    awaited: tuple[bytes, ...]
    convicted: tuple[bytes, ...]
    sealed: bool
    refused: tuple[bytes, str] | None = (
        None  # the last opening this node did not carry out: whose it was, and why
    )

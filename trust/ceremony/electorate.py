"""Who decides on an epoch of the signer group, how many of them it takes, and whose turn it is to propose.

The signers of epoch e are the electors of epoch e + 1; those who found a mesh are the electors of epoch 0. Each elector
has one vote. Two sets of q votes among n electors have at least 2q - n electors in common, so if more of them are
honest than that leaves to liars (f who vote twice), two different outcomes cannot both have q votes:

    q > (n + f) / 2

The price is that n - q electors may be missing and no more. Founding takes f = t - 1, every participant below the
threshold, since two roots could never be made one again: of three, all three have to be there, of five, four. A later
epoch takes f = 0 and thus a majority, for a group of 2-of-3 that lost one signer must be able to replace it. There a
liar during a partition can bring two records about, of the same root, both usable; the double vote is evidence against
it, and all replicas settle on the same one of the two (`epoch.choose`). A mesh founded `strict` takes f = t - 1 for
ever.

A convicted elector (`evidence`) counts as one of the f: it is taken to have voted for everything. With f' of
them the remaining n - f' hold at most f - f' liars, and the condition above is the same inequality.

Invariant: an electorate, and so the ceremony's name, is a function of the record before it, or of who founds.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from trust.codec import Field, pack
from trust.errors import CeremonyError
from trust.groupkey import GroupKey
from trust.identity import KEY_BYTES, check_trust_domain, node_id

SIGNERS_MAX: Final = 16  # each attempt is quadratic in them, and 3-of-5 is the target
DIGEST_BYTES: Final = 32

_FOUNDING: Final = b"gossamer/founding/1\0"
_CEREMONY: Final = b"gossamer/ceremony-id/1\0"


def majority(count: int) -> int:
    """The least number of which two cannot be apart: the threshold for `count` signers unless one is set."""
    return count // 2 + 1


def by_id(keys: Iterable[bytes]) -> tuple[bytes, ...]:
    """Public keys in the order of the node ids they have, each once."""
    return tuple(sorted(set(keys), key=node_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Electorate:
    """The electors of `epoch`. Make it with `founding` or `epoch.succession`."""

    epoch: int
    previous: bytes  # digest of the record before, or of the founding
    keys: tuple[bytes, ...]  # Ed25519 public keys, by node id
    quorum: int
    faults: int  # electors that may lie without two outcomes being possible
    strict: bool
    group: GroupKey | None = None  # of the epoch before: none at a founding
    ids: tuple[bytes, ...] = field(init=False)
    ceremony: bytes = field(init=False)  # the ceremony's name: in each statement, so that none serves another

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(node_id(key) for key in self.keys))
        name = hashlib.sha256(_CEREMONY + pack([self.epoch, self.previous, self.quorum])).digest()
        object.__setattr__(self, "ceremony", name)

    def leader(self, attempt: int) -> bytes:
        """The node id of who opens `attempt`: each elector in turn, beginning at another one each epoch."""
        return self.ids[(self.ceremony[0] + attempt) % len(self.ids)]

    def decided(self, voters: Iterable[bytes], convicted: Iterable[bytes]) -> bool:
        """Whether `voters` (node ids) are enough, given who is convicted."""
        guilty = set(convicted) & set(self.ids)
        counted = (set(voters) & set(self.ids)) - guilty
        return len(counted) + min(len(guilty), self.faults) >= self.quorum


def founding(
    trust_domain: str, keys: Iterable[bytes], *, threshold: int | None = None, strict: bool = False
) -> Electorate:
    """The electorate of epoch 0. Raises CeremonyError, IdentityError."""
    ordered = by_id(keys)
    check_electors(ordered)
    faults = (threshold or majority(len(ordered))) - 1
    if not 0 <= faults < len(ordered):
        raise CeremonyError(f"a threshold of {faults + 1} among {len(ordered)} founders is not possible")
    parts: list[Field] = [check_trust_domain(trust_domain), b"".join(ordered), faults, strict]
    return Electorate(
        epoch=0,
        previous=hashlib.sha256(_FOUNDING + pack(parts)).digest(),
        keys=ordered,
        quorum=quorum(len(ordered), faults),
        faults=faults,
        strict=strict,
    )


def quorum(count: int, faults: int) -> int:
    """The least q with 2q > count + faults."""
    return (count + faults) // 2 + 1


def check_electors(keys: tuple[bytes, ...]) -> None:
    """Raise CeremonyError unless these are keys of different nodes, in order, not too many."""
    if not 1 <= len(keys) <= SIGNERS_MAX:
        raise CeremonyError(f"{len(keys)} signers: 1 to {SIGNERS_MAX} are possible")
    if any(len(key) != KEY_BYTES for key in keys) or keys != by_id(keys):
        raise CeremonyError("the signers' keys are not in order, or one is there twice")

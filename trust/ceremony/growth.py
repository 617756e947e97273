"""How many signers a mesh wants, and who they should be: a pure function of what a node knows of the members.

One signer alone is 1-of-1; with three candidates the group becomes 2-of-3, with five 3-of-5 (`signers` sets another
goal, `threshold` another number than the majority). Two would be worse than one: 2-of-2 stops when either does. A
signer that is gone for an hour is replaced when there is somebody to replace it, and never just dropped, for a
smaller group is an easier one to take over; one that is revoked goes in any case.

Nodes judge alone and mostly at the same time. So that they mostly agree, candidates are ranked by a hash of root and
node id, never by what each sees differently (round trips, order of arrival), signers that serve stay signers, and
nobody is taken who has not been here for a while. Where they disagree, the electors' votes decide, not this function.

Invariant: a wish is another set than the signers of today, of which enough are there to make it so, and enough of
those it names are there to sign.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from trust.ceremony.electorate import SIGNERS_MAX, by_id, majority
from trust.errors import CeremonyError
from trust.identity import node_id

SIGNERS_AUTO: Final = 5
GONE_S: Final = 3600.0  # longer than a host takes to restart, shorter than a week-end
SETTLE_S: Final = 30.0  # who has just come is often just going

_RANK: Final = b"gossamer/signer-rank/1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerRules:
    """`ca.signers` and `ca.threshold`; None is `auto`. Raises CeremonyError when they contradict each other."""

    signers: int | None = None
    threshold: int | None = None
    gone_s: float = GONE_S
    settle_s: float = SETTLE_S

    def __post_init__(self) -> None:
        if not 1 <= self.goal <= SIGNERS_MAX:
            raise CeremonyError(f"ca.signers is {self.goal}: 1 to {SIGNERS_MAX} are possible")
        if self.threshold is not None and not 1 <= self.threshold <= self.goal:
            raise CeremonyError(f"ca.threshold is {self.threshold}, of {self.goal} signers")

    @property
    def goal(self) -> int:
        """How many signers there are to be in the end."""
        return SIGNERS_AUTO if self.signers is None else self.signers

    def threshold_of(self, count: int) -> int:
        """The threshold for a group of `count`: a majority, or what is set once there are enough for it."""
        return majority(count) if self.threshold is None else min(self.threshold, count)

    def size_of(self, candidates: int) -> int:
        """How many of `candidates` should be signers: the goal, on the way there an odd number, as an even one
        bears no more failures than the odd one below it."""
        if candidates >= self.goal:
            return self.goal
        return max(1, candidates - (candidates + 1) % 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A member that may be a signer, as this node sees it. `since` (s) is when it came, or went."""

    key: bytes
    alive: bool
    since: float
    revoked: bool = False


def wish(
    root_public: bytes,
    signers: Iterable[bytes],
    threshold: int,
    candidates: Mapping[bytes, Candidate],
    rules: SignerRules,
    now: float,
) -> tuple[bytes, ...] | None:
    """The public keys of who should be the signers, in order; None if that is who they are, or if too few are there to
    change it. `signers` (public keys) and `threshold` are today's; `candidates`, by node id, are all members that may
    sign; a signer that is not among them is unknown here and stays."""
    today = by_id(signers)
    if sum(_present(candidates, key) for key in today) < threshold:
        return None
    kept = [key for key in today if not _revoked(candidates, key)]
    staying = [key for key in kept if not _gone(candidates, key, rules, now)]
    fresh = [
        each.key
        for each in candidates.values()
        if each.alive and not each.revoked and now - each.since >= rules.settle_s and each.key not in today
    ]
    fresh.sort(key=lambda key: hashlib.sha256(_RANK + root_public + node_id(key)).digest())
    size = max(rules.size_of(len(staying) + len(fresh)), min(len(kept), rules.goal))
    chosen = staying[:size]
    chosen += fresh[: size - len(chosen)]
    chosen += [key for key in kept if key not in staying][: size - len(chosen)]
    keys = by_id(chosen)
    if not keys or keys == today:
        return None
    able = sum(_present(candidates, key) for key in keys)
    return keys if able >= rules.threshold_of(len(keys)) else None


def _present(candidates: Mapping[bytes, Candidate], key: bytes) -> bool:
    seen = candidates.get(node_id(key))
    return seen is not None and seen.alive and not seen.revoked


def _revoked(candidates: Mapping[bytes, Candidate], key: bytes) -> bool:
    seen = candidates.get(node_id(key))
    return seen is not None and seen.revoked


def _gone(candidates: Mapping[bytes, Candidate], key: bytes, rules: SignerRules, now: float) -> bool:
    seen = candidates.get(node_id(key))
    return seen is not None and not seen.alive and now - seen.since >= rules.gone_s

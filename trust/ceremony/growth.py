"""How many signers a mesh wants, and who they should be: a pure function of what a node knows of the members.

One signer alone is 1-of-1; with three candidates the group becomes 2-of-3, with five 3-of-5 (`signers` sets another
goal, `threshold` another number than the majority). Two would be worse than one: 2-of-2 stops when either does. A
signer that is gone for an hour is replaced when there is somebody to replace it, and never just dropped, for a
smaller group is an easier one to take over; one that is revoked goes in any case.

Nodes judge alone and mostly at the same time. So that they mostly agree, candidates are ranked by how long they have
been members, which the root has signed (`Candidate.joined`), never by what each sees differently (round trips, order of
arrival) nor by what a candidate could choose (its id); signers that serve stay signers, and nobody is taken who has not
been here for a while. Where they disagree, the electors' votes decide, not this function.

Newcomers never are enough to sign by themselves, so a group of one becomes 2-of-3 at once, and 2-of-3 becomes 5-of-9 in
steps. The seat of a signer that an epoch went on without is held for it as long as that of one that is away. What other
electors bear is said in `bearing`.

Invariant: a wish is another set than the signers of today, of which enough are there to make it so, and enough of
those it names are there to sign.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from trust.ceremony.electorate import SIGNERS_MAX, by_id, majority
from trust.errors import CeremonyError
from trust.identity import node_id

SIGNERS_AUTO: Final = 5
GONE_S: Final = 3600.0  # longer than a host takes to restart, shorter than a week-end
SETTLE_S: Final = 30.0  # who has just come is often just going


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
    """A member that may be a signer, as this node sees it. `since` (s) is when it came, or went; `joined` (Unix s) when
    the root first signed, as far as this node knows, that it is a member; `served` says that it was a signer a while
    ago."""

    key: bytes
    alive: bool
    since: float
    revoked: bool = False
    joined: int = 0
    served: bool = False


def wish(
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
    staying = [key for key in kept if not is_gone(candidates.get(node_id(key)), rules, now)]
    fresh = [each for each in candidates.values() if each.key not in today and is_ripe(each, rules, now)]
    fresh.sort(key=lambda each: (each.joined, node_id(each.key)))
    free = rules.goal - held_seats(today, candidates, rules, now)
    size = max(min(rules.size_of(len(staying) + len(fresh)), free), min(len(kept), rules.goal))
    chosen = staying[:size]
    chosen += [each.key for each in fresh[: _newcomers(len(chosen), size, threshold, rules)]]
    chosen += [key for key in kept if key not in staying][: size - len(chosen)]
    keys = by_id(chosen)
    if not keys or keys == today:
        return None
    able = sum(_present(candidates, key) for key in keys)
    return keys if able >= rules.threshold_of(len(keys)) else None


def held_seats(
    signers: Iterable[bytes], candidates: Mapping[bytes, Candidate], rules: SignerRules, now: float
) -> int:
    """How many seats are held for those that were signers not long ago and are away, but not for long."""
    today = frozenset(signers)
    return sum(
        each.served and not each.alive and not each.revoked and not is_gone(each, rules, now)
        for each in candidates.values()
        if each.key not in today
    )


def is_ripe(candidate: Candidate, rules: SignerRules, now: float) -> bool:
    """Whether it may become a signer."""
    return candidate.alive and not candidate.revoked and now - candidate.since >= rules.settle_s


def is_gone(candidate: Candidate | None, rules: SignerRules, now: float) -> bool:
    """Whether it is away for so long that another one may have its seat."""
    return candidate is not None and not candidate.alive and now - candidate.since >= rules.gone_s


def _newcomers(staying: int, size: int, threshold: int, rules: SignerRules) -> int:
    """How many newcomers to take towards `size`: fewer than can sign, unless one signer is enough today."""
    count = max(0, size - staying)
    while threshold > 1 and count > 0 and count >= rules.threshold_of(staying + count):
        count -= 1
    return count


def _present(candidates: Mapping[bytes, Candidate], key: bytes) -> bool:
    seen = candidates.get(node_id(key))
    return seen is not None and seen.alive and not seen.revoked


def _revoked(candidates: Mapping[bytes, Candidate], key: bytes) -> bool:
    seen = candidates.get(node_id(key))
    return seen is not None and seen.revoked

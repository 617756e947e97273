"""What an elector helps with: which change of the signers it carries out, whoever asks for it.

A group of t of n is there so that t - 1 signers that lie get nothing. Only t of them together can deal, so an epoch
nobody else wants needs the help of one that is honest; and a change that is well-formed may still hand the root to a
liar's friends. So an elector holds each opening against what it sees itself:

- nobody is left out without cause. A signer may go if it is revoked or convicted, if this elector does not see it
  among the living, or has waited for it in vain in this ceremony, or if t electors say in their joins that they have;
- nobody is hurried in. There are as many seats as the goal (`growth`) has, and a signer keeps its own until it is
  revoked, convicted or gone for long, also one that an epoch went on without (`held`). Who takes a free one has been a
  member for longer than nearly all others that could, by the credentials of both, which the root signed at its time:
  no id is ground for a rank, and no crowd that comes today overtakes who was here yesterday;
- newcomers are fewer than it takes to sign: among any t of the new group is one that was trusted with the root before.
  Where one signer is enough today that rule says nothing, for each of them has the root already;
- the threshold does not fall (`selection.least_threshold`).

More is for people to decide: what the operators of t signers order (`appointment`), for one epoch and one group, which
the driver verifies and this module takes as it is. Then that group, or what is left of it without those for whom there
is cause, and no other.

What remains: t signers that lie together have the root. Fewer can refuse (a majority of refusals stops every change,
as silence does), and they can wait until honest signers are gone for long or revoked, one seat at a time, for friends
of theirs that have been members for longer than all others. Each such step is an epoch, in everybody's journal and
log; who wants none of it pins the number of signers to those there are and `ca.gone_s` to a time nobody is away.

Invariant: `check_change` says the same of a wish, of an order and of an opening.
"""

from collections.abc import Collection
from typing import Final

from trust.ceremony.electorate import Electorate
from trust.ceremony.events import Members
from trust.ceremony.growth import SignerRules
from trust.errors import CeremonyError, span
from trust.identity import format_id

OVERLOOKED_MAX: Final = (
    2  # older members that an elector lets be passed over: it may see some that the leader does not
)


def check_change(
    new: Collection[bytes],
    threshold: int,
    electorate: Electorate,
    rules: SignerRules,
    seen: Members,
    *,
    excused: Collection[bytes] = (),
) -> None:
    """Raise CeremonyError unless this elector can bear that the nodes `new` (ids), `threshold` of them, are the signers
    of the epoch. `excused` are those that may be left out for what they did in this ceremony; they keep their seats."""
    old, chosen = frozenset(electorate.ids), frozenset(new)
    if len(old) == 1:
        return  # who holds the root alone decides alone
    dispensable = seen.barred | seen.away | frozenset(excused)
    if seen.ordered and chosen <= seen.ordered:
        _check_left_out(seen.ordered - chosen - dispensable, "the order names it")
        return
    _check_left_out(old - chosen - dispensable, "it is a signer that is here")
    joining = chosen - old
    assert electorate.group is not None, "signers change where there are some"
    if electorate.group.threshold > 1 and len(joining) >= threshold:
        raise CeremonyError(
            f"{len(joining)} newcomers would be enough to sign ({threshold}) without anybody who is trusted with "
            "the root today"
        )
    kept = old - seen.barred - seen.gone
    free = max(0, rules.goal - len(kept) - seen.held)
    if len(joining) > free:
        raise CeremonyError(
            f"{len(joining)} newcomers are to sign and {free} of {rules.goal} seats are free: a signer keeps its "
            f"seat until it is revoked or gone for {span(rules.gone_s)}"
        )
    for node in sorted(joining):
        _check_rank(node, chosen, seen)


def _check_left_out(nodes: Collection[bytes], why: str) -> None:
    if nodes:
        raise CeremonyError(f"node {format_id(min(nodes))} would be left out, and {why}")


def _check_rank(node: bytes, chosen: Collection[bytes], seen: Members) -> None:
    rank = seen.rank.get(node)
    older = [
        each
        for each in seen.ripe.difference(chosen)
        if each != node and (rank is None or seen.rank[each] < rank)
    ]
    if len(older) > OVERLOOKED_MAX:
        raise CeremonyError(
            f"node {format_id(node)} is to sign, and {len(older)} that could have been members for longer"
        )

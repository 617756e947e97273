"""The mathematics of giving a participant its lost share back (Stinson and Wei; RTS in ZcashFoundation's frost-core).

The lost share is f(r), a weighted sum of the shares of any t helpers. Helper j cuts its term into random pieces, one
for each helper (`cut`); each helper adds up the pieces it got (`gather`) and sends the sum to the participant, which
adds up the sums (`restore`). No message tells more than a random number: t - 1 helpers that collude learn nothing
about the other's share, and the participant nothing but its own. Pieces and sums must travel encrypted.

Invariant: a restored share that is not the one in the group key is refused.
"""

from collections.abc import Callable, Collection, Iterable

from trust.errors import DealingError
from trust.group import Scalar, Secret, decode_scalar, scalar_mul, scalar_sub, scalar_sum
from trust.groupkey import GroupKey, KeyShare, in_order
from trust.polynomial import lagrange, random_coefficients


def cut(
    share: KeyShare, helpers: Collection[Scalar], lost: Scalar, entropy: Callable[[int], bytes]
) -> dict[Scalar, Scalar]:
    """One piece for each helper (itself among them) of what `share` contributes to the share of `lost`. Raises
    DealingError (too few helpers, or `lost` is one of them) or GroupError as `lagrange`."""
    if len(helpers) < share.group.threshold:
        raise DealingError(
            f"{len(helpers)} helpers cannot restore a share, {share.group.threshold} are needed"
        )
    if lost in helpers:
        raise DealingError("a participant that lost its share cannot help to restore it")
    share.group.verifying_share(lost)
    term = scalar_mul(lagrange(share.identifier, helpers, lost), share.secret.expose())
    *others, last = in_order(helpers)
    pieces = dict(zip(others, random_coefficients(len(others), entropy), strict=True))
    return {**pieces, last: scalar_sub(term, scalar_sum(pieces.values()))}


def gather(pieces: Iterable[Scalar]) -> Scalar:
    """What a helper sends to the participant: the sum of the pieces it got, its own among them. Raises GroupError."""
    return scalar_sum(decode_scalar(piece, zero_ok=True) for piece in pieces)


def restore(group: GroupKey, lost: Scalar, sums: Iterable[Scalar]) -> KeyShare:
    """The share of `lost` from the sums of all helpers. Raises AuthorityError when it is not the one `group` has:
    then a helper lied, and nothing tells which. Raises GroupError for what is no scalar."""
    return KeyShare(group, lost, Secret(gather(sums)))

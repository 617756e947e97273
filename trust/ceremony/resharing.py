"""Resharing: the same root, other shares, for any other signers and threshold (Desmedt and Jajodia 1997, verifiably).

By Lagrange's formula the root's secret is a weighted sum of the old shares of any t signers:

    s = sum of l(i) * s(i)       over the dealers i, l(i) depending on who else deals

Each of these t deals a fresh polynomial of the new degree whose constant is l(i) * s(i). The sum of the polynomials has
constant s and is otherwise random, so the sum of the shares each new signer receives is its share of the same key.
That a dealer used its true share shows in its commitment: the first must be l(i) times its old verifying share. What
t - 1 old shares tell and what t' - 1 new ones tell cannot be put together, for nothing but the secret is common to
both polynomials.

Refresh is resharing to the same signers. It makes all shares that leaked before it worthless, and gives one to a
signer that lost its own.

Invariant: the sum of the expected constants of any set of t dealers is the root.
"""

from collections.abc import Sequence

from trust.errors import CeremonyError, GroupError
from trust.group import Point, Scalar, point_mul, scalar_from_wide, scalar_mul
from trust.groupkey import GroupKey, KeyShare, identifier_of
from trust.polynomial import lagrange


def constant_of(share: KeyShare, dealers: Sequence[bytes]) -> Scalar:
    """The secret constant that the holder of `share` deals among `dealers` (node ids). Raises CeremonyError."""
    try:
        weight = lagrange(share.identifier, [identifier_of(node) for node in dealers])
    except GroupError as error:
        raise CeremonyError(f"these dealers cannot reshare: {error}") from None
    return scalar_mul(weight, share.secret.expose())


def expected_constant(group: GroupKey, dealers: Sequence[bytes], dealer: bytes) -> Point:
    """The first commitment that `dealer` has to publish. Raises CeremonyError: the dealers are not exactly the old
    threshold in number, or one of them is no signer."""
    if len(dealers) != group.threshold:
        raise CeremonyError(f"{len(dealers)} dealers reshare, the threshold is {group.threshold}")
    identifier = identifier_of(dealer)
    try:
        for node in dealers:
            group.verifying_share(identifier_of(node))
        weight = lagrange(identifier, [identifier_of(node) for node in dealers])
        return point_mul(weight, group.verifying_share(identifier))
    except GroupError as error:
        raise CeremonyError(f"these dealers cannot reshare: {error}") from None


def scalar_of_seed(hashed: bytes) -> Scalar:
    """The root's secret as a scalar, from SHA-512 of an Ed25519 seed (RFC 8032, 5.1.5): how a root that one node held
    whole becomes a share, 1-of-1, of the same public key."""
    assert len(hashed) == 64, "SHA-512 has 64 bytes"
    clamped = bytes([hashed[0] & 248]) + hashed[1:31] + bytes([hashed[31] & 127 | 64])
    return scalar_from_wide(clamped + bytes(32))

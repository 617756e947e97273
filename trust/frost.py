"""FROST(Ed25519, SHA-512): two-round threshold signatures, RFC 9591, with identifiable abort (section 5.4).

Round one: each signer draws two nonces and publishes their commitments. Round two: given the message and the
commitments of t or more signers, each returns a share; the sum of the shares is an Ed25519 signature like any other.
Each signer's second nonce is multiplied by a factor that depends on the message and on *all* commitments, so that
shares given for one combination are of no use for another (that is what makes parallel sessions safe).

A nonce used for two signatures gives the key share away by solving two linear equations. So `Nonces` are used up and
overwritten by the one call that takes them, also when that call refuses. They are hedged, H3(random || share): a bad
source of randomness alone does not make them predictable. They are never derived again, stored or copied.

Points from others are of prime order (see group), so that the cofactorless verification of libsodium and the
cofactored one of RFC 8032 agree on every signature made here.

Invariant: `aggregate` returns a signature that verifies, or names at least one participant whose share is wrong.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from trust.errors import FrostError, GroupError
from trust.group import (
    IDENTITY,
    Point,
    Scalar,
    Secret,
    base_mul,
    decode_point,
    decode_scalar,
    h1,
    h2,
    h3,
    h4,
    h5,
    point_add,
    point_mul,
    point_sum,
    scalar_add,
    scalar_mul,
    scalar_sum,
)
from trust.groupkey import GroupKey, KeyShare
from trust.identity import verify
from trust.polynomial import lagrange

NONCE_RANDOM_BYTES: Final = 32


# ------------------------------------------------------------------ round one


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """One signer's commitments to its two nonces, as received: `transcript` is what checks the points."""

    identifier: Scalar
    hiding: Point
    binding: Point

    def encode(self) -> bytes:
        """As in RFC 9591, 4.3: 96 bytes."""
        return self.identifier + self.hiding + self.binding


class Nonces:
    """Two secret nonces for one signature. Neither printed nor pickled."""

    __slots__ = ("_binding", "_hiding", "commitment")

    def __init__(self, identifier: Scalar, hiding: Secret, binding: Secret) -> None:
        self._hiding, self._binding = hiding, binding
        self.commitment = Commitment(identifier=identifier, hiding=hiding.public(), binding=binding.public())

    @property
    def used(self) -> bool:
        return self._hiding.wiped

    def take(self) -> tuple[Scalar, Scalar]:
        """Hiding and binding nonce, once. Raises FrostError the second time."""
        if self.used:
            raise FrostError("these nonces have been used")
        nonces = self._hiding.expose(), self._binding.expose()
        self.wipe()
        return nonces

    def wipe(self) -> None:
        """Forget them unused."""
        self._hiding.wipe()
        self._binding.wipe()

    def __repr__(self) -> str:
        return f"Nonces(used={self.used})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("Nonces are never copied or pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()


def new_nonces(share: KeyShare, entropy: Callable[[int], bytes]) -> Nonces:
    """Round one (RFC 9591, 4.1 and 5.1)."""
    secret = share.secret.expose()
    hiding = Secret(h3(entropy(NONCE_RANDOM_BYTES) + secret))
    binding = Secret(h3(entropy(NONCE_RANDOM_BYTES) + secret))
    return Nonces(share.identifier, hiding, binding)


# ------------------------------------------------------------------ what everybody computes from public values


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """All public values of one signature. Make it with `transcript`, which checks them."""

    group: GroupKey
    message: bytes
    commitments: tuple[Commitment, ...]  # ascending
    factors: Mapping[Scalar, Scalar]  # binding factors
    points: Mapping[Scalar, Point]  # each signer's part of `nonce`
    nonce: Point  # R, the first half of the signature
    challenge: Scalar

    def weight(self, identifier: Scalar) -> Scalar:
        """challenge * Lagrange coefficient: what the key share is multiplied with."""
        return scalar_mul(self.challenge, lagrange(identifier, self.points))


def transcript(group: GroupKey, message: bytes, commitments: Collection[Commitment]) -> Transcript:
    """Check who signs with which commitments and compute what all of them must agree on (RFC 9591, 4.4 to 4.6). Takes
    about half a millisecond a signer. Raises FrostError; the culprits sent points that are none."""
    ordered = tuple(sorted(commitments, key=lambda commitment: commitment.identifier[::-1]))
    identifiers = [commitment.identifier for commitment in ordered]
    if len(set(identifiers)) != len(identifiers):
        raise FrostError("a signer is there twice")
    if len(ordered) < group.threshold:
        raise FrostError(f"{len(ordered)} signers are too few, {group.threshold} are needed")
    members = set(group.identifiers)
    if not members.issuperset(identifiers):
        raise FrostError("a signer does not belong to the group")
    factors = _binding_factors(group, message, ordered)
    points: dict[Scalar, Point] = {}
    culprits: list[Scalar] = []
    for commitment in ordered:
        try:
            # The product checks the binding commitment as decoding would.
            bound = point_mul(factors[commitment.identifier], _not_identity(commitment.binding))
            points[commitment.identifier] = point_add(decode_point(commitment.hiding), bound)
        except GroupError:
            culprits.append(commitment.identifier)
    if culprits:
        raise FrostError("commitments are not points of the group", tuple(culprits))
    nonce = point_sum(points.values())
    if nonce == IDENTITY:
        raise FrostError("the commitments cancel each other")
    return Transcript(
        group=group,
        message=message,
        commitments=ordered,
        factors=factors,
        points=points,
        nonce=nonce,
        challenge=h2(nonce + group.public + message),
    )


# ------------------------------------------------------------------ round two


def sign_share(
    share: KeyShare, nonces: Nonces, message: bytes, commitments: Collection[Commitment]
) -> Scalar:
    """This signer's part of the signature (RFC 9591, 5.2). Uses up `nonces` whatever comes of it. Raises FrostError:
    nonces used before, own commitment missing or altered, or as `transcript`."""
    if nonces.used:
        raise FrostError("these nonces have been used")
    try:
        agreed = transcript(share.group, message, commitments)
        if nonces.commitment not in agreed.commitments or nonces.commitment.identifier != share.identifier:
            raise FrostError("the signer's own commitment is not among them")
        hiding, binding = nonces.take()
    finally:
        nonces.wipe()
    bound = scalar_mul(binding, agreed.factors[share.identifier])
    weighted = scalar_mul(agreed.weight(share.identifier), share.secret.expose())
    return scalar_add(scalar_add(hiding, bound), weighted)


def verify_share(agreed: Transcript, identifier: Scalar, share: bytes) -> bool:
    """Whether `share` is what `identifier` owes (RFC 9591, 5.4). Takes less than half a millisecond."""
    try:
        scalar = decode_scalar(share, zero_ok=True)
        key = agreed.group.verifying_share(identifier)
        expected = point_add(agreed.points[identifier], point_mul(agreed.weight(identifier), key))
    except (GroupError, KeyError):
        return False
    return base_mul(scalar) == expected


def aggregate(agreed: Transcript, shares: Mapping[Scalar, bytes]) -> bytes:
    """The Ed25519 signature (64 bytes) made of everybody's share (RFC 9591, 5.3). The shares are verified one by one
    only if their sum is not a signature. Raises FrostError naming the culprits: all whose share is missing or wrong."""
    missing = tuple(identifier for identifier in agreed.points if identifier not in shares)
    if missing:
        raise FrostError("shares are missing", missing)
    if len(shares) != len(agreed.points):
        raise FrostError("there are shares of participants that are not in the set")
    try:
        total = scalar_sum(decode_scalar(share, zero_ok=True) for share in shares.values())
    except GroupError:
        total = None
    if total is not None and verify(agreed.group.public, agreed.message, agreed.nonce + total):
        return agreed.nonce + total
    culprits = tuple(
        identifier for identifier in agreed.points if not verify_share(agreed, identifier, shares[identifier])
    )
    assert culprits, "shares that are all right add up to a signature: the group key was checked"
    raise FrostError("shares are wrong", culprits)


def _binding_factors(
    group: GroupKey, message: bytes, ordered: Collection[Commitment]
) -> dict[Scalar, Scalar]:
    listed = b"".join(commitment.encode() for commitment in ordered)
    prefix = group.public + h4(message) + h5(listed)
    return {commitment.identifier: h1(prefix + commitment.identifier) for commitment in ordered}


def _not_identity(point: bytes) -> bytes:
    if point == IDENTITY:
        raise GroupError("the point is the identity")
    return point

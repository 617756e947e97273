"""The mathematics of distributed key generation: FROST's (Komlo and Goldberg, SAC 2020, figure 1), as pure functions.

Each participant deals: it draws a polynomial, publishes the commitment to it with a proof that it knows the constant
(or else it could choose its constant as a function of the others'), and gives each participant one share. Every
share is checked against the commitment; the sum of the shares received is the participant's share of the key, the
sum of the commitments determines the root and everybody's verifying share. The proof is a Schnorr signature R || mu
with the challenge HDKG(identifier || context || commitment[0] || R). The paper's context, against replay of a proof in
another ceremony, is 32 bytes here, or nothing, as in ZcashFoundation's implementation and its vectors.

Resharing and refresh use the same dealings with a constant that is given: a weighted old share, or zero. Then the
others know what the first commitment must be, and the proof is one of the constant they expect.

Invariant: nothing here decides who is guilty or what is sent when; a dealing that passes `check_package` and shares
that `matches` make a key whose root no single dealer could choose.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from trust.errors import DealingError, GroupError
from trust.group import (
    IDENTITY,
    POINT_BYTES,
    SCALAR_BYTES,
    WIDE_BYTES,
    Point,
    Scalar,
    Secret,
    base_mul,
    decode_point,
    decode_scalar,
    hdkg,
    point_add,
    point_mul,
    scalar_add,
    scalar_from_wide,
    scalar_mul,
    scalar_sum,
)
from trust.groupkey import GroupKey, group_key
from trust.polynomial import (
    commit,
    evaluate,
    evaluate_commitment,
    matches,
    random_coefficients,
    sum_commitments,
)

PROOF_BYTES: Final = POINT_BYTES + SCALAR_BYTES
CONTEXT_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What a dealer publishes. `proof` is empty where the constant is zero and there is nothing to know."""

    commitment: tuple[Point, ...]
    proof: bytes


class Dealing:
    """A dealer's polynomial. Neither printed nor pickled; wipe it when the ceremony is over."""

    __slots__ = ("_coefficients", "identifier", "package")

    def __init__(self, identifier: Scalar, coefficients: Sequence[Scalar], package: Package) -> None:
        self._coefficients = tuple(Secret(coefficient) for coefficient in coefficients)
        self.identifier = identifier
        self.package = package

    def share_for(self, identifier: Scalar) -> Scalar:
        """The share to be sent to `identifier`, and to nobody else. Raises GroupError for identifier zero."""
        return evaluate([secret.expose() for secret in self._coefficients], identifier)

    def wipe(self) -> None:
        """Forget the polynomial."""
        for secret in self._coefficients:
            secret.wipe()

    def __repr__(self) -> str:
        return f"Dealing(degree={len(self._coefficients) - 1}, {self._coefficients[0]!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Dealing is never copied or pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()


def deal(
    identifier: Scalar, threshold: int, entropy: Callable[[int], bytes], *, context: bytes = b"",
    constant: Scalar | None = None,
) -> Dealing:  # fmt: skip
    """A dealing of a random constant, or of `constant` (zero for a refresh)."""
    assert threshold >= 1, "a key takes at least one share"
    coefficients = random_coefficients(threshold, entropy)
    if constant is not None:
        coefficients = (constant, *coefficients[1:])
    commitment = commit(coefficients)
    proof = b"" if commitment[0] == IDENTITY else prove(identifier, coefficients[0], entropy, context=context)
    return Dealing(identifier, coefficients, Package(commitment=commitment, proof=proof))


def prove(
    identifier: Scalar, constant: Scalar, entropy: Callable[[int], bytes], *, context: bytes = b""
) -> bytes:
    """The proof (64 bytes) that `identifier` knows `constant`."""
    nonce = scalar_from_wide(entropy(WIDE_BYTES))
    commitment = base_mul(nonce)
    challenge = _challenge(identifier, context, base_mul(constant), commitment)
    return commitment + scalar_add(nonce, scalar_mul(constant, challenge))


def check_proof(identifier: Scalar, constant: Point, proof: bytes, *, context: bytes = b"") -> None:
    """Raises DealingError unless `proof` is of `constant` by `identifier` in `context`."""
    if len(proof) != PROOF_BYTES:
        raise DealingError(f"a proof of knowledge has {PROOF_BYTES} bytes, not {len(proof)}")
    try:
        commitment = decode_point(proof[:POINT_BYTES])
        response = decode_scalar(proof[POINT_BYTES:], zero_ok=True)
        challenge = _challenge(identifier, context, constant, commitment)
        expected = point_add(commitment, point_mul(challenge, decode_point(constant)))
    except GroupError as error:
        raise DealingError(f"the proof of knowledge is malformed: {error}") from None
    if base_mul(response) != expected:
        raise DealingError("the proof of knowledge is wrong")


def check_package(
    identifier: Scalar,
    package: Package,
    threshold: int,
    *,
    context: bytes = b"",
    constant: Point | None = None,
) -> None:
    """Raises DealingError unless `package` is a dealing of degree threshold - 1 with a proof by `identifier`. With
    `constant` the first commitment has to be that point: IDENTITY in a refresh, where there is no proof."""
    if len(package.commitment) != threshold:
        raise DealingError(f"{len(package.commitment)} commitments were dealt, the threshold is {threshold}")
    try:
        for at, point in enumerate(package.commitment):
            decode_point(point, identity_ok=at == 0 and constant == IDENTITY)
    except GroupError as error:
        raise DealingError(f"a commitment is malformed: {error}") from None
    if constant is not None and package.commitment[0] != constant:
        raise DealingError("the dealing is not of the constant it should be of")
    if constant == IDENTITY:
        if package.proof:
            raise DealingError("a dealing of zero has no proof of knowledge")
        return
    check_proof(identifier, package.commitment[0], package.proof, context=context)


def check_share(share: bytes, package: Package, identifier: Scalar) -> Scalar:
    """`share` itself if it is what `package`, already checked, has for `identifier`. Raises DealingError."""
    try:
        scalar = decode_scalar(share, zero_ok=True)
        good = matches(scalar, package.commitment, identifier)
    except GroupError as error:
        raise DealingError(f"the share is malformed: {error}") from None
    if not good:
        raise DealingError("the share is not the one that was committed to")
    return scalar


def combine_shares(shares: Iterable[Scalar]) -> Secret:
    """The participant's share of the key, from those that all dealers (itself among them) dealt it."""
    return Secret(scalar_sum(shares))


def combine_packages(
    packages: Mapping[Scalar, Package], participants: Iterable[Scalar], *, epoch: int = 0
) -> GroupKey:
    """The key that the dealers' packages make for `participants`. Raises AuthorityError, GroupError."""
    commitment = sum_commitments([package.commitment for package in packages.values()])
    members = [(identifier, evaluate_commitment(commitment, identifier)) for identifier in participants]
    return group_key(commitment[0], len(commitment), members, epoch=epoch)


def _challenge(identifier: Scalar, context: bytes, constant: Point, commitment: Point) -> Scalar:
    # Every part has a fixed length, so no two inputs run into the same bytes.
    assert len(context) in {0, CONTEXT_BYTES}, "a context is a hash, or nothing"
    return hdkg(identifier + context + constant + commitment)

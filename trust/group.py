"""The prime-order group of Ed25519 and the hashes of FROST(Ed25519, SHA-512), RFC 9591, section 6.1.

A scalar is an integer modulo L in 32 bytes, little endian; a point is a compressed edwards25519 point (RFC 8032,
5.1.2) in the subgroup of order L. All arithmetic is libsodium's, in constant time; a secret never becomes a Python
integer, whose arithmetic takes a time that tells about it. Ed25519 has cofactor 8: a point with a component of
small order would make two equations that hold for one verifier fail for another, so `decode_point` takes nothing
outside the subgroup (libsodium up to 2025 let some through, CVE-2025-69277: hence the floor on PyNaCl, and a test).

libsodium refuses to compute a product that is the identity. Here `point_mul` and `base_mul` give IDENTITY, and
sums may be it: a protocol that cannot bear it says so itself (`decode_point` does, unless told otherwise).

What Python can wipe: `Secret` keeps its scalar in a bytearray and overwrites it. What it cannot: PyNaCl takes and
returns `bytes`, so that each operation on a secret leaves a copy in freed memory until the allocator gives it out
again; nor does it lock pages against swapping. Wiping shortens the time in which a *live object* holds a secret
and makes second use impossible; it is no defence against whoever reads the memory of the process.

Invariant: functions given decoded values return decoded values; hostile bytes raise GroupError, never anything else.
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final, NoReturn, TypeAlias

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_invert,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_scalar_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)
from nacl.exceptions import RuntimeError as LibraryError

from trust.errors import GroupError

Scalar: TypeAlias = bytes
Point: TypeAlias = bytes

SCALAR_BYTES: Final = 32
POINT_BYTES: Final = 32
WIDE_BYTES: Final = 64
ZERO: Final[Scalar] = bytes(SCALAR_BYTES)
ONE: Final[Scalar] = b"\x01" + bytes(SCALAR_BYTES - 1)
IDENTITY: Final[Point] = b"\x01" + bytes(POINT_BYTES - 1)

_SMALL_MAX: Final = (1 << 64) - 1
_CONTEXT: Final = b"FROST-ED25519-SHA512-v1"


# ------------------------------------------------------------------ scalars


def scalar_of(value: int) -> Scalar:
    """A small *public* integer (0 to 2^64 - 1), such as a participant's number, as a scalar."""
    assert 0 <= value <= _SMALL_MAX, "only small public integers become scalars this way"
    return value.to_bytes(SCALAR_BYTES, "little")


def scalar_from_wide(wide: bytes) -> Scalar:
    """64 uniform bytes modulo L: uniform up to 2^-259. What a random scalar is made of."""
    assert len(wide) == WIDE_BYTES, "a scalar takes 64 uniform bytes: with 32 it would be biased"
    return crypto_core_ed25519_scalar_reduce(wide)


def decode_scalar(data: bytes, *, zero_ok: bool = False) -> Scalar:
    """`data` itself if it is the canonical encoding (below L) of a scalar that is not zero. Raises GroupError."""
    if len(data) != SCALAR_BYTES:
        raise GroupError(f"a scalar has {SCALAR_BYTES} bytes, not {len(data)}")
    if not hmac.compare_digest(crypto_core_ed25519_scalar_reduce(data + bytes(SCALAR_BYTES)), data):
        raise GroupError("the scalar is not in its canonical encoding")
    if not zero_ok and is_zero(data):
        raise GroupError("the scalar is zero")
    return data


def is_zero(a: Scalar) -> bool:
    """Whether `a` is zero, in constant time."""
    return hmac.compare_digest(a, ZERO)


def scalar_add(a: Scalar, b: Scalar) -> Scalar:
    """a + b"""
    return crypto_core_ed25519_scalar_add(a, b)


def scalar_sub(a: Scalar, b: Scalar) -> Scalar:
    """a - b"""
    return crypto_core_ed25519_scalar_sub(a, b)


def scalar_mul(a: Scalar, b: Scalar) -> Scalar:
    """a * b"""
    return crypto_core_ed25519_scalar_mul(a, b)


def scalar_invert(a: Scalar) -> Scalar:
    """1 / a. Raises GroupError for zero."""
    if is_zero(a):
        raise GroupError("zero has no inverse")
    return crypto_core_ed25519_scalar_invert(a)


def scalar_sum(scalars: Iterable[Scalar]) -> Scalar:
    """The sum; ZERO of none."""
    total = ZERO
    for scalar in scalars:
        total = scalar_add(total, scalar)
    return total


# ------------------------------------------------------------------ points


def decode_point(data: bytes, *, identity_ok: bool = False) -> Point:
    """`data` itself if it is the canonical encoding of a point of prime order (or, where allowed, the identity).
    Raises GroupError: off the curve, of small or mixed order, a second encoding, the identity."""
    _check_size(data)
    if data == IDENTITY:
        if identity_ok:
            return data
        raise GroupError("the point is the identity")
    if not crypto_core_ed25519_is_valid_point(data):
        raise GroupError("this is not a point of the prime-order group")
    return data


def base_mul(a: Scalar) -> Point:
    """a * B, B being Ed25519's base point; IDENTITY for zero."""
    try:
        return crypto_scalarmult_ed25519_base_noclamp(a)
    except LibraryError:
        if is_zero(a):
            return IDENTITY
        raise GroupError("the scalar is not in its canonical encoding") from None


def point_mul(a: Scalar, point: Point) -> Point:
    """a * point; IDENTITY if either is nothing. Checks `point` as `decode_point` does (libsodium does so in any case),
    so a point that is only ever multiplied needs no decoding of its own. Raises GroupError."""
    if point == IDENTITY:
        return IDENTITY
    _check_size(point)
    try:
        return crypto_scalarmult_ed25519_noclamp(a, point)
    except LibraryError:
        if is_zero(a):
            decode_point(point)
            return IDENTITY
        raise GroupError("this is not a point of the prime-order group") from None


def point_add(a: Point, b: Point) -> Point:
    """a + b, which may be IDENTITY, as may each of them. Raises GroupError for what is not on the curve; the order is
    not checked."""
    _check_size(a, b)
    try:
        return crypto_core_ed25519_add(a, b)
    except LibraryError:
        raise GroupError("this is not a point of the curve") from None


def point_sum(points: Iterable[Point]) -> Point:
    """The sum; IDENTITY of none."""
    total = IDENTITY
    for point in points:
        total = point if total == IDENTITY else point_add(total, point)
    return total


def _check_size(*points: bytes) -> None:
    for point in points:
        if len(point) != POINT_BYTES:
            raise GroupError(f"a point has {POINT_BYTES} bytes, not {len(point)}")


# ------------------------------------------------------------------ hashes


def h1(message: bytes) -> Scalar:
    """H1, "rho": binding factors."""
    return _to_scalar(_CONTEXT + b"rho" + message)


def h2(message: bytes) -> Scalar:
    """H2: the challenge, with no context of its own, so that the signature is plain Ed25519 (RFC 8032)."""
    return _to_scalar(message)


def h3(message: bytes) -> Scalar:
    """H3, "nonce": nonces."""
    return _to_scalar(_CONTEXT + b"nonce" + message)


def h4(message: bytes) -> bytes:
    """H4, "msg": 64 bytes."""
    return hashlib.sha512(_CONTEXT + b"msg" + message).digest()


def h5(message: bytes) -> bytes:
    """H5, "com": 64 bytes."""
    return hashlib.sha512(_CONTEXT + b"com" + message).digest()


def hdkg(message: bytes) -> Scalar:
    """The challenge of the proof of knowledge in key generation (ZcashFoundation's suite; not in the RFC)."""
    return _to_scalar(_CONTEXT + b"dkg" + message)


def _to_scalar(message: bytes) -> Scalar:
    return crypto_core_ed25519_scalar_reduce(hashlib.sha512(message).digest())


# ------------------------------------------------------------------ secrets


class Secret:
    """A secret scalar that can be wiped (the module's docstring says what that is worth). Neither printed, compared,
    hashed, copied nor pickled."""

    __slots__ = ("_data", "_wiped")

    def __init__(self, scalar: Scalar) -> None:
        self._data = bytearray(decode_scalar(scalar, zero_ok=True))
        self._wiped = False

    @property
    def wiped(self) -> bool:
        return self._wiped

    def expose(self) -> Scalar:
        """A copy, for one computation; keep it in no attribute. Asserts that the secret has not been wiped."""
        assert not self._wiped, "this secret has been wiped"
        return bytes(self._data)

    def public(self) -> Point:
        """secret * B"""
        return base_mul(self.expose())

    def wipe(self) -> None:
        """Overwrite the secret. May be repeated."""
        self._data[:] = ZERO
        self._wiped = True

    def __repr__(self) -> str:
        return "Secret(wiped)" if self._wiped else "Secret(...)"

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("secrets are not compared: compare what is public of them")

    def __hash__(self) -> NoReturn:
        raise TypeError("secrets are not hashed: use what is public of them")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never copied or pickled")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.__reduce__()

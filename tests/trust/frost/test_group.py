"""The group: what is refused, what libsodium refuses that we must not, and secrets that stay so."""

import copy
import pickle
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.errors import GroupError
from trust.group import (
    IDENTITY,
    ONE,
    ZERO,
    Secret,
    base_mul,
    decode_point,
    decode_scalar,
    point_add,
    point_mul,
    point_sum,
    scalar_add,
    scalar_from_wide,
    scalar_invert,
    scalar_mul,
    scalar_of,
    scalar_sub,
    scalar_sum,
)

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
BASE = bytes.fromhex("5866666666666666666666666666666666666666666666666666666666666666")
# All eight points whose order divides 8, and their second encodings (y >= p, or x = 0 with the sign bit).
ORDER_8 = [
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
]
SMALL = [
    IDENTITY,
    (P - 1).to_bytes(32, "little"),  # (0, -1), order 2
    bytes(32),  # (sqrt(-1), 0), order 4
    bytes(31) + b"\x80",
    *map(bytes.fromhex, ORDER_8),
]
SECOND_ENCODINGS = [
    (P + 1).to_bytes(32, "little"),  # the identity, y = p + 1
    b"\x01" + bytes(30) + b"\x80",  # the identity, "minus" zero
    (P - 1 + 2**255).to_bytes(32, "little"),  # order 2, "minus" zero
    P.to_bytes(32, "little"),  # order 4, y = p
    (P + 2**255).to_bytes(32, "little"),
    (P + 3).to_bytes(32, "little"),
]

scalars = st.binary(min_size=64, max_size=64).map(scalar_from_wide)


def number(scalar: bytes) -> int:
    return int.from_bytes(scalar, "little")


@given(scalars, scalars)
def test_scalars_are_the_integers_modulo_l(a: bytes, b: bytes) -> None:
    assert number(scalar_add(a, b)) == (number(a) + number(b)) % L
    assert number(scalar_sub(a, b)) == (number(a) - number(b)) % L
    assert number(scalar_mul(a, b)) == number(a) * number(b) % L
    assert a == ZERO or scalar_mul(a, scalar_invert(a)) == ONE
    assert scalar_sum([a, b, ONE]) == scalar_add(scalar_add(a, b), ONE)


@given(scalars, scalars)
def test_points_follow_their_scalars(a: bytes, b: bytes) -> None:
    assert point_add(base_mul(a), base_mul(b)) == base_mul(scalar_add(a, b))
    assert point_mul(a, base_mul(b)) == base_mul(scalar_mul(a, b))
    assert point_sum([base_mul(a), base_mul(b), base_mul(a)]) == base_mul(scalar_sum([a, b, a]))


def test_what_adds_up_to_nothing_is_the_identity() -> None:
    a = scalar_from_wide(Random(1).randbytes(64))
    point = base_mul(a)
    assert base_mul(ZERO) == IDENTITY
    assert point_mul(ZERO, point) == IDENTITY
    assert point_mul(a, IDENTITY) == IDENTITY
    assert point_mul(ZERO, IDENTITY) == IDENTITY
    assert point_add(point, base_mul(scalar_sub(ZERO, a))) == IDENTITY
    assert point_add(point, IDENTITY) == point_add(IDENTITY, point) == point
    assert point_sum([]) == IDENTITY
    assert point_sum([point, IDENTITY]) == point
    assert base_mul(ONE) == BASE
    assert base_mul(scalar_sub(ZERO, ONE)) == BASE[:-1] + bytes([BASE[-1] ^ 0x80])  # -B: the other sign of x


@pytest.mark.parametrize("value", [L, L + 1, 2 * L, 2**253, 2**255, 2**255 + 1, 2**256 - 1])
def test_a_scalar_above_the_order_is_refused(value: int) -> None:
    with pytest.raises(GroupError, match="canonical"):
        decode_scalar(value.to_bytes(32, "little"))


def test_the_largest_scalar_is_taken_and_zero_only_where_allowed() -> None:
    largest = (L - 1).to_bytes(32, "little")
    assert decode_scalar(largest) == largest
    assert decode_scalar(ZERO, zero_ok=True) == ZERO
    with pytest.raises(GroupError, match="zero"):
        decode_scalar(ZERO)
    with pytest.raises(GroupError, match="no inverse"):
        scalar_invert(ZERO)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_another_size_is_refused(size: int) -> None:
    data = b"\x01" * size
    with pytest.raises(GroupError, match=f"not {size}"):
        decode_scalar(data)
    for function in (decode_point, lambda point: point_mul(ONE, point), lambda point: point_add(point, BASE)):
        with pytest.raises(GroupError, match=f"not {size}"):
            function(data)
    with pytest.raises(GroupError, match=f"not {size}"):
        point_add(BASE, data)


@pytest.mark.parametrize("point", SMALL[1:] + SECOND_ENCODINGS, ids=bytes.hex)
def test_a_point_of_small_order_is_refused(point: bytes) -> None:
    with pytest.raises(GroupError):
        decode_point(point)
    with pytest.raises(GroupError):
        decode_point(point, identity_ok=True)
    for scalar in (ZERO, ONE, scalar_of(8)):
        with pytest.raises(GroupError):
            point_mul(scalar, point)


def test_the_identity_is_taken_only_where_allowed() -> None:
    with pytest.raises(GroupError, match="identity"):
        decode_point(IDENTITY)
    assert decode_point(IDENTITY, identity_ok=True) == IDENTITY


@pytest.mark.parametrize("torsion", SMALL[1:], ids=bytes.hex)
def test_a_point_with_a_component_of_small_order_is_refused(torsion: bytes) -> None:
    """Order 2 is what libsodium let through (CVE-2025-69277)."""
    mixed = point_add(base_mul(scalar_of(7)), torsion)
    with pytest.raises(GroupError, match="prime-order"):
        decode_point(mixed)
    with pytest.raises(GroupError, match="prime-order"):
        point_mul(ONE, mixed)


@pytest.mark.parametrize("y", [P + 9, P + 14, 2**255 - 1])
def test_a_second_encoding_of_a_point_is_refused(y: int) -> None:
    for sign in (0, 2**255):
        with pytest.raises(GroupError):
            decode_point((y + sign).to_bytes(32, "little"))


def test_what_is_not_on_the_curve_is_refused() -> None:
    off = (2).to_bytes(32, "little")
    for function in (
        decode_point,
        lambda point: point_add(point, BASE),
        lambda point: point_add(BASE, point),
    ):
        with pytest.raises(GroupError):
            function(off)


def test_a_scalar_above_the_order_has_no_product_with_the_base() -> None:
    with pytest.raises(GroupError, match="canonical"):
        base_mul(L.to_bytes(32, "little"))


@given(st.binary(max_size=70))
def test_arbitrary_bytes_raise_nothing_but_group_errors(data: bytes) -> None:
    for decode in (decode_scalar, decode_point):
        try:
            decoded = decode(data)
        except GroupError:
            continue
        assert decoded == data


@given(st.binary(min_size=32, max_size=32))
def test_whatever_decodes_as_a_point_has_prime_order(data: bytes) -> None:
    """L*P = 0 by another way than the library's own check: (L-1)*P + P."""
    try:
        point = decode_point(data)
    except GroupError:
        return
    assert point_add(point_mul(scalar_sub(ZERO, ONE), point), point) == IDENTITY


@pytest.mark.parametrize("value", [-1, 2**64])
def test_only_small_public_integers_become_scalars(value: int) -> None:
    with pytest.raises(AssertionError):
        scalar_of(value)


def test_a_random_scalar_takes_64_bytes() -> None:
    with pytest.raises(AssertionError):
        scalar_from_wide(bytes(32))


# ------------------------------------------------------------------ secrets


def test_a_secret_is_used_until_it_is_wiped() -> None:
    scalar = scalar_from_wide(Random(2).randbytes(64))
    secret = Secret(scalar)
    assert secret.expose() == scalar
    assert secret.public() == base_mul(scalar)
    secret.wipe()
    secret.wipe()
    assert secret.wiped
    assert bytes(secret._data) == ZERO
    with pytest.raises(AssertionError, match="wiped"):
        secret.expose()


def test_a_secret_is_neither_printed_compared_hashed_copied_nor_pickled() -> None:
    secret = Secret(scalar_of(0x1234567890))
    text = f"{secret!r} {secret} {[secret]}"
    assert "1234567890" not in text
    assert "9078563412" not in text
    for act in (
        lambda: secret == secret,
        lambda: secret != Secret(ONE),
        lambda: hash(secret),
        lambda: copy.copy(secret),
        lambda: copy.deepcopy(secret),
        lambda: pickle.dumps(secret),
    ):
        with pytest.raises(TypeError):
            act()


def test_a_secret_is_a_canonical_scalar() -> None:
    with pytest.raises(GroupError, match="canonical"):
        Secret(L.to_bytes(32, "little"))

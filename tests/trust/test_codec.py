"""The canonical form: one encoding per value, and bounded, typed reading of hostile bytes."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.codec import Reader, pack, signed_bytes
from trust.errors import CredentialError


def reader(data: bytes, count: int, bytes_max: int = 1000) -> Reader:
    return Reader(data, count=count, bytes_max=bytes_max, what="a thing", error=CredentialError)


def test_reads_back_what_it_packed() -> None:
    data = pack([b"ab", "text", 7, True, ("x", "y"), b"any"])
    fields = reader(data, 6)
    assert fields.raw(2) == b"ab"
    assert fields.text(10) == "text"
    assert fields.integer() == 7
    assert fields.flag() is True
    assert fields.texts(2, 1) == ("x", "y")
    assert fields.blob(3) == b"any"


def test_refuses_a_second_encoding_of_the_same_value() -> None:
    canonical = pack([1, "a"])
    wide = b"\x92\xcd\x00\x01\xa1a"  # the 1 as a uint16
    assert msgpack.unpackb(wide) == msgpack.unpackb(canonical)
    with pytest.raises(CredentialError, match="canonical"):
        reader(wide, 2)


def test_checks_the_size_before_it_parses() -> None:
    with pytest.raises(CredentialError, match="at most 10 are allowed"):
        reader(b"\xff" * 11, 2, bytes_max=10)


@pytest.mark.parametrize(
    ("value", "method", "arguments"),
    [
        (b"abc", "raw", (2,)),
        ("ab", "raw", (2,)),
        (b"abc", "blob", (2,)),
        ("abc", "text", (2,)),
        (b"a", "text", (2,)),
        (-1, "integer", ()),
        (True, "integer", ()),
        (1.0, "integer", ()),
        (11, "integer", (10,)),
        (1, "flag", ()),
        (["a", "b"], "texts", (1, 5)),
        (["abc"], "texts", (1, 2)),
        ([b"a"], "texts", (1, 2)),
        ("a", "texts", (1, 2)),
    ],
)
def test_refuses_a_field_of_another_type_or_size(
    value: object, method: str, arguments: tuple[int, ...]
) -> None:
    with pytest.raises(CredentialError, match="field 1 should be"):
        getattr(reader(msgpack.packb([value]), 1), method)(*arguments)


def test_a_signature_for_one_purpose_is_none_for_another() -> None:
    assert signed_bytes(b"a/1", [1]) != signed_bytes(b"b/1", [1])


@given(st.binary(max_size=200), st.integers(0, 12))
def test_arbitrary_bytes_raise_nothing_but_the_given_error(data: bytes, count: int) -> None:
    try:
        reader(data, count)
    except CredentialError:
        return
    assert pack(msgpack.unpackb(data)) == data


values = st.recursive(
    st.none() | st.floats() | st.integers(-(2**63), 2**64 - 1), lambda inner: st.lists(inner, max_size=4)
)


@given(values)
def test_arbitrary_values_raise_nothing_but_the_given_error(value: object) -> None:
    try:
        texts = reader(msgpack.packb([value]), 1).texts(4, 4)
    except CredentialError:
        return
    assert list(texts) == value


def test_deep_nesting_is_refused_not_followed() -> None:
    with pytest.raises(CredentialError):
        reader(b"\x91" * 900, 1)

"""Trace Context: what is valid goes on, what is not begins anew."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded.trace import REQUEST_ID_BYTES_MAX, RequestIds, continue_trace, take_identity, trace_id

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = b"00f067aa0ba902b7"
NEW = b"1111111111111111"
VALID = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@pytest.mark.parametrize(
    ("parent", "flags"),
    [
        (b"00-" + TRACE + b"-" + SPAN + b"-01", b"01"),
        (b"00-" + TRACE + b"-" + SPAN + b"-00", b"00"),
        (b"cc-" + TRACE + b"-" + SPAN + b"-09", b"01"),
        (b"cc-" + TRACE + b"-" + SPAN + b"-03-what-comes-later", b"03"),
    ],
)
def test_a_valid_parent_is_continued(parent: bytes, flags: bytes) -> None:
    assert continue_trace(parent, NEW) == b"00-" + TRACE + b"-" + NEW + b"-" + flags


@pytest.mark.parametrize(
    "parent",
    [
        b"", b"00", b"ff-" + TRACE + b"-" + SPAN + b"-01", b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01", b"00-" + TRACE.upper() + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + SPAN + b"-01-x", b"00-" + TRACE + b"-" + SPAN + b"-1",
        b"cc-" + TRACE + b"-" + SPAN + b"-01x",
        b"00-" + TRACE[:-1] + b"-" + SPAN + b"-01", b"0-" + TRACE + b"-" + SPAN + b"-01",
        b" 00-" + TRACE + b"-" + SPAN + b"-01",
    ],
)  # fmt: skip
def test_an_invalid_parent_is_none(parent: bytes) -> None:
    assert continue_trace(parent, NEW) is None


@given(parents=st.lists(st.binary(max_size=60), max_size=2), seed=st.integers())
def test_what_goes_on_is_always_valid_and_state_only_with_its_parent(parents: list[bytes], seed: int) -> None:
    rng = random.Random(seed)
    headers = [(b"traceparent", parent) for parent in parents] + [(b"tracestate", b"a=b"), (b"x", b"y")]
    parent, request_id, kept = take_identity(headers, rng, RequestIds(rng))
    assert VALID.fullmatch(parent)
    assert parent[3:35] == trace_id(parent).encode()
    assert request_id
    continued = len(parents) == 1 and continue_trace(parents[0], NEW) is not None
    assert kept == ([(b"tracestate", b"a=b")] if continued else []) + [(b"x", b"y")]


def test_two_parents_are_none() -> None:
    rng = random.Random(1)
    parent = (b"traceparent", b"00-" + TRACE + b"-" + SPAN + b"-01")
    fresh, *_ = take_identity([parent, parent], rng, RequestIds(rng))
    assert trace_id(fresh) != TRACE.decode()


def test_a_request_id_is_kept_unless_it_is_absurd() -> None:
    rng = random.Random(1)
    ids = RequestIds(rng)
    assert take_identity([(b"x-request-id", b"mine ")], rng, ids)[1] == b"mine"
    assert take_identity([(b"x-request-id", b"x" * (REQUEST_ID_BYTES_MAX + 1))], rng, ids)[1] != b""
    assert len(take_identity([(b"x-request-id", b"x" * 1000)], rng, ids)[1]) == 36


def test_request_ids_are_distinct_version_4_uuids() -> None:
    ids = [RequestIds(random.Random(seed)) for seed in range(50)]
    made = {source.next() for source in ids for _ in range(20)}
    assert len(made) == 1000
    for request_id in made:
        assert re.fullmatch(
            rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", request_id
        )


@pytest.mark.parametrize("parents", [[], [(b"traceparent", b"00-" + TRACE + b"-" + SPAN + b"-01")]])
@pytest.mark.parametrize(
    "name", [b"x-forwarded-client-cert", b"x_forwarded_client_cert", b"x-forwarded_client-cert"]
)
def test_a_client_certificate_header_never_goes_on(name: bytes, parents: list[tuple[bytes, bytes]]) -> None:
    rng = random.Random(1)
    assert take_identity([*parents, (name, b"me")], rng, RequestIds(rng))[2] == []

"""What an HTTP/2 message must be before anything is made of it."""

import re
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.embedded.chunked import Pairs
from proxy.embedded.heads import request_head
from proxy.embedded.http1 import CHUNKED, Request, RequestReader, Response
from proxy.embedded.http2_blocks import Fields
from proxy.embedded.http2_heads import (
    MalformedError,
    read_request,
    read_response,
    read_trailers,
    request_of,
    response_of,
    trailers_of,
)

GOOD: Pairs = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/")]


def changed(**changes: bytes | None) -> Pairs:
    """GOOD with other pseudo-header fields; None leaves one out."""
    fields = [(name, changes.get(name[1:].decode(), value)) for name, value in GOOD]
    return [(name, value) for name, value in fields if value is not None]


def test_a_request_is_what_http1_would_have_made_of_it() -> None:
    fields = [
        *changed(method=b"POST", path=b"/a?b=c"), (b"x-a", b"1"), (b"cookie", b"a=1"), (b"te", b"trailers"),
        (b"host", b"H"), (b"cookie", b"b=2"), (b"content-length", b"7"), (b"expect", b"100-Continue"),
    ]  # fmt: skip
    request = read_request(fields, 100, end=False)
    assert (request.method, request.target, request.host, request.minor) == ("POST", b"/a?b=c", b"h", 1)
    assert request.headers == [(b"x-a", b"1"), (b"cookie", b"a=1; b=2")]
    assert (request.body, request.expects, request.upgrade, request.connection_close) == (7, True, b"", False)
    assert read_request([*changed(authority=None), (b"host", b"n")], 100, end=True).host == b"n"
    assert read_request(changed(method=b"OPTIONS", path=b"*"), 100, end=True).target == b"*"
    assert read_request(changed(method=b"POST"), 100, end=False).body == CHUNKED
    assert read_request(changed(method=b"POST"), 100, end=True).body == 0


MALFORMED: dict[str, Pairs] = {
    "nothing": [],
    "no method": changed(method=None),
    "no scheme": changed(scheme=None),
    "no path": changed(path=None),
    "no authority": changed(authority=None),
    "an empty authority": changed(authority=b""),
    "an empty path": changed(path=b""),
    "a path that is none": changed(path=b"x"),
    "an asterisk for GET": changed(path=b"*"),
    "a fragment": changed(path=b"/a#b"),
    "a space in the path": changed(path=b"/a b"),
    "eight bits in the path": changed(path=b"/\xe4"),
    "a line break in the path": changed(path=b"/ HTTP/1.1\r\nx: y"),
    "a method in small letters": changed(method=b"get"),
    "a space in the method": changed(method=b"GET /x"),
    "an unknown scheme": changed(scheme=b"ftp"),
    "user info": changed(authority=b"u@h"),
    "a line break in the authority": changed(authority=b"h\r\nx: y"),
    "a repeated pseudo-header field": [*GOOD, (b":path", b"/b")],
    "an unknown pseudo-header field": [*GOOD, (b":status", b"200")],
    "a protocol to change to": [*changed(method=b"CONNECT"), (b":protocol", b"websocket")],
    "a pseudo-header field after others": [(b"x", b"y"), *GOOD],
    "capitals in a name": [*GOOD, (b"X-a", b"b")],
    "an empty name": [*GOOD, (b"", b"b")],
    "a blank in a name": [*GOOD, (b"x a", b"b")],
    "a colon in a name": [*GOOD, (b"x:a", b"b")],
    "a line break in a name": [*GOOD, (b"x\r\ny", b"b")],
    "a line break in a value": [*GOOD, (b"x", b"a\r\nb")],
    "a bare LF in a value": [*GOOD, (b"x", b"a\nb")],
    "NUL in a value": [*GOOD, (b"x", b"a\0b")],
    "DEL in a value": [*GOOD, (b"x", b"a\x7fb")],
    "a value that begins with a blank": [*GOOD, (b"x", b" a")],
    "a value that ends with a blank": [*GOOD, (b"x", b"a\t")],
    "connection": [*GOOD, (b"connection", b"close")],
    "keep-alive": [*GOOD, (b"keep-alive", b"1")],
    "proxy-connection": [*GOOD, (b"proxy-connection", b"close")],
    "transfer-encoding": [*GOOD, (b"transfer-encoding", b"chunked")],
    "upgrade": [*GOOD, (b"upgrade", b"websocket")],
    "te for more than trailers": [*GOOD, (b"te", b"gzip")],
    "a host of its own": [*GOOD, (b"host", b"other")],
    "two hosts": [*GOOD, (b"host", b"h"), (b"host", b"h")],
    "two lengths": [*GOOD, (b"content-length", b"1"), (b"content-length", b"1")],
    "a length that is none": [*GOOD, (b"content-length", b"+1")],
    "a list of lengths": [*GOOD, (b"content-length", b"1, 1")],
    "a length beyond counting": [*GOOD, (b"content-length", b"9" * 19)],
}


NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
CONNECTION = {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
texts = st.lists(
    st.one_of(
        st.sampled_from([b"a", b"B", b" ", b"\t", b":", b"\n", b"-", b"upgrade"]), st.binary(max_size=2)
    ),
    max_size=4,
).map(b"".join)


@given(st.lists(st.tuples(texts, texts), max_size=3))
@example([(b"x-a", b"a\tb \xff")])
def test_fields_are_taken_if_each_of_them_may_be(fields: Pairs) -> None:
    taken = all(NAME.fullmatch(n) and VALUE.fullmatch(v) and n not in CONNECTION for n, v in fields)
    if taken:
        assert read_trailers(fields, 100) == fields
        return
    with pytest.raises(MalformedError):
        read_trailers(fields, 100)


def test_why_a_field_is_refused_names_it() -> None:
    for field, reason in (
        ((b"x-b", b"a\n"), "'x-b'"),
        ((b"x-b", b" a"), "'x-b'"),
        ((b"upgrade", b"a"), "upgrade in"),
    ):
        with pytest.raises(MalformedError, match=reason):
            read_trailers([(b"x-a", b"b"), field], 100)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests(name: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read_request(MALFORMED[name], 100, end=False)
    assert caught.value.status == 0


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([*GOOD, *[(b"x", b"y")] * 97], 431),
        (changed(method=b"CONNECT", scheme=None, path=None), 405),
        ([*GOOD, (b"expect", b"miracles")], 417),
    ],
)
def test_requests_that_are_answered(fields: Pairs, status: int) -> None:
    with pytest.raises(MalformedError) as caught:
        read_request(fields, 100, end=True)
    assert caught.value.status == status


def test_a_length_without_a_body() -> None:
    assert read_request([*GOOD, (b"content-length", b"0")], 100, end=True).body == 0
    with pytest.raises(MalformedError, match="no body"):
        read_request([*GOOD, (b"content-length", b"1")], 100, end=True)


paths = st.one_of(
    st.sampled_from([b"/", b"/a?b", b"/%2e"]), st.binary(max_size=6).map(lambda tail: b"/" + tail)
)
hosts = st.one_of(st.sampled_from([b"h", b"h:80"]), st.binary(max_size=4))
others = st.tuples(
    st.sampled_from([b"x-a", b"host", b"cookie", b"content-length", b"expect", b"te"]),
    st.one_of(st.binary(max_size=8), st.sampled_from([b"h", b"1", b"trailers", b"100-continue"])),
)


@given(paths, hosts, st.lists(others, max_size=4), st.sampled_from([b"GET", b"POST", b"PUT"]), st.booleans())
@example(b"/", b"h", [(b"cookie", b""), (b"cookie", b"")], b"GET", False)
@example(b"/", b"h", [(b"cookie", b"a=1"), (b"cookie", b""), (b"cookie", b"b=2")], b"GET", False)
def test_whatever_is_taken_is_the_same_request_in_http1(
    path: bytes, host: bytes, more: Pairs, method: bytes, end: bool
) -> None:
    """Written for the next hop and read there by the strict reader, it is one head with the same meaning."""
    fields = [(b":authority", host), (b":path", path), *more]
    try:
        request = read_request([(b":method", method), (b":scheme", b"http"), *fields], 100, end=end)
    except MalformedError:
        return
    head = request_head(request, request.target, request.host, request.headers, b"")
    again = RequestReader().read(head, 100)
    assert head.count(b"\r\n\r\n") == 1
    assert (again.method, again.target, again.host) == (request.method, request.target, request.host)
    assert (again.headers, again.body, again.expects) == (request.headers, request.body, request.expects)


STATUS: Pairs = [(b":status", b"200")]


def test_a_response_is_what_http1_would_have_made_of_it() -> None:
    fields = [*STATUS, (b"content-length", b"3"), (b"x-a", b"b"), (b"te", b"x")]
    response = read_response(fields, 100, to_head=False, end=False)
    assert (response.status, response.reason, response.body, response.length_told) == (200, b"OK", 3, b"3")
    assert response.headers == [b"x-a: b"]
    to_head = read_response(fields, 100, to_head=True, end=True)
    assert (to_head.body, to_head.length_told) == (0, b"3")
    assert read_response(STATUS, 100, to_head=False, end=False).body == CHUNKED
    assert read_response(STATUS, 100, to_head=False, end=True).body == 0


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ([], True),
        ([(b":status", b"2000")], True),
        ([(b":status", b"000")], True),
        ([(b":status", b"101")], False),
        ([(b":status", b"100")], True),
        ([*STATUS, *STATUS], True),
        ([*STATUS, (b":path", b"/")], True),
        ([(b"a", b"b"), *STATUS], True),
        ([*STATUS, (b"connection", b"close")], True),
        ([*STATUS, (b"x", b"a\r\nb")], True),
        ([*STATUS, (b"content-length", b"1")], True),
        ([*STATUS, (b"content-length", b"x")], False),
        ([*STATUS, (b"content-length", b"1"), (b"content-length", b"1")], False),
        ([*STATUS, *[(b"x", b"y")] * 100], True),
    ],
)
def test_malformed_responses(fields: Pairs, end: bool) -> None:
    with pytest.raises(MalformedError):
        read_response(fields, 100, to_head=False, end=end)


def test_trailers() -> None:
    fields = [(b"grpc-status", b"0"), (b"content-length", b"1"), (b"x-forwarded-client-cert", b"me")]
    assert read_trailers(fields, 100) == [(b"grpc-status", b"0")]
    for bad in ((b":status", b"200"), (b"connection", b"close"), (b"X", b"y"), (b"x", b"a\nb")):
        with pytest.raises(MalformedError):
            read_trailers([bad], 100)
    with pytest.raises(MalformedError):
        read_trailers([(b"x", b"y")] * 101, 100)


WAYS = [*product([2, 100], [False, True], [False, True])]


def told(read: Callable[..., Request | Response | Pairs], *of: object, **how: bool) -> object:
    """Everything of what was read, or why it was refused."""
    try:
        message = read(*of, **how)
    except MalformedError as error:
        return error.reason, error.status
    if isinstance(message, list):
        return message
    slots = Request.__slots__ if isinstance(message, Request) else Response.__slots__
    return {name: getattr(message, name) for name in slots}


@pytest.mark.parametrize(
    "pairs",
    [
        GOOD, [*GOOD, (b"content-length", b"0"), (b"te", b"x")], STATUS,
        [*STATUS, (b"content-length", b"3"), (b"x-a", b"b")],
        [(b"grpc-status", b"0"), (b"host", b"x"), (b"x-a", b"b")],
        [(b"x-a", b"b\n")],
    ],
)  # fmt: skip
def test_a_block_that_is_read_again_says_what_it_would_say_anew(pairs: Pairs) -> None:
    for ways in product(WAYS, WAYS):
        fields = Fields(pairs, [], 0)
        for most, to_head, end in ways:
            assert told(request_of, fields, most, end=end) == told(read_request, pairs, most, end=end)
            how = {"to_head": to_head, "end": end}
            assert told(response_of, fields, most, **how) == told(read_response, pairs, most, **how)
            assert told(trailers_of, fields, most) == told(read_trailers, pairs, most)


def test_a_message_is_made_of_a_block_once() -> None:
    request, response, trailers = Fields(GOOD, [], 0), Fields(STATUS, [], 0), Fields([(b"x-a", b"b")], [], 0)
    how = {"to_head": False, "end": True}
    assert request_of(request, 100, end=True) is request_of(request, 100, end=True)
    assert response_of(response, 100, **how) is response_of(response, 100, **how)
    assert trailers_of(trailers, 100) is trailers_of(trailers, 100)

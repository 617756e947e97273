"""Heads: one meaning or none."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded.http1 import (
    CHUNKED,
    HEAD_BYTES_REMEMBERED,
    UNTIL_CLOSE,
    HeadError,
    Request,
    RequestReader,
    Response,
    ResponseReader,
    looks_like_a_head,
)


def request(head: bytes, headers_max: int = 100) -> Request:
    return RequestReader().read(head, headers_max)


def response(head: bytes, *, to_head: bool = False) -> Response:
    return ResponseReader().read(head, 100, to_head=to_head)


def test_a_request_is_taken_apart() -> None:
    got = request(
        b"POST /a/b?c=d HTTP/1.1\r\nHOST: Cart:80 \r\nContent-Length: 5\r\nX-A: 1\r\nx-a:  2 \t\r\nAccept:*/*\r\n\r\n"
    )
    assert (got.method, got.target, got.host, got.minor, got.body) == ("POST", b"/a/b?c=d", b"Cart:80", 1, 5)
    assert [(name, value.strip()) for name, value in got.headers] == [
        (b"x-a", b"1"), (b"x-a", b"2"), (b"accept", b"*/*"),
    ]  # fmt: skip
    assert not got.connection_close
    assert not got.expects
    assert got.upgrade == b""


@pytest.mark.parametrize(
    ("line", "minor", "close"),
    [
        ("", 1, False), ("connection: close\r\n", 1, True), ("connection: Close, x\r\n", 1, True),
        ("", 0, True), ("connection: Keep-Alive\r\n", 0, False), ("connection: x\r\nconnection: close\r\n", 1, True),
    ],
)  # fmt: skip
def test_who_closes_the_connection(line: str, minor: int, close: bool) -> None:
    assert request(f"GET / HTTP/1.{minor}\r\nhost: a\r\n{line}\r\n".encode()).connection_close is close


def test_headers_named_by_connection_do_not_travel() -> None:
    got = request(
        b"GET / HTTP/1.1\r\nhost: a\r\nx-one: 1\r\nconnection: X-One, keep-alive,X-Two\r\n"
        b"x-two: 2\r\nx-three: 3\r\n\r\n"
    )
    assert got.headers == [(b"x-three", b"3")]


def test_connection_cannot_name_the_host_away() -> None:
    got = request(
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: host, content-length\r\ncontent-length: 3\r\n\r\n"
    )
    assert (got.host, got.body) == (b"a", 3)


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://cart/x?y", b"cart", b"/x?y"), (b"HTTP://cart:80", b"cart:80", b"/"),
        (b"http://cart?y", b"cart", b"/?y"),
        (b"/x", b"a", b"/x"),
    ],
)  # fmt: skip
def test_absolute_form(target: bytes, host: bytes, path: bytes) -> None:
    got = request(b"GET " + target + b" HTTP/1.1\r\nhost: a\r\n\r\n")
    assert (got.host, got.target) == (host, path)


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        (b"connection: upgrade\r\nupgrade: websocket\r\n", b"websocket"),
        (b"upgrade: WebSocket \r\nconnection: keep-alive, Upgrade\r\n", b"websocket"),
        (b"upgrade: websocket\r\n", b""), (b"connection: upgrade\r\n", b""),
    ],
)  # fmt: skip
def test_an_upgrade_needs_both_headers(lines: bytes, upgrade: bytes) -> None:
    assert request(b"GET / HTTP/1.1\r\nhost: a\r\n" + lines + b"\r\n").upgrade == upgrade


@pytest.mark.parametrize(
    "protocol",
    [b"upgrade: h2c", b"upgrade: h2c, websocket", b"upgrade: websocket\r\nupgrade: h2c",
    b"upgrade: h2c\r\nupgrade: websocket", b"upgrade: TLS/1.0", b"upgrade: websocket/13", b"upgrade:"],
)  # fmt: skip
def test_no_protocol_but_websocket_is_changed_to(protocol: bytes) -> None:
    got = request(
        b"POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\n" + protocol
        + b"\r\nhttp2-settings: AAMAAABk\r\ncontent-length: 3\r\nx: y\r\n\r\n"
    )  # fmt: skip
    assert (got.upgrade, got.body, got.headers, got.connection_close) == (b"", 3, [(b"x", b"y")], False)


def test_http2_settings_do_not_travel_even_when_connection_does_not_name_them() -> None:
    got = request(b"GET / HTTP/1.1\r\nhost: a\r\nhttp2-settings: AAMAAABk\r\n\r\n")
    assert got.headers == []
    assert response(b"HTTP/1.1 200 OK\r\nhttp2-settings: x\r\n\r\n").headers == []


def test_one_reader_reads_many_requests_whatever_their_bodies() -> None:
    reader = RequestReader()
    for _ in range(3):
        assert (
            reader.read(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n", 100).body
            == CHUNKED
        )
        assert reader.read(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\n", 100).body == 7
        assert (
            reader.read(
                b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 100
            ).upgrade
            == b"websocket"
        )
        assert reader.read(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 100).body == 0


def test_too_many_fields_are_431() -> None:
    with pytest.raises(HeadError) as caught:
        request(b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 10 + b"\r\n", headers_max=10)
    assert caught.value.status == 431


def test_an_unknown_expectation_is_417() -> None:
    with pytest.raises(HeadError) as caught:
        request(b"GET / HTTP/1.1\r\nhost: a\r\nexpect: miracles\r\n\r\n")
    assert caught.value.status == 417


@pytest.mark.parametrize(
    ("head", "status", "body", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", 200, 3, True),
        (b"HTTP/1.1 200\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", 200, 0, False),
        (b"HTTP/1.0 200 OK\r\n\r\n", 200, UNTIL_CLOSE, False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\n", 200, 1, True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, CHUNKED, True),
        (b"HTTP/1.1 204 No\r\n\r\n", 204, 0, True),
        (b"HTTP/1.1 304 Not\r\ncontent-length: 9\r\n\r\n", 304, 0, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 100, 0, True),
    ],
)
def test_a_response_says_where_it_ends(head: bytes, status: int, body: int, keep: bool) -> None:
    got = response(head)
    assert (got.status, got.body, got.keep_alive) == (status, body, keep)


@pytest.mark.parametrize("status", [b"000", b"001", b"020", b"099"])
def test_a_status_below_100_is_none(status: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        response(b"HTTP/1.1 " + status + b" X\r\ncontent-length: 0\r\n\r\n")
    assert caught.value.status == 502


def test_a_final_response_is_read_afresh_after_any_informational_one() -> None:
    final = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
    for fields in (b"", b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n",
                   b"connection: upgrade\r\nupgrade: x\r\n"):  # fmt: skip
        for status in (b"100", b"103", b"199"):
            reader = ResponseReader()
            informational = reader.read(
                b"HTTP/1.1 " + status + b" X\r\n" + fields + b"\r\n", 9, to_head=False
            )
            assert (informational.status, informational.body) == (int(status), 0)
            got = reader.read(final, 9, to_head=False)
            assert (got.status, got.body, got.keep_alive) == (200, 3, True)


def test_a_response_keeps_what_is_end_to_end() -> None:
    got = response(
        b"HTTP/1.1 200 OK\r\nServer: x\r\nKeep-Alive: 5\r\nConnection: X-Gone\r\nX-Gone: 1\r\nHost: odd\r\n\r\n"
    )
    assert got.headers == [b"server: x", b"host: odd"]


def test_an_answer_to_head_has_no_body_but_keeps_its_length() -> None:
    got = response(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", to_head=True)
    assert (got.body, got.length_told) == (0, b"3")


@pytest.mark.parametrize(
    ("begin", "possible"),
    [
        (b"G", True), (b"GET", True), (b"GET ", True), (b"GET / HTTP/1.1\r\nhost", True), (b"GET / HTTP/1.1\r", True),
        (b"M-SEARCH * ", True), (b"get /", False), (b"\x16\x03", False), (b"GET\t/", False),
        (b"GET / HTTP/1.1\n", False),
        (b"A" * 40, False), (b" GET", False),
    ],
)  # fmt: skip
def test_what_can_still_become_a_head(begin: bytes, possible: bool) -> None:
    assert looks_like_a_head(begin) is possible


_PIECES = st.sampled_from([
    b"GET ", b"POST ", b"/", b"/x?y", b"http://a/", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"host: a",
    b"Host:b",
    b"content-length: ", b"1", b"transfer-encoding: chunked", b"connection: ", b"close", b"upgrade", b": ", b" ",
    b"\t", b"\0",
    b"\xff", b",", b"x",
])  # fmt: skip
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")


@given(st.lists(_PIECES, max_size=20).map(b"".join))
def test_whatever_is_accepted_is_clean(junk: bytes) -> None:
    statuses: set[int] = set()
    for head in (junk + b"\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n" + junk + b"\r\n\r\n"):
        whole = head[: head.find(b"\r\n\r\n") + 4]
        try:
            got = request(whole)
        except HeadError as error:
            statuses.add(error.status)
            continue
        assert got.minor in (0, 1)
        assert not set(got.target) & set(b"\r\n\0 #")
        assert not set(got.host) & set(b"\r\n\0 /@,")
        for name, value in got.headers:
            assert _TOKEN.fullmatch(name)
            assert not set(value) & set(b"\r\n\0")
    assert statuses <= {400, 417, 431}


@given(st.lists(_PIECES, max_size=20).map(b"".join))
def test_no_response_breaks_the_reader(junk: bytes) -> None:
    statuses: set[int] = set()
    for head in (junk + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + junk + b"\r\n\r\n"):
        try:
            got = response(head[: head.find(b"\r\n\r\n") + 4])
        except HeadError as error:
            statuses.add(error.status)
            continue
        for line in got.headers:
            assert _TOKEN.fullmatch(line.partition(b": ")[0])
            assert not set(line) & set(b"\r\n\0")
    assert statuses <= {502}


REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-gone\r\nX-Gone: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Gone: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
)
RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nServer: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nServer: x\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nServer: x\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nServer: x\r\n\r\n",
    b"HTTP/1.1 200 Gut\r\nConnection: keep-alive, x-gone\r\nX-Gone: 1\r\nContent-Length: 0\r\n\r\n",
)


def heads(rng: random.Random, among: tuple[bytes, ...]) -> list[bytes]:
    """Many, and now and then one twice."""
    return [head for head in rng.choices(among, k=200) for _ in range(rng.randrange(1, 3))]


def test_what_a_request_means_does_not_depend_on_those_before_it() -> None:
    rng = random.Random(1)
    reader = RequestReader()
    for head in heads(rng, REQUESTS):
        got, alone = reader.read(head, 100), RequestReader().read(head, 100)
        assert [getattr(got, name) for name in got.__slots__] == [
            getattr(alone, name) for name in got.__slots__
        ]


def test_what_a_response_means_does_not_depend_on_those_before_it() -> None:
    rng = random.Random(1)
    reader = ResponseReader()
    for head in heads(rng, RESPONSES):
        to_head = rng.random() < 0.3
        got = reader.read(head, 100, to_head=to_head)
        alone = ResponseReader().read(head, 100, to_head=to_head)
        assert [getattr(got, name) for name in got.__slots__] == [
            getattr(alone, name) for name in got.__slots__
        ]


def test_the_same_head_is_read_once() -> None:
    requests, responses = RequestReader(), ResponseReader()
    assert requests.read(REQUESTS[0], 100) is requests.read(REQUESTS[0], 100)
    assert responses.read(RESPONSES[0], 100, to_head=False) is responses.read(
        RESPONSES[0], 100, to_head=False
    )


def test_the_same_head_is_read_again_where_it_is_long_or_fields_are_counted_anew() -> None:
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEAD_BYTES_REMEMBERED + b"\r\n\r\n"
    reader = RequestReader()
    assert reader.read(long, 100) is not reader.read(long, 100)
    reader.read(REQUESTS[0], 2)
    with pytest.raises(HeadError) as refused:
        reader.read(REQUESTS[0], 1)
    assert refused.value.status == 431
    answers = ResponseReader()
    answers.read(RESPONSES[0], 2, to_head=False)
    with pytest.raises(HeadError):
        answers.read(RESPONSES[0], 1, to_head=False)

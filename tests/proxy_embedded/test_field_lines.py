"""What is remembered of field lines, and what is not."""

import random

import pytest

from proxy.embedded.field_lines import LINE_BYTES_MAX, LINES_MAX, RequestLines, ResponseLines, steering_fields
from proxy.embedded.http1 import RequestReader, ResponseReader


def test_a_line_is_taken_apart_once() -> None:
    lines = RequestLines()
    first = lines[b"Accept:\t text/html \t"]
    assert first == (b"accept", b"text/html")
    assert lines[b"Accept:\t text/html \t"] is first


def test_the_line_of_a_response_keeps_its_value_as_it_is() -> None:
    assert ResponseLines()[b"X-Time:  10:30 Uhr "] == b"x-time: 10:30 Uhr"


@pytest.mark.parametrize(
    "name", [b"Host", b"CONNECTION", b"content-length", b"Transfer-Encoding", b"Upgrade", b"TE"]
)
def test_what_steers_a_connection_does_not_travel(name: bytes) -> None:
    assert RequestLines()[name + b": x"] is None
    assert steering_fields([name + b": x"]) == [(name.lower(), b"x")]


@pytest.mark.parametrize("name", [b"Host", b"Expect"])
def test_what_steers_only_requests_travels_in_a_response(name: bytes) -> None:
    assert ResponseLines()[name + b": x"] == name.lower() + b": x"


@pytest.mark.parametrize(
    "name", [b"Authorization", b"cookie", b"Set-Cookie", b"Proxy-Authorization", b"traceparent"]
)
def test_secrets_and_what_never_repeats_are_not_remembered(name: bytes) -> None:
    requests, responses = RequestLines(), ResponseLines()
    requests[name + b": s3cret"]
    responses[name + b": s3cret"]
    assert not requests
    assert not responses


def test_a_long_line_is_not_remembered() -> None:
    lines = RequestLines()
    longest = b"a: ".ljust(LINE_BYTES_MAX, b"x")
    lines[longest + b"x"]
    assert not lines
    lines[longest]
    assert list(lines) == [longest]


@pytest.mark.parametrize("lines", [RequestLines(), ResponseLines()])
def test_a_full_table_begins_again(lines: RequestLines | ResponseLines) -> None:
    for number in range(LINES_MAX):
        lines[b"a: %d" % number]
    assert len(lines) == LINES_MAX
    lines[b"a: another"]
    assert list(lines) == [b"a: another"]


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


def test_what_a_request_means_does_not_depend_on_those_before_it() -> None:
    rng = random.Random(1)
    reader = RequestReader()
    for head in rng.choices(REQUESTS, k=200):
        got, alone = reader.read(head, 100), RequestReader().read(head, 100)
        assert [getattr(got, name) for name in got.__slots__] == [
            getattr(alone, name) for name in got.__slots__
        ]


def test_what_a_response_means_does_not_depend_on_those_before_it() -> None:
    rng = random.Random(1)
    reader = ResponseReader()
    for head in rng.choices(RESPONSES, k=200):
        to_head = rng.random() < 0.3
        got = reader.read(head, 100, to_head=to_head)
        alone = ResponseReader().read(head, 100, to_head=to_head)
        assert [getattr(got, name) for name in got.__slots__] == [
            getattr(alone, name) for name in got.__slots__
        ]

"""What is remembered of field lines, and what is not."""

import pytest

from proxy.embedded.field_lines import LINE_BYTES_MAX, LINES_MAX, RequestLines, ResponseLines, steering_fields


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
    "name", [b"Authorization", b"cookie", b"Set-Cookie", b"Proxy-Authorization", b"X-Api-Key", b"traceparent"]
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

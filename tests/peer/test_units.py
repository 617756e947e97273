"""Durations, percentages and addresses as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.units import (
    QuantityError,
    format_address,
    format_age,
    parse_address,
    parse_duration_s,
    parse_percent,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45), ("1h", 3600), ("1h30m", 5400), ("250ms", 0.25), ("7d", 604_800), ("0.5s", 0.5), ("0", 0),
        ("10", 10), (" 5m ", 300), (3, 3), (2.5, 2.5), ("1m30s", 90),
    ],
)  # fmt: skip
def test_durations(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "5 m", "-1s", "1y", "1h-", "1e3s", "٣s", "1" * 400, "nan", True, float("inf"), float("nan"), -1]
)  # fmt: skip
def test_what_is_no_duration(text):
    with pytest.raises(QuantityError, match="is not a duration; write it like 45s"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "percent"), [("99%", 99), ("99.5", 99.5), (" 100 %", 100), ("0.1%", 0.1), (50, 50)]
)
def test_percentages(text, percent):
    assert parse_percent(text) == percent


@pytest.mark.parametrize("text", ["0", "101%", "-1", "all", "", "1%%", "nan"])
def test_what_is_no_percentage(text):
    with pytest.raises(QuantityError, match="is not a percentage; write it like 99%"):
        parse_percent(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:7946", ("10.0.0.1", 7946)), ("seed.example.org:1", ("seed.example.org", 1)),
        ("[::1]:7946", ("::1", 7946)), ("host", ("host", 9)), ("::1", ("::1", 9)), ("[fe80::1]", ("fe80::1", 9)),
    ],
)  # fmt: skip
def test_addresses(text, address):
    assert parse_address(text, 9) == address


@pytest.mark.parametrize(
    "text", ["", ":1", "a:", "a:0", "a:65536", "a:x", "a b:1", "[::1:7", "[::1]x", "http://a:1",
             "-a:1", "a" * 400 + ":1"]
)  # fmt: skip
def test_what_is_no_address(text):
    with pytest.raises(QuantityError):
        parse_address(text, 9)


def test_an_address_without_a_port_needs_a_default():
    with pytest.raises(QuantityError, match="'host' has no port; write it like host:7946"):
        parse_address("host")


@given(st.sampled_from(["10.0.0.1", "::1", "host.example"]), st.integers(1, 65535))
def test_addresses_survive_being_written(host, port):
    assert parse_address(format_address((host, port))) == (host, port)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    for read in (parse_duration_s, parse_percent, lambda each: parse_address(each, 1)):
        try:
            read(text)
        except QuantityError as error:
            assert str(error)  # noqa: PT017  both outcomes are right


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (200_000, "2d")]
)  # fmt: skip
def test_ages(seconds, text):
    assert format_age(seconds) == text


@pytest.mark.parametrize("text", ["0.99", "1", "0.5"])
def test_a_share_is_not_taken_for_a_percentage(text: str) -> None:
    with pytest.raises(QuantityError, match="write it like 99%"):
        parse_percent(text)
    assert parse_percent("1%") == 1.0

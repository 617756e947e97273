"""The access log: whole lines, never forged, never in the way."""

import json
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.embedded import access_log
from proxy.embedded.access_log import BATCHES_MAX, AccessLog, format_line, format_request


def request_line(**changes: Any) -> str:
    fields: dict[str, Any] = {
        "time_text": "2025-01-01T00:00:00.000Z", "reporter": "source", "method": "GET", "host": "echo", "path": "/",
        "protocol": "HTTP/1.1", "code": 200, "flags": "-", "duration_ms": 1.23456, "bytes_in": 1, "bytes_out": 2,
        "source": "spiffe://a", "destination": "echo", "upstream": "127.0.0.1:1", "route": "r", "request_id": "id",
        "trace_id": "0" * 32, "policy": "",
    }  # fmt: skip
    return format_request(**{**fields, **changes})


def test_a_line_is_a_json_object() -> None:
    assert json.loads(request_line(policy="default/p")) == {
        "time": "2025-01-01T00:00:00.000Z", "reporter": "source", "method": "GET", "host": "echo", "path": "/",
        "protocol": "HTTP/1.1", "code": 200, "flags": "-", "duration_ms": 1.235, "bytes_in": 1, "bytes_out": 2,
        "source": "spiffe://a", "destination": "echo", "upstream": "127.0.0.1:1", "route": "r", "request_id": "id",
        "trace_id": "0" * 32, "authz_policy": "default/p",
    }  # fmt: skip
    assert "authz_policy" not in json.loads(request_line())


@given(text=st.text(st.characters(max_codepoint=255), max_size=40))
def test_no_text_can_forge_a_line(text: str) -> None:
    for name in ("method", "host", "path", "source", "upstream", "route", "request_id"):
        line = request_line(**{name: text})
        assert "\n" not in line
        assert line.isascii()
        assert json.loads(line)[name] == text


def test_lines_arrive_whole_and_in_order() -> None:
    reader, writer = os.pipe()
    log = AccessLog(writer)
    for number in range(5000):
        log.write(format_line({"number": number}))
        if number % 1000 == 999:
            log.flush()
            with open(reader, "rb", closefd=False) as pipe:
                lines = [json.loads(pipe.readline())["number"] for _ in range(1000)]
            assert lines == list(range(number - 999, number + 1))
    log.close(5)
    os.close(writer)
    os.close(reader)


def test_a_reader_that_does_not_read_costs_lines_not_time() -> None:
    reader, writer = os.pipe()
    log = AccessLog(writer)
    dropped = 0

    def on_dropped(lines: int) -> None:
        nonlocal dropped
        dropped += lines

    log.on_dropped = on_dropped
    for _ in range(BATCHES_MAX + 10):
        log.write("x" * 100_000)
    assert dropped >= 8
    os.close(reader)  # the writing thread gets an error for each batch, and ends
    log.close(5)
    os.close(writer)


def test_the_time_is_utc_with_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    log = AccessLog(writer)
    for now_s, text in (
        (0.0, "1970-01-01T00:00:00.000Z"),
        (0.0009, "1970-01-01T00:00:00.000Z"),
        (0.0015, "1970-01-01T00:00:00.001Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250Z"),
        (1_700_000_000.9995, "2023-11-14T22:13:20.999Z"),
        (1_700_000_001.0, "2023-11-14T22:13:21.000Z"),
        (1_699_999_999.5, "2023-11-14T22:13:19.500Z"),  # a clock that was set back
    ):
        monkeypatch.setattr(
            access_log, "time", SimpleNamespace(**{**vars(time), "time": lambda at=now_s: at})
        )
        assert log.timestamp() == text
    monkeypatch.undo()
    log.close(5)
    os.close(reader)
    os.close(writer)

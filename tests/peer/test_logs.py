"""Log lines: one an event, and nothing from the network can forge one."""

import asyncio
import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.logs import JsonFormatter, TextFormatter, configure, unhandled


def record(message: str = "event", exc_info: Any = None, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("gossamer.x", logging.WARNING, "f.py", 1, message, None, exc_info)
    made.created = 1_800_000_000.25
    made.fields = fields
    return made


def test_text_for_people() -> None:
    line = TextFormatter().format(record(name="node-2", reason="not found", count=3, empty=""))
    assert line == '2027-01-15T08:00:00.250Z WARNING event name=node-2 reason="not found" count=3 empty=""'


def test_json_for_machines() -> None:
    entry = json.loads(JsonFormatter().format(record(reason="a\nb", data=b"\xff")))
    assert entry["event"] == "event"
    assert entry["level"] == "warning"
    assert entry["reason"] == "a\nb"


def test_a_field_never_stands_in_for_the_event_itself() -> None:
    entry = json.loads(
        JsonFormatter().format(record(event="forged", time="never", level="x", logger="y", more=1))
    )
    assert (entry["event"], entry["level"], entry["logger"], entry["more"]) == (
        "event",
        "warning",
        "gossamer.x",
        1,
    )


@given(st.text(), st.text())
def test_one_event_is_one_line_without_control_characters(message: str, value: str) -> None:
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record(message.replace("%", ""), reason=value))
        assert line.isprintable()


def test_an_exception_stays_on_its_line() -> None:
    try:
        raise ValueError("first\nsecond\x1b[2J")
    except ValueError:
        info = sys.exc_info()
    for formatter in (TextFormatter(), JsonFormatter()):
        line = formatter.format(record(exc_info=info))
        assert line.isprintable()
        assert "first" in line


@pytest.fixture
def logging_restored() -> Any:
    root, ours = logging.getLogger(), logging.getLogger("gossamer")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], _, _ = before
    root.setLevel(before[1])
    ours.setLevel(before[2])


@pytest.mark.usefixtures("logging_restored")
def test_configured_loggers_write_to_standard_error(capsys: Any) -> None:
    configure("info", "text")
    logging.getLogger("gossamer.peer").info("told", extra={"fields": {"a": 1}})
    logging.getLogger("gossamer.peer").debug("untold")
    logging.getLogger("elsewhere").info("untold")
    logging.getLogger("elsewhere").warning("line\x1b[31m")
    err = capsys.readouterr().err
    assert [line.split(" ", 1)[1].strip() for line in err.splitlines()] == [
        "INFO  told a=1", r"WARNING line\x1b[31m"
    ]  # fmt: skip


def test_a_stream_that_was_closed_meanwhile_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    caplog.set_level(logging.DEBUG, "gossamer.peer")
    cut = RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
    unhandled(loop, {"message": "Fatal error on SSL protocol", "exception": cut})
    assert [(entry.levelname, entry.message) for entry in caplog.records] == [("DEBUG", "stream_cut")]
    caplog.clear()
    for context in (
        {"message": "Fatal error on SSL protocol", "exception": ValueError("a defect")},
        {"message": "Task exception was never retrieved", "exception": RuntimeError("a defect")},
    ):
        unhandled(loop, context)
    loop.close()
    assert [entry.levelname for entry in caplog.records] == ["ERROR", "ERROR"]

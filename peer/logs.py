"""The log: one line an event on standard error, as text for people or JSON for machines.

An event has a name and fields (`extra={"fields": {...}}`). Control characters are escaped, so nothing that came from
the network can forge a line, or write to the terminal of whoever reads it.

Invariant: whoever logs passes no secret; this module adds none.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any, Literal

log = logging.getLogger("gossamer.peer")


def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What an event loop tells that nobody caught (`set_exception_handler`).

    uvloop tells as a defect that the other side had closed a stream when TLS wanted to answer on it. That is an end
    like any other, and whoever uses the stream hears of it by `connection_lost`.
    """
    error = context.get("exception")
    told = str(context.get("message"))
    if isinstance(error, RuntimeError) and told.startswith("Fatal error on SSL protocol"):
        log.debug("stream_cut", extra={"fields": {"reason": str(error)}})
    else:
        loop.default_exception_handler(context)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _stamp(created: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created)) + f".{int(created % 1 * 1000):03d}Z"


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO  member_alive name=node-2 address=…`"""

    def format(self, record: logging.LogRecord) -> str:
        parts = [_stamp(record.created), f"{record.levelname:<5}", record.getMessage()]
        parts += [f"{key}={_quoted(str(value))}" for key, value in _fields(record).items()]
        line = " ".join(parts)
        if record.exc_info:
            line += " " + json.dumps(self.formatException(record.exc_info))
        return line if line.isprintable() else "".join(map(_escaped, line))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _quoted(text: str) -> str:
    plain = text.isascii() and text.isprintable() and not any(c in ' "=' for c in text)
    return text if plain and text else json.dumps(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry |= {key: value for key, value in _fields(record).items() if key not in entry}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(level: str, form: Literal["text", "json"]) -> None:
    """Send the `gossamer` loggers to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("gossamer").setLevel(level.upper())

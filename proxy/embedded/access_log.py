"""One JSON line per request on standard output, without ever making the loop wait.

Standard output may be a pipe nobody reads, and making it non-blocking would make it so for the whole process tree
that shares it. So lines are collected, joined about ten times a second, and a thread writes the batch with a
blocking write. When the reader is slower than the traffic, lines are dropped and counted.

Invariant: every string that comes from outside goes through JSON string escaping, so no request can forge a line.
"""

import json
import os
import queue
import threading
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote
from typing import Final

BATCH_BYTES_MAX: Final = 64 * 1024
BATCHES_MAX: Final = 64  # 4 MiB wait at most; beyond that lines are dropped
FLUSH_INTERVAL_S: Final = 0.1


class AccessLog:
    """Collects lines; `flush` hands what there is to the writing thread."""

    __slots__ = (
        "_lines",
        "_now_ms",
        "_now_text",
        "_queue",
        "_second",
        "_second_text",
        "_size",
        "_thread",
        "on_dropped",
    )

    def __init__(self, fd: int) -> None:
        self._lines: list[str] = []
        self._size = 0
        self.on_dropped: Callable[[int], None] = lambda lines: None
        self._queue: queue.Queue[tuple[int, bytes] | None] = queue.Queue(BATCHES_MAX)
        self._now_ms = self._second = -1
        self._now_text = ""
        self._second_text = ""
        self._thread = threading.Thread(
            target=_write_batches, args=(fd, self._queue), daemon=True, name="access log"
        )
        self._thread.start()

    def timestamp(self) -> str:
        """Now, as RFC 3339 in UTC with milliseconds. Formatted once a millisecond, down to the second once a second."""
        now_ms = int(time.time() * 1000)
        if now_ms != self._now_ms:
            self._now_ms = now_ms
            second, millisecond = divmod(now_ms, 1000)
            if second != self._second:
                self._second = second
                self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._now_text = f"{self._second_text}{millisecond:03d}Z"
        return self._now_text

    def write(self, line: str) -> None:
        """One line without its newline. The caller flushes every `FLUSH_INTERVAL_S`."""
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size >= BATCH_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        if not self._lines:
            return
        lines, self._lines, self._size = self._lines, [], 0
        lines.append("")
        try:
            self._queue.put_nowait((len(lines) - 1, "\n".join(lines).encode("ascii", "backslashreplace")))
        except queue.Full:
            self.on_dropped(len(lines) - 1)

    def close(self, timeout_s: float) -> None:
        """Write what there is, waiting at most `timeout_s` for a slow reader."""
        self.flush()
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)


def _write_batches(fd: int, batches: "queue.Queue[tuple[int, bytes] | None]") -> None:
    while (batch := batches.get()) is not None:
        view = memoryview(batch[1])
        try:
            while view:
                view = view[os.write(fd, view) :]
        except BlockingIOError:
            time.sleep(
                FLUSH_INTERVAL_S
            )  # someone made the shared descriptor non-blocking: this batch is lost
        except OSError:
            pass  # nobody reads any more; traffic goes on


def format_line(fields: dict[str, object]) -> str:
    """For rare lines (tunnels, refusals); requests have their own template in `format_request`."""
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":"))


def format_request(
    *,
    time_text: str,
    reporter: str,
    method: str,
    host: str,
    path: str,
    protocol: str,
    code: int,
    flags: str,
    duration_ms: float,
    bytes_in: int,
    bytes_out: int,
    source: str,
    destination: str,
    upstream: str,
    route: str,
    request_id: str,
    trace_id: str,
    policy: str,
) -> str:
    """The access-log line. A template with escaped strings: a third of the time `json.dumps` takes."""
    denied = f',"authz_policy":{quote(policy)}' if policy else ""
    return (
        f'{{"time":"{time_text}","reporter":"{reporter}","method":{quote(method)},"host":{quote(host)},"path":{quote(path)},'
        f'"protocol":"{protocol}","code":{code},"flags":"{flags}","duration_ms":{duration_ms:.3f},'
        f'"bytes_in":{bytes_in},"bytes_out":{bytes_out},"source":{quote(source)},"destination":{quote(destination)},'
        f'"upstream":{quote(upstream)},"route":{quote(route)},"request_id":{quote(request_id)},"trace_id":"{trace_id}"'
        f"{denied}}}"
    )

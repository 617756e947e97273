"""Requests of which no two are the same, for load tools that would send one again and again.

A data plane may remember what it has just read or decided, and a tool's endless repetition is what that suits best.
wrk runs a script that changes query, `x-request-id` and `traceparent` in each request, as most callers do; h2load
takes the paths of its calls from a list, in order, and begins anew at its end.

Invariant: what two files written here ask for differs, and no file asks for the same twice; so does no measurement,
but for an h2load that comes to the end of its list. A list is longer than what a data plane here remembers.
"""

import secrets
from pathlib import Path
from typing import Final

PATHS_MAX: Final = (
    8192  # of a list; decisions remembered are 1,024 for a worker, strings 256 for a connection
)
SHARED_FIELDS: Final = ("User-Agent: python-httpx/0.27", "Accept: */*", "Connection: keep-alive")
_NUMBERS_MAX: Final = 1 << 40  # of requests of one script

_SCRIPT: Final = """\
local run = "{run}"
local count = 0
request = function()
  count = count + 1
  local number = string.format("%010x", count)
  wrk.headers["X-Request-Id"] = run .. number
  wrk.headers["traceparent"] = "00-" .. run .. number .. "-b7ad6b7169203331-01"
  return wrk.format("GET", "/?q=" .. run .. number)
end
"""


def write_script(file: Path) -> Path:
    """A script for `wrk -s` with one thread."""
    file.write_text(_SCRIPT.format(run=secrets.token_hex(11)))
    return file


def write_paths(file: Path, url: str) -> Path:
    """A list for `h2load -i`: `url` with `PATHS_MAX` different endings of 32 digits."""
    file.write_text("".join(f"{url}{secrets.token_hex(16)}\n" for _ in range(PATHS_MAX)))
    return file

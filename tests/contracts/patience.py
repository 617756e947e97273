"""Waiting for what is to come, and no longer than it may take."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 10.0


async def until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for: {what}"
        await asyncio.sleep(0.02)
    return value

"""`gossamer demo`: a whole mesh on this machine, told step by step with what it measures.

Invariant: every step checks what it says; the first that does not hold ends the demo with exit code 1. No
process and no file is left behind unless `--keep` asks for it.
"""

import asyncio
import signal
import sys
from collections.abc import Coroutine

from rich.console import Console


async def _ended_by_signals(story: Coroutine[None, None, int]) -> int:
    """Whatever ends the demo early, its processes and files go first."""
    task = asyncio.ensure_future(story)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # also where a shell had SIGINT ignored
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def main(keep: bool = False) -> int:
    """Run the demo; the exit code."""
    from peer.demo.mesh import MeshError
    from peer.demo.story import Failed, tell

    console = Console(highlight=False)
    try:
        return asyncio.run(_ended_by_signals(tell(console, keep=keep)))
    except (Failed, MeshError) as error:
        console.print(f"[bold red]✗[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201  the shell's prompt goes on a line of its own
        return 130

"""`gossamer demo`: a whole mesh on this machine, told step by step with what it measures.

Invariant: every step checks what it says; the first that does not hold ends the demo with exit code 1. No
process and no file is left behind unless `--keep` asks for it.
"""

import asyncio
import sys

from rich.console import Console


def main(keep: bool = False) -> int:
    """Run the demo; the exit code."""
    from peer.demo.mesh import MeshError
    from peer.demo.story import Failed, tell

    console = Console(highlight=False)
    try:
        return asyncio.run(tell(console, keep=keep))
    except (Failed, MeshError) as error:
        console.print(f"[bold red]✗[/] {error}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201  the shell's prompt goes on a line of its own
        return 130

"""The dead man: undoes what a run did to this machine when the run cannot.

Started before anything is done, with the run's directory, the namespaces and mounts it will make (whether it comes to
making them or not). It waits for its standard input to end: when the runner closes it, or dies. Then it kills every
process whose environment carries the run's mark, whoever started it, takes down mounts and namespaces, and removes the
directory. Numbers of processes are used again; marks are not, so nobody else's process is touched.

Usage: deadman.py MARK DIRECTORY   (a JSON of {"down": [[command]…]} on the first line of standard input)

Invariant: it survives every signal of a terminal, and running it twice does no harm.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

MARK: Final = "GOSSAMER_CHAOS_RUN"
ENDS_S_MAX: Final = 5.0


def main(arguments: list[str]) -> None:
    mark, directory = arguments[0], Path(arguments[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    down = json.loads(sys.stdin.readline() or '{"down": []}')["down"]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    end_processes(mark)
    for words in down:
        subprocess.run(words, capture_output=True, check=False)
    shutil.rmtree(directory, ignore_errors=True)


def end_processes(mark: str) -> None:
    """Kill what the run started and what that started, and wait until they are gone."""
    until = time.monotonic() + ENDS_S_MAX
    while found := [pid for pid in _numbers() if marked(pid, mark)]:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself
        if time.monotonic() > until:
            return
        time.sleep(0.02)


def _numbers() -> list[int]:
    own = os.getpid()
    return [
        int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and int(each.name) != own
    ]


def marked(pid: int, mark: str) -> bool:
    """Whether that process carries the run's mark, and still runs."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False  # gone, or not ours to look at
    return state != "Z" and f"{MARK}={mark}".encode() in environment.split(b"\0")


if __name__ == "__main__":
    main(sys.argv[1:])

"""What is left of the first process of a peer that was upgraded: whoever watches over the peer knows this process.

Started as `python -I -S shell.py <pid> <lock file> <exit code>` in the place of the process that handed over. It passes
SIGTERM, SIGINT and SIGUSR2 on to the peer, takes in what its processes leave behind, and ends as the peer ends. When
the peer has handed over in its turn (it ended with `exit code`), the lock file says who has it now.

It imports little, for it stays as long as the peer, and keeps running while the release on disk is replaced.

Invariant: it ends when, and only when, no process of the peer is left that could serve.
"""

import ctypes
import os
import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
PR_SET_CHILD_SUBREAPER = 36


def main(pid: int, lock_file: str, handed_over: int) -> int:
    """The exit code of the last process."""
    # So that a process that its parent has handed over to becomes a child of this one. Where that cannot be had (it is
    # Linux's own), the end of the peer goes unseen only after a second upgrade.
    getattr(ctypes.CDLL(None), "prctl", lambda *_: -1)(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    peer = pid

    def pass_on(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(peer, number)
        except ProcessLookupError:
            pass  # it has just ended, which is about to be seen

    for number in SIGNALS:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    while True:
        try:
            ended, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return 1
        if ended != peer:
            continue  # a worker of an earlier process
        code = os.waitstatus_to_exitcode(status)
        if code != handed_over:
            return code if code >= 0 else 128 - code
        with open(lock_file, encoding="ascii") as file:
            peer = int(file.read())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))

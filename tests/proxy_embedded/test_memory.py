"""Freed memory is used again, and not fetched from the kernel each time."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from proxy.embedded.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = b"x" * 200_000  # the library raises its own threshold by what it sees freed
del first
before = pages()
for _ in range(50):
    pieces = [b"x" * 200_000 for _ in range(8)]
    del pieces
print(pages() - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the GNU C library")
def test_pieces_of_a_body_use_the_same_pages_again() -> None:
    # Fifty times eight pieces are 19,500 pages of 4 KiB, which the heap has after the first time.
    assert faults("keep") < 1_000
    assert faults("leave") > 10_000


def test_a_library_that_cannot_be_told_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.embedded import memory

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed_memory() is False

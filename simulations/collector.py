"""The garbage collector, and the pages of memory, under a large world.

Nodes that meet make entries of one another that stay to the end; next to nothing a world makes is ever garbage that
counting references does not free (the two ends of a stream, once it is over). Yet by default the collector looks at
what is new every 700 objects and at all that has lasted whenever that has grown by a quarter: a sixth of the time of
an idle mesh of 10,000.

A world of 10,000 nodes is 300 MB, of which each event needs a little here and a little there, mostly in a page whose
place the processor does not remember: a seventh of the time went into looking pages up. So what a world begins with is
moved to pages of 2 MiB, where the system can (Linux from 6.1 on).

Invariant: `relax` and `resume` are about the whole process; after `resume` it is as it was before.
"""

import ctypes
import gc
from pathlib import Path
from typing import Final

YOUNG_MAX: Final = 100_000  # new objects before the collector looks at them
_BEFORE: Final = gc.get_threshold()
_MAPS: Final = Path("/proc/self/maps")
_PAGE_BYTES: Final = 2 << 20
_MADV_HUGEPAGE: Final = 14  # asm-generic/mman-common.h
_MADV_COLLAPSE: Final = 25


def relax() -> None:
    """What was made so far stays to the end: it is not gone through any more, and what is new seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *_BEFORE[1:])
    enlarge()


def resume() -> None:
    """The world is over: collect it, and as much as before from here on."""
    gc.set_threshold(*_BEFORE)
    gc.unfreeze()
    gc.collect()


def enlarge() -> int:
    """Move this process's private memory to large pages; how many bytes now lie in regions of them. What the system
    refuses stays where it is, and nothing but the speed tells."""
    if not _MAPS.exists():
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    moved = 0
    for low, high in heaps(_MAPS.read_text()):
        start, size = ctypes.c_void_p(low), ctypes.c_size_t(high - low)
        if advise(start, size, _MADV_HUGEPAGE) == 0 and advise(start, size, _MADV_COLLAPSE) == 0:
            moved += high - low
    return moved


def heaps(maps: str) -> list[tuple[int, int]]:
    """(first byte, behind the last) of what Python and the C library have allocated, cut to whole large pages, of a
    table as proc(5) describes /proc/pid/maps."""
    found = []
    for line in maps.splitlines():
        where, rights, _, _, _, *name = line.split(maxsplit=5)
        if not rights.startswith("rw") or not rights.endswith("p") or (name and name[0] != "[heap]"):
            continue
        low, high = (int(end, 16) for end in where.split("-"))
        low, high = -(-low // _PAGE_BYTES) * _PAGE_BYTES, high // _PAGE_BYTES * _PAGE_BYTES
        if low < high:
            found.append((low, high))
    return found

"""What the C library does with memory that has been freed.

A body goes through a worker in pieces of some 100 KiB. The GNU library takes a piece of that size from the kernel and
gives it back at once, and the kernel fills every page of the next one with zeros: for bulk that costs as much as the
encryption. Told to keep freed memory it uses the same pages again.

Invariant: of what is free at the heap's end no more than `KEPT_BYTES_MAX` is kept.
"""

import ctypes
from typing import Final

KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
MAPPED_BYTES_MIN: Final = 4 * 1024 * 1024  # an allocation from here on is mapped by itself, and given back
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """For this process, from now on. False: its C library cannot be told (musl has no `mallopt`)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX))

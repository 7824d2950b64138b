"""How the C library's allocator treats large arrays: what a frame frees, the next one gets."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
LARGEST_INT = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let the allocator keep freed memory, where it is glibc's; elsewhere do nothing.

    By default every large array is mapped and unmapped, and the system clears its pages
    each time: a third of the CPU time of a batch of frames (measured).
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, LARGEST_INT)


def resident_bytes(trim: bool = True) -> int:
    """What the process holds, after the allocator has given back what it kept of freed memory, if it is to."""
    import ctypes

    if trim:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 100 << 20

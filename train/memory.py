"""Memory that tensors gave back stays with the process, to be used by the next ones.

glibc returns blocks of a few hundred kilobytes to the system when they are freed, and the next tensor of that size gets
them anew, zeroed page by page: a quarter of an evaluation's time went into that (`tests/benchmarks/bench_run.py`).
"""

import ctypes
import functools

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
KEPT = 256 << 20  # bytes free at the end of the heap before some are returned
LARGE = 32 << 20  # bytes of a tensor that is returned all the same


@functools.cache
def keep_freed() -> bool:
    """Keep what is freed, from now on and in this process; whether it does, which is so with glibc only."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([mallopt(TRIM_THRESHOLD, KEPT), mallopt(MMAP_THRESHOLD, LARGE)])

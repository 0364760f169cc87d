"""Memory of activations on the CPU: used again, not given back to the system and taken anew page by page.

By default the allocator of the GNU C library gives freed memory at the end of its heap back. A forward pass frees and
takes the same tens of megabytes in every block, and every page that comes back has to be zeroed by the system: with
ViT-S, 8 images a batch, 5,000 page faults an image and a seventh of the time, on two cores.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from `malloc.h`."""
KEPT = 2**30
"""Bytes that may lie free at the end of the heap: more than the activations of any sensible batch."""
LARGEST = 32 * 2**20
"""Bytes from which on memory is mapped for itself, and given back; the library takes no larger value."""

SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
"""Environment variables by which a user has settled this."""


@cache
def reuse_freed_memory() -> bool:
    """Have freed memory used again from now on, in the whole process; returns whether the C library does so.

    Left alone where the environment sets one of `SETTINGS`, or the library is another one.
    """
    if any(name in os.environ for name in SETTINGS):
        return False
    try:
        set_parameter = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(set_parameter(TRIM_THRESHOLD, KEPT)) and bool(set_parameter(MMAP_THRESHOLD, LARGEST))

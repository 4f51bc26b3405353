"""Process settings that make training on a CPU fast."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_memory() -> None:
    """Keep freed memory in the process instead of handing it back to the kernel after every operation.

    Training allocates and frees the same large tensors each step. Measured on the embedded backbone: 3,000 to 5,000 page
    faults a step without this, none with it. Call it before torch is imported. Without effect where the C library is not
    glibc.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            libc.mallopt(_MMAP_MAX, 0)
            libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def release_memory() -> None:
    """Hand freed memory back to the kernel after all, so that what a process holds from now on can be measured."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)

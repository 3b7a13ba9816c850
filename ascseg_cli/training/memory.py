"""What becomes of memory that is freed on the CPU."""

from __future__ import annotations

import ctypes
import functools
import os

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of GNU's mallopt, malloc.h


@functools.cache
def keep_freed() -> None:
    """Let the process keep freed memory for the next step instead of handing it back to the system.

    A training step takes and frees some hundred images' worth of tensors. GNU's library hands the large ones back,
    and the system fills each new page with zeros: 50,000 to 120,000 of them a step of four images, up to a tenth
    of its CPU time. Nothing is changed where the user has set how it goes, or where the library is another.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another system or library
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)  # the largest number: never

"""What the C library does with the memory of tensors that are freed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""How glibc's `mallopt` calls its settings (malloc.h)."""

MOST = 2**31 - 1


def keep_freed() -> None:
    """Lets this process keep the memory of tensors that are freed, for the next ones.

    glibc gives each large one back to the kernel, which hands it out page by page and zeroed: a fifth of a search's
    time on a CPU.  It holds for the whole process, which is why the command line does it and no function of the
    package.  Where the C library is another one, nothing changes.
    """
    if setting := _of_glibc("mallopt"):
        setting(MMAP_MAX, 0)
        setting(TRIM_THRESHOLD, MOST)


def give_back_freed() -> None:
    """Gives the kernel what is freed, so that what this process takes is what it holds."""
    if trim := _of_glibc("malloc_trim"):
        trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function

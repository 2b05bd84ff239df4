"""How this process allocates."""

import ctypes
import sys

# of malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GROWS_BY = 256 << 20  # bytes


def keep_freed_memory() -> None:
    """Large tensors are made of memory that earlier ones have freed, not of new pages.

    glibc gives each allocation of more than 32 MiB back to the system when it is freed, and the
    next one's pages are zeroed at their first use: on a CPU that can take as long as a training
    step's arithmetic. The process keeps its largest size until it ends, and that is larger by
    about a quarter. Without glibc nothing changes.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, -1)
        set_option(_M_TOP_PAD, _GROWS_BY)

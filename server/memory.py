"""Gives memory that nothing uses back to the operating system.

Knows: the C library. Must not know: what the memory was used for.
"""

from __future__ import annotations

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Give back the free memory of the C library, which keeps it for what comes next; most of it was SQLite's.

    Only glibc does so when told (malloc_trim(3)). It takes about a millisecond for ten megabytes.
    """
    if _trim:
        _trim(0)

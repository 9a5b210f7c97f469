"""Keep what a forked child writes off the pages that it shares with its parent.

A child copies every page that it writes to. The interpreter's allocator puts new objects into the
gaps between old ones, one here, one there, and each costs a copied page. So the gaps are filled
once, before the first fork: what a child makes then stands together on pages of its own.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys

_SIZE_CLASS = re.compile(rb"^ +\d+ +(\d+) +\d+ +\d+ +(\d+)$", re.MULTILINE)
_BYTES_HEADER = sys.getsizeof(b"")
_ARENA_MAX = -8  # M_ARENA_MAX of glibc's mallopt
_filling: list[bytes] = []


def settle() -> None:
    """Once, when everything that children inherit is there; they must be forked from here on."""
    # A thread of a child gets no heap of its own: that would be pages more.
    ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
    gc.collect()
    gc.disable()
    gc.freeze()
    _fill_gaps()


def _fill_gaps() -> None:
    for size, free in _gaps():
        if size > _BYTES_HEADER:
            _filling.extend(bytes(size - _BYTES_HEADER) for _ in range(free))


def _gaps() -> list[tuple[int, int]]:
    """(size, number of free blocks) of each of the allocator's size classes."""
    reader, writer = os.pipe()
    kept = os.dup(2)
    try:
        os.dup2(writer, 2)
        sys._debugmallocstats()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(writer)
    with open(reader, "rb") as file:
        return [(int(size), int(free)) for size, free in _SIZE_CLASS.findall(file.read())]

"""Linux inotify through libc: which directory entries changed, without polling or a thread.

watchfiles wakes up every millisecond to look (2 % of a core for one idle directory at the latency
that is wanted here) and adds watches to new directories on its own time, so that files written
before are missed. Here a directory is watched first and scanned after, which cannot miss one.

Source: inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple, Self

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
OVERFLOW = 0x4000
IGNORED = 0x8000
ONLY_DIRECTORY = 0x01000000
IS_DIRECTORY = 0x40000000

READ_BYTES = 1 << 16
MAX_BUFFERED_BYTES = 16 << 20
"""Beyond this the kernel's own queue fills and says OVERFLOW: memory stays bounded."""

_HEAD = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Notice(NamedTuple):
    """Something happened to ``name`` (empty: the directory itself) in the watched directory
    ``watch``; ``mask`` has the bits above. Undecodable names carry surrogates."""

    watch: int
    mask: int
    name: str


class Inotify:
    """Notices of the watched directories, read on the running loop.

    ``add`` and ``remove`` may be called from a worker thread. Open it on the loop, close it there.

    Attributes:
        ready: set when there is something to ``take``.
    """

    def __init__(self) -> None:
        """``OSError``: no more inotify instances (``fs.inotify.max_user_instances``)."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._loop = asyncio.get_running_loop()
        self._buffers: list[tuple[float, bytes]] = []
        self._size = 0
        self._reading = False
        self.ready = asyncio.Event()
        self._resume()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pause()
        os.close(self._fd)

    def add(self, path: bytes, mask: int) -> int:
        """Watch a directory; the same one again gives the same number.

        ``OSError``: it is gone or may not be read, or there are no more watches (``ENOSPC``).
        """
        return _checked(_libc.inotify_add_watch(self._fd, path, mask | ONLY_DIRECTORY))

    def remove(self, watch: int) -> None:
        """End a watch; one that has ended by itself is no error."""
        _libc.inotify_rm_watch(self._fd, watch)

    def take(self) -> list[tuple[float, bytes]]:
        """What was read since the last call, for ``notices``, each with its loop time (s)."""
        taken, self._buffers = self._buffers, []
        self._size = 0
        self.ready.clear()
        self._resume()
        return taken

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        self._buffers.append((self._loop.time(), data))
        self._size += len(data)
        self.ready.set()
        if self._size > MAX_BUFFERED_BYTES:
            self._pause()

    def _resume(self) -> None:
        if not self._reading:
            self._loop.add_reader(self._fd, self._on_readable)
            self._reading = True

    def _pause(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._fd)
            self._reading = False


def notices(data: bytes) -> Iterator[Notice]:
    """Decode one piece of what ``Inotify.take`` gave."""
    position, unpack, head = 0, _HEAD.unpack_from, _HEAD.size
    while position < len(data):
        watch, mask, _, length = unpack(data, position)
        position += head
        name = data[position : position + length].rstrip(b"\0")
        position += length
        yield Notice(watch, mask, name.decode("utf-8", "surrogateescape"))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result

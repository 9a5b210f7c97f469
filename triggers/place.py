"""Places in files: who a file is, how far it was read, where its lines end."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from glob import escape, iglob

HEAD_BYTES = 256
"""How much of its start tells a file from another with the same inode."""
LOOK_BACK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file was read: a row of the source's table."""

    path: str
    inode: int
    offset: int
    head: str
    head_bytes: int

    def row(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))  # ASCII, surrogates escaped


def place_at(path: str, descriptor: int, offset: int, inode: int | None = None) -> Place:
    """The place ``offset`` in an open file; ``inode``: of the file that this is a copy of."""
    size = min(HEAD_BYTES, offset)
    number = os.fstat(descriptor).st_ino if inode is None else inode
    return Place(path, number, offset, head_of(descriptor, size), size)


def head_of(descriptor: int, size: int) -> str:
    """Hash of the first ``size`` bytes."""
    data = os.pread(descriptor, size, 0) if size else b""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]


def last_line_start(descriptor: int, size: int) -> int:
    """The end of the last complete line: a line that is being written is news as a whole."""
    start = max(0, size - LOOK_BACK_BYTES)
    data = os.pread(descriptor, size - start, start)
    end = data.rfind(b"\n")
    return start + end + 1 if end >= 0 else (0 if start == 0 else size)


def character_end(data: bytes) -> int:
    """Where to cut a line that is too long, so that no UTF-8 character is split."""
    for back in range(1, 4):
        if data[-back] & 0xC0 == 0xC0:
            return len(data) - back
        if data[-back] < 0x80:
            break
    return len(data)


def siblings(path: str) -> Iterable[str]:
    """Names that rotation gives: the file's own, and those that start with it."""
    return sorted(iglob(escape(path) + "*"))


def opened(path: str) -> int | None:
    """A descriptor for a regular file, or ``None`` if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None

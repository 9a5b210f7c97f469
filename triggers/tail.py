"""Follows text files: lines that are complete, each once, through rotation and restarts.

A file is known by inode and by the hash of its first bytes, not by its name. Rotation by rename:
the old file is read to its end under whatever name, the new one from its start. Rotation by copy
and truncation: what was not read before the truncation is read from the copy.

Runs in worker threads, one step at a time; nothing here waits or emits.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from glob import escape, iglob

HEAD_BYTES = 256
"""How much of its start tells a file from another with the same inode."""
LOOK_BACK_BYTES = 1 << 16
MAX_FILES = 10_000
MAX_BATCHES = 200
ROTATED_S = 5.0
"""A file that lost its name is given up after it was quiet for so long."""
COPY_S = 1.0
"""A file that may still be written as the copy of a rotated one is left alone for so long."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How lines are put together.

    Attributes:
        lines, size_bytes: of one batch; a line longer than ``size_bytes`` comes in pieces.
        flush_s: a last line without its line break is taken after so long; 0 = never.
    """

    lines: int = 1000
    size_bytes: int = 65536
    flush_s: float = 5.0


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


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines of one file, from ``begin`` up to, and not with, ``place.offset``."""

    lines: tuple[str, ...]
    begin: int
    place: Place


@dataclass(slots=True)
class Step:
    """What one look brought.

    Attributes:
        rows: places to store, by key; ``None`` removes one.
        more: there is more to read at once.
        wait_s: look again after so long, even if nobody tells of a change.
    """

    batches: list[Batch] = field(default_factory=list)
    rows: dict[str, str | None] = field(default_factory=dict)
    more: bool = False
    wait_s: float = 0.0


@dataclass(slots=True, eq=False)
class _File:
    """An open file; ``named`` tells whether the pattern still finds it."""

    descriptor: int
    place: Place
    named: bool = True
    partial: bool = False


class Tail:
    """All files that match ``pattern``; close it at the end.

    Args:
        rows: the stored places; ``None`` for a new source, to which every file is new.
        from_start: where a new source starts in the files that it finds.

    Attributes:
        errors: files that cannot be read, with the reason.
    """

    def __init__(
        self, pattern: str, limits: Limits, rows: Mapping[str, str] | None, *, from_start: bool
    ) -> None:
        self._pattern = pattern
        self._limits = limits
        self._from_start = from_start
        self._files: dict[int, _File] = {}
        self._first = rows is None
        self._lost = {int(key): Place(**json.loads(text)) for key, text in (rows or {}).items()}
        self.errors: dict[str, str] = {}

    def close(self) -> None:
        for file in self._files.values():
            os.close(file.descriptor)
        self._files.clear()

    def __len__(self) -> int:
        return len(self._files)

    def directories(self) -> set[str]:
        """Where changes of the files, and new files, show."""
        found = {os.path.dirname(file.place.path) for file in self._files.values() if file.named}
        fixed = self._pattern
        while fixed != escape(fixed):
            fixed = os.path.dirname(fixed)
        found.add(fixed if os.path.isdir(fixed) else os.path.dirname(fixed))
        return found

    def step(self, *, find: bool) -> Step:
        """Read what is new; with ``find`` look for files first."""
        step = Step()
        if find or self._first:
            self._find(step)
        wait_s = self._limits.flush_s or ROTATED_S
        for inode, file in tuple(self._files.items()):
            if len(step.batches) >= MAX_BATCHES:
                step.more = True
                break
            try:
                step.more |= self._read(file, step)
            except OSError as error:
                self.errors[file.place.path] = error.strerror or str(error)
                continue
            if file.partial:
                wait_s = min(wait_s, max(0.05, self._limits.flush_s / 4))
            if not file.named:
                wait_s = min(wait_s, ROTATED_S / 4)
                self._give_up(inode, file, step)
        step.wait_s = wait_s
        return step

    # Finding files.

    def _find(self, step: Step) -> None:
        for file in self._files.values():
            file.named = False
        self.errors.clear()
        for path in self._matches():
            try:
                self._found(path, step)
            except FileNotFoundError:
                continue  # it went away between listing and opening
            except OSError as error:
                self.errors[path] = error.strerror or str(error)
        for inode, place in tuple(self._lost.items()):
            self._search_rotated(inode, place, step)
        self._first = False

    def _matches(self) -> Iterator[str]:
        for count, path in enumerate(sorted(iglob(self._pattern, recursive=True))):
            if count >= MAX_FILES:
                self.errors[path] = f"more than {MAX_FILES} files match; the others are left out"
                return
            yield path

    def _found(self, path: str, step: Step) -> None:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return
        known = self._files.get(status.st_ino)
        if known is not None:
            known.named = True
            if known.place.path != path:
                self._move(known, Place(**{**asdict(known.place), "path": path}), step)
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            place = self._start(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if place is None:
            os.close(descriptor)
            return
        file = self._files[place.inode] = _File(descriptor, place)
        self._move(file, place, step)

    def _start(self, path: str, descriptor: int) -> Place | None:
        """Where to start in a file that was not open; ``None``: leave it alone for now."""
        status = os.fstat(descriptor)
        lost = self._lost.pop(status.st_ino, None)
        if lost is not None and _head(descriptor, lost.head_bytes) == lost.head:
            return Place(path, lost.inode, lost.offset, lost.head, lost.head_bytes)
        offset = 0
        if self._first and not self._from_start:
            offset = _last_line_start(descriptor, status.st_size)
        elif not self._first and self._copies(path, descriptor):
            if time.time() - status.st_mtime < COPY_S:
                return None
            offset = status.st_size
        return _place(path, descriptor, offset)

    def _copies(self, path: str, descriptor: int) -> bool:
        """Whether this is a copy that rotation makes (``app.log.1``) of a file that we follow."""
        return any(
            path != file.place.path
            and path.startswith(file.place.path)
            and file.place.head_bytes > 0
            and _head(descriptor, file.place.head_bytes) == file.place.head
            for file in self._files.values()
        )

    def _search_rotated(self, inode: int, place: Place, step: Step) -> None:
        """A stored file that the pattern does not find: perhaps it was renamed meanwhile."""
        del self._lost[inode]
        for path in _siblings(place.path):
            descriptor = _opened(path)
            if descriptor is None:
                continue
            same = os.fstat(descriptor).st_ino == inode
            if same and _head(descriptor, place.head_bytes) == place.head:
                self._files[inode] = _File(descriptor, place, named=False)
                return
            os.close(descriptor)
        step.rows[str(inode)] = None

    def _give_up(self, inode: int, file: _File, step: Step) -> None:
        status = os.fstat(file.descriptor)
        quiet = time.time() - status.st_mtime > ROTATED_S
        if file.place.offset < status.st_size or not quiet:
            return
        os.close(file.descriptor)
        del self._files[inode]
        step.rows[str(inode)] = None

    # Reading.

    def _read(self, file: _File, step: Step) -> bool:
        """Take one round of lines; whether there is more."""
        status = os.fstat(file.descriptor)
        place = file.place
        if status.st_size < place.offset or (
            status.st_size > place.offset and _head(file.descriptor, place.head_bytes) != place.head
        ):
            self._read_copy(file, step)
            place = _place(place.path, file.descriptor, 0)
            self._move(file, place, step)
        size = os.fstat(file.descriptor).st_size
        if size <= place.offset:
            file.partial = False
            return False
        quiet_s = time.time() - status.st_mtime
        patience_s = self._limits.flush_s if file.named else ROTATED_S / 2
        flush = patience_s > 0 and quiet_s >= patience_s
        return self._take(file, file.descriptor, step, flush=flush)

    def _take(self, file: _File, descriptor: int, step: Step, *, flush: bool) -> bool:
        """One batch from ``descriptor`` at the file's place. ``flush``: the last line too, though
        its line break is missing."""
        data = os.pread(descriptor, self._limits.size_bytes, file.place.offset)
        end = data.rfind(b"\n") + 1
        full = len(data) == self._limits.size_bytes
        if end == 0 and full:
            end = _character_end(data)
        elif flush and not full:
            end = len(data)
        file.partial = end < len(data) and not full
        if end == 0:
            return False
        raw = data[:end].split(b"\n")
        if not raw[-1]:
            raw.pop()
        cut = len(raw) > self._limits.lines
        if cut:
            raw = raw[: self._limits.lines]
            end = sum(len(line) + 1 for line in raw)
        begin = file.place.offset
        place = _place(file.place.path, descriptor, begin + end, inode=file.place.inode)
        lines = tuple(line.removesuffix(b"\r").decode(errors="replace") for line in raw)
        step.batches.append(Batch(lines, begin, place))
        self._move(file, place, step)
        return full or cut

    def _read_copy(self, file: _File, step: Step) -> None:
        """Before a truncated file is read from its start: what only its copy still has."""
        place = file.place
        for path in _siblings(place.path):
            descriptor = _opened(path)
            if descriptor is None:
                continue
            try:
                status = os.fstat(descriptor)
                if (
                    place.head_bytes > 0
                    and status.st_ino != place.inode
                    and status.st_size >= place.offset
                    and _head(descriptor, place.head_bytes) == place.head
                ):
                    while self._take(file, descriptor, step, flush=True):
                        pass
                    copy = _place(path, descriptor, status.st_size)
                    self._lost[copy.inode] = copy  # if the pattern finds it: read already
                    step.rows[str(copy.inode)] = copy.row()
                    return
            finally:
                os.close(descriptor)

    def _move(self, file: _File, place: Place, step: Step) -> None:
        file.place = place
        step.rows[str(place.inode)] = place.row()


def _place(path: str, descriptor: int, offset: int, inode: int | None = None) -> Place:
    size = min(HEAD_BYTES, offset)
    number = os.fstat(descriptor).st_ino if inode is None else inode
    return Place(path, number, offset, _head(descriptor, size), size)


def _head(descriptor: int, size: int) -> str:
    data = os.pread(descriptor, size, 0) if size else b""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]


def _last_line_start(descriptor: int, size: int) -> int:
    """The end of the last complete line: a line that is being written is news as a whole."""
    start = max(0, size - LOOK_BACK_BYTES)
    data = os.pread(descriptor, size - start, start)
    end = data.rfind(b"\n")
    return start + end + 1 if end >= 0 else (0 if start == 0 else size)


def _character_end(data: bytes) -> int:
    """Where to cut a line that is too long, so that no UTF-8 character is split."""
    for back in range(1, 4):
        if data[-back] & 0xC0 == 0xC0:
            return len(data) - back
        if data[-back] < 0x80:
            break
    return len(data)


def _siblings(path: str) -> Iterable[str]:
    """Names that rotation gives: the file's own, and those that start with it."""
    return sorted(iglob(escape(path) + "*"))


def _opened(path: str) -> int | None:
    """A descriptor for a regular file, or ``None`` if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None

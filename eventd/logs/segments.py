"""Log lines on disk: one SQLite file per day or size, so that retention drops whole files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import apsw

from eventd.clock import Clock
from eventd.config import LogSettings
from eventd.logs import grams
from eventd.metrics import Metrics
from eventd.store.files import remove_files
from eventd.store.sqlite import blocks
from eventd.store.sqlite.blocks import Entry, Search
from eventd.store.sqlite.connection import open_reading
from eventd.store.sqlite.disk import Disk
from eventd.store.sqlite.writer import Writer

SEGMENTS = 12
"""So many of the largest size fit into the bytes that lines may take."""

MIN_SEGMENT_BYTES = 4 << 20
MAX_SEGMENT_BYTES = 256 << 20
DAY_MS = 24 * 3600 * 1000


class Segments:
    """The files of one directory, named by the position of their first line; the last is written.

    Use it from one task; searches may run beside it.
    """

    def __init__(
        self, root: Path, disk: Disk, settings: LogSettings, metrics: Metrics, clock: Clock
    ) -> None:
        self._root = root
        self._disk = disk
        self._keep_ms = settings.keep_hours * 3_600_000
        self._keep_bytes = settings.keep_bytes * 3 // 4  # records take the rest
        self._segment_bytes = min(
            max(self._keep_bytes // SEGMENTS, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES
        )
        self._metrics = metrics
        self._clock = clock
        self._writer: Writer | None = None
        self._day = 0
        self.next_seq = 1

    async def open(self) -> None:
        """Go on with the last segment, or begin the first."""
        paths = self._paths()
        path = paths[-1] if paths else self._path(1)
        await self._begin(path)
        assert self._writer is not None  # _begin has set it
        self.next_seq = max(int(path.stem), await self._writer.call(blocks.next_seq))

    async def append(self, entries: Sequence[Entry]) -> None:
        """Store ``entries`` at ``next_seq``. ``StoreFailed``: none of them is stored."""
        if self._writer is None or self._is_complete():
            await self._roll()
        assert self._writer is not None  # _roll has set it
        write = partial(_append, first_seq=self.next_seq, entries=entries)
        self.next_seq = await self._writer.call(write, intake=True)

    async def index(self) -> bool:
        """Pack and index one block; whether there was one to do."""
        return self._writer is not None and await self._writer.call(grams.pack_and_index)

    async def prune(self) -> None:
        """Drop whole segments that are too old or too much."""
        await asyncio.to_thread(self._prune)

    async def aclose(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.aclose()

    def search(self, wanted: Search, text: str) -> list[tuple[int, Entry]]:
        """(position, entry) over all segments, in the order asked for. Blocks: in a thread."""
        found: list[tuple[int, Entry]] = []
        paths = self._paths()
        if wanted.newest_first:
            paths.reverse()
        for path in paths:
            left = wanted.limit - len(found)
            if left <= 0:
                break
            try:
                connection = open_reading(path)
            except apsw.CantOpenError:
                continue  # retention took it meanwhile
            try:
                found += _search(connection, replace(wanted, limit=left), text)
            finally:
                connection.close()
        return found

    def _path(self, first_seq: int) -> Path:
        return self._root / f"{first_seq:016d}.db"

    def _paths(self) -> list[Path]:
        return sorted(path for path in self._root.glob("*.db") if path.stem.isdigit())

    def _is_complete(self) -> bool:
        assert self._writer is not None  # asked for the open one
        if self._clock.time_ms() // DAY_MS != self._day and self.next_seq > int(
            self._writer.path.stem
        ):
            return True
        return _size(self._writer.path) >= self._segment_bytes

    async def _roll(self) -> None:
        while await self.index():  # nobody would come back to it
            pass
        await self.aclose()
        await self._begin(self._path(self.next_seq))

    async def _begin(self, path: Path) -> None:
        self._writer = await Writer.open(
            path, "logs", synchronous="NORMAL", disk=self._disk, metrics=self._metrics
        )
        self._day = self._clock.time_ms() // DAY_MS

    def _prune(self) -> None:
        closed = self._paths()[:-1]
        total = sum(_size(path) for path in self._paths())
        oldest_ms = self._clock.time_ms() - self._keep_ms
        for path in closed:
            size = _size(path)
            if total > self._keep_bytes or path.stat().st_mtime * 1000 < oldest_ms:
                remove_files(_files(path))
                total -= size


def _files(path: Path) -> list[Path]:
    return [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path) if file.exists())


def _append(connection: apsw.Connection, *, first_seq: int, entries: Sequence[Entry]) -> int:
    return blocks.append(connection, first_seq, entries)


def _search(connection: apsw.Connection, wanted: Search, text: str) -> list[tuple[int, Entry]]:
    if not text:
        return blocks.search(connection, wanted)
    found, indexed_to = grams.candidates(connection, text)
    return blocks.search(
        connection, wanted, candidates=found, candidates_to=indexed_to, keep=grams.holds(text)
    )

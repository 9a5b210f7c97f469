"""Records of finished attempts in ``history.db``: a buffer on the loop, blocks on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import fields
from functools import partial
from operator import attrgetter

import apsw

from eventd.clock import Clock
from eventd.config import LogSettings
from eventd.metrics import Metrics
from eventd.model.invocation import InvocationRecord
from eventd.store.interface import StoreFailed
from eventd.store.sqlite import blocks
from eventd.store.sqlite.blocks import Search
from eventd.store.sqlite.connection import open_reading
from eventd.store.sqlite.writer import CallJob, Writer

FLUSH_S = 0.2
MAX_UNSAVED = 100_000
PRUNE_EVERY_S = 60.0

SHARE_OF_BYTES = 4
"""Records may take this part (one in ...) of what logs and records may take together."""

OLD = "DELETE FROM block WHERE last_ms < ?"
OLDEST = "DELETE FROM block WHERE id IN (SELECT id FROM block ORDER BY id LIMIT ?)"

_FIRST = ("started_ms", "service", "function", "request_id")
_NAMES = _FIRST + tuple(
    field.name for field in fields(InvocationRecord) if field.name not in _FIRST
)
_as_entry: Callable[[InvocationRecord], blocks.Entry] = attrgetter(*_NAMES)


def _append(
    first_seq: int, records: Sequence[InvocationRecord], connection: apsw.Connection
) -> int:
    following = blocks.append(connection, first_seq, [_as_entry(record) for record in records])
    while blocks.pack(connection, read=False) is not None:
        pass
    return following


class SqliteHistory:
    """``History`` on ``history.db``."""

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        metrics: Metrics,
        settings: LogSettings,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._unsaved: deque[InvocationRecord] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._saving: asyncio.Future[int] | None = None
        self._next_seq = 1
        self._listeners: list[Callable[[], None]] = []

    async def load(self) -> None:
        """Find the end of what is stored. Once, before anything else."""
        self._next_seq = await self._writer.call(blocks.next_seq)

    def add(self, record: InvocationRecord) -> None:
        self._unsaved.append(record)
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self._on_timer)
        if len(self._unsaved) > MAX_UNSAVED:
            self._unsaved.popleft()
            self._metrics.records_dropped += 1

    async def find(
        self,
        *,
        service: str = "",
        function: str = "",
        request_id: str = "",
        since_ms: int = 0,
        limit: int = 100,
    ) -> AsyncIterator[InvocationRecord]:
        wanted = Search(
            service=service,
            function=function,
            request_id=request_id,
            since_ms=since_ms,
            limit=limit,
        )
        for _, record in await self.read(wanted):
            yield record

    async def read(self, wanted: Search) -> Sequence[tuple[int, InvocationRecord]]:
        """Records with their position, by the time they started; everything added is seen."""
        await self.flush()
        return await asyncio.to_thread(self._read, wanted)

    def on_stored(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` on the loop whenever records were stored; returns the undo."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @property
    def next_seq(self) -> int:
        """The position of the next record; those before it are stored."""
        return self._next_seq

    async def flush(self) -> None:
        """Raises ``StoreFailed`` if they could not be stored; those are counted as dropped."""
        while self._unsaved or self._saving is not None:
            if self._saving is None:
                self._save(len(self._unsaved))
            if self._saving is not None:
                await asyncio.shield(self._saving)

    async def prune_forever(self) -> None:
        """Keep to the limits of time and size, until cancelled."""
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            try:
                await self._writer.call(self._prune)
            except StoreFailed:
                pass  # the disk's listeners know; a full disk may have space next time

    async def aclose(self) -> None:
        """Store what was added. What the disk refuses is counted as dropped."""
        try:
            await self.flush()
        except StoreFailed:
            pass  # counted; the disk's listeners know
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        """Save what came; of a crowd only full blocks, so that they need no packing: the rest
        comes with the next ones."""
        self._timer = None
        count = len(self._unsaved)
        if self._saving is None and count:
            self._save(count - count % blocks.ENTRIES_PER_BLOCK or count)

    def _save(self, count: int) -> None:
        take = self._unsaved.popleft
        records = [take() for _ in range(count)]
        job = CallJob(partial(_append, self._next_seq, records), self._saved, intake=True)
        job.future.add_done_callback(lambda done: self._after_save(done, len(records)))
        self._saving = job.future
        try:
            self._writer.submit(job)
        except StoreFailed as failure:
            job.failed(failure)

    def _saved(self, next_seq: int) -> None:
        self._next_seq = next_seq
        for listener in tuple(self._listeners):
            listener()

    def _after_save(self, done: asyncio.Future[int], count: int) -> None:
        self._saving = None
        if done.exception() is not None:
            self._metrics.records_dropped += count
        elif self._unsaved and self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self._on_timer)

    def _read(self, wanted: Search) -> list[tuple[int, InvocationRecord]]:
        connection = open_reading(self._writer.path)
        try:
            found = blocks.search(connection, wanted)
        finally:
            connection.close()
        return [
            (seq, InvocationRecord(**dict(zip(_NAMES, entry, strict=True)))) for seq, entry in found
        ]

    def _prune(self, connection: apsw.Connection) -> None:
        now_ms = self._clock.time_ms()
        connection.execute(OLD, (now_ms - self._settings.keep_hours * 3_600_000,))
        allowed = self._settings.keep_bytes // SHARE_OF_BYTES
        page = connection.pragma("page_size")
        used = connection.pragma("page_count") - connection.pragma("freelist_count")
        excess = used * page - allowed
        if excess > 0:
            count = connection.execute("SELECT count(*) FROM block").get
            connection.execute(OLDEST, (count * excess // (used * page) + 1,))

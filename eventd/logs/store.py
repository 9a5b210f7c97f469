"""The log store: takes lines from instances, finds them again, follows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from eventd.clock import Clock
from eventd.config import LogSettings
from eventd.logs.render import LiveRenderer, merged
from eventd.logs.segments import Segments
from eventd.metrics import Metrics
from eventd.model.invocation import InvocationRecord
from eventd.model.snapshot import FunctionSnapshot
from eventd.store.interface import LogLine, StoreFailed
from eventd.store.opened import Store
from eventd.store.sqlite.blocks import END_OF_TIME, Entry, Search
from eventd.store.sqlite.history import SqliteHistory

FLUSH_S = 0.2
MAX_BUFFER_CHARACTERS = 16 << 20
MAX_LINE_BYTES = 32 << 10
PRUNE_EVERY_S = 60.0
FOLLOW_LIMIT = 1000
"""Lines and records that a follower reads at a time."""

Written = tuple[FunctionSnapshot, str, str, int, str]


class LogStore:
    """A ``LogSink`` with memory. ``write`` only appends to a list; a task brings it to disk."""

    def __init__(self, segments: Segments, history: SqliteHistory, metrics: Metrics) -> None:
        self._segments = segments
        self._history = history
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._buffer: list[Written] = []
        self._characters = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._saved = asyncio.Condition()
        self._taken = 0  # how often the buffer was taken, and how often that ended
        self._ended = 0
        self._stopping = False
        self._closed = False
        self._stored = asyncio.Event()  # set and replaced when something new is on disk

    # -- taking -----------------------------------------------------------------------------------

    def write(
        self,
        function: FunctionSnapshot,
        instance_id: str,
        request_id: str,
        time_ms: int,
        text: str,
    ) -> None:
        """See ``LogSink``. Beyond 16 M characters that are not on disk yet lines are dropped and
        counted."""
        self._characters += len(text)
        if self._characters > MAX_BUFFER_CHARACTERS:
            self._characters -= len(text)
            self._metrics.log_lines_dropped += text.count("\n") + 1
            return
        self._buffer.append((function, instance_id, request_id, time_ms, text))
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self._wake.set)

    async def flush(self) -> None:
        """Return when everything written before is on disk, or dropped by a disk that fails.
        ``StoreFailed``: the log store was closed before."""
        async with self._saved:
            goal = self._taken + 1 if self._buffer else self._taken
            self._wake.set()
            await self._saved.wait_for(lambda: self._ended >= goal or self._closed)
        if self._ended < goal:
            raise StoreFailed("the log store is closed")

    async def save_until_stopped(self) -> None:
        """Bring to disk what was written, index it when there is time, drop what is too old; until
        ``stop``. Not to be cancelled: what it just took would be lost."""
        try:
            prune_at = self._loop.time() + PRUNE_EVERY_S
            while not self._stopping:
                try:
                    await asyncio.wait_for(self._wake.wait(), PRUNE_EVERY_S)
                except TimeoutError:
                    pass  # nothing was written; time to look at what is old
                await self._save()
                await self._index()
                if self._loop.time() >= prune_at:
                    await self._segments.prune()
                    prune_at = self._loop.time() + PRUNE_EVERY_S
            await self._save()
        finally:
            self._closed = True
            async with self._saved:
                self._saved.notify_all()

    def stop(self) -> None:
        """End ``save_until_stopped`` after it saved what was written."""
        self._stopping = True
        self._wake.set()

    # -- reading ----------------------------------------------------------------------------------

    async def query(
        self,
        *,
        service: str = "",
        function: str = "",
        request_id: str = "",
        text: str = "",
        since_ms: int = 0,
        until_ms: int = 0,
        limit: int = 100,
    ) -> Sequence[LogLine]:
        """The newest ``limit`` lines that match, oldest first, with FC's own lines among them.

        Args:
            text: a part of the line, in any letter case; then only functions' lines are found.
            since_ms, until_ms: wall clock in ms, both ends included; 0 = open.
        """
        wanted = Search(
            service=service,
            function=function,
            request_id=request_id,
            since_ms=since_ms,
            until_ms=until_ms or END_OF_TIME,
            limit=limit,
        )
        records: Sequence[InvocationRecord] = ()
        if not text:
            records = [record for _, record in await self._history.read(wanted)]
        lines = await self.lines(wanted, text)
        return merged(lines, records)[-limit:]

    async def lines(self, wanted: Search, text: str = "") -> list[LogLine]:
        """Functions' lines alone, in the order that ``wanted`` asks for."""
        await self.flush()
        found = await asyncio.to_thread(self._segments.search, wanted, text)
        return [_as_line(seq, entry) for seq, entry in found]

    async def follow(
        self,
        *,
        service: str = "",
        function: str = "",
        request_id: str = "",
        text: str = "",
        since_ms: int = 0,
    ) -> AsyncIterator[LogLine]:
        """What is stored since ``since_ms`` (0: nothing), then each line as it is stored; without
        end. A slow reader misses nothing: lines come from disk."""
        await self._history.flush()
        await self.flush()
        line_seq = 0 if since_ms else self._segments.next_seq
        record_seq = 0 if since_ms else self._history.next_seq
        renderer = LiveRenderer()
        undo = self._history.on_stored(self._announce)
        try:
            while True:
                stored = self._stored
                wanted = Search(
                    service=service,
                    function=function,
                    request_id=request_id,
                    since_ms=since_ms,
                    first_seq=record_seq,
                    newest_first=False,
                    limit=FOLLOW_LIMIT,
                )
                # Records first: a record's lines were written before it, so they are on disk when
                # the lines are read.
                records = [] if text else list(await self._history.read(wanted))
                lines = await self.lines(replace(wanted, first_seq=line_seq), text)
                while len(lines) == FOLLOW_LIMIT:
                    line_seq = lines[-1].seq + 1
                    for line in renderer.feed(lines, ()) if not text else lines:
                        yield line
                    lines = await self.lines(replace(wanted, first_seq=line_seq), text)
                if lines:
                    line_seq = lines[-1].seq + 1
                if records:
                    record_seq = records[-1][0] + 1
                found = [record for _, record in records]
                for line in renderer.feed(lines, found) if not text else lines:
                    yield line
                if len(records) < FOLLOW_LIMIT:
                    await stored.wait()
                    await asyncio.sleep(FLUSH_S)
        finally:
            undo()

    # -- inside -----------------------------------------------------------------------------------

    async def _save(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake.clear()
        written, self._buffer = self._buffer, []
        self._characters = 0
        if not written:
            return
        self._taken += 1
        entries = await asyncio.to_thread(_entries, written)
        try:
            await self._segments.append(entries)
        except StoreFailed:
            self._metrics.log_lines_dropped += len(entries)  # the disk's listeners know why
        else:
            self._metrics.log_lines += len(entries)
        async with self._saved:
            self._ended += 1
            self._saved.notify_all()
        self._announce()

    async def _index(self) -> None:
        try:
            while not self._wake.is_set() and await self._segments.index():
                pass
        except StoreFailed:
            pass  # searches look at every block that is not indexed

    def _announce(self) -> None:
        self._stored.set()
        self._stored = asyncio.Event()


@asynccontextmanager
async def open_logs(
    store: Store, settings: LogSettings, metrics: Metrics, clock: Clock
) -> AsyncIterator[LogStore]:
    """Take and show logs during the block; leaving it brings the rest to disk."""
    segments = Segments(store.directory.logs, store.disk, settings, metrics, clock)
    await segments.open()
    try:
        logs = LogStore(segments, store.history, metrics)
        saving = asyncio.create_task(logs.save_until_stopped(), name="logs")
        try:
            yield logs
        finally:
            logs.stop()
            await saving
    finally:
        await segments.aclose()


def _entries(written: Sequence[Written]) -> list[Entry]:
    entries: list[Entry] = []
    for function, instance_id, request_id, time_ms, text in written:
        name, version = function.function, function.version
        service = function.service
        for line in text.split("\n") if "\n" in text else (text,):
            if len(line) > MAX_LINE_BYTES // 4:
                line = line.encode(errors="replace")[:MAX_LINE_BYTES].decode(errors="ignore")
            entries.append((time_ms, service, name, request_id, version, instance_id, line))
    return entries


def _as_line(seq: int, entry: Entry) -> LogLine:
    time_ms, service, function, request_id, version, instance_id, text = entry
    return LogLine(
        time_ms=time_ms,
        service=service,
        function=function,
        version=version,
        request_id=request_id,
        instance_id=instance_id,
        text=text,
        seq=seq,
    )

"""Dead letters: given up invocations, waiting ones of a deleted owner, damaged rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import apsw

from eventd.clock import Clock
from eventd.model.invocation import DeadLetter
from eventd.store.interface import StoreFailed
from eventd.store.sqlite import queue_reads as reads
from eventd.store.sqlite.backlog import Backlog
from eventd.store.sqlite.function_backlog import FunctionBacklog
from eventd.store.sqlite.payloads import PayloadFiles
from eventd.store.sqlite.queue_jobs import LetterRow, insert_letters, letter_row, remove_rows
from eventd.store.sqlite.rows import CORRUPT
from eventd.store.sqlite.writer import CallJob, Writer

BURY_ROWS = 500
"""Rows per transaction, so that a large backlog never delays a commit for long."""

log = logging.getLogger(__name__)


class Letters:
    """Numbers and counts them, and moves waiting rows to them."""

    def __init__(
        self,
        writer: Writer,
        files: PayloadFiles,
        clock: Clock,
        backlog: Backlog,
        *,
        changed: Callable[[], None],
    ) -> None:
        self.count = 0
        self._writer = writer
        self._files = files
        self._clock = clock
        self._backlog = backlog
        self._changed = changed
        self._next_id = 1

    async def restore(self) -> None:
        def read(connection: apsw.Connection) -> tuple[int, int]:
            count, highest = connection.execute(reads.COUNT_LETTERS).get
            return count, highest

        self.count, highest = await self._writer.call(read)
        self._next_id = highest + 1

    async def newest(self, limit: int) -> Sequence[DeadLetter]:
        return await self._writer.call(lambda c: reads.read_letters(c, self._files, limit))

    def row(self, letter: DeadLetter, file: str) -> LetterRow:
        """The next row; whoever commits it says so with ``added``."""
        row_id = self._next_id
        self._next_id += 1
        return letter_row(row_id, letter, file)

    def added(self, count: int) -> None:
        self.count += count

    def quarantine(self, function: FunctionBacklog, damaged: Sequence[reads.Read]) -> None:
        """Damaged rows were read: keep what is left of them, and never offer them again."""
        owner = function.owner
        for read in damaged:
            log.error(
                "queue row %d of %s/%s is damaged: moved to the dead letters as %s",
                read.row_id,
                owner.service,
                owner.function,
                CORRUPT,
            )
        now_ms = self._clock.time_ms()
        rows = [
            self.row(DeadLetter(read.invocation, CORRUPT, b"", now_ms), read.file)
            for read in damaged
        ]
        ids = [read.row_id for read in damaged]

        def move(connection: apsw.Connection) -> None:
            insert_letters(connection, rows)
            for delayed in (False, True):  # ids are unique over both tables
                remove_rows(connection, ids, delayed=delayed)

        try:
            self._writer.submit(CallJob(move, lambda _: self.added(len(rows)), intake=False))
        except StoreFailed:
            pass  # the rows stay where they are; the next start finds them again

    async def bury_waiting(
        self,
        function: FunctionBacklog,
        reason: str,
        trigger_id: str,
        busy_rows: Callable[[], set[int]],
    ) -> int:
        """Bury what waits of ``function`` (of one trigger, or all) but for ``busy_rows``."""
        buried = 0
        for delayed in (False, True):
            after: int | None = function.owner.first_id
            while after is not None:
                ids, after = await self._pick(
                    function, trigger_id, after, busy_rows, delayed=delayed
                )
                if ids:
                    await self._move(function, ids, reason, delayed=delayed)
                buried += len(ids)
        return buried

    async def _pick(
        self,
        function: FunctionBacklog,
        trigger_id: str,
        after: int,
        busy_rows: Callable[[], set[int]],
        *,
        delayed: bool,
    ) -> tuple[list[int], int | None]:
        """Choose among the next rows behind ``after``, and take them out of the backlog."""
        ids: list[int] = []

        def look(connection: apsw.Connection) -> tuple[list[int], int | None]:
            return reads.waiting_ids(
                connection, function.owner, after, trigger_id, delayed=delayed, limit=BURY_ROWS
            )

        def take(found: tuple[list[int], int | None]) -> None:
            busy = busy_rows()
            ids.extend(row_id for row_id in found[0] if row_id not in busy)
            self._backlog.drop(function, ids, self._clock.time_ms())
            self._changed()  # loads that `drop` asks for go before the removal

        _, following = await self._writer.call(look, take)
        return ids, following

    async def _move(
        self, function: FunctionBacklog, ids: list[int], reason: str, *, delayed: bool
    ) -> None:
        first = self._next_id
        self._next_id += len(ids)
        buried_ms = self._clock.time_ms()

        def move(connection: apsw.Connection) -> int:
            found = reads.read_rows(connection, self._files, function.owner, ids, delayed=delayed)
            rows = []
            for row_id, read in enumerate(found, first):
                why = CORRUPT if read.damaged else reason
                letter = DeadLetter(read.invocation, why, b"", buried_ms)
                rows.append(letter_row(row_id, letter, read.file))
            insert_letters(connection, rows)
            remove_rows(connection, ids, delayed=delayed)
            return len(rows)

        def after(moved: int) -> None:
            self.added(moved)
            self._backlog.dropped(function, ids, delayed=delayed)
            self._changed()

        await self._writer.call(move, after)

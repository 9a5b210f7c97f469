"""Brings waiting invocations from disk to memory when the backlog asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eventd.clock import Clock
from eventd.store.interface import StoreFailed
from eventd.store.sqlite import queue_reads as reads
from eventd.store.sqlite.backlog import Backlog
from eventd.store.sqlite.function_backlog import FunctionBacklog, Head
from eventd.store.sqlite.letters import Letters
from eventd.store.sqlite.payloads import PayloadFiles
from eventd.store.sqlite.writer import CallJob, Writer


class Loader:
    """Reads run in the writer's transactions: what they see and what the backlog was told of agree
    by the order of commits."""

    def __init__(
        self,
        writer: Writer,
        files: PayloadFiles,
        clock: Clock,
        backlog: Backlog,
        letters: Letters,
        changed: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._files = files
        self._clock = clock
        self._backlog = backlog
        self._letters = letters
        self._changed = changed

    def issue(self) -> None:
        """Start every load that the backlog wants."""
        backlog = self._backlog
        if not (backlog.loads or backlog.delayed_loads or backlog.row_loads):
            return
        loads, backlog.loads = backlog.loads, []
        delayed_loads, backlog.delayed_loads = backlog.delayed_loads, []
        row_loads, backlog.row_loads = backlog.row_loads, []
        try:
            for function in loads:
                self._load(function)
            for function in delayed_loads:
                self._load_delayed(function)
            for function, row_id, lane in row_loads:
                self._load_row(function, row_id, lane)
        except StoreFailed:
            pass  # nothing is claimed any more; whoever waits was told by the disk's listeners

    def _load(self, function: FunctionBacklog) -> None:
        after = function.loaded_to

        def done(found: list[reads.Read]) -> None:
            last = found[-1].row_id if found else after
            heads = self._heads(function, found, delayed=False)
            self._backlog.loaded(function, heads, last, self._clock.time_ms())
            self._changed()

        self._writer.submit(
            CallJob(
                lambda c: reads.read_next(c, self._files, function.owner, after),
                done,
                intake=False,
            )
        )

    def _load_delayed(self, function: FunctionBacklog) -> None:
        after = function.delayed_to

        def done(found: list[reads.Read]) -> None:
            last = (found[-1].due_ms, found[-1].row_id) if found else after
            heads = self._heads(function, found, delayed=True)
            self._backlog.loaded_delayed(function, heads, last)
            self._changed()

        self._writer.submit(
            CallJob(
                lambda c: reads.read_next_delayed(c, self._files, function.owner, after),
                done,
                intake=False,
            )
        )

    def _load_row(self, function: FunctionBacklog, row_id: int, lane: str) -> None:
        def done(read: reads.Read | None) -> None:
            head = None
            if read is not None and read.damaged:
                self._letters.quarantine(function, [read])
            elif read is not None:
                head = Head(function, row_id, read.invocation, file=read.file)
            self._backlog.loaded_row(function, row_id, lane, head, self._clock.time_ms())
            self._changed()

        self._writer.submit(
            CallJob(
                lambda c: reads.read_row(c, self._files, function.owner, row_id),
                done,
                intake=False,
            )
        )

    def _heads(
        self, function: FunctionBacklog, found: Sequence[reads.Read], *, delayed: bool
    ) -> list[Head]:
        damaged = [read for read in found if read.damaged]
        if damaged:
            for read in damaged:
                self._backlog.lost(function, read.row_id, delayed=delayed)
            self._letters.quarantine(function, damaged)
        return [
            Head(function, read.row_id, read.invocation, file=read.file, delayed=delayed)
            for read in found
            if not read.damaged
        ]

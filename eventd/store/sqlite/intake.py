"""The way of invocations onto the disk: numbering, large payloads, one job per transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b

from eventd.clock import Clock
from eventd.model.invocation import Invocation
from eventd.store.interface import Progress
from eventd.store.sqlite.backlog import Backlog
from eventd.store.sqlite.disk import Disk
from eventd.store.sqlite.function_backlog import FunctionBacklog, Head
from eventd.store.sqlite.payloads import INLINE_BYTES, PayloadFiles
from eventd.store.sqlite.queue_jobs import PutJob
from eventd.store.sqlite.queue_reads import Restored
from eventd.store.sqlite.rows import Owner, encode
from eventd.store.sqlite.writer import Writer


class Intake:
    """Stores invocations and tells the backlog; ``changed`` is called after each commit."""

    def __init__(
        self,
        writer: Writer,
        files: PayloadFiles,
        disk: Disk,
        clock: Clock,
        backlog: Backlog,
        *,
        max_in_flight: int,
        changed: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._files = files
        self._disk = disk
        self._clock = clock
        self._backlog = backlog
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._functions: dict[tuple[str, str, str], FunctionBacklog] = {}
        self._unstored: set[Owner] = set()
        self._next_no = 1
        self._next_sequence = 1
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._room = asyncio.Event()
        self._room.set()
        self._job: PutJob | None = None

    def restored(self, found: Restored) -> None:
        """At the start: a function that left rows."""
        owner = found.owner
        function = self._backlog.function(owner)
        self._functions[owner.service, owner.function, owner.incarnation] = function
        self._next_no = max(self._next_no, owner.no + 1)
        self._next_sequence = max(self._next_sequence, found.highest + 1)
        self._backlog.restored(function, found.rows, found.delayed)

    def next_row_id(self, owner: Owner) -> int:
        """An id behind all others of ``owner``."""
        sequence = self._next_sequence
        self._next_sequence = sequence + 1
        return owner.first_id + sequence

    async def put(
        self, invocations: Sequence[Invocation], progress: Progress | None
    ) -> Sequence[Invocation]:
        """See ``Queue.put``."""
        if not invocations and progress is None:
            return ()
        self._disk.check_intake()
        while self._in_flight >= self._max_in_flight:
            self._room.clear()
            await self._room.wait()
        size = len(invocations)
        self._in_flight += size
        try:
            files: Sequence[str] = ()
            for invocation in invocations:
                if len(invocation.payload) > INLINE_BYTES:
                    files = await self.write_large(invocations)
                    break
            return await self._submit(invocations, files, progress)
        finally:
            self._in_flight -= size
            if not self._room.is_set():
                self._room.set()

    async def write_large(self, invocations: Sequence[Invocation]) -> list[str]:
        """The name of each payload's file, empty for one that goes into the row.

        A cancel may leave files without a row; the next start removes them.
        """
        large = [one.payload for one in invocations if len(one.payload) > INLINE_BYTES]
        try:
            names = iter(await asyncio.to_thread(self._files.write, large))
        except OSError as error:
            raise self._disk.note("writing a payload", error) from error
        return [next(names) if len(one.payload) > INLINE_BYTES else "" for one in invocations]

    def _submit(
        self, invocations: Sequence[Invocation], files: Sequence[str], progress: Progress | None
    ) -> asyncio.Future[Sequence[Invocation]]:
        now_ms = self._clock.time_ms()
        heads = []
        rows = []
        keyed = []
        for index, invocation in enumerate(invocations):
            file = files[index] if files else ""
            function = self._functions.get(
                (invocation.service, invocation.function, invocation.incarnation)
            ) or self._new_function(invocation)
            row_id = function.owner.first_id + self._next_sequence
            self._next_sequence += 1
            delayed = invocation.due_ms > now_ms and not invocation.ordering_key
            heads.append(Head(function, row_id, invocation, file, delayed))
            rows.append(encode(row_id, invocation, file))
            if invocation.event_id:
                keyed.append((_event_key(invocation), invocation.trigger_id, row_id))
        job = self._job
        if job is None:
            job = PutJob(self._seal, self._done, now_ms)
            self._writer.submit(job)
            self._job = job
        future: asyncio.Future[Sequence[Invocation]] = self._loop.create_future()
        job.puts.append((heads, invocations, future))
        job.rows += rows
        if keyed:
            job.keyed += keyed
        if progress is not None:
            job.progress.append(progress)
        return future

    def _new_function(self, invocation: Invocation) -> FunctionBacklog:
        key = (invocation.service, invocation.function, invocation.incarnation)
        owner = Owner(self._next_no, *key)
        self._next_no += 1
        self._unstored.add(owner)
        function = self._functions[key] = self._backlog.function(owner)
        return function

    def _seal(self) -> None:
        if self._job is not None:
            self._job.owners = list(self._unstored)
            self._job = None

    def _done(self, job: PutJob, skipped: frozenset[int], error: BaseException | None) -> None:
        if error is not None:
            self._fail(job, error)
            return
        self._unstored.difference_update(job.owners)
        now_ms = self._clock.time_ms()
        backlog = self._backlog
        left_over: list[str] = []
        for heads, invocations, future in job.puts:
            new = invocations
            if skipped:
                left_over += [head.file for head in heads if head.file and head.row_id in skipped]
                heads = [head for head in heads if head.row_id not in skipped]
                new = [head.invocation for head in heads]
            for head in heads:
                if head.delayed:
                    backlog.added_delayed(head)
                else:
                    backlog.added(head, now_ms)
            if not future.done():
                future.set_result(new)
        if left_over:
            self._loop.run_in_executor(None, self._files.remove, left_over)
        self._changed()

    def _fail(self, job: PutJob, error: BaseException) -> None:
        files = [head.file for heads, _, _ in job.puts for head in heads if head.file]
        if files:
            self._loop.run_in_executor(None, self._files.remove, files)
        for _, _, future in job.puts:
            if not future.done():
                future.set_exception(error)
                future.exception()  # the caller may have been cancelled


def _event_key(invocation: Invocation) -> str:
    parts = (invocation.trigger_id, invocation.event_source, invocation.event_id)
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()

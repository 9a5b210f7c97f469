"""The queue: one synced transaction per batch of calls, claims in memory, backlogs on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType

import apsw

from eventd.clock import Clock
from eventd.metrics import Metrics
from eventd.model.invocation import DeadLetter, Invocation
from eventd.store.interface import Progress, QueueStatistics, StoreFailed
from eventd.store.sqlite import queue_reads as reads
from eventd.store.sqlite.backlog import Backlog
from eventd.store.sqlite.connection import select
from eventd.store.sqlite.disk import Disk
from eventd.store.sqlite.function_backlog import Head
from eventd.store.sqlite.intake import Intake
from eventd.store.sqlite.letters import Letters
from eventd.store.sqlite.loader import Loader
from eventd.store.sqlite.payloads import PayloadFiles
from eventd.store.sqlite.queue_jobs import SettleJob
from eventd.store.sqlite.rows import encode
from eventd.store.sqlite.seen import prune_seen
from eventd.store.sqlite.writer import Writer

LONGEST_TIMER_S = 1.0
"""The wall clock may jump: look at least this often while something is delayed."""

PRUNE_EVERY_S = 30.0

CURSOR = "SELECT cursor FROM cursor WHERE source = ?"
STATE = "SELECT key, value FROM state WHERE source = ?"
FORGET_CURSOR = "DELETE FROM cursor WHERE source = ?"
FORGET_STATE = "DELETE FROM state WHERE source = ?"


class SqliteQueue:
    """``Queue`` on ``queue.db``. An invocation without ``event_id`` has no event key."""

    def __init__(
        self,
        writer: Writer,
        files: PayloadFiles,
        disk: Disk,
        clock: Clock,
        metrics: Metrics,
        *,
        max_in_flight: int,
        backlog: Backlog | None = None,
    ) -> None:
        self._writer = writer
        self._files = files
        self._disk = disk
        self._clock = clock
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._backlog = backlog if backlog is not None else Backlog()
        self._intake = Intake(
            writer,
            files,
            disk,
            clock,
            self._backlog,
            max_in_flight=max_in_flight,
            changed=self._changed,
        )
        self._claimed: dict[str, Head] = {}
        self._settling: set[int] = set()
        self._waiters: deque[asyncio.Future[Invocation]] = deque()
        self._job: SettleJob | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._letters = Letters(writer, files, clock, self._backlog, changed=self._changed)
        self._loader = Loader(writer, files, clock, self._backlog, self._letters, self._changed)
        disk.subscribe(self._on_failure)

    async def restore(self) -> None:
        """Take up what the last process left. Once, before anything else."""
        found, names = await self._writer.call(reads.restore)
        await self._letters.restore()
        await asyncio.to_thread(self._files.keep_only, names)
        for restored in found:
            self._intake.restored(restored)
        self._changed()

    async def prune_forever(self) -> None:
        """Forget old event keys, until cancelled."""
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            try:
                await self._writer.call(partial(prune_seen, now_ms=self._clock.time_ms()))
            except StoreFailed:
                pass  # the disk's listeners know; a full disk may have space next time

    def close(self) -> None:
        """No more timers; whoever still waits for a claim is told that the store is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._fail_waiters(StoreFailed("the store is closed"))

    # -- the interface ----------------------------------------------------------------------------

    async def put(
        self, invocations: Sequence[Invocation], progress: Progress | None = None
    ) -> Sequence[Invocation]:
        return await self._intake.put(invocations, progress)

    async def claim(self) -> Invocation:
        if self._disk.failed is not None:
            raise self._disk.failed
        if not self._waiters:
            head = self._backlog.take()
            if head is not None:
                self._loader.issue()
                self._claimed[head.invocation.id] = head
                return head.invocation
        future: asyncio.Future[Invocation] = self._loop.create_future()
        self._waiters.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result().id)
            elif future in self._waiters:
                self._waiters.remove(future)
            raise

    async def finish(self, invocation_id: str) -> None:
        job = self._settle_job()
        head = self._settle(invocation_id)
        job.removed[head.delayed].append(head.row_id)
        if head.file:
            job.files.append(head.file)
        await self._wait(job, head, lambda: self._backlog.ended(head, self._clock.time_ms()))

    async def retry(self, invocation: Invocation) -> None:
        job = self._settle_job()
        head = self._claimed[invocation.id]
        function = head.function
        if invocation.ordering_key:
            again = Head(function, head.row_id, invocation, file=head.file)
            job.replaced.append(encode(head.row_id, invocation, head.file))
        else:
            row_id = self._intake.next_row_id(function.owner)
            again = Head(function, row_id, invocation, file=head.file, delayed=True)
            row = encode(row_id, invocation, head.file)
            job.removed[head.delayed].append(head.row_id)
            job.delayed.append((*row, function.owner.no, invocation.due_ms))
        self._settle(invocation.id)
        await self._wait(job, head, lambda: self._backlog.again(again, self._clock.time_ms()))

    def release(self, invocation_id: str) -> None:
        head = self._claimed.pop(invocation_id)
        self._backlog.give_back(head)
        self._offer()

    async def bury(self, letter: DeadLetter) -> None:
        head = self._claimed.get(letter.invocation.id)
        file = head.file if head is not None else ""
        if head is None:
            (file,) = await self._intake.write_large([letter.invocation])
        job = self._settle_job()
        job.letters.append(self._letters.row(letter, file))
        if head is None:
            if file:
                job.new_files.append(file)
            await self._wait(job, None, lambda: self._letters.added(1))
            return
        ended = self._settle(letter.invocation.id)
        job.removed[ended.delayed].append(ended.row_id)

        def after() -> None:
            self._letters.added(1)
            self._backlog.ended(ended, self._clock.time_ms())

        await self._wait(job, head, after)

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        return await self._letters.newest(limit)

    async def bury_waiting(
        self, *, reason: str, trigger_id: str = "", function: str = "", incarnation: str = ""
    ) -> int:
        buried = 0
        for backlog in list(self._backlog.functions.values()):
            owner = backlog.owner
            if function and owner.function != function:
                continue
            if incarnation and owner.incarnation != incarnation:
                continue
            buried += await self._letters.bury_waiting(backlog, reason, trigger_id, self._busy_rows)
        return buried

    async def load_cursor(self, source: str) -> str | None:
        def read(connection: apsw.Connection) -> str | None:
            found: str | None = connection.execute(CURSOR, (source,)).get
            return found

        return await self._writer.call(read)

    async def load_state(self, source: str) -> dict[str, str]:
        return await self._writer.call(lambda c: dict(select(c, STATE, (source,))))

    async def forget_source(self, source: str) -> None:
        def forget(connection: apsw.Connection) -> None:
            connection.execute(FORGET_CURSOR, (source,))
            connection.execute(FORGET_STATE, (source,))

        await self._writer.call(forget)

    def statistics(self) -> QueueStatistics:
        """Its mapping is a live view."""
        return QueueStatistics(
            waiting=self._backlog.waiting,
            claimed=len(self._claimed) + len(self._settling),
            dead_letters=self._letters.count,
            waiting_by_function=MappingProxyType(self._backlog.waiting_by_function),
        )

    def _busy_rows(self) -> set[int]:
        return {head.row_id for head in self._claimed.values()} | self._settling

    # -- outcomes ---------------------------------------------------------------------------------

    def _settle(self, invocation_id: str) -> Head:
        """Take the claim for its outcome. ``KeyError``: it is not claimed."""
        head = self._claimed.pop(invocation_id)
        self._settling.add(head.row_id)
        return head

    def _settle_job(self) -> SettleJob:
        job = self._job
        if job is None:
            job = SettleJob(self._seal, self._done)
            self._writer.submit(job)
            self._job = job
        return job

    async def _wait(self, job: SettleJob, head: Head | None, after: Callable[[], None]) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        job.calls.append((future, after, head))
        await future

    def _seal(self) -> None:
        self._job = None

    def _done(self, job: SettleJob, error: BaseException | None) -> None:
        for future, after, head in job.calls:
            if head is not None:
                self._settling.discard(head.row_id)
            if error is None:
                after()
            elif head is not None:
                self._claimed[head.invocation.id] = head  # its outcome is not on disk
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # the caller may have been cancelled
        if error is None and job.files:
            self._loop.run_in_executor(None, self._files.remove, job.files)
        self._changed()

    # -- handing out ------------------------------------------------------------------------------

    def _changed(self) -> None:
        """The backlog changed: load what it asks for, hand out what is runnable, set the timer."""
        self._loader.issue()
        if self._waiters:
            self._offer()
        self._arm()

    def _offer(self) -> None:
        waiters = self._waiters
        while waiters:
            if waiters[0].done():
                waiters.popleft()
                continue
            head = self._backlog.take()
            if head is None:
                break
            self._claimed[head.invocation.id] = head
            waiters.popleft().set_result(head.invocation)
        self._loader.issue()

    def _arm(self) -> None:
        due_ms = self._backlog.next_due_ms()
        if due_ms is None:
            return
        delay_s = min(max(0.0, (due_ms - self._clock.time_ms()) / 1000), LONGEST_TIMER_S)
        when = self._loop.time() + delay_s
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._backlog.due(self._clock.time_ms())
        self._changed()

    def _on_failure(self, failure: StoreFailed) -> None:
        if not failure.full:
            self._fail_waiters(failure)

    def _fail_waiters(self, failure: StoreFailed) -> None:
        while self._waiters:
            future = self._waiters.popleft()
            if not future.done():
                future.set_exception(failure)

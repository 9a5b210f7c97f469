"""One thread that alone writes to one SQLite file, with group commit.

Everything submitted in one loop tick, and while the previous commit runs, is one transaction.
Results reach the loop after the commit, in the order of submission.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

import apsw

from eventd.metrics import Metrics
from eventd.store.interface import StoreFailed
from eventd.store.sqlite.connection import PAGE_BYTES, open_writing
from eventd.store.sqlite.disk import Disk

PASSIVE_BYTES = 16 << 20
TRUNCATE_BYTES = 256 << 20
IDLE_S = 1.0

T = TypeVar("T")


class Job(Generic[T]):
    """One unit of work inside a transaction.

    ``run`` is called in the writer's thread: it raises before it writes anything, or not at all
    (an ``apsw`` error undoes the whole transaction). Exactly one of ``committed`` and ``failed``
    is called afterwards, on the loop.

    Attributes:
        intake: takes up space; refused while the disk is full.
    """

    __slots__ = ("error", "intake", "result")

    def __init__(self, *, intake: bool) -> None:
        self.intake = intake
        self.result: T
        self.error: BaseException | None = None

    def seal(self) -> None:
        """The transaction begins: nothing may be added to the job any more. On the loop."""

    def run(self, connection: apsw.Connection) -> T:
        raise NotImplementedError

    def committed(self, result: T) -> None:
        raise NotImplementedError

    def failed(self, error: BaseException) -> None:
        raise NotImplementedError


class CallJob(Job[T]):
    """A job made of functions, whose caller waits for ``future``."""

    __slots__ = ("_after", "_run", "future")

    def __init__(
        self,
        run: Callable[[apsw.Connection], T],
        after: Callable[[T], None] | None,
        *,
        intake: bool,
    ) -> None:
        super().__init__(intake=intake)
        self._run = run
        self._after = after
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def run(self, connection: apsw.Connection) -> T:
        return self._run(connection)

    def committed(self, result: T) -> None:
        if self._after is not None:
            self._after(result)
        if not self.future.done():
            self.future.set_result(result)

    def failed(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # the caller may have gone: not an error nobody looked at


class Writer:
    """The thread, and the batch that gathers for it. Use it on the loop that made it."""

    def __init__(
        self,
        path: Path,
        connection: apsw.Connection,
        disk: Disk,
        metrics: Metrics,
    ) -> None:
        self.path = path
        self._connection = connection
        self._connection.set_wal_hook(self._note_wal)
        self._disk = disk
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._pending: list[Job[Any]] = []
        self._busy = False
        self._scheduled = False
        self._closing = False
        self._wal_pages = 1  # what an earlier process or a migration left in the log
        self._inbox: SimpleQueue[list[Job[Any]] | None] = SimpleQueue()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = Thread(target=self._serve, name=f"store-{path.name}", daemon=True)
        self._thread.start()

    @classmethod
    async def open(
        cls,
        path: Path,
        family: str,
        *,
        synchronous: str,
        disk: Disk,
        metrics: Metrics,
        vfs: str | None = None,
    ) -> Writer:
        """Open the file (see ``open_writing`` for the errors) and start its thread."""
        opening = asyncio.ensure_future(
            asyncio.to_thread(open_writing, path, family, synchronous=synchronous, vfs=vfs)
        )
        try:
            connection = await asyncio.shield(opening)
        except asyncio.CancelledError:
            (await opening).close(True)
            raise
        return cls(path, connection, disk, metrics)

    # -- on the loop ------------------------------------------------------------------------------

    def submit(self, job: Job[Any]) -> None:
        """Add ``job`` to the next transaction. Raises ``StoreFailed`` if the store takes none."""
        if self._closing:
            raise StoreFailed("the store is closed")
        if self._disk.failed is not None:
            raise self._disk.failed
        if job.intake and self._disk.full is not None:
            raise self._disk.full
        self._pending.append(job)
        if not self._busy and not self._scheduled:
            self._scheduled = True
            self._idle.clear()
            self._loop.call_soon(self._hand_over)

    async def call(
        self,
        run: Callable[[apsw.Connection], T],
        after: Callable[[T], None] | None = None,
        *,
        intake: bool = False,
    ) -> T:
        """Run ``run`` in the next transaction and give its result after the commit; ``after`` is
        called on the loop first, in commit order. Cancelling stops the waiting, not the work."""
        job = CallJob(run, after, intake=intake)
        self.submit(job)
        return await job.future

    async def aclose(self) -> None:
        """Commit what was submitted, bring the log into the database, end the thread."""
        self._closing = True
        await self._idle.wait()
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        self._scheduled = False
        batch, self._pending = self._pending, []
        for job in batch:
            job.seal()
        self._busy = True
        self._inbox.put(batch)

    def _done(self, batch: list[Job[Any]], seconds: float) -> None:
        self._busy = False
        metrics = self._metrics
        metrics.store_commits += 1
        metrics.store_commit.observe(seconds)
        if self._pending:
            self._hand_over()
        for job in batch:
            if job.error is None:
                job.committed(job.result)
            else:
                job.failed(job.error)
        if not self._busy and not self._scheduled:
            self._idle.set()

    # -- in the thread ----------------------------------------------------------------------------

    def _note_wal(self, connection: apsw.Connection, database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _serve(self) -> None:
        while True:
            try:
                batch = self._inbox.get(timeout=IDLE_S if self._wal_pages else None)
            except Empty:
                self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
                continue
            if batch is None:
                break
            started = time.monotonic()
            self._commit(batch)
            seconds = time.monotonic() - started
            self._loop.call_soon_threadsafe(self._done, batch, seconds)
            if self._wal_pages * PAGE_BYTES >= TRUNCATE_BYTES:
                self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
            elif self._wal_pages * PAGE_BYTES >= PASSIVE_BYTES:
                self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        if self._disk.failed is None and self._wal_pages:
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._connection.close(True)

    def _commit(self, batch: list[Job[Any]]) -> None:
        failure = self._disk.failed or self._transact(batch)
        if failure is None:
            return
        rest = batch
        if failure.full and self._disk.failed is None:
            rest = [job for job in batch if not job.intake]
            for job in batch:
                job.error = failure if job.intake else None
            again = self._transact(rest) if rest else None
            if again is None:
                return
            failure = again
        for job in rest:
            job.error = failure

    def _transact(self, batch: list[Job[Any]]) -> StoreFailed | None:
        """Run ``batch`` as one transaction; ``None`` when it is committed, else nothing of it."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                try:
                    job.result = job.run(connection)
                except (apsw.Error, OSError):
                    raise
                except Exception as error:  # noqa: BLE001 - handed to the one who submitted it
                    job.error = error
            connection.execute("COMMIT")
        except (apsw.Error, OSError) as error:
            failure = self._disk.note(f"writing {self.path.name}", error)
            if failure.full:
                self._roll_back()
            return failure
        return None

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except apsw.Error as error:
                self._disk.note(f"rolling back {self.path.name}", error)

    def _checkpoint(self, mode: int) -> None:
        if self._disk.failed is not None:
            self._wal_pages = 0
            return
        try:
            self._connection.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return  # a reader holds the log; the next commit tries again
        except apsw.Error as error:
            self._disk.note(f"checkpointing {self.path.name}", error)
            self._wal_pages = 0  # a full disk: tried again when the log has grown further
        if mode == apsw.SQLITE_CHECKPOINT_TRUNCATE:
            self._wal_pages = 0

"""The embedded store as one block: open everything of a data directory, close it in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from eventd.clock import Clock
from eventd.config import Settings
from eventd.metrics import Metrics
from eventd.store.blobs import DirectoryBlobs
from eventd.store.datadir import DataDirectory, hold
from eventd.store.interface import StoreFailed
from eventd.store.sqlite.connection import check_library
from eventd.store.sqlite.disk import BALLAST_BYTES, Disk
from eventd.store.sqlite.history import SqliteHistory
from eventd.store.sqlite.metadata import SqliteMetadata
from eventd.store.sqlite.payloads import PayloadFiles
from eventd.store.sqlite.queue import SqliteQueue
from eventd.store.sqlite.writer import Writer

CLOSE_TIMEOUT_S = 30.0

RAISE_EPOCH = "UPDATE owner SET epoch = epoch + 1 RETURNING epoch"


@dataclass(frozen=True, slots=True)
class Store:
    """Everything that survives.

    Attributes:
        epoch: how often this data directory was opened; what belongs to a lower one is old.
        disk: its ``failed`` and ``full`` say whether the disk takes anything (``/readyz``).
    """

    metadata: SqliteMetadata
    queue: SqliteQueue
    history: SqliteHistory
    blobs: DirectoryBlobs
    epoch: int
    disk: Disk
    directory: DataDirectory


@asynccontextmanager
async def open_store(
    data: Path,
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    *,
    on_failure: Callable[[StoreFailed], None] | None = None,
    vfs: str | None = None,
    ballast_bytes: int = BALLAST_BYTES,
) -> AsyncIterator[Store]:
    """Own ``data`` and serve it during the block.

    Leaving the block commits what was handed over and closes the files; who still waits for a
    claim gets ``StoreFailed``.

    Args:
        on_failure: called on the loop when the disk fails (final) or becomes full (``.full``).
        vfs: another SQLite file layer, for tests of a failing disk.
    Raises:
        DataDirectoryInUse, SchemaTooNew, StoreFailed: it cannot be opened; nothing was changed.
    """
    check_library()
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(hold(data))
        disk = Disk(directory.ballast, ballast_bytes=ballast_bytes)
        if on_failure is not None:
            disk.subscribe(on_failure)
        await asyncio.to_thread(disk.make_ballast)

        async def writer(path: Path, family: str, synchronous: str) -> Writer:
            opened = await Writer.open(
                path, family, synchronous=synchronous, disk=disk, metrics=metrics, vfs=vfs
            )
            stack.push_async_callback(opened.aclose)
            return opened

        meta = await writer(directory.meta, "meta", "FULL")
        queue_file = await writer(directory.queue, "queue", "FULL")
        history_file = await writer(directory.history, "history", "NORMAL")
        epoch = await queue_file.call(_raise_epoch)
        metadata = SqliteMetadata(meta)
        await metadata.load()
        queue = SqliteQueue(
            queue_file,
            PayloadFiles(directory.payloads),
            disk,
            clock,
            metrics,
            max_in_flight=settings.queue.max_waiting_put,
        )
        stack.callback(queue.close)
        await queue.restore()
        history = SqliteHistory(history_file, clock, metrics, settings.logs)
        stack.push_async_callback(history.aclose)
        await history.load()
        store = Store(
            metadata=metadata,
            queue=queue,
            history=history,
            blobs=DirectoryBlobs(directory.blobs),
            epoch=epoch,
            disk=disk,
            directory=directory,
        )
        await stack.enter_async_context(
            _running(disk.watch(), queue.prune_forever(), history.prune_forever())
        )
        yield store


@asynccontextmanager
async def _running(*chores: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``chores`` during the block, then cancel them; one that failed is raised at its end.

    Unlike a TaskGroup it lets an error of the block pass as it is.
    """
    tasks = [asyncio.create_task(chore) for chore in chores]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


def _raise_epoch(connection: apsw.Connection) -> int:
    epoch: int = connection.execute(RAISE_EPOCH).get
    return epoch

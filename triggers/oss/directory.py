"""A bucket that is a directory. inotify only says where to look; the snapshot decides.

A file becomes an event when its inode, size and mtime differ from the snapshot, nobody touched it
for one settle time and no writer has it open. The snapshot is the source's own table and changes in
the transaction that takes the event, so what changed while nobody looked is found at the next
start, and nothing is told twice. A slow comparison of listing and snapshot runs for ever beside it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eventd.plugin import SourceContext, SourceReport
from triggers.inotify import Inotify
from triggers.oss.events import Bucket, change_event, event_time
from triggers.oss.lease import leases_tell
from triggers.oss.snapshot import Snapshot, row_key
from triggers.oss.tree import NoticesLost, Tree
from triggers.oss.watch import DirectoryOptions, Known, Step, Watch
from triggers.threads import in_thread

COMPLETE = "complete"
"""The cursor once everything that was there at first has its row; before it: ``new:SINCE_NS``."""

GONE_S = 0.25
"""How often a bucket that is away is looked for."""
COALESCE_S = 0.01
CLOCK_REALTIME_COARSE = 5
"""Linux's number for the clock from which file systems take ctime; Python has no name for it."""


@dataclass(frozen=True, slots=True)
class DirectorySource:
    """Watches the directory ``root`` as ``bucket``. A directory that is missing or may not be read
    is reported and tried again; what is known of its objects is kept."""

    bucket: Bucket
    root: Path
    options: DirectoryOptions

    async def run(self, context: SourceContext) -> None:
        since = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
        context.report(SourceReport(text="starting"))
        cursor = await context.load_cursor()
        if cursor is None:
            # A bucket that appears later is new from its first object on.
            there = await in_thread(lambda: _exists(self.root))
            cursor = f"new:{since}" if there else COMPLETE
            await context.emit([], cursor=cursor)
        rows = await context.load_state()
        snapshot = await in_thread(lambda: Snapshot(rows))
        known = Known(snapshot, 0 if cursor == COMPLETE else int(cursor.removeprefix("new:")))
        while True:
            try:
                await self._watch(context, known)
            except NoticesLost:
                continue
            except OSError as error:
                text = f"{self.root}: {error.strerror or error}"
                context.report(SourceReport(text=text, healthy=False))
            await context.sleep(GONE_S)

    async def _watch(self, context: SourceContext, known: Known) -> None:
        """Emit changes until the bucket goes away (``OSError``)."""
        with ExitStack() as stack:
            try:
                notifier = stack.enter_context(Inotify())
            except OSError:  # no inotify instance is left: the tree is blind, and says so
                notifier = None
            tree = await in_thread(lambda: Tree(str(self.root), notifier))
            leases = await in_thread(lambda: leases_tell(self.root))
            watch = stack.enter_context(Watch(tree, known, self.options, leases=leases))
            while True:
                notices = notifier.take() if notifier else []
                step = await in_thread(partial(watch.step, notices))
                await self._emit(context, known, step)
                context.report(watch.report())
                await _wait(notifier, step.wait_s)

    async def _emit(self, context: SourceContext, known: Known, step: Step) -> None:
        cursor = COMPLETE if step.complete and known.before_ns else None
        if not (step.silent or step.changes or cursor):
            return
        moment = event_time(context.now())
        changes = (*step.silent, *step.changes)
        await context.emit(
            [change_event(self.bucket, change, moment) for change in step.changes],
            cursor=cursor,
            state={row_key(change.path): change.new or None for change in changes},
        )
        for change in changes:
            known.snapshot.put(change.path, change.new)
        if cursor:
            known.before_ns = 0


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # there, but not for us
    return True


async def _wait(notifier: Inotify | None, seconds: float) -> None:
    """Until ``seconds`` have passed or there are notices; then a moment more, so that those of a
    burst are taken together. Each has its own time, so nothing gets late by that."""
    if notifier is None or seconds <= COALESCE_S:
        await asyncio.sleep(seconds)
        return
    started = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            await notifier.ready.wait()
    except TimeoutError:
        return
    left = seconds - (time.monotonic() - started)
    await asyncio.sleep(max(0.0, min(COALESCE_S, left)))

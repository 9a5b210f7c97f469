"""A bucket that is a directory. watchfiles only says where to look; the snapshot decides.

A file becomes an event when its inode, size and mtime differ from the snapshot, nobody touched it
for one settle time and no writer has it open. The snapshot is the source's own table and changes in
the transaction that takes the event, so what changed while nobody looked is found at the next
start, and nothing is told twice. A slow comparison of listing and snapshot runs for ever beside it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from eventd.plugin import Event, SourceContext, SourceReport
from triggers.notices import FileChange, Notices, listening
from triggers.oss.events import Bucket, change_event, event_time
from triggers.oss.lease import leases_tell
from triggers.oss.snapshot import Snapshot, row_key
from triggers.oss.tree import Identity, LinksFound, Tree, has_links, identify
from triggers.oss.watch import DirectoryOptions, Known, Step, Watch
from triggers.threads import in_thread

NEW = "new:"
"""Starts the cursor ``new:SINCE_NS`` until everything that was there at first has its row."""
COMPLETE = "complete"
"""Starts the cursor from then on, ``complete:DEVICE:INODE``: which directory the rows are about."""

GONE_S = 0.25
"""How often a bucket that is away is looked for."""
CLOCK_REALTIME_COARSE = 5
"""Linux's number for the clock from which file systems take ctime; Python has no name for it."""


class BucketHidden(OSError):
    """Another file system is there, and nothing that is known: perhaps one is not mounted."""


class _News(NamedTuple):
    """A step, with its events and the rows of the snapshot's table."""

    step: Step
    events: list[Event]
    rows: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class DirectorySource:
    """Watches the directory ``root`` as ``bucket``. A directory that is missing, may not be read
    or is hidden is reported and tried again; what is known of its objects is kept."""

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
            cursor = f"{NEW}{since}" if there else COMPLETE
            await context.emit([], cursor=cursor)
        rows = await context.load_state()
        snapshot = await in_thread(lambda: Snapshot(rows))
        new = cursor.startswith(NEW)
        known = Known(snapshot, int(cursor.removeprefix(NEW)) if new else 0)
        known.identity = None if new else _identity(cursor)
        flat = await in_thread(lambda: has_links(str(self.root)))
        while True:
            try:
                async with listening(recursive=not flat) as notices:
                    await self._watch(context, known, notices, flat=flat)
            except LinksFound:
                flat = True
                continue
            except OSError as error:
                text = f"{self.root}: {error.strerror or error}"
                context.report(SourceReport(text=text, healthy=False))
            await context.sleep(GONE_S)

    async def _watch(
        self, context: SourceContext, known: Known, notices: Notices, *, flat: bool
    ) -> None:
        """Emit changes until the bucket goes away (``OSError``)."""
        tree = await in_thread(lambda: self._tree(known, notices, flat=flat))
        leases = await in_thread(lambda: leases_tell(self.root))
        with Watch(tree, known, self.options, leases=leases) as watch:
            while True:
                changes, lost = notices.take()
                now = context.now()
                news = await in_thread(partial(self._look, watch, changes, now, lost=lost))
                await self._emit(context, known, news, tree.identity)
                context.report(watch.report())
                await _wait(notices, news.step.wait_s)

    def _look(self, watch: Watch, changes: set[FileChange], now: datetime, *, lost: bool) -> _News:
        """In a worker thread: one step, and what it brought as the store takes it."""
        step = watch.step(changes, lost=lost)
        moment = event_time(now)
        events = [change_event(self.bucket, change, moment) for change in step.changes]
        rows = {
            row_key(change.path): change.new or None for change in chain(step.silent, step.changes)
        }
        return _News(step, events, rows)

    def _tree(self, known: Known, notices: Notices, *, flat: bool) -> Tree:
        root = str(self.root)
        identity = identify(root)
        before = known.identity
        if before and before.device != identity.device and not _any_there(root, known.snapshot):
            text = (
                f"it is on another file system now, and none of its {len(known.snapshot)} objects "
                "is there; if it is not just a mount that is missing, delete the bucket's triggers"
            )
            raise BucketHidden(errno.ENODEV, text)
        return Tree(root, notices, flat=flat)

    async def _emit(
        self, context: SourceContext, known: Known, news: _News, identity: Identity
    ) -> None:
        step = news.step
        cursor = None
        if step.complete and known.identity != identity:
            cursor = f"{COMPLETE}:{identity.device}:{identity.inode}"
        if not (news.rows or cursor):
            return
        await context.emit(news.events, cursor=cursor, state=news.rows)
        for change in chain(step.silent, step.changes):
            known.snapshot.put(change.path, change.new)
        if cursor:
            known.before_ns = 0
            known.identity = identity


def _identity(cursor: str) -> Identity | None:
    """``None``: none was noted, since nobody has seen the bucket yet."""
    _, _, numbers = cursor.partition(":")
    device, _, inode = numbers.partition(":")
    return Identity(int(device), int(inode)) if inode else None


def _any_there(root: str, snapshot: Snapshot) -> bool:
    """Whether an object that is known, or its directory, is there, or none is known."""
    tops = {each.partition("/")[0] for each in snapshot.directories()} - {""}
    tops.update(snapshot.names(""))
    return not tops or any(os.path.lexists(f"{root}/{top}") for top in tops)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # there, but not for us
    return True


async def _wait(notices: Notices, seconds: float) -> None:
    """Until ``seconds`` have passed or there are notices."""
    if seconds <= 0 or notices.heard.is_set():
        return
    try:
        async with asyncio.timeout(seconds):
            await notices.heard.wait()
    except TimeoutError:
        return

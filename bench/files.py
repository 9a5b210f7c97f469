"""From a closed file to its accepted event, beyond the settle time: single files and a burst.

usage: bench/files.py [FILES=10000] [ROUNDS=3] [DIRECTORY]

A process of its own writes the files and notes when it closed each. The reference, interleaved, is
the bare kernel: an inotify reader on the same loop that only notes when it heard of the close.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from eventd.plugin import Event, SourceReport, SourceSettings
from triggers import inotify
from triggers.oss.directory import COMPLETE, DirectorySource
from triggers.oss.events import parse_arn
from triggers.oss.watch import DirectoryOptions

WRITER = """
import os, struct, sys, time
root, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
closed = []
for number in range(count):
    descriptor = os.open(f"{root}/{number}", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"x" * 200)
    os.close(descriptor)
    closed.append(time.monotonic())
    if pause:
        time.sleep(pause)
sys.stdout.buffer.write(struct.pack(f"{count}d", *closed))
"""
OPTIONS = DirectoryOptions()
SETTLE_MS = OPTIONS.settle_ms


class Context:
    """Accepts at once and notes when."""

    def __init__(self, root: Path) -> None:
        self.key = "bench"
        self.settings = SourceSettings(root, "1", "cn-local")
        self.seen: dict[str, float] = {}
        self.repeated = 0
        self.cursor: str | None = None
        self.wanted = 0
        self.ready = asyncio.Event()
        self.done = asyncio.Event()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def load_cursor(self) -> None:
        return None

    async def load_state(self) -> dict[str, str]:
        return {}

    async def emit(
        self,
        events: Sequence[Event],
        *,
        cursor: str | None = None,
        state: Mapping[str, str | None] | None = None,
    ) -> None:
        now = time.monotonic()
        for event in events:
            self.repeated += event.subject in self.seen
            self.seen[event.subject] = now
        if cursor == COMPLETE:
            self.ready.set()
        if len(self.seen) == self.wanted:
            self.done.set()

    def report(self, report: SourceReport) -> None:
        """Nobody looks."""


async def write(root: Path, count: int, pause: float) -> list[float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(root), str(count), str(pause),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return list(struct.unpack(f"{count}d", out))


async def ours(root: Path, count: int, pause: float) -> list[float]:
    context = Context(root)
    context.wanted = count
    source = DirectorySource(parse_arn("acs:oss:r:1:bench"), root, OPTIONS)
    task = asyncio.create_task(source.run(context))  # type: ignore[arg-type]
    await context.ready.wait()
    closed = await write(root, count, pause)
    async with asyncio.timeout(60):
        await context.done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert context.repeated == 0, f"{context.repeated} files came twice"
    return [context.seen[str(n)] * 1e3 - closed[n] * 1e3 - SETTLE_MS for n in range(count)]


async def kernel(root: Path, count: int, pause: float) -> list[float]:
    seen: dict[str, float] = {}
    with inotify.Inotify() as notifier:
        notifier.add(os.fsencode(root), inotify.CLOSE_WRITE)
        writing = asyncio.create_task(write(root, count, pause))
        while len(seen) < count:
            await notifier.ready.wait()
            for moment, data in notifier.take():
                for notice in inotify.notices(data):
                    seen[notice.name] = moment
        closed = await writing
    return [(seen[str(n)] - closed[n]) * 1e3 for n in range(count)]


async def once(kind: Any, parent: str, count: int, pause: float) -> list[float]:
    root = Path(tempfile.mkdtemp(dir=parent))
    try:
        return await kind(root, count, pause)  # type: ignore[no-any-return]
    finally:
        shutil.rmtree(root)


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    places = sys.argv[3:] or [tempfile.gettempdir(), "/dev/shm"]
    print("| directory | load | what | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|---|")
    for place in places:
        for load, count, pause in (("single", 100, 0.02), ("burst", files, 0.0)):
            results: dict[str, list[list[float]]] = {"kernel alone": [], "beyond settle": []}
            for _ in range(rounds):
                for name, kind in (("kernel alone", kernel), ("beyond settle", ours)):
                    results[name].append(sorted(uvloop.run(once(kind, place, count, pause))))
            for name, runs in results.items():
                p50, p99, top = (
                    statistics.median(run[min(len(run) - 1, int(len(run) * part))] for run in runs)
                    for part in (0.5, 0.99, 1.0)
                )
                print(f"| {place} | {load} {count} | {name} | {p50:.2f} | {p99:.2f} | {top:.1f} |")


if __name__ == "__main__":
    main()

"""A ``SourceContext`` in memory, and a block that runs a source with it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from eventd.plugin import Delivery, Event, Source, SourceReport, SourceSettings, Trigger

DEADLINE_S = 20.0


class Context:
    """Remembers what was emitted; ``cursor`` and ``state`` outlive a run, like the store."""

    def __init__(self, settings: SourceSettings) -> None:
        self.key = "test"
        self.settings = settings
        self.events: list[Event] = []
        self.times: list[float] = []
        self.cursor: str | None = None
        self.state: dict[str, str] = {}
        self.reports: list[SourceReport] = []

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def sleep_until(self, moment: datetime) -> None:
        await asyncio.sleep(max(0.0, (moment - self.now()).total_seconds()))

    def triggers(self) -> tuple[Trigger[Any], ...]:
        return ()

    async def load_cursor(self) -> str | None:
        return self.cursor

    async def load_state(self) -> dict[str, str]:
        return dict(self.state)

    async def emit(
        self,
        events: Sequence[Event],
        *,
        cursor: str | None = None,
        state: Mapping[str, str | None] | None = None,
    ) -> None:
        moment = time.monotonic()
        for key, value in (state or {}).items():
            key.encode()  # a store takes clean text only
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        for event in events:
            event.subject.encode()
            self.events.append(event)
            self.times.append(moment)
        if cursor is not None:
            self.cursor = cursor

    async def deliver(self, event: Event, *, attempts: int = 3) -> Delivery:
        raise AssertionError("not for this source")

    def report(self, report: SourceReport) -> None:
        self.reports.append(report)

    async def wait(self, condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        """Wait until ``condition`` holds; looked at every 10 ms."""
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110 - conditions of the file system have no event
                await asyncio.sleep(0.01)

    async def wait_events(self, count: int, timeout_s: float = DEADLINE_S) -> list[Event]:
        try:
            await self.wait(lambda: len(self.events) >= count, timeout_s)
        except TimeoutError:
            raise AssertionError(f"{len(self.events)} of {count} events: {self.told()}") from None
        return self.events

    def told(self) -> list[tuple[str, str]]:
        """Event name without its group, and key."""
        return [(event.type.rpartition(":")[2], event.subject) for event in self.events]

    def bodies(self) -> list[Any]:
        return [json.loads(event.data) for event in self.events]


@asynccontextmanager
async def running(source: Source, context: Context) -> AsyncIterator[None]:
    """Run ``source`` during the block; its failure is the block's."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source.run(context))
        try:
            yield
        finally:
            task.cancel()

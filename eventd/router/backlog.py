"""The door of the queue: every accepted invocation passes here, and a full backlog stops it."""

from __future__ import annotations

from collections.abc import Sequence

from eventd.clock import Clock
from eventd.errors import ResourceExhausted, ServiceUnavailable
from eventd.metrics import Metrics
from eventd.model.invocation import Invocation
from eventd.store.interface import Progress, Queue, StoreFailed

_LOOK_EVERY_S = 0.1


class Backlog:
    """Puts invocations into ``queue``, at most ``limit`` waiting ones per function.

    The queue's own counts are read at most every 0.1 s; between two readings what was put here is
    added and what ended is not taken off, so the limit may stop a little early, never late.
    """

    def __init__(self, queue: Queue, metrics: Metrics, clock: Clock, *, limit: int) -> None:
        self._queue = queue
        self._metrics = metrics
        self._clock = clock
        self._limit = limit
        self._waiting: dict[tuple[str, str], int] = {}
        self._read_at = float("-inf")

    def full(self, service: str, function: str, size: int = 1) -> bool:
        """Whether ``size`` more invocations of the function go over the limit. More than the
        limit at once is let in when nothing waits, for it could never be."""
        now = self._clock.monotonic()
        if now - self._read_at >= _LOOK_EVERY_S:
            self._waiting = dict(self._queue.statistics().waiting_by_function)
            self._read_at = now
        waiting = self._waiting.get((service, function), 0)
        return waiting > 0 and waiting + size > self._limit

    async def put_now(self, invocation: Invocation) -> None:
        """Store one invocation; returns when it is on disk.

        Raises:
            ResourceExhausted: its function has ``limit`` waiting invocations.
            ServiceUnavailable: the disk takes nothing.
        Cancelling: it is stored, or not.
        """
        if self.full(invocation.service, invocation.function):
            raise ResourceExhausted(
                f"function '{invocation.function}' of service '{invocation.service}' has "
                f"{self._limit} asynchronous invocations waiting, no more are accepted"
            )
        await self._put((invocation,), None)

    async def put(
        self, invocations: Sequence[Invocation], progress: Progress | None
    ) -> Sequence[Invocation]:
        """Store all of them with the source's progress in one transaction; gives the new ones.

        Waits while a function's backlog is full: that is the back-pressure on sources.
        Raises ``ServiceUnavailable`` when the disk takes nothing. Cancelling: all or nothing.
        """
        sizes: dict[tuple[str, str], int] = {}
        for invocation in invocations:
            owner = (invocation.service, invocation.function)
            sizes[owner] = sizes.get(owner, 0) + 1
        while any(self.full(*owner, size) for owner, size in sizes.items()):
            await self._clock.sleep(_LOOK_EVERY_S)
        return await self._put(invocations, progress)

    async def _put(
        self, invocations: Sequence[Invocation], progress: Progress | None
    ) -> Sequence[Invocation]:
        waiting = self._waiting
        for invocation in invocations:  # before the commit: those who come meanwhile must see it
            owner = (invocation.service, invocation.function)
            waiting[owner] = waiting.get(owner, 0) + 1
        try:
            fresh = await self._queue.put(invocations, progress)
        except StoreFailed as error:
            raise ServiceUnavailable(f"the store takes nothing: {error}") from error
        self._metrics.invocations_accepted += len(fresh)
        self._metrics.events_duplicate += len(invocations) - len(fresh)
        return fresh

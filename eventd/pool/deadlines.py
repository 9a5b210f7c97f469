"""The deadlines of an instance's calls: one timer, for they end in the order of their start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from eventd.pool.call import Call

EARLY_S = 0.001
"""A loop's timer may fire so much too early."""


class Deadlines:
    """Tells ``late`` of every call in ``calls`` (in the order of their start) that has run for
    ``timeout_s`` seconds; again, when asked to look again, while it stays there."""

    __slots__ = ("_calls", "_late", "_loop", "_monotonic", "_timeout_s", "_timer")

    def __init__(
        self,
        calls: Mapping[int, Call],
        timeout_s: float,
        monotonic: Callable[[], float],
        late: Callable[[Call], None],
    ) -> None:
        self._calls = calls
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """A call has started."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._monotonic()
        for call in list(self._calls.values()):
            left = call.started_at + self._timeout_s - now
            if left > EARLY_S:
                self._timer = self._loop.call_later(left, self._look)
                return
            self._late(call)

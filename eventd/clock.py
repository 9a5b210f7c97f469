"""The clock that is handed to everything that waits; a virtual one can take its place."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """Wall and monotonic time of this machine.

    Everything that asks for the time or sleeps takes a ``Clock``, so that a test or the
    developer's loop can move time by itself.
    """

    # No frame of their own: every call asks several times.
    monotonic = staticmethod(time.monotonic)
    """Seconds that never jump; the same base as the event loop's ``time()``."""

    time = staticmethod(time.time)
    """The wall clock in seconds since 1970."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def time_ms(self) -> int:
        """The wall clock in whole milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` (0 or less: give way once). Cancelling ends the wait."""
        await asyncio.sleep(max(0.0, seconds))

    async def sleep_until(self, moment: datetime) -> None:
        """Wait until the wall clock reaches ``moment``; looks again at least every 30 s, so that
        a jump of the wall clock is noticed."""
        while (left := (moment - self.now()).total_seconds()) > 0:
            await asyncio.sleep(min(left, 30.0))

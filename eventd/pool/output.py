"""An instance's output on its way to the log: bounded, cut, and read no faster than it may come."""

from __future__ import annotations

import asyncio

from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.channel import Channel
from eventd.pool.surroundings import Surroundings

SLACK = 1.25
"""The runtime keeps to the limit by itself; only one that doesn't meets this."""
PAUSE_S = 0.05
MAX_LINE = 32 << 10


class Output:
    """Passes an instance's lines on; what is over ``max_log_bytes_s`` is dropped and counted, and
    the instance has to wait a little with everything it says."""

    __slots__ = ("_channel", "_instance_id", "_paused", "_second", "_shared", "_snapshot", "_used")

    def __init__(
        self, instance_id: str, snapshot: FunctionSnapshot, shared: Surroundings, channel: Channel
    ) -> None:
        self._instance_id = instance_id
        self._snapshot = snapshot
        self._shared = shared
        self._channel = channel
        self._second = 0.0
        self._used = 0
        self._paused = False

    def write(self, request_id: str, text: bytes) -> bool:
        """Whole lines of a request, or of nobody known. False: they were dropped."""
        shared = self._shared
        if not self._take(len(text)):
            shared.metrics.log_lines_dropped += text.count(b"\n") + 1
            return False
        if len(text) > MAX_LINE:
            text = b"\n".join(line[:MAX_LINE] for line in text.split(b"\n"))
        shared.log_sink.write(
            self._snapshot,
            self._instance_id,
            request_id,
            shared.clock.time_ms(),
            text.decode("utf-8", "replace"),
        )
        return True

    def _take(self, size: int) -> bool:
        now = self._shared.clock.monotonic()
        if now - self._second >= 1.0:
            self._second, self._used = now, 0
        self._used += size
        if self._used <= self._shared.settings.max_log_bytes_s * SLACK:
            return True
        if not self._paused:
            self._paused = True
            self._channel.pause_reading()
            asyncio.get_running_loop().call_later(PAUSE_S, self._resume)
        return False

    def _resume(self) -> None:
        self._paused = False
        self._channel.resume_reading()

"""The instances and the waiting calls of one snapshot."""

from __future__ import annotations

from collections import deque

from eventd.model.snapshot import FunctionSnapshot
from eventd.pool import scaling
from eventd.pool.call import Call
from eventd.pool.instance import Instance


class Group:
    """The instances and the waiting calls of one snapshot.

    Attributes:
        idle: ready instances without a call, the last used at the end.
        ready: all ready instances.
        live: all that may take calls now or soon.
        nested, waiting: calls made by functions, and others; each first come, first served. Nested
            ones go first: somebody holds an instance while he waits for them.
    """

    __slots__ = (
        "concurrency",
        "idle",
        "live",
        "nested",
        "ready",
        "snapshot",
        "starting",
        "waiting",
        "warming",
    )

    def __init__(self, snapshot: FunctionSnapshot) -> None:
        self.snapshot = snapshot
        self.concurrency = max(1, snapshot.instance_concurrency)
        self.idle: list[Instance] = []
        self.ready: list[Instance] = []
        self.live: set[Instance] = set()
        self.starting = 0
        self.warming = 0
        self.nested: deque[Call] = deque()
        self.waiting: deque[Call] = deque()

    def next_call(self) -> Call | None:
        if self.nested:
            return self.nested.popleft()
        if self.waiting:
            return self.waiting.popleft()
        return None

    def free_instance(self) -> Instance | None:
        """The least loaded instance with a free slot."""
        if self.idle:
            return self.idle.pop()
        ready = self.ready
        if len(ready) == 1:
            return ready[0] if ready[0].load < self.concurrency else None
        if self.concurrency == 1 or not ready:
            return None
        loads = [instance.load for instance in ready]
        index = scaling.least_loaded(loads, self.concurrency)
        return ready[index] if index >= 0 else None

    @property
    def waits(self) -> int:
        return len(self.nested) + len(self.waiting)

    @property
    def oldest(self) -> float:
        """When the call that waits longest was submitted; only while one waits."""
        return min(line[0].submitted_at for line in (self.nested, self.waiting) if line)

    def take_late(self, now: float) -> list[Call]:
        """Remove and return the calls that have waited longer than they would."""
        late: list[Call] = []
        for line in (self.nested, self.waiting):
            over = {call for call in line if now - call.submitted_at >= call.queue_deadline_s}
            if over:
                late += over
                kept = [call for call in line if call not in over]
                line.clear()
                line.extend(kept)
        return late

"""Which waiting invocation runs next: the part of the queue that lives in memory. Pure, no I/O.

Per function it holds the first invocations of a backlog; the others stay on disk until a load
brings them in. Between functions it goes round robin. An invocation with an ordering key waits
behind the earlier ones of its *lane* until they ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush

from eventd.store.sqlite.function_backlog import FunctionBacklog, Head
from eventd.store.sqlite.rows import Owner

MAX_HELD = 1000
"""Invocations of one function in memory that are not claimed."""

LOW_WATER = 64
"""With fewer runnable ones in memory, more are loaded."""

MAX_HELD_BYTES = 64 << 20
"""Payloads held in memory, of all functions together."""


Parked = tuple[int, int, FunctionBacklog, str, Head | None]
"""due_ms, row id, function, lane, the head unless it was left on disk"""


class Backlog:
    """Everything that waits, over all functions.

    The caller tells it what the disk holds (``added``, ``loaded``, ...) and carries out what it
    then asks for in ``loads``, ``delayed_loads`` and ``row_loads``.
    """

    def __init__(
        self,
        *,
        max_held: int = MAX_HELD,
        low_water: int = LOW_WATER,
        max_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self.functions: dict[int, FunctionBacklog] = {}
        self.loads: list[FunctionBacklog] = []
        self.delayed_loads: list[FunctionBacklog] = []
        self.row_loads: list[tuple[FunctionBacklog, int, str]] = []
        self.waiting = 0
        self.waiting_by_function: dict[tuple[str, str], int] = {}
        self._max_held = max_held
        self._low_water = low_water
        self._max_bytes = max_bytes
        self._bytes = 0
        self._ring: deque[FunctionBacklog] = deque()
        self._parked: list[Parked] = []  # lane owners that are not due
        self._delaying: set[FunctionBacklog] = set()
        self._fetching: set[int] = set()  # lane owners on their way from disk
        self._gone: set[int] = set()  # on disk, about to be buried

    def function(self, owner: Owner) -> FunctionBacklog:
        found = self.functions.get(owner.no)
        if found is None:
            found = self.functions[owner.no] = FunctionBacklog(owner)
        return found

    # -- what the disk holds ----------------------------------------------------------------------

    def restored(self, function: FunctionBacklog, rows: int, delayed: int) -> None:
        """At the start: so many of each lie on disk."""
        self._count(function, rows + delayed)
        function.on_disk = rows
        function.delayed_on_disk = delayed
        self._want(function)
        self._want_delayed(function)

    def added(self, head: Head, now_ms: int) -> None:
        """Its row was committed behind all others of the function."""
        function = head.function
        self._count(function, 1)
        if function.on_disk or function.loading or not self._has_room(function):
            function.on_disk += 1
            self._want(function)
            return
        function.loaded_to = head.row_id
        self._admit(head, now_ms)

    def added_delayed(self, head: Head) -> None:
        """Its row was committed into the ``delayed`` table."""
        self._count(head.function, 1)
        self._place_delayed(head)

    def loaded(
        self, function: FunctionBacklog, heads: Sequence[Head], last: int, now_ms: int
    ) -> None:
        """The answer to ``loads``: the next rows, up to the id ``last``."""
        function.loading = False
        function.loaded_to = max(function.loaded_to, last)
        function.on_disk -= len(heads)
        for head in heads:
            if head.row_id in self._gone:
                self._gone.discard(head.row_id)
            else:
                self._admit(head, now_ms)
        self._want(function)

    def loaded_delayed(
        self, function: FunctionBacklog, heads: Sequence[Head], last: tuple[int, int]
    ) -> None:
        """The answer to ``delayed_loads``."""
        function.loading_delayed = False
        function.delayed_to = max(function.delayed_to, last)
        function.delayed_on_disk -= len(heads)
        for head in heads:
            if head.row_id in self._gone:
                self._gone.discard(head.row_id)
            else:
                self._hold_delayed(head)
        self._want_delayed(function)

    def loaded_row(
        self, function: FunctionBacklog, row_id: int, lane: str, head: Head | None, now_ms: int
    ) -> None:
        """The answer to ``row_loads``: the owner of a lane; ``None``: its row is damaged."""
        wanted = row_id in self._fetching
        self._fetching.discard(row_id)
        if wanted and head is not None:
            self._bytes += len(head.invocation.payload)
            self._run_or_park(head, now_ms)
            return
        if wanted:
            self._count(function, -1)
        self._advance(function, lane, now_ms)

    def lost(self, function: FunctionBacklog, row_id: int, *, delayed: bool) -> None:
        """A row of a load was damaged; it does not come to memory."""
        if row_id in self._gone:
            self._gone.discard(row_id)
        else:
            self._count(function, -1)
        if delayed:
            function.delayed_on_disk -= 1
        else:
            function.on_disk -= 1

    # -- time -------------------------------------------------------------------------------------

    def due(self, now_ms: int) -> None:
        """Make everything runnable whose time has come."""
        while self._parked and self._parked[0][0] <= now_ms:
            _, row_id, function, lane, head = heappop(self._parked)
            if head is None:
                self._fetch(function, row_id, lane)
            else:
                function.held -= 1
                self._make_ready(head)
        for function in list(self._delaying):
            while function.delayed and function.delayed[0][0] <= now_ms:
                self._make_ready(heappop(function.delayed)[2])
            self._want_delayed(function)
            if not function.delayed:
                self._delaying.discard(function)

    def next_due_ms(self) -> int | None:
        """When ``due`` has something to do again, as far as memory knows."""
        moments = [function.delayed[0][0] for function in self._delaying if function.delayed]
        if self._parked:
            moments.append(self._parked[0][0])
        return min(moments, default=None)

    # -- claims -----------------------------------------------------------------------------------

    def take(self) -> Head | None:
        """Claim the next runnable one."""
        if not self._ring:
            return None
        function = self._ring.popleft()
        head = function.ready.popleft()
        if function.ready:
            self._ring.append(function)
        else:
            function.in_ring = False
        self._count(function, -1)
        self._bytes -= len(head.invocation.payload)
        if function.on_disk:
            self._want(function)
        return head

    def give_back(self, head: Head) -> None:
        """A claim ended without a result: it is the next of its function again."""
        self._count(head.function, 1)
        self._bytes += len(head.invocation.payload)
        self._make_ready(head, first=True)

    def again(self, head: Head, now_ms: int) -> None:
        """A claim ended with a retry; ``head`` is its new state on disk."""
        self._count(head.function, 1)
        if head.delayed:
            self._place_delayed(head)
        else:
            self._bytes += len(head.invocation.payload)
            self._run_or_park(head, now_ms)

    def ended(self, head: Head, now_ms: int) -> None:
        """A claim ended for good: the lane's next may run."""
        if head.invocation.ordering_key:
            self._advance(head.function, head.invocation.ordering_key, now_ms)

    # -- burying what waits -----------------------------------------------------------------------

    def drop(self, function: FunctionBacklog, row_ids: Collection[int], now_ms: int) -> None:
        """These rows, none of which is claimed, are about to be buried: never claim them."""
        left = set(row_ids)
        self._count(function, -len(left))
        orphaned = self._drop_parked(function, left)
        freed, lanes = function.drop(left)
        orphaned |= lanes
        self._bytes -= freed
        if function.in_ring and not function.ready:
            self._ring.remove(function)
            function.in_ring = False
        fetched = left & self._fetching
        self._fetching -= fetched
        self._gone |= left - fetched
        for lane in orphaned:
            self._advance(function, lane, now_ms)

    def dropped(
        self, function: FunctionBacklog, row_ids: Collection[int], *, delayed: bool
    ) -> None:
        """The rows of ``drop`` have left the disk."""
        never_loaded = self._gone.intersection(row_ids)
        self._gone -= never_loaded
        if delayed:
            function.delayed_on_disk -= len(never_loaded)
        else:
            function.on_disk -= len(never_loaded)

    def _drop_parked(self, function: FunctionBacklog, left: set[int]) -> set[str]:
        lanes = set()
        kept = []
        for entry in self._parked:
            _, row_id, _, lane, head = entry
            if row_id not in left:
                kept.append(entry)
                continue
            left.discard(row_id)
            lanes.add(lane)
            if head is not None:
                function.held -= 1
                self._bytes -= len(head.invocation.payload)
        if len(kept) != len(self._parked):
            heapify(kept)
            self._parked = kept
        return lanes

    # -- inside -----------------------------------------------------------------------------------

    def _count(self, function: FunctionBacklog, change: int) -> None:
        function.waiting += change
        self.waiting += change
        key = (function.owner.service, function.owner.function)
        total = self.waiting_by_function.get(key, 0) + change
        if total:
            self.waiting_by_function[key] = total
        else:
            self.waiting_by_function.pop(key, None)

    def _has_room(self, function: FunctionBacklog) -> bool:
        held = len(function.ready) + len(function.delayed) + function.held
        return held < self._max_held and self._bytes < self._max_bytes

    def _admit(self, head: Head, now_ms: int) -> None:
        """A row came to memory, behind all that came before it."""
        function = head.function
        lane = head.invocation.ordering_key
        if lane:
            queue = function.lanes.get(lane)
            if queue is not None:
                self._queue(queue, head)
                return
            function.lanes[lane] = deque()
            self._bytes += len(head.invocation.payload)
            self._run_or_park(head, now_ms)
        else:
            self._bytes += len(head.invocation.payload)
            self._make_ready(head)

    def _queue(self, queue: deque[Head | int], head: Head) -> None:
        function = head.function
        if self._has_room(function):
            queue.append(head)
            function.held += 1
            self._bytes += len(head.invocation.payload)
        else:
            queue.append(head.row_id)

    def _advance(self, function: FunctionBacklog, lane: str, now_ms: int) -> None:
        """The owner of the lane is gone: its next becomes the owner."""
        queue = function.lanes[lane]
        if not queue:
            del function.lanes[lane]
            return
        entry = queue.popleft()
        if isinstance(entry, int):
            self._fetch(function, entry, lane)
        else:
            function.held -= 1
            self._run_or_park(entry, now_ms)

    def _fetch(self, function: FunctionBacklog, row_id: int, lane: str) -> None:
        self._fetching.add(row_id)
        self.row_loads.append((function, row_id, lane))

    def _run_or_park(self, head: Head, now_ms: int) -> None:
        due_ms = head.invocation.due_ms
        function = head.function
        if due_ms <= now_ms:
            self._make_ready(head)
            return
        kept: Head | None = None
        if self._has_room(function):
            function.held += 1
            kept = head
        else:
            self._bytes -= len(head.invocation.payload)
        lane = head.invocation.ordering_key
        heappush(self._parked, (due_ms, head.row_id, function, lane, kept))

    def _make_ready(self, head: Head, *, first: bool = False) -> None:
        function = head.function
        if first:
            function.ready.appendleft(head)
        else:
            function.ready.append(head)
        if not function.in_ring:
            function.in_ring = True
            self._ring.append(function)

    def _place_delayed(self, head: Head) -> None:
        function = head.function
        key = (head.invocation.due_ms, head.row_id)
        complete = not function.delayed_on_disk and not function.loading_delayed
        if key <= function.delayed_to or (complete and self._has_room(function)):
            function.delayed_to = max(function.delayed_to, key)
            self._hold_delayed(head)
        else:
            function.delayed_on_disk += 1
            self._want_delayed(function)

    def _hold_delayed(self, head: Head) -> None:
        function = head.function
        self._bytes += len(head.invocation.payload)
        heappush(function.delayed, (head.invocation.due_ms, head.row_id, head))
        self._delaying.add(function)

    def _want(self, function: FunctionBacklog) -> None:
        if not function.on_disk or function.loading or len(function.ready) >= self._low_water:
            return
        if function.ready and self._bytes >= self._max_bytes:
            return
        function.loading = True
        self.loads.append(function)

    def _want_delayed(self, function: FunctionBacklog) -> None:
        if not function.delayed_on_disk or function.loading_delayed:
            return
        if len(function.delayed) < self._low_water:
            function.loading_delayed = True
            self.delayed_loads.append(function)

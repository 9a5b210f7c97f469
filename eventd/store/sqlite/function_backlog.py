"""What waits for one function, as far as it lies in memory. Pure, no I/O."""

from __future__ import annotations

from collections import deque
from heapq import heapify

from eventd.model.invocation import Invocation
from eventd.store.sqlite.rows import Owner


class Head:
    """An invocation in memory; ``delayed`` tells the table and ``file`` the payload's file."""

    __slots__ = ("delayed", "file", "function", "invocation", "row_id")

    def __init__(
        self,
        function: FunctionBacklog,
        row_id: int,
        invocation: Invocation,
        file: str = "",
        delayed: bool = False,
    ) -> None:
        self.function = function
        self.row_id = row_id
        self.invocation = invocation
        self.file = file
        self.delayed = delayed


class FunctionBacklog:
    """What waits for one function.

    Attributes:
        ready: runnable now, in order.
        lanes: ordering key to what waits behind the lane's owner (which is runnable, parked or
            claimed); a bare row id where the invocation itself was left on disk.
        held: heads in lanes and parked ones.
        delayed: heap of (due_ms, row id, head): the earliest of the ``delayed`` table.
        loaded_to: rows up to this id are in memory, claimed or gone; ``on_disk`` lie beyond it.
        delayed_to: the same for the ``delayed`` table, as (due_ms, row id).
        waiting: everything that is not claimed.
    """

    __slots__ = (
        "delayed",
        "delayed_on_disk",
        "delayed_to",
        "held",
        "in_ring",
        "lanes",
        "loaded_to",
        "loading",
        "loading_delayed",
        "on_disk",
        "owner",
        "ready",
        "waiting",
    )

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.ready: deque[Head] = deque()
        self.lanes: dict[str, deque[Head | int]] = {}
        self.held = 0
        self.delayed: list[tuple[int, int, Head]] = []
        self.loaded_to = owner.first_id
        self.on_disk = 0
        self.loading = False
        self.delayed_to = (0, 0)
        self.delayed_on_disk = 0
        self.loading_delayed = False
        self.waiting = 0
        self.in_ring = False

    def drop(self, left: set[int]) -> tuple[int, set[str]]:
        """Forget the rows ``left``, and take from that set what was here (parked ones are not).

        Gives the bytes of payload that became free, and the lanes that lost their owner.
        """
        gone, kept = _split(self.ready, left)
        self.ready = deque(kept)
        orphaned = {head.invocation.ordering_key for head in gone} - {""}
        for lane, queue in self.lanes.items():
            gone += self._drop_queued(lane, queue, left)
        delayed = [entry for entry in self.delayed if entry[1] in left]
        if delayed:
            self.delayed = [entry for entry in self.delayed if entry[1] not in left]
            heapify(self.delayed)
            left.difference_update(entry[1] for entry in delayed)
            gone += [entry[2] for entry in delayed]
        return sum(len(head.invocation.payload) for head in gone), orphaned

    def _drop_queued(self, lane: str, queue: deque[Head | int], left: set[int]) -> list[Head]:
        gone = []
        kept: deque[Head | int] = deque()
        for entry in queue:
            row_id = entry if isinstance(entry, int) else entry.row_id
            if row_id not in left:
                kept.append(entry)
                continue
            left.discard(row_id)
            if isinstance(entry, Head):
                self.held -= 1
                gone.append(entry)
        self.lanes[lane] = kept
        return gone


def _split(heads: deque[Head], left: set[int]) -> tuple[list[Head], list[Head]]:
    gone = [head for head in heads if head.row_id in left]
    kept = [head for head in heads if head.row_id not in left]
    left.difference_update(head.row_id for head in gone)
    return gone, kept

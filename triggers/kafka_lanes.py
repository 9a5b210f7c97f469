"""Which records run next, and how far an offset may be committed. No I/O, no clock.

Records wait in *lanes*. ``partition``: a lane per partition, one batch of it runs at a time.
``key``: a fixed number of lanes, a record's key chooses (equal keys share a lane; records without
key take turns), one batch of a lane at a time. ``none``: a lane per partition, any number of
batches at a time. The committable position of a partition never passes a record that is not done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from zlib import crc32

from triggers.kafka_payload import Record


class OrderBy(StrEnum):
    PARTITION = "partition"
    KEY = "key"
    NONE = "none"


@dataclass(slots=True, eq=False)
class _Token:
    """Stands for the offsets below ``next_offset`` that an earlier token does not stand for."""

    next_offset: int
    done: bool = False


class _Partition:
    """A partition that is assigned to this member."""

    __slots__ = ("buffered", "buffered_bytes", "committed", "expected", "open", "position")

    def __init__(self, position: int) -> None:
        self.position = position  # everything below is done
        self.committed = position
        self.expected = position  # the next offset to be fed
        self.open: deque[_Token] = deque()
        self.buffered = 0
        self.buffered_bytes = 0

    def begin(self, next_offset: int) -> _Token:
        token = _Token(next_offset)
        self.open.append(token)
        return token

    def end(self, token: _Token) -> None:
        token.done = True
        waiting = self.open
        while waiting and waiting[0].done:
            self.position = waiting.popleft().next_offset


@dataclass(slots=True, eq=False)
class _Lane:
    records: deque[Record] = field(default_factory=deque)
    tokens: deque[_Token] = field(default_factory=deque)  # by key only: one per record
    busy: bool = False
    ready: bool = False  # stands in the queue of lanes from which a batch may be taken
    ripe: bool = False  # its window is over: a part of a batch is enough
    window: bool = False  # a window runs


@dataclass(slots=True, eq=False)
class Unit:
    """Records that run together, in one call of the function."""

    records: list[Record]
    lane: _Lane
    epoch: int
    tokens: list[_Token]


def _size(record: Record) -> int:
    value, key = record.value, record.key
    return (len(value) if value is not None else 0) + (len(key) if key is not None else 0)


class Lanes:
    """The records that were fetched and are not done.

    Args:
        batch_size, batch_bytes: most records and bytes of one unit; a unit has at least a record.
        window_s: how long a lane waits for a full batch; 0 = not at all.
        key_lanes: number of lanes by key.
    """

    def __init__(
        self,
        order: OrderBy,
        *,
        batch_size: int = 1,
        window_s: float = 0.0,
        batch_bytes: int = 16 << 20,
        key_lanes: int = 64,
    ) -> None:
        self._order = order
        self._exclusive = order is not OrderBy.NONE
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._window_s = window_s
        self._key_lanes = key_lanes
        self._partitions: dict[int, _Partition] = {}
        self._lanes: dict[int, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._windows: deque[tuple[float, _Lane]] = deque()
        self._turn = 0
        self._epoch = 0
        self._held = False

    @property
    def ready(self) -> int:
        """About how many units may be taken now."""
        if self._held:
            return 0
        if self._exclusive:
            return len(self._ready)
        return sum(max(1, len(lane.records) // self._batch_size) for lane in self._ready)

    def assign(self, partition: int, position: int) -> None:
        """The partition is this member's; its next record is the one at ``position``."""
        self._partitions[partition] = _Partition(position)

    def assigned(self) -> tuple[int, ...]:
        return tuple(self._partitions)

    def hold(self) -> None:
        """Give out nothing more until ``release``; what runs may end and counts."""
        self._held = True

    def release(self) -> None:
        self._held = False

    def reset(self) -> None:
        """Forget partitions and records; a unit that still runs will not count when it ends."""
        self._epoch += 1
        self._partitions.clear()
        self._lanes.clear()
        self._ready.clear()
        self._windows.clear()

    def feed(self, partition: int, records: Sequence[Record], now: float) -> None:
        """Take fetched records of one partition, in offset order; those of a partition that is
        not assigned, or that were fed before, are dropped."""
        owner = self._partitions.get(partition)
        if owner is None or not records:
            return
        if records[0].offset < owner.expected:
            records = [record for record in records if record.offset >= owner.expected]
            if not records:
                return
        owner.expected = records[-1].offset + 1
        owner.buffered += len(records)
        owner.buffered_bytes += sum(map(_size, records))
        if self._order is OrderBy.KEY:
            for record in records:
                lane = self._lane(self._key_lane(record))
                lane.records.append(record)
                lane.tokens.append(owner.begin(record.offset + 1))
                if not lane.ready:
                    self._offer(lane, now)
            return
        lane = self._lane(partition)
        lane.records.extend(records)
        self._offer(lane, now)

    def take(self, now: float) -> Unit | None:
        """The next unit to run; ``done`` must follow. ``None``: nothing may run now."""
        if self._held or not self._ready:
            return None
        lane = self._ready.popleft()
        lane.ready = False
        lane.ripe = False
        records, size = self._cut(lane)
        if self._order is OrderBy.KEY:
            tokens = [lane.tokens.popleft() for _ in records]
            for record in records:
                self._unbuffer(record.partition, 1, _size(record))
        else:
            last = records[-1]
            owner = self._partitions[last.partition]
            tokens = [owner.begin(last.offset + 1)]
            self._unbuffer(last.partition, len(records), size)
        if self._exclusive:
            lane.busy = True
        else:
            self._offer(lane, now)
        return Unit(records, lane, self._epoch, tokens)

    def done(self, unit: Unit, now: float) -> None:
        """The unit's records are handled: succeeded, or dead-lettered."""
        if unit.epoch != self._epoch:
            return
        if self._order is OrderBy.KEY:
            for record, token in zip(unit.records, unit.tokens, strict=True):
                self._partitions[record.partition].end(token)
        else:
            self._partitions[unit.records[-1].partition].end(unit.tokens[0])
        lane = unit.lane
        if self._exclusive:
            lane.busy = False
            self._offer(lane, now)

    def ripen(self, now: float) -> float | None:
        """Let lanes whose window is over give a part of a batch; when the next one is over."""
        while self._windows:
            due, lane = self._windows[0]
            if due > now:
                return due
            self._windows.popleft()
            lane.window = False
            lane.ripe = True
            self._offer(lane, now)
        return None

    def crowded(self, partition: int, *, records: int, size: int) -> bool:
        """Whether more than this waits to be taken: the partition should be fetched no further."""
        owner = self._partitions.get(partition)
        return owner is not None and (owner.buffered > records or owner.buffered_bytes > size)

    def positions(self) -> dict[int, int]:
        """For each partition the offset below which everything is done."""
        return {number: owner.position for number, owner in self._partitions.items()}

    def committable(self) -> dict[int, int]:
        """The positions that moved since they were last ``committed``."""
        return {
            number: owner.position
            for number, owner in self._partitions.items()
            if owner.position > owner.committed
        }

    def committed(self, positions: dict[int, int]) -> None:
        for number, position in positions.items():
            owner = self._partitions.get(number)
            if owner is not None and position > owner.committed:
                owner.committed = position

    def _lane(self, number: int) -> _Lane:
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = _Lane()
        return lane

    def _key_lane(self, record: Record) -> int:
        if record.key is None:
            self._turn = (self._turn + 1) % self._key_lanes
            return self._turn
        return crc32(record.key) % self._key_lanes

    def _offer(self, lane: _Lane, now: float) -> None:
        """Queue the lane if a unit may be taken from it; else start its window."""
        if lane.ready or lane.busy or not lane.records:
            return
        if self._window_s <= 0 or lane.ripe or len(lane.records) >= self._batch_size:
            lane.ready = True
            self._ready.append(lane)
        elif not lane.window:
            lane.window = True
            self._windows.append((now + self._window_s, lane))

    def _cut(self, lane: _Lane) -> tuple[list[Record], int]:
        """The records of the next unit, and their bytes."""
        waiting = lane.records
        records = [waiting.popleft()]
        size = _size(records[0])
        if self._batch_size == 1:
            return records, size
        while waiting and len(records) < self._batch_size:
            more = size + _size(waiting[0])
            if more > self._batch_bytes:
                break
            size = more
            records.append(waiting.popleft())
        return records, size

    def _unbuffer(self, partition: int, count: int, size: int) -> None:
        owner = self._partitions[partition]
        owner.buffered -= count
        owner.buffered_bytes -= size

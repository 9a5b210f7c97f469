"""Lanes against the rules they promise: order, completeness, and no commit past a hole."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from triggers.kafka_lanes import Lanes, OrderBy, Unit


@dataclass(frozen=True)
class Rec:
    partition: int
    offset: int
    key: bytes | None = None
    value: bytes | None = b"v"
    topic: str = "t"
    timestamp: int = 0
    headers: tuple[tuple[str, bytes | None], ...] = ()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.integers(0, 2), st.integers(1, 6)),
        st.tuples(st.just("take"), st.just(0), st.just(0)),
        st.tuples(st.just("done"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("reset"), st.just(0), st.just(0)),
        st.tuples(st.just("time"), st.integers(1, 3), st.just(0)),
    ),
    max_size=80,
)


class Model:
    """Feeds a log with gaps, takes, ends in any order, and checks every promise at each step."""

    def __init__(self, order: OrderBy, batch: int, window: float) -> None:
        self.order = order
        self.batch = batch
        self.lanes = Lanes(order, batch_size=batch, window_s=window, key_lanes=3)
        self.now = 0.0
        self.log: dict[int, list[Rec]] = {0: [], 1: [], 2: []}
        self.fed = [0, 0, 0]  # index into the log
        self.done: set[tuple[int, int]] = set()
        self.running: list[Unit] = []
        self.committed = {0: 0, 1: 0, 2: 0}
        for number in range(3):
            self.lanes.assign(number, 0)

    def feed(self, partition: int, count: int) -> None:
        log = self.log[partition]
        while len(log) < self.fed[partition] + count:
            offset = log[-1].offset + 1 + len(log) % 2 if log else 0  # compaction leaves gaps
            key = None if len(log) % 5 == 4 else b"k%d" % (len(log) % 4)
            log.append(Rec(partition, offset, key))
        start = self.fed[partition]
        self.fed[partition] += count
        # what was fed before comes again and must not run again
        again = max(0, start - 1)
        self.lanes.feed(partition, log[again : start + count], self.now)

    def take(self) -> None:
        unit = self.lanes.take(self.now)
        if unit is None:
            return
        assert 1 <= len(unit.records) <= self.batch
        for record in unit.records:
            where = (record.partition, record.offset)
            assert where not in self.done
            for other in self.running:
                assert where not in [(r.partition, r.offset) for r in other.records]
                if self.order is OrderBy.PARTITION:
                    assert other.records[0].partition != record.partition
                if self.order is OrderBy.KEY and record.key is not None:
                    assert record.key not in [r.key for r in other.records]
            self.in_order(record, unit)
        self.running.append(unit)

    def in_order(self, record: Rec, unit: Unit) -> None:  # type: ignore[override]
        """Every earlier record that must precede it is done, or runs earlier in this unit."""
        if self.order is OrderBy.NONE:
            return
        for earlier in self.log[record.partition]:
            if earlier.offset >= record.offset:
                return
            if self.order is OrderBy.KEY and (record.key is None or earlier.key != record.key):
                continue
            inside = any(
                r.partition == earlier.partition and r.offset == earlier.offset
                for r in unit.records
            )
            assert inside or (earlier.partition, earlier.offset) in self.done

    def end(self, number: int) -> None:
        if self.running:
            unit = self.running.pop(number % len(self.running))
            self.done.update((r.partition, r.offset) for r in unit.records)
            self.lanes.done(unit, self.now)

    def reset(self) -> None:
        """A rebalance: everything again from what is committed; what ran is abandoned."""
        self.check()
        abandoned, self.running = self.running, []
        self.lanes.reset()
        for number in range(3):
            self.lanes.assign(number, self.committed[number])
            log = self.log[number]
            self.fed[number] = sum(r.offset < self.committed[number] for r in log)
            self.done -= {(number, r.offset) for r in log[self.fed[number] :]}
        for unit in abandoned:
            self.lanes.done(unit, self.now)  # ends late and must not count

    def check(self) -> None:
        for number, position in self.lanes.committable().items():
            for record in self.log[number]:
                if record.offset < position:
                    assert (number, record.offset) in self.done
            assert position > self.committed[number]
            self.committed[number] = position
        self.lanes.committed(dict(self.committed))

    def finish(self) -> None:
        for _ in range(10_000):
            self.now += 10.0
            self.lanes.ripen(self.now)
            self.take()
            self.end(0)
            if not self.running and all(
                (n, r.offset) in self.done for n in range(3) for r in self.log[n][: self.fed[n]]
            ):
                break
        self.check()
        for number in range(3):
            log = self.log[number][: self.fed[number]]
            assert self.committed[number] == (log[-1].offset + 1 if log else 0)
            assert not self.lanes.crowded(number, records=0, size=0)


@settings(max_examples=200, deadline=None)
@given(
    order=st.sampled_from(list(OrderBy)),
    batch=st.integers(1, 4),
    window=st.sampled_from([0.0, 2.0]),
    plan=steps,
)
def test_lanes_keep_their_promises(
    order: OrderBy, batch: int, window: float, plan: list[tuple[str, int, int]]
) -> None:
    model = Model(order, batch, window)

    for step, first, second in plan:
        if step == "feed":
            model.feed(first, second)
        elif step == "take":
            model.take()
        elif step == "done":
            model.end(first)
        elif step == "time":
            model.now += first
            model.lanes.ripen(model.now)
        else:
            model.reset()
        model.check()
    model.finish()


def records(count: int, partition: int = 0) -> list[Rec]:
    return [Rec(partition, offset) for offset in range(count)]


def test_a_part_of_a_batch_waits_for_its_window() -> None:
    lanes = Lanes(OrderBy.PARTITION, batch_size=3, window_s=1.0)
    lanes.assign(0, 0)
    lanes.feed(0, records(2), now=10.0)

    assert lanes.take(10.0) is None
    assert lanes.ripen(10.5) == 11.0
    assert lanes.take(10.5) is None
    assert lanes.ripen(11.0) is None
    unit = lanes.take(11.0)
    assert unit is not None
    assert len(unit.records) == 2


def test_a_batch_is_cut_at_its_bytes_and_never_empty() -> None:
    lanes = Lanes(OrderBy.PARTITION, batch_size=10, batch_bytes=5)
    lanes.assign(0, 0)
    lanes.feed(0, [Rec(0, 0, value=b"123456789"), Rec(0, 1, value=b"123"), Rec(0, 2)], now=0.0)

    first = lanes.take(0.0)
    assert first is not None
    lanes.done(first, 0.0)
    second = lanes.take(0.0)
    assert second is not None

    assert [len(first.records), len(second.records)] == [1, 2]


def test_held_lanes_give_nothing_and_what_runs_still_counts() -> None:
    lanes = Lanes(OrderBy.PARTITION)
    lanes.assign(0, 0)
    lanes.feed(0, records(2), now=0.0)
    unit = lanes.take(0.0)
    assert unit is not None

    lanes.hold()
    lanes.done(unit, 0.0)

    assert lanes.take(0.0) is None
    assert lanes.ready == 0
    assert lanes.committable() == {0: 1}


def test_a_partition_is_crowded_by_records_or_by_bytes() -> None:
    lanes = Lanes(OrderBy.NONE)
    lanes.assign(0, 0)
    lanes.feed(0, [Rec(0, 0, value=b"x" * 100)], now=0.0)

    assert lanes.crowded(0, records=5, size=99)
    assert not lanes.crowded(0, records=1, size=100)
    assert lanes.take(0.0) is not None
    assert not lanes.crowded(0, records=0, size=0)


def test_records_of_a_partition_that_is_not_assigned_are_dropped() -> None:
    lanes = Lanes(OrderBy.KEY)

    lanes.feed(4, records(3, partition=4), now=0.0)

    assert lanes.take(0.0) is None

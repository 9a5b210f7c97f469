"""Consumes a topic as a member of a consumer group and delivers its records to functions.

The topic is the queue: an offset is committed after ``deliver`` returned for every record below
it, so a crash or a rebalance repeats records and loses none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    RebalanceInProgressError,
    UnknownTopicOrPartitionError,
)

from eventd.plugin import Delivery, Event, Run, SourceContext, SourceReport
from triggers.kafka_consumption import ASK_S, START_S, Consumption, leave, starting_offsets
from triggers.kafka_lanes import Lanes, OrderBy, Unit
from triggers.kafka_payload import EVENT_SOURCE, EVENT_TYPE, Encoder, rfc3339, subject
from triggers.kafka_trouble import first_cause, trouble

log = logging.getLogger(__name__)

_FETCH_RECORDS = 1000
_BUFFER_BYTES = 8 << 20  # per partition, on top of one fetch
_COMMIT_EVERY_S = 0.05
_LAST_COMMIT_S = 3.0
_LOOK_S = 3.0
_WATCH_EVERY_S = 5.0
_BACKOFF_S = (0.5, 10.0)


class KafkaSource:
    """Runs a ``Consumption`` until cancelled; waits for brokers and topics that are away."""

    def __init__(self, consumption: Consumption) -> None:
        self._consumption = consumption
        self._away = False

    async def run(self, context: SourceContext) -> None:
        """See ``plugin.Source``. Cancelling lets running calls end within the revoke grace and
        commits what is done."""
        topic = self._consumption.topic
        pause_s = _BACKOFF_S[0]
        while True:
            member: _Member | None = None
            try:
                pins = await starting_offsets(self._consumption, context)
                member = _Member(self._consumption, context, pins, partial(self._report, context))
                await member.run()
            except UnknownTopicOrPartitionError:
                text = f"topic '{topic}' does not exist"
            except (KafkaError, OSError, TimeoutError) as error:
                text = trouble(error)
            except ExceptionGroup as group:
                ours, others = group.split((KafkaError, OSError, TimeoutError))
                if others is not None:
                    raise first_cause(others) from group
                text = trouble(first_cause(ours or group))
            if member is not None and member.consumed:
                pause_s = _BACKOFF_S[0]
            self._report(context, SourceReport(text, healthy=False))
            await context.sleep(pause_s)
            pause_s = min(pause_s * 2, _BACKOFF_S[1])

    def _report(self, context: SourceContext, report: SourceReport) -> None:
        """Tell ``status``, and the log once per outage."""
        context.report(report)
        if self._away == report.healthy:
            self._away = not report.healthy
            level = logging.INFO if report.healthy else logging.WARNING
            log.log(level, "topic %s: %s", self._consumption.topic, report.text)


class _Running:
    """A unit from its start to its end."""

    __slots__ = ("_member", "run", "unit")

    def __init__(self, member: _Member, unit: Unit) -> None:
        self._member = member
        self.unit = unit
        self.run: Run | None = None

    def ended(self, end: Delivery | Exception | None) -> None:
        self.run = None  # it knows us: without the circle both go at once
        if isinstance(end, Exception):
            self._member.failed(end)
        else:
            self._member.ended(self)


class _Member(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types for it
    """One membership of the consumer group, from joining to the first failure."""

    def __init__(
        self,
        consumption: Consumption,
        context: SourceContext,
        pins: Mapping[int, int],
        report: Callable[[SourceReport], None],
    ) -> None:
        self._plan = consumption
        self._context = context
        self._pins = pins
        self._report = report
        self._encoder = Encoder(
            consumption.instance, consumption.account_id, raw_data=consumption.raw_data
        )
        self._subject = subject(consumption.instance, consumption.topic)
        self._lanes = Lanes(
            consumption.order_by,
            batch_size=consumption.batch_size,
            window_s=consumption.batch_window_s,
            key_lanes=consumption.concurrency,
        )
        self._buffer_records = max(4 * _FETCH_RECORDS, 2 * consumption.batch_size)
        self._consumer = consumption.consumer(consumption.group)
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._running: set[_Running] = set()
        self._windowed = consumption.batch_window_s > 0
        self._dirty = asyncio.Event()
        self._quiet = asyncio.Event()
        self._paused: dict[int, TopicPartition] = {}
        self._places: dict[int, str] = {}
        self._window_timer: asyncio.TimerHandle | None = None
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self.consumed = False

    async def run(self) -> None:
        """Consume until something fails (raised, possibly as a group) or cancelled."""
        try:
            await asyncio.wait_for(self._consumer.start(), START_S)
            self._consumer.subscribe([self._plan.topic], listener=self)
            await self._consume()
        finally:
            if self._window_timer is not None:
                self._window_timer.cancel()
            self._failed.cancel()
            await leave(self._consumer)

    async def _consume(self) -> None:
        async with self._tasks as tasks:
            side = [
                tasks.create_task(self._commit_forever()),
                tasks.create_task(self._watch_forever()),
                tasks.create_task(self._raise_failure()),
            ]
            try:
                await self._pump()
            finally:
                for task in side:
                    task.cancel()
                await self._let_running_end()
                await self._commit(_LAST_COMMIT_S)

    async def _raise_failure(self) -> None:
        await self._failed

    # -- records in

    async def _pump(self) -> None:
        """Fetch for ever: a fetch stays in flight also when every partition is paused, else the
        group would take this member for dead after ``max_poll_interval_ms``."""
        consumer, lanes = self._consumer, self._lanes
        while True:
            fetched = await consumer.getmany(timeout_ms=200, max_records=_FETCH_RECORDS)
            for partition in list(self._paused):  # the unit that made room resumed most
                self._resume(partition)
            if not fetched:
                continue
            self.consumed = True
            now = self._loop.time()
            for tp, records in fetched.items():
                lanes.feed(tp.partition, records, now)
                if lanes.crowded(tp.partition, records=self._buffer_records, size=_BUFFER_BYTES):
                    self._pause(tp)
            self._fill()
            self._start_window_timer()
            await asyncio.sleep(0)  # data at hand makes getmany return without giving way

    def _pause(self, tp: TopicPartition) -> None:
        if tp in self._consumer.assignment() and tp.partition not in self._paused:
            self._consumer.pause(tp)
            self._paused[tp.partition] = tp

    def _resume(self, partition: int) -> None:
        tp = self._paused.get(partition)
        if tp is not None and not self._lanes.crowded(
            partition, records=self._buffer_records // 2, size=_BUFFER_BYTES // 2
        ):
            del self._paused[partition]
            if tp in self._consumer.assignment():
                self._consumer.resume(tp)

    def _start_window_timer(self) -> None:
        if self._windowed and self._window_timer is None:
            due = self._lanes.ripen(self._loop.time())
            if due is not None:
                self._window_timer = self._loop.call_at(due, self._window_over)
            self._fill()

    def _window_over(self) -> None:
        self._window_timer = None
        self._start_window_timer()

    # -- records to functions

    def _fill(self) -> None:
        """Start units while there are some and slots are free."""
        lanes = self._lanes
        now = self._loop.time()
        for _ in range(self._plan.concurrency - len(self._running)):
            unit = lanes.take(now)
            if unit is None:
                return
            self._start(unit)

    def _start(self, unit: Unit) -> None:
        running = _Running(self, unit)
        self._running.add(running)
        event = self._event(unit)
        if self._plan.queued:
            running.run = self._tasks.create_task(self._put(event, running))
        else:
            running.run = self._context.deliver_nowait(
                event, running.ended, attempts=self._plan.attempts
            )

    async def _put(self, event: Event, running: _Running) -> None:
        await self._context.emit((event,))
        running.ended(None)

    def ended(self, running: _Running) -> None:
        """A unit is done; the next one takes its slot."""
        lanes = self._lanes
        self._running.discard(running)
        now = self._loop.time() if self._windowed else 0.0
        unit = running.unit
        lanes.done(unit, now)
        if not self._dirty.is_set():
            self._dirty.set()
        if self._paused:
            self._resume(unit.records[-1].partition)
        following = lanes.take(now)
        if following is not None:
            self._start(following)
        elif not self._running:
            self._quiet.set()
        if self._windowed:
            self._start_window_timer()

    def failed(self, error: Exception) -> None:
        """Start anew: what is not committed is offered again."""
        if not self._failed.done():
            self._failed.set_exception(error)

    def _event(self, unit: Unit) -> Event:
        first = unit.records[0]
        place = self._places.get(first.partition)
        if place is None:
            place = self._places[first.partition] = f"{first.topic}-{first.partition}"
        name = f"{place}-{first.offset}"
        if len(unit.records) > 1:
            name = f"{name}+{len(unit.records)}"
        order = self._plan.order_by
        if order is OrderBy.PARTITION:
            ordering_key = place
        elif order is OrderBy.KEY and first.key is not None:
            ordering_key = first.key.decode("utf-8", "backslashreplace")
        else:
            ordering_key = ""
        return Event(
            name,
            EVENT_SOURCE,
            EVENT_TYPE,
            self._subject,
            rfc3339(first.timestamp),
            self._encoder.encode(unit.records),
            ordering_key,
        )

    # -- offsets

    async def _commit_forever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            committed = await self._commit()
            await self._context.sleep(_COMMIT_EVERY_S if committed else _BACKOFF_S[0])

    async def _commit(self, deadline_s: float = ASK_S) -> bool:
        """Commit what is done. What cannot be committed now is tried again later (``False``), or
        is repeated by whoever has the partition then."""
        positions = self._lanes.committable()
        if not positions:
            return True
        offsets = {
            TopicPartition(self._plan.topic, number): position
            for number, position in positions.items()
        }
        try:
            await asyncio.wait_for(self._consumer.commit(offsets), deadline_s)
        except (CommitFailedError, IllegalStateError, RebalanceInProgressError) as error:
            log.debug("commit refused, the partitions moved: %s", error)
            return True
        except (KafkaError, TimeoutError) as error:
            self._dirty.set()
            self._report(SourceReport(trouble(error), healthy=False))
            return False
        self._lanes.committed(positions)
        return True

    # -- rebalance (called by aiokafka, which logs and drops what they raise)

    async def on_partitions_revoked(self, revoked: object) -> None:
        """Before every rebalance: give nothing out, let running calls end, commit, forget."""
        await self._let_running_end()
        await self._commit(_LAST_COMMIT_S)
        self._lanes.reset()
        self._paused.clear()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        try:
            await asyncio.wait_for(self._take_over(assigned), ASK_S)
        except (KafkaError, OSError, TimeoutError) as error:
            self.failed(error)  # join anew rather than sit on partitions unread

    async def _take_over(self, assigned: set[TopicPartition]) -> None:
        partitions = sorted(assigned)
        consumer = self._consumer
        commits = await asyncio.gather(*(consumer.committed(tp) for tp in partitions))
        fresh = [
            tp
            for tp, commit in zip(partitions, commits, strict=True)
            if commit is None and tp.partition not in self._pins
        ]
        beginnings = await consumer.beginning_offsets(fresh) if fresh else {}
        for tp, commit in zip(partitions, commits, strict=True):
            position = commit
            if position is None:
                position = self._pins.get(tp.partition, beginnings.get(tp, 0))
            # also drops what was fetched from a default position in the meantime
            consumer.seek(tp, position)
            self._lanes.assign(tp.partition, position)
        self._lanes.release()
        self._fill()
        self._report(
            SourceReport(f"consuming {len(partitions)} partitions of '{self._plan.topic}'")
        )

    async def _let_running_end(self) -> None:
        """Give out nothing new; after the grace, abandon what still runs: it is not committed and
        will be offered again."""
        self._lanes.hold()
        deadline = self._loop.time() + self._plan.revoke_grace_s
        while self._running and (left := deadline - self._loop.time()) > 0:
            self._quiet.clear()
            try:
                await asyncio.wait_for(self._quiet.wait(), left)
            except TimeoutError:
                break
        for running in self._running:
            if running.run is not None:
                running.run.cancel()
        self._running.clear()

    # -- status

    async def _watch_forever(self) -> None:
        while True:
            self._report(await self._look())
            await self._context.sleep(_WATCH_EVERY_S)

    async def _look(self) -> SourceReport:
        topic, consumer = self._plan.topic, self._consumer
        positions = self._lanes.positions()
        try:
            if not positions:
                topics = await asyncio.wait_for(consumer.topics(), _LOOK_S)
                if topic not in topics:
                    return SourceReport(f"topic '{topic}' does not exist", healthy=False)
                return SourceReport(f"waiting for partitions of '{topic}'")
            partitions = [TopicPartition(topic, number) for number in positions]
            ends = await asyncio.wait_for(consumer.end_offsets(partitions), _LOOK_S)
        except (KafkaError, OSError, TimeoutError) as error:
            return SourceReport(trouble(error), healthy=False)
        lag = 0
        for tp, end in ends.items():
            known = consumer.highwater(tp) if tp in consumer.assignment() else None
            lag += max(0, max(end, known or 0) - positions[tp.partition])
        return SourceReport(f"consuming {len(positions)} partitions of '{topic}'", lag=lag)

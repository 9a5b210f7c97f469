"""Kafka to function, without the instance: adapter and router in front of a pool that answers at
once, against a bare ``getmany`` loop. Ratios of one interleaved run.

    python bench/kafka_source.py [MESSAGES=100000] [ROUNDS=3]
"""

from __future__ import annotations

import asyncio
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "unit" / "router"))

from kafka_broker import running_broker
from memory_router import Router
from router_fakes import FakePool

from eventd.model.invocation import Outcome
from eventd.plugin import Delivery, Event, Rule, Run, SourceReport, SourceSettings, Trigger
from eventd.pool.call import Call
from triggers.kafka import KafkaConfig, KafkaTrigger

PARTITIONS = 4
BATCH = 5000


class NullPool(FakePool):
    """Ends each call in the next tick, as the warmest instance would at best."""

    def submit(self, call: Call) -> None:
        asyncio.get_running_loop().call_soon(call.receiver.on_end, OK)


OK = Outcome(payload=b"ok")


class NoRecords(list[Any]):
    def append(self, item: Any) -> None:
        pass


class Context:
    """The shortest way from a source to ``Intake.deliver``."""

    key = "kafka:bench"
    settings = SourceSettings(Path("/nonexistent"), "1234", "cn-local")

    def __init__(self, router: Router, wanted: int) -> None:
        self._intake = router.intake
        self._wanted = wanted
        self.records = 0
        self.start = self.cpu = 0.0
        self.done = asyncio.Event()

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def load_state(self) -> dict[str, str]:
        return {}

    async def emit(
        self,
        events: Sequence[Event],
        *,
        cursor: str | None = None,
        state: Mapping[str, str | None] | None = None,
    ) -> None:
        pass

    def report(self, report: SourceReport) -> None:
        pass

    def deliver_nowait(
        self, event: Event, on_end: Callable[[Delivery | Exception], None], *, attempts: int = 3
    ) -> Run:
        if not self.start:
            self.start, self.cpu = time.perf_counter(), time.process_time()
        self.records += event.data.count(b'"specversion"')
        if self.records >= self._wanted:
            self.done.set()
        return self._intake.deliver_nowait(
            self.key,
            event,
            attempts=attempts,
            on_end=on_end,
            spawn=asyncio.get_running_loop().create_task,
        )


async def produce(bootstrap: str, topic: str, count: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=1 << 20)
    await producer.start()
    left = [count // PARTITIONS] * PARTITIONS
    while any(left):
        for partition in range(PARTITIONS):
            batch = producer.create_batch()
            for _ in range(min(left[partition], 2000)):
                key = b"k%d" % (left[partition] % 256)
                if batch.append(key=key, value=b"x" * 200, timestamp=None) is None:
                    break
                left[partition] -= 1
            if batch.record_count():
                await (await producer.send_batch(batch, topic, partition=partition))
    await producer.stop()


async def bare(bootstrap: str, topic: str, count: int) -> tuple[float, float]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"bare-{time.time_ns()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    seen, start, cpu = 0, 0.0, 0.0
    while seen < count:
        fetched = await consumer.getmany(timeout_ms=500, max_records=BATCH)
        if not start:
            start, cpu = time.perf_counter(), time.process_time()
        for records in fetched.values():
            for record in records:
                seen += record.value is not None
    rate = seen / (time.perf_counter() - start)
    cpu_us = (time.process_time() - cpu) / seen * 1e6
    await consumer.stop()
    return rate, cpu_us


async def through(bootstrap: str, topic: str, count: int, **config: Any) -> tuple[float, float]:
    router = Router()
    router.pool = NullPool()
    router.records.all = NoRecords()
    router.__post_init__()
    raw = {
        "bootstrapServers": bootstrap,
        "topic": topic,
        "consumerGroup": f"g-{time.time_ns()}",
        "startingPosition": "earliest",
        **config,
    }
    trigger = Trigger(
        "bench", "s", "f", "t", "LATEST", None, KafkaConfig.model_validate(raw), raw, "", ""
    )
    router.rules.put(trigger, Rule("kafka:bench"), lambda event: event.data)
    context = Context(router, count)
    source = KafkaTrigger().source(trigger, context.settings)
    task = asyncio.create_task(source.run(context))  # type: ignore[arg-type]
    await asyncio.wait(
        {task, asyncio.create_task(context.done.wait())}, return_when="FIRST_COMPLETED"
    )
    rate = context.records / (time.perf_counter() - context.start)
    cpu_us = (time.process_time() - context.cpu) / context.records * 1e6
    task.cancel()
    await asyncio.wait({task})
    return rate, cpu_us


@dataclasses.dataclass
class Case:
    name: str
    config: dict[str, Any] | None
    rates: list[float] = dataclasses.field(default_factory=list)
    cpu_us: list[float] = dataclasses.field(default_factory=list)


async def measure(bootstrap: str, count: int, rounds: int) -> None:
    cases = [
        Case("bare getmany", None),
        Case("batch 1, orderBy none", {"orderBy": "none"}),
        Case("batch 1, orderBy key", {"orderBy": "key"}),
        Case("batch 1, orderBy partition (4)", {}),
        Case("batch 1000, orderBy none", {"orderBy": "none", "batchSize": 1000}),
        Case("batch 1000, orderBy partition", {"batchSize": 1000}),
    ]
    await produce(bootstrap, "bench", count)
    for _ in range(rounds):
        for case in cases:
            if case.config is None:
                rate, cpu_us = await bare(bootstrap, "bench", count)
            else:
                rate, cpu_us = await through(bootstrap, "bench", count, **case.config)
            case.rates.append(rate)
            case.cpu_us.append(cpu_us)
    base = statistics.median(cases[0].rates)
    print("| Kafka to function | messages/s | ratio to getmany | spread | CPU us/message |")
    print("|---|---|---|---|---|")
    for case in cases:
        median = statistics.median(case.rates)
        spread = (max(case.rates) - min(case.rates)) / median
        print(
            f"| {case.name} | {median:,.0f} | {median / base:.3f} | {spread:.0%} "
            f"| {min(case.cpu_us):.1f} |"
        )


def main() -> None:
    arguments = [int(text) for text in sys.argv[1:]]
    count, rounds = (arguments + [100_000, 3][len(arguments) :])[:2]
    with running_broker() as broker:
        uvloop.run(measure(broker.bootstrap, count, rounds))


if __name__ == "__main__":
    main()

"""What the Kafka tests share: a cluster, a context that remembers, a running source."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from eventd.errors import ServiceUnavailable
from eventd.plugin import Delivery, Event, SourceReport, SourceSettings, Trigger
from triggers.kafka import KafkaConfig, KafkaTrigger

DEADLINE_S = 30.0
# the development broker takes short sessions, which makes rebalances quick; Apache Kafka does not
QUICK = {"sessionTimeoutMs": 1500, "heartbeatIntervalMs": 300, "rebalanceTimeoutMs": 1500}
APACHE = {"sessionTimeoutMs": 6000, "heartbeatIntervalMs": 1000, "rebalanceTimeoutMs": 6000}


@dataclass(frozen=True)
class Cluster:
    bootstrap: str
    client: Mapping[str, int]
    apache: bool

    async def create_topic(self, partitions: int = 1, topic: str = "") -> str:
        topic = topic or f"t-{uuid.uuid4().hex[:12]}"
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, partitions, 1)])
        finally:
            await admin.close()
        return topic

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def send(self, topic: str, values: Sequence[bytes], partition: int | None = 0) -> None:
        async with self.producer() as producer:
            sent = [await producer.send(topic, value, partition=partition) for value in values]
            await asyncio.gather(*sent)


Handle = Callable[[Event], Awaitable[bool]]


async def succeed(event: Event) -> bool:
    return True


@dataclass
class Context:
    """A ``SourceContext`` that runs ``handle`` for each event and remembers everything."""

    handle: Handle = succeed
    state: dict[str, str] = field(default_factory=dict)
    key: str = "kafka:test"
    settings: SourceSettings = field(
        default_factory=lambda: SourceSettings(Path("/nonexistent"), "1234", "cn-local")
    )
    delivered: list[Event] = field(default_factory=list)
    emitted: list[Event] = field(default_factory=list)
    reports: list[SourceReport] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    runs: set[asyncio.Task[None]] = field(default_factory=set)

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def sleep_until(self, moment: datetime) -> None:
        await asyncio.sleep((moment - self.now()).total_seconds())

    def triggers(self) -> tuple[Trigger[Any], ...]:
        return ()

    async def load_cursor(self) -> str | None:
        return None

    async def load_state(self) -> dict[str, str]:
        return dict(self.state)

    async def emit(
        self,
        events: Sequence[Event],
        *,
        cursor: str | None = None,
        state: Mapping[str, str | None] | None = None,
    ) -> None:
        for name, value in (state or {}).items():
            if value is None:
                self.state.pop(name, None)
            else:
                self.state[name] = value
        self.emitted.extend(events)
        await self._tell()

    async def deliver(self, event: Event, *, attempts: int = 3) -> Delivery:
        ok = await self.handle(event)
        self.delivered.append(event)
        await self._tell()
        return Delivery(1, int(ok))

    def deliver_nowait(
        self, event: Event, on_end: Callable[[Delivery | Exception], None], *, attempts: int = 3
    ) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                on_end(await self.deliver(event, attempts=attempts))
            except ServiceUnavailable as error:
                on_end(error)

        task = asyncio.create_task(run())
        self.runs.add(task)
        task.add_done_callback(self.runs.discard)
        return task

    def report(self, report: SourceReport) -> None:
        self.reports.append(report)
        # whoever waits for a report looks at the list itself, at each change and 20 times a second

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                async with self.changed:
                    try:
                        await asyncio.wait_for(self.changed.wait(), 0.05)
                    except TimeoutError:
                        continue

    def values(self) -> list[Any]:
        """The values of all delivered records, in the order of their ends."""
        return [
            record["data"]["value"]
            for event in self.delivered
            for record in orjson.loads(event.data)
        ]


def trigger(cluster: Cluster, topic: str, **config: Any) -> Trigger[KafkaConfig]:
    raw = {
        "bootstrapServers": cluster.bootstrap,
        "topic": topic,
        "consumerGroup": f"g-{topic}",
        "client": dict(cluster.client),
        **config,
    }
    return Trigger(
        id=topic,
        service="s",
        function="f",
        name="t",
        qualifier="LATEST",
        source_arn=None,
        config=KafkaConfig.model_validate(raw),
        raw_config=raw,
        created_time="2026-01-01T00:00:00Z",
        last_modified_time="2026-01-01T00:00:00Z",
    )


@asynccontextmanager
async def consuming(
    cluster: Cluster, topic: str, context: Context, **config: Any
) -> AsyncIterator[asyncio.Task[None]]:
    """A running source; cancelled and awaited at the end of the block."""
    source = KafkaTrigger().source(trigger(cluster, topic, **config), context.settings)
    task = asyncio.create_task(source.run(context))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=DEADLINE_S)
        assert task.done()
        if not task.cancelled():
            task.result()

"""The Kafka source on a real broker."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from kafka_context import Cluster, Context, consuming, trigger

from eventd.plugin import Event
from triggers.eventbridge import EventBridgeConfig, EventBridgeTrigger

pytestmark = pytest.mark.kafka


async def committed(cluster: Cluster, topic: str, partition: int = 0) -> int | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.bootstrap, group_id=f"g-{topic}")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, partition)])
        return await consumer.committed(TopicPartition(topic, partition))
    finally:
        await consumer.stop()


def pinned(context: Context) -> bool:
    return bool(context.state)


async def test_every_record_runs_once_in_partition_order(cluster: Cluster) -> None:
    topic = await cluster.create_topic(partitions=3)
    context = Context()
    for partition in range(3):
        await cluster.send(topic, [b"%d-%d" % (partition, i) for i in range(50)], partition)

    async with consuming(cluster, topic, context, startingPosition="earliest"):
        await context.wait_until(lambda: len(context.delivered) >= 150)

    for partition in range(3):
        mine = [value for value in context.values() if value.startswith(f"{partition}-")]
        assert mine == [f"{partition}-{i}" for i in range(50)]
    assert len(context.delivered) == 150
    assert [await committed(cluster, topic, number) for number in range(3)] == [50, 50, 50]


async def test_a_new_trigger_starts_at_now_and_a_restart_goes_on(cluster: Cluster) -> None:
    topic = await cluster.create_topic()
    context = Context()
    await cluster.send(topic, [b"before"])

    async with consuming(cluster, topic, context):
        await context.wait_until(lambda: pinned(context))
    await cluster.send(topic, [b"while away"])  # before any commit of the group
    async with consuming(cluster, topic, context):
        await context.wait_until(lambda: len(context.delivered) >= 1)
    await cluster.send(topic, [b"while away again"])
    async with consuming(cluster, topic, context):
        await context.wait_until(lambda: len(context.delivered) >= 2)

    assert context.values() == ["while away", "while away again"]


async def test_records_come_as_an_array_of_cloud_events(cluster: Cluster) -> None:
    topic = await cluster.create_topic()
    context = Context()

    async with consuming(cluster, topic, context):
        await context.wait_until(lambda: pinned(context))
        async with cluster.producer() as producer:
            await producer.send_and_wait(
                topic, b'{"n": 1}', key=b"k", partition=0, headers=[("h", b"v")]
            )
            await producer.send_and_wait(topic, b"\xff\x00", partition=0)
            await producer.send_and_wait(topic, None, key=b"gone", partition=0)
        await context.wait_until(lambda: len(context.delivered) >= 3)

    first, second, third = (orjson.loads(event.data)[0] for event in context.delivered)
    assert first["type"] == "alikafka:Topic:Message"
    assert first["aliyunaccountid"] == "1234"
    assert first["data"]["value"] == {"n": 1}
    assert first["data"]["key"] == "k"
    assert first["data"]["headers"] == {
        "headers": [{"key": "h", "value": "v"}],
        "isReadOnly": False,
    }
    assert (first["data"]["partition"], first["data"]["offset"]) == (0, 0)
    assert second["data"]["value"] == "/wA="
    assert "key" not in second["data"]
    assert third["data"]["value"] is None


async def test_a_batch_waits_for_its_count_or_its_window(cluster: Cluster) -> None:
    topic = await cluster.create_topic()
    context = Context()
    await cluster.send(topic, [b"%d" % i for i in range(25)])

    async with consuming(
        cluster, topic, context, startingPosition="earliest", batchSize=10, batchWindowSeconds=0.5
    ):
        await context.wait_until(lambda: len(context.delivered) >= 3)

    assert [len(orjson.loads(event.data)) for event in context.delivered] == [10, 10, 5]
    assert context.values() == [str(i) for i in range(25)]


async def test_a_commit_never_passes_a_record_that_is_not_done(cluster: Cluster) -> None:
    topic = await cluster.create_topic()
    stuck = asyncio.Event()

    async def handle(event: Event) -> bool:
        if event.id.endswith("-3"):
            await stuck.wait()
        return True

    context = Context(handle)
    await cluster.send(topic, [b"%d" % i for i in range(20)])

    async with consuming(
        cluster, topic, context, startingPosition="earliest", orderBy="none", concurrency=4
    ) as task:
        await context.wait_until(lambda: len(context.delivered) >= 19)
        task.cancel()  # gives 5 s at most, which `stuck` outlasts
        await asyncio.wait({task}, timeout=20)

    assert await committed(cluster, topic) == 3
    stuck.set()
    again = Context()
    again.state = context.state
    async with consuming(cluster, topic, again, startingPosition="earliest"):
        await again.wait_until(lambda: len(again.delivered) >= 17)
    assert again.values() == [str(i) for i in range(3, 20)]


async def test_records_of_one_key_run_in_order_and_keys_run_side_by_side(cluster: Cluster) -> None:
    topic = await cluster.create_topic()
    running: set[str] = set()
    most = 0

    async def handle(event: Event) -> bool:
        nonlocal most
        key = orjson.loads(event.data)[0]["data"]["key"]
        assert key not in running
        running.add(key)
        most = max(most, len(running))
        await asyncio.sleep(0.002)
        running.discard(key)
        return True

    context = Context(handle)
    async with cluster.producer() as producer:
        for i in range(200):
            await producer.send(topic, b"%d" % i, key=b"k%d" % (i % 20), partition=0)

    async with consuming(cluster, topic, context, startingPosition="earliest", orderBy="key"):
        await context.wait_until(lambda: len(context.delivered) >= 200)

    values = [int(value) for value in context.values()]
    for key in range(20):
        mine = [value for value in values if value % 20 == key]
        assert mine == sorted(mine)
    assert most > 3


async def test_a_member_joins_and_leaves_while_handlers_run(cluster: Cluster) -> None:
    topic = await cluster.create_topic(partitions=4)
    seen: dict[str, int] = {}
    twice_at_once: list[str] = []
    running: set[str] = set()

    async def handle(event: Event) -> bool:
        if event.id in running:
            twice_at_once.append(event.id)
        running.add(event.id)
        await asyncio.sleep(0.01)
        running.discard(event.id)
        seen[event.id] = seen.get(event.id, 0) + 1
        return True

    first, second = Context(handle), Context(handle)
    total = 1200
    config = {"startingPosition": "earliest"}

    async def produce() -> None:
        async with cluster.producer() as producer:
            for i in range(total):
                await producer.send_and_wait(topic, b"%d" % i, partition=i % 4)

    async with asyncio.TaskGroup() as group, consuming(cluster, topic, first, **config):
        await first.wait_until(lambda: pinned(first))
        second.state = dict(first.state)
        producing = group.create_task(produce())
        await first.wait_until(lambda: len(seen) >= 100)
        async with consuming(cluster, topic, second, **config):
            await second.wait_until(lambda: len(second.delivered) >= 50)
        await producing
        await first.wait_until(lambda: len(seen) >= total)

    assert len(seen) == total
    assert not twice_at_once
    # each rebalance ended what ran and committed it: nothing was repeated
    assert sum(seen.values()) == total


async def test_a_missing_topic_is_reported_and_consumed_once_it_exists(cluster: Cluster) -> None:
    topic = f"missing-{uuid.uuid4().hex[:8]}"
    context = Context()

    async with consuming(cluster, topic, context, startingPosition="earliest"):
        if cluster.apache:
            await context.wait_until(
                lambda: any("does not exist" in report.text for report in context.reports)
            )
            await cluster.create_topic(topic=topic)
        await cluster.send(topic, [b"first"])
        await context.wait_until(lambda: len(context.delivered) >= 1)

    assert context.values() == ["first"]


async def test_lag_is_reported(cluster: Cluster) -> None:
    topic = await cluster.create_topic()
    blocked = asyncio.Event()

    async def handle(event: Event) -> bool:
        await blocked.wait()
        return True

    context = Context(handle)
    await cluster.send(topic, [b"x"] * 7)

    async with consuming(cluster, topic, context, startingPosition="earliest"):
        await context.wait_until(lambda: any(report.lag == 7 for report in context.reports))
        blocked.set()
        await context.wait_until(lambda: bool(context.reports) and context.reports[-1].lag == 0)

    assert context.reports[-1].healthy


async def test_asynchronous_invocation_puts_records_into_the_queue(cluster: Cluster) -> None:
    topic = await cluster.create_topic()
    context = Context()
    await cluster.send(topic, [b"a", b"b"])
    config = EventBridgeConfig.model_validate(
        {
            "asyncInvocationType": True,
            "eventRuleFilterPattern": "{}",
            "eventSourceConfig": {
                "eventSourceType": "Kafka",
                "eventSourceParameters": {
                    "sourceKafkaParameters": {
                        "InstanceId": cluster.bootstrap,
                        "Topic": topic,
                        "ConsumerGroup": f"g-{topic}",
                        "OffsetReset": "earliest",
                    }
                },
            },
            "runOptions": {"mode": "event-streaming", "batchWindow": {"CountBasedWindow": 2}},
        }
    )
    bridge = replace(trigger(cluster, topic), config=config)  # type: ignore[arg-type]
    source = EventBridgeTrigger().source(bridge, context.settings)  # type: ignore[arg-type]
    task = asyncio.create_task(source.run(context))
    try:
        await context.wait_until(lambda: len(context.emitted) >= 1)
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=20)

    assert [r["data"]["value"] for r in orjson.loads(context.emitted[0].data)] == ["a", "b"]

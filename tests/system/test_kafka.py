"""A topic through whole daemons: members of its group come, go and die, and lose no record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from kafka_broker import DevBroker, free_port, running_broker
from system_node import Node, NodeFactory, until
from witness import SOURCE, Witness

QUICK = {"sessionTimeoutMs": 1500, "heartbeatIntervalMs": 300, "rebalanceTimeoutMs": 1500}
HANDLER = """
import json, time
def handler(event, context):
    for record in json.loads(event):
        line = tell(record["data"]["value"])
        time.sleep(0.02)
        done(line)
"""


@pytest.fixture
def broker() -> Iterator[DevBroker]:
    with running_broker() as running:
        yield running


async def create_topic(bootstrap: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic("orders", partitions, 1)])
    finally:
        await admin.close()


async def send(bootstrap: str, names: Sequence[str]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        sent = [
            await producer.send("orders", name.encode(), key=name.encode(), partition=at % 3)
            for at, name in enumerate(names)
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def consume(node: Node, witness: Witness, bootstrap: str, **config: Any) -> None:
    source = SOURCE.format(port=witness.port) + HANDLER
    await node.deploy("f", source, instanceConcurrency=20)
    settings = {
        "bootstrapServers": bootstrap,
        "topic": "orders",
        "consumerGroup": "g",
        "startingPosition": "earliest",
        "orderBy": "key",
        "client": QUICK,
        **config,
    }
    await node.trigger("f", "k", "kafka", settings)


def allow(witness: Witness) -> dict[str, str]:
    return {"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"}


async def state(node: Node) -> dict[str, Any]:
    (trigger,) = (await node.status())["triggers"]
    return dict(trigger)


async def test_members_join_leave_and_die_and_no_record_is_lost(
    node: NodeFactory, broker: DevBroker
) -> None:
    await create_topic(broker.bootstrap, 3)
    names = [f"n{number}" for number in range(600)]
    async with Witness() as witness, node(env=allow(witness)) as third:

        async def shares(member: Node) -> bool:
            return (await state(member))["text"] in (
                "consuming 1 partitions of 'orders'",
                "consuming 2 partitions of 'orders'",
            )

        async with node(env=allow(witness)) as first:
            await consume(first, witness, broker.bootstrap)
            await send(broker.bootstrap, names[:200])
            await until(lambda: len(witness.finished) > 20, "the first member works")
            second = node(env=allow(witness))
            await second.launch()
            await until(second._ready, "the second daemon is ready")
            await consume(second, witness, broker.bootstrap)
            await send(broker.bootstrap, names[200:400])
            await until(lambda: shares(second), "the second member has partitions", 60)
        await consume(third, witness, broker.bootstrap)  # the first one has left
        await send(broker.bootstrap, names[400:])
        await until(lambda: shares(third), "the third member has partitions", 60)
        await second.kill()

        await until(lambda: len(witness.finished) == 600, "every record was handled", 90)
        assert set(witness.finished) == set(names)
        repeated = sum(witness.finished.values()) - 600
        assert repeated < 300, "only what was not committed is repeated"

        async def caught_up() -> bool:
            return bool((await state(third))["lag"] == 0)

        await until(caught_up, "the last member has committed all", 30)


async def test_a_broker_that_is_away_at_first_is_waited_for(node: NodeFactory) -> None:
    port = free_port()
    bootstrap = f"127.0.0.1:{port}"
    async with Witness() as witness, node(env=allow(witness)) as one:
        await consume(one, witness, bootstrap)

        async def away() -> bool:
            found = await state(one)
            return not found["healthy"] and "broker away" in found["text"]

        await until(away, "status tells that the broker is away")
        with running_broker(port):
            await create_topic(bootstrap, 3)
            await send(bootstrap, ["a", "b", "c"])
            await until(lambda: len(witness.finished) == 3, "the records were handled", 60)
            assert (await state(one))["healthy"]
            assert one.output.count(b"topic orders: broker away") == 1
            assert one.output.count(b"aiokafka") < 10

"""kill -9 of the daemon at random moments, under load from every source."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer

from tests.parts.kafka.broker import Broker, broker
from tests.system.conftest import NodeFactory
from tests.system.node import ACCOUNT, ROLE, Node, until
from tests.system.witness import Witness

KILLS = 20
HANDLER = """
import json, time

def names(event):
    text = event.decode()
    if text.startswith("async-"):
        return [text]
    data = json.loads(text)
    if isinstance(data, list):  # Kafka: an array of CloudEvents
        return [item["data"]["value"] for item in data]
    if "events" in data:  # a bucket
        return ["file-" + item["oss"]["object"]["key"] for item in data["events"]]
    if "triggerTime" in data:
        return ["timer-" + data["triggerTime"]]
    return ["line-" + line for line in data["lines"]]

def handler(event, context):
    lines = [tell(name) for name in names(event)]
    time.sleep(0.02)
    for line in lines:
        done(line)
    return b""
"""


@asynccontextmanager
async def load(node: Node, log: Path, servers: str, sent: set[str]) -> AsyncIterator[None]:
    """Numbered events from all sources, until the block is left; ``sent``: what was accepted."""
    stop = asyncio.Event()
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    stamp = f"{time.time_ns():x}"

    async def calls() -> None:
        number = 0
        while not stop.is_set():
            name = f"async-{stamp}-{number}"
            number += 1
            try:
                await node.invoke_async("work", name.encode())
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                return  # the kill: never acknowledged, so nothing is owed
            sent.add(name)

    async def files() -> None:
        number = 0
        while not stop.is_set():
            name = f"{stamp}-{number}"
            number += 1
            (node.data / "buckets" / "in" / name).write_bytes(b"x")
            sent.add("file-" + name)
            await asyncio.sleep(0.02)

    async def lines() -> None:
        number = 0
        while not stop.is_set():
            name = f"{stamp}-{number}"
            number += 1
            with log.open("a") as out:
                out.write(name + "\n")
            sent.add("line-" + name)
            await asyncio.sleep(0.02)

    async def messages() -> None:
        number = 0
        while not stop.is_set():
            name = f"kafka-{stamp}-{number}"
            number += 1
            await producer.send_and_wait("work", name.encode())
            sent.add(name)
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(job()) for job in (calls, files, lines, messages)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        await producer.stop()


async def prepare(node: Node, witness: Witness, log: Path, servers: str) -> None:
    await node.deploy(
        "work", witness.source + HANDLER, instanceConcurrency=20, timeout=30, memorySize=256
    )
    bucket = node.data / "buckets" / "in"
    await asyncio.to_thread(bucket.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(log.touch)
    oss = {"events": ["oss:ObjectCreated:*"], "filter": {"key": {"prefix": "", "suffix": ""}}}
    arn = f"acs:oss:cn-local:{ACCOUNT}:in"
    await node.trigger("work", "files", "oss", oss, sourceArn=arn, invocationRole=ROLE)
    await node.trigger("work", "lines", "log", {"path": str(log)})
    await node.trigger("work", "tick", "timer", {"cronExpression": "@every 1s", "enable": True})
    await node.trigger(
        "work",
        "topic",
        "kafka",
        {
            "bootstrapServers": servers,
            "topic": "work",
            "consumerGroup": "work",
            "startingPosition": "earliest",
            "batchSize": 10,
        },
    )


@pytest.fixture
async def kafka() -> AsyncIterator[Broker]:
    async with broker() as running:
        yield running


@pytest.mark.kafka
async def test_no_accepted_event_is_lost_by_kill_9(
    node: NodeFactory, kafka: Broker, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    choice = random.Random(seed)
    sent: set[str] = set()
    log = tmp_path / "app.log"
    async with Witness() as witness:
        env = {
            "EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}",
            "EVENTD_TRIGGERS_KAFKA": json.dumps({"sessionTimeoutMs": 1500}),
        }
        current = node(env=env)
        data = current.data
        for kill in range(KILLS):
            await current.__aenter__()
            if kill == 0:
                await prepare(current, witness, log, kafka.servers)
            async with load(current, log, kafka.servers, sent):
                await asyncio.sleep(choice.uniform(0.1, 1.0))
                await current.kill()
            current = node(data=data, env=env)
        async with current:

            def missing() -> set[str]:
                return {name for name in sent if not witness.finished[name]}

            await until(lambda: not missing(), f"all of {len(sent)} events, seed {seed}", 120)
            status = await current.status()
    assert not witness.overlaps, (seed, witness.overlaps[:10])
    assert status["queue"]["dead_letters"] == 0, seed
    doubled = [name for name in sent if witness.finished[name] > 1]
    # only what was in flight at one of the kills may have finished twice
    assert len(doubled) <= KILLS * 200, (seed, len(doubled))

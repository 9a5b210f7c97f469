"""A broker that is away, a bucket that is gone or closed: said, survived, and made up for."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import health
import pytest
from aiokafka import AIOKafkaProducer
from kafka_broker import DevBroker
from system_node import ACCOUNT, ROLE, Node, NodeFactory, until
from witness import Witness

NOBODY = 65534
HANDLER = """
import json
def handler(event, context):
    data = json.loads(event)
    if isinstance(data, list):
        names = [item["data"]["value"] for item in data]
    else:
        names = [item["oss"]["object"]["key"] for item in data["events"]]
    for line in [tell(name) for name in names]:
        done(line)
    return b""
"""
OSS = {"events": ["oss:ObjectCreated:*"], "filter": {"key": {"prefix": "", "suffix": ""}}}


async def watch(node: Node, bucket: str, name: str = "files", **config: Any) -> None:
    arn = f"acs:oss:cn-local:{ACCOUNT}:{bucket}"
    await node.trigger("work", name, "oss", {**OSS, **config}, sourceArn=arn, invocationRole=ROLE)


async def trigger_status(node: Node, name: str) -> Any:
    found = [one for one in (await node.status())["triggers"] if one["trigger"] == name]
    return found[0] if found else None


async def told(node: Node, name: str, *words: str, healthy: bool = False) -> bool:
    one = await trigger_status(node, name)
    return (
        one is not None and one["healthy"] is healthy and all(word in one["text"] for word in words)
    )


def write(path: Path) -> None:
    path.write_bytes(b"x")


async def test_a_bucket_that_is_missing_deleted_and_made_again_is_watched_again(
    node: NodeFactory,
) -> None:
    async with Witness() as witness:
        one = node(env={"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"})
        async with one:
            await one.deploy("work", witness.source + HANDLER)
            bucket = one.data / "buckets" / "shelf"
            if bucket.exists():
                bucket.rmdir()
            await watch(one, "shelf")
            for turn in range(3):
                if bucket.exists():
                    shutil.rmtree(bucket)
                    await until(lambda: told(one, "files", str(bucket)), "status says it is gone")
                    await health.healthy(one)
                    bucket.mkdir()
                else:
                    bucket.mkdir(parents=True)
                write(bucket / f"at-once{turn}")
                await until(lambda t=turn: witness.finished[f"at-once{t}"], f"turn {turn}: first")
                await until(lambda: told(one, "files", healthy=True), "status says it is well")
                write(bucket / f"later{turn}")
                await until(lambda t=turn: witness.finished[f"later{t}"], f"turn {turn}: second")
    assert set(witness.finished) == {f"{w}{t}" for w in ("at-once", "later") for t in range(3)}
    assert all(count == 1 for count in witness.finished.values()), witness.finished


@pytest.mark.root
async def test_a_bucket_without_permission_says_so_and_works_when_it_is_given(
    node: NodeFactory,
) -> None:
    async with Witness() as witness:
        one = node(
            env={"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"},
            prefix=("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-sys_resource"),
        )
        async with one:
            await one.deploy("work", witness.source + HANDLER)
            bucket = one.data / "buckets" / "closed"
            bucket.mkdir(parents=True, exist_ok=True)
            write(bucket / "early")
            os.chown(bucket, NOBODY, NOBODY)
            bucket.chmod(0o700)
            await watch(one, "closed")
            (one.data / "buckets" / "open").mkdir()
            await watch(one, "open", "others")

            await until(lambda: told(one, "files", str(bucket)), "status names the directory")
            write(bucket / "late")
            write(one.data / "buckets" / "open" / "beside")
            await until(lambda: witness.finished["beside"], "the other bucket works")
            await health.healthy(one)
            bucket.chmod(0o755)

            await until(lambda: witness.finished["late"], "the closed one works when it is open")
            await until(lambda: told(one, "files", healthy=True), "status says it is well")
    assert b"Traceback" not in one.output


@contextmanager
def absent_broker() -> Iterator[DevBroker]:
    broker = DevBroker()
    try:
        yield broker
    finally:
        broker.kill()


async def publish(broker: DevBroker, *names: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
    await producer.start()
    try:
        for name in names:
            await producer.send_and_wait("work", name.encode())
    finally:
        await producer.stop()


@pytest.mark.kafka
async def test_a_broker_may_be_down_at_start_go_away_and_come_back(node: NodeFactory) -> None:
    config = {
        "topic": "work",
        "consumerGroup": "work",
        "startingPosition": "earliest",
        "client": {
            "sessionTimeoutMs": 1500, "heartbeatIntervalMs": 300, "rebalanceTimeoutMs": 1500,
        },
    }  # fmt: skip
    async with Witness() as witness:
        env = {"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"}
        one = node(env=env)
        with absent_broker() as broker:
            async with one:
                await one.deploy("work", witness.source + HANDLER)
                await one.trigger(
                    "work", "topic", "kafka", {"bootstrapServers": broker.bootstrap, **config}
                )
                await until(lambda: told(one, "topic", broker.bootstrap), "status names the broker")
                await health.healthy(one)
            two = node(data=one.data, env=env)
            async with two:
                await until(lambda: told(two, "topic", broker.bootstrap), "status names the broker")
                await health.healthy(two)
                await asyncio.to_thread(broker.start)
                await publish(broker, "first")
                await until(lambda: witness.finished["first"], "the first message", 60)
                await asyncio.to_thread(broker.kill)
                await until(lambda: told(two, "topic", "broker away"), "status says it is away")
                await health.healthy(two)
                await asyncio.to_thread(broker.start)
                await publish(broker, "second")
                await until(lambda: witness.finished["second"], "the second message", 60)
                await until(lambda: told(two, "topic", healthy=True), "status says it is well")
    assert b"Traceback" not in one.output + two.output

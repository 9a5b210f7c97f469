"""Triggers are created, changed, disabled, enabled and deleted while events flow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import health
import pytest
from aiokafka import AIOKafkaProducer
from kafka_broker import DevBroker, running_broker
from system_node import ACCOUNT, ROLE, Node, NodeFactory, until
from witness import Witness

PAUSE_S = 0.02
TRIGGERS = "/services/svc/functions/work/triggers"
HANDLER = """
import json
def handler(event, context):
    data = json.loads(event)
    if isinstance(data, list):
        names = [item["data"]["value"] for item in data]
    elif "events" in data:
        names = [item["oss"]["object"]["key"] for item in data["events"]]
    elif "lines" in data:
        names = data["lines"]
    else:
        names = [data["payload"] + "-" + data["triggerTime"]]
    for line in [tell(name) for name in names]:
        done(line)
    return b""
"""


@pytest.fixture
def kafka() -> Iterator[DevBroker]:
    with running_broker() as running:
        yield running


class Stream:
    """Numbered events, one after another; ``next`` is the number that was not begun yet."""

    def __init__(self, prefix: str, send: Callable[[str], Awaitable[object]]) -> None:
        self.prefix, self._send = prefix, send
        self.next = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            number, self.next = self.next, self.next + 1
            await self._send(f"{self.prefix}-{number}")
            await asyncio.sleep(PAUSE_S)

    async def more(self, count: int = 10) -> None:
        """Wait for so many further events."""
        goal = self.next + count
        await until(lambda: self.next >= goal, f"{self.prefix} goes on")

    def names(self, first: int, end: int) -> set[str]:
        return {f"{self.prefix}-{number}" for number in range(first, end)}


@asynccontextmanager
async def flowing(*streams: Stream) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(stream.run(stop))
        try:
            yield
        finally:
            stop.set()


def arrived(witness: Witness, names: set[str]) -> Callable[[], bool]:
    return lambda: all(witness.finished[name] for name in names)


async def once(witness: Witness, stream: Stream, first: int, end: int) -> None:
    names = stream.names(first, end)
    try:
        await until(arrived(witness, names), stream.prefix)
    except AssertionError:
        missing = sorted(name for name in names if not witness.finished[name])
        raise AssertionError(f"of {len(names)} {stream.prefix} lost: {missing[:10]}") from None
    doubled = [name for name in names if witness.finished[name] > 1]
    assert not doubled, doubled[:10]


async def update(node: Node, name: str, **body: Any) -> None:
    await node.api("PUT", f"{TRIGGERS}/{name}", body)


async def deleted_for_good(
    node: Node, witness: Witness, stream: Stream, name: str, beacon: Callable[[], Awaitable[None]]
) -> None:
    """Delete; what begins after the answer never runs. ``beacon``: returns when a later event of
    another trigger has run."""
    await node.api("DELETE", f"{TRIGGERS}/{name}")
    first = stream.next + 1  # one may be half written
    await stream.more()
    await beacon()
    late = [one for one in stream.names(first, stream.next) if witness.begun[one]]
    assert not late, late


@asynccontextmanager
async def running(node: NodeFactory) -> AsyncIterator[tuple[Node, Witness]]:
    async with Witness() as witness:
        one = node(env={"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"})
        async with one:
            await one.deploy("work", witness.source + HANDLER, instanceConcurrency=10)
            yield one, witness
            await health.healthy(one)
            assert (await one.status())["queue"]["deadLetters"] == 0
        assert b"Traceback" not in one.output


async def test_bucket_triggers_change_while_files_come(node: NodeFactory) -> None:
    async with running(node) as (one, witness):
        bucket = one.data / "buckets" / "in"
        bucket.mkdir(parents=True)

        async def write(name: str) -> None:
            (bucket / name).write_bytes(b"x")

        async def create(name: str, prefix: str) -> None:
            config = {
                "events": ["oss:ObjectCreated:*"],
                "filter": {"key": {"prefix": prefix, "suffix": ""}},
            }
            arn = f"acs:oss:cn-local:{ACCOUNT}:in"
            await one.trigger("work", name, "oss", config, sourceArn=arn, invocationRole=ROLE)

        left, right = Stream("left", write), Stream("right", write)
        async with flowing(left, right):
            await left.more()
            await create("one", "left-")
            left_from = left.next + 1
            await left.more()
            await create("two", "right-")  # it joins the running source
            right_from = right.next + 1
            await right.more()
            await update(one, "one", description="other words")
            await left.more()
            await update(
                one,
                "one",
                triggerConfig={"events": ["oss:ObjectCreated:*", "oss:ObjectRemoved:*"]},
            )
            await left.more()
            right_to = right.next
            # what was not told yet when its trigger is deleted goes with the trigger
            await until(arrived(witness, right.names(right_from, right_to)), "all up to here")

            async def beacon() -> None:
                name = f"left-{left.next}"
                await until(lambda: witness.finished[name], name)

            await deleted_for_good(one, witness, right, "two", beacon)
            await create("two", "right-")
            again_from = right.next + 1
            await right.more()
        await once(witness, left, left_from, left.next)
        await once(witness, right, right_from, right_to)
        await once(witness, right, again_from, right.next)
        assert not any(witness.begun[name] for name in left.names(0, left_from - 2))


async def test_log_triggers_change_while_lines_come(node: NodeFactory, tmp_path: Path) -> None:
    async with running(node) as (one, witness):
        file = tmp_path / "app.log"
        file.touch()

        async def write(name: str) -> None:
            with file.open("a") as out:
                out.write(name + "\n")

        config = {"path": str(file), "batchWindowSeconds": 0.05}
        lines = Stream("line", write)
        async with flowing(lines):
            await lines.more()
            await one.trigger("work", "log", "log", config)
            first = lines.next + 1
            await lines.more()
            await update(one, "log", triggerConfig={"batchLines": 3})
            await lines.more()
            await update(one, "log", triggerConfig={"enable": False})
            silent_from = lines.next + 1
            await lines.more(20)
            silent = lines.names(silent_from, lines.next)
            assert not any(witness.begun[name] for name in silent)
            await update(one, "log", triggerConfig={"enable": True})
            await lines.more()
            await one.deploy("work", witness.source + HANDLER + "# 2", instanceConcurrency=10)
            await lines.more()
            end = lines.next
            await until(arrived(witness, lines.names(first, end)), "all lines up to here")

            async def beacon() -> None:
                name = "mark"
                await one.trigger("work", "mark", "log", {**config, "startingPosition": "end"})
                await lines.more()
                await write(name)
                await until(lambda: witness.finished[name], name)
                await one.api("DELETE", f"{TRIGGERS}/mark")

            await one.api("DELETE", f"{TRIGGERS}/log")
            gone_from = lines.next + 1
            await lines.more()
            gone_to = lines.next
            await beacon()
        await once(witness, lines, first, end)
        assert not any(witness.begun[name] for name in lines.names(gone_from, gone_to))


@pytest.mark.kafka
async def test_kafka_triggers_change_while_messages_come(
    node: NodeFactory, kafka: DevBroker
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=0)
    await producer.start()

    async def send(name: str) -> None:
        await producer.send_and_wait("work", name.encode())

    config = {
        "bootstrapServers": kafka.bootstrap,
        "topic": "work",
        "consumerGroup": "work",
        "startingPosition": "earliest",
        "client": {
            "sessionTimeoutMs": 1500,
            "heartbeatIntervalMs": 300,
            "rebalanceTimeoutMs": 1500,
        },
    }
    try:
        async with running(node) as (one, witness):
            messages = Stream("message", send)
            async with flowing(messages):
                await messages.more()
                await one.trigger("work", "topic", "kafka", config)
                await messages.more()
                await update(one, "topic", triggerConfig={"batchSize": 5})
                await messages.more()
                await update(one, "topic", triggerConfig={"enable": False})
                silent_from = messages.next + 1
                await messages.more(20)
                silent = messages.names(silent_from, messages.next)
                assert not any(witness.begun[name] for name in silent)
                await update(one, "topic", triggerConfig={"enable": True})
                await messages.more()
                end = messages.next
                await until(arrived(witness, messages.names(0, end)), "all messages up to here", 60)
                await one.api("DELETE", f"{TRIGGERS}/topic")
                gone_from = messages.next + 1
                await messages.more(30)
                gone = messages.names(gone_from, messages.next)
                assert not any(witness.begun[name] for name in gone)
                await one.trigger("work", "topic", "kafka", config)
            await once(witness, messages, 0, messages.next)
    finally:
        await producer.stop()


async def test_timer_triggers_change_while_they_tick(node: NodeFactory) -> None:
    async with running(node) as (one, witness):

        def ticks(payload: str) -> int:
            return sum(1 for name in witness.finished if name.startswith(payload + "-"))

        every = {"cronExpression": "@every 1s", "enable": True}
        await one.trigger("work", "tick", "timer", {**every, "payload": "first"})
        await until(lambda: ticks("first") >= 2, "two ticks")
        await update(one, "tick", triggerConfig={**every, "payload": "second"})
        before = ticks("first")
        await until(lambda: ticks("second") >= 2, "two ticks with the new payload")
        assert ticks("first") <= before + 1  # one may have been on its way
        await update(one, "tick", triggerConfig={**every, "payload": "second", "enable": False})
        await one.trigger("work", "other", "timer", {**every, "payload": "other"})
        still = ticks("second")
        await until(lambda: ticks("other") >= 3, "three ticks of another trigger")
        assert ticks("second") <= still + 1
        await update(one, "tick", triggerConfig={**every, "payload": "third", "enable": True})
        await until(lambda: ticks("third") >= 1, "it ticks again")
        await one.api("DELETE", f"{TRIGGERS}/tick")
        still, others = ticks("third"), ticks("other")
        await until(lambda: ticks("other") >= others + 3, "three ticks of another trigger")
        assert ticks("third") <= still + 1
        assert all(count == 1 for count in witness.finished.values())


async def test_http_triggers_change_while_requests_come(node: NodeFactory) -> None:
    source = (
        "def handler(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'fine']\n"
    )
    async with node() as one:
        await one.deploy("web", source, instanceConcurrency=10)
        path, name = "/2016-08-15/proxy/svc/web/", "/services/svc/functions/web/triggers/web"
        before = await one.request("GET", path, signed=False)
        await one.trigger("web", "web", "http", {"authType": "anonymous", "methods": ["GET"]})
        wrong: list[tuple[int, bytes]] = []

        async def get(_: str) -> None:
            reply = await one.request("GET", path, signed=False)
            if (reply.status, reply.body) != (200, b"fine"):
                wrong.append((reply.status, reply.body))

        requests = Stream("request", get)
        async with flowing(requests):
            await requests.more()
            refused = await one.request("POST", path, signed=False)
            await one.api("PUT", name, {"triggerConfig": {"methods": ["GET", "POST"]}})
            taken = await one.request("POST", path, signed=False)
            await requests.more()
            await one.deploy("web", source + "# 2", instanceConcurrency=10)
            await requests.more()
        await one.api("PUT", name, {"triggerConfig": {"authType": "function"}})
        unsigned = await one.request("GET", path, signed=False)
        signed = await one.request("GET", path)
        await one.api("DELETE", name)
        after = await one.request("GET", path)
        await health.healthy(one)
    assert not wrong, wrong[:3]
    assert before.status in (400, 404), (before.status, before.body)
    assert after.status in (400, 404), (after.status, after.body)
    assert 400 <= refused.status < 500, (refused.status, refused.body)
    assert taken.status == 200
    assert unsigned.status in (400, 403), (unsigned.status, unsigned.body)
    assert (signed.status, signed.body) == (200, b"fine")

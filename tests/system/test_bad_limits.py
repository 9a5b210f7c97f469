"""More calls than there may be instances: who waits, who is refused, and what goes when idle."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from contextlib import ExitStack

import health
from system_node import Node, NodeFactory, Reply, until

SLOW = """
import os, time
def handler(event, context):
    time.sleep(float(event))
    return str(os.getpid())
"""


async def instances(node: Node, function: str = "") -> int:
    found = (await node.status())["instances"]
    return sum(1 for one in found if function in ("", one["function"]))


async def test_calls_beyond_the_limits_wait_and_then_hear_429(node: NodeFactory) -> None:
    env = {
        "EVENTD_POOL_MAX_INSTANCES": "4",  # of these a tenth is kept: nothing at 4
        "EVENTD_POOL_MAX_INSTANCES_PER_FUNCTION": "2",
        "EVENTD_POOL_QUEUE_TIMEOUT_S": "1.5",
        "EVENTD_POOL_MAX_WAITING": "8",
        "EVENTD_POOL_IDLE_TIMEOUT_S": "1",
    }
    async with node(env=env) as one:
        for name in ("a", "b", "c"):
            await one.deploy(name, SLOW, timeout=20)
        most: Counter[str] = Counter()
        stop = asyncio.Event()

        async def watch() -> None:
            while not stop.is_set():
                found = Counter(each["function"] for each in (await one.status())["instances"])
                found["total"] = sum(found.values())
                for name, count in found.items():
                    most[name] = max(most[name], count)
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        long = [asyncio.create_task(one.invoke(name, b"4")) for name in "aabb"]
        await until(lambda: busy(one, 4), "every instance is busy")
        late = await asyncio.gather(*[one.invoke(name, b"0") for name in "abc"])
        replies = await asyncio.gather(*[one.invoke("c", b"0.01") for _ in range(12)])
        done = await asyncio.gather(*long)
        after = await asyncio.gather(*[one.invoke("c", b"0.3") for _ in range(4)])
        stop.set()
        await watching

        for reply in late:
            check_refused(reply, "within 1.5 seconds", "in time")
        assert [reply.status for reply in done] == [200] * 4
        assert [reply.status for reply in after] == [200] * 4, after[0].body
        for reply in replies:
            check_refused(reply, "within 1.5 seconds", "in time", "as many as may wait")
        assert most["total"] <= 4
        assert max(most[name] for name in "abc") == 2
        await until(lambda: nothing(one), "idle instances end", 10)
        await health.healthy(one)


def check_refused(reply: Reply, *texts: str) -> None:
    assert (reply.status, reply.json()["ErrorCode"]) == (429, "ResourceExhausted"), reply.body
    assert any(text in reply.json()["ErrorMessage"] for text in texts), reply.body


async def nothing(node: Node) -> bool:
    return await instances(node) == 0


async def busy(node: Node, calls: int) -> bool:
    return sum(one["busy"] for one in (await node.status())["instances"]) >= calls


async def test_a_daemon_without_free_descriptors_serves_again_when_there_are_some(
    node: NodeFactory,
) -> None:
    one = node(prefix=("prlimit", "--nofile=160:160"))
    async with one:
        await one.deploy("quick", SLOW)
        with ExitStack() as held:
            for _ in range(300):
                held.enter_context(socket.create_connection(("127.0.0.1", one.port), 5))
            await until(lambda: full(one), "no descriptor is left")
        reply = await one.invoke("quick", b"0")
        await one.invoke_async("quick", b"0")
        await health.healthy(one)
    assert reply.status == 200, reply.body
    assert b"Traceback" not in one.output


def full(node: Node) -> bool:
    assert node.process is not None
    return health.descriptors(node.process.pid).total() >= 155


async def test_a_reader_that_stops_reading_holds_up_nobody(node: NodeFactory) -> None:
    source = "def handler(event, context):\n    return b'x' * int(event)\n"
    async with node(env={"EVENTD_HTTP_KEEPALIVE_S": "2"}) as one:
        await one.deploy("large", source, instanceConcurrency=10, memorySize=512)
        path = "/2016-08-15/services/svc/functions/large/invocations"
        headers = one.sign("POST", path, {"content-type": "application/json"})
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body = b"20000000"
        request = f"POST {path} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        stuck = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port, limit=1024)
            writer.write(request.encode() + body)
            stuck.append(writer)
            await reader.read(100)
        order = [random.randrange(1, 100_000) for _ in range(50)]
        replies = await asyncio.gather(*[one.invoke("large", str(n).encode()) for n in order])
        assert [len(reply.body) for reply in replies] == order

        async def cut() -> bool:
            text = (await one.request("GET", "/metrics", signed=False)).body.decode()
            return not (await busy(one, 1)) and "eventd" in text

        await until(cut, "nothing runs")
        for writer in stuck:
            writer.close()
        await health.healthy(one)

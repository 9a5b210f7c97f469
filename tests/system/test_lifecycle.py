"""Start, first start, second start, stop."""

from __future__ import annotations

import asyncio
import os
import stat

from tests.system.conftest import NodeFactory
from tests.system.node import Node, until
from tests.system.witness import Witness


async def test_the_first_start_writes_a_key_that_only_its_owner_reads(node: NodeFactory) -> None:
    first = node(env={"EVENTD_ACCESS_KEY_ID": "", "EVENTD_ACCESS_KEY_SECRET": ""})
    async with first:
        key = first.data / "access-key"
        await until(key.exists, "the key file")
        mode = stat.S_IMODE(key.stat().st_mode)
    assert mode == 0o600
    assert str(key).encode() in first.output


async def test_a_second_daemon_on_the_same_data_is_refused(node: NodeFactory) -> None:
    async with node() as first:
        second = node(data=first.data)
        process = await second.launch()
        async with asyncio.timeout(30):
            code = await process.wait()
        await second.end()
        assert code != 0
        assert b"another eventd" in second.output or b"in use" in second.output
        assert b"Traceback" not in second.output


async def test_an_unknown_setting_names_the_nearest_one(node: NodeFactory) -> None:
    wrong = node(env={"EVENTD_POOL_MAX_INSTANCE": "5"})
    process = await wrong.launch()
    async with asyncio.timeout(30):
        code = await process.wait()
    await wrong.end()
    assert code == 2
    assert b"EVENTD_POOL_MAX_INSTANCES" in wrong.output
    assert b"Traceback" not in wrong.output


async def test_a_listener_off_loopback_needs_tls_or_consent(node: NodeFactory) -> None:
    open_one = node()
    open_one.flags = ("--listen", f"0.0.0.0:{open_one.port}")
    process = await open_one.launch()
    async with asyncio.timeout(30):
        code = await process.wait()
    await open_one.end()
    assert code == 2
    assert b"insecure-http" in open_one.output


async def test_sigterm_lets_running_calls_end_and_keeps_the_rest(node: NodeFactory) -> None:
    async with Witness() as witness:
        source = witness.source + (
            "import time\n"
            "def handler(event, context):\n"
            "    line = tell(event.decode())\n"
            "    time.sleep(1.0)\n"
            "    done(line)\n"
            "    return b'done'\n"
        )
        allow = {"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"}
        first: Node = node(env={**allow, "EVENTD_QUEUE_CONCURRENCY": "1"})
        async with first:
            await first.deploy("slow", source)
            call = asyncio.create_task(first.invoke("slow", b"sync"))
            await until(lambda: witness.begun["sync"], "the running call")
            for index in range(3):
                await first.invoke_async("slow", f"queued{index}".encode())
            code = await first.stop()
            reply = await call
        assert code == 0
        assert (reply.status, reply.body) == (200, b"done")

        async with node(data=first.data, env=allow):
            for index in range(3):
                name = f"queued{index}"
                await until(lambda name=name: witness.finished[name], name)
        assert not witness.overlaps


async def test_the_health_endpoints_answer_without_a_signature(node: NodeFactory) -> None:
    async with node() as one:
        await one.deploy("f", "def handler(event, context):\n    return b'x'\n")
        await one.invoke("f")
        health = await one.request("GET", "/healthz", signed=False)
        metrics = await one.request("GET", "/metrics", signed=False)
    assert health.status == 200
    assert b"eventd_function_invocations_total{" in metrics.body
    assert os.fsencode("svc") in metrics.body

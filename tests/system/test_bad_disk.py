"""A disk that is full, and one that fails."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import health
import orjson
import pytest
from system_node import Node, NodeFactory, until, zipped
from witness import Witness

pytestmark = pytest.mark.root

DISK_MB = 320  # room comes back when twice the ballast of 64 MiB is free
WORK = """
import time
def handler(event, context):
    line = tell(event.decode())
    time.sleep(2.0 if event.startswith(b"slow") else 0.0)
    done(line)
    return event
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = f"size={DISK_MB}m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(path: Path) -> None:
    """Take every byte that is left."""
    with path.open("wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    out.write(b"\0" * size)
            except OSError:
                pass


async def attempt(node: Node, name: str, accepted: set[str]) -> int:
    reply = await node.invoke("work", name.encode(), headers={"x-fc-invocation-type": "Async"})
    if reply.status == 202:
        accepted.add(name)
    else:
        assert reply.json()["ErrorCode"] == "ServiceUnavailable", (reply.status, reply.body)
    return reply.status


async def unready(node: Node, word: bytes) -> bool:
    reply = await node.request("GET", "/readyz", signed=False)
    return reply.status == 503 and word in reply.body.lower()


async def test_a_full_disk_refuses_new_work_and_loses_none(
    node: NodeFactory, small_disk: Path
) -> None:
    async with Witness() as witness:
        env = {"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"}
        one = node(data=small_disk / "data", env=env)
        accepted: set[str] = set()
        async with one:
            await one.deploy("work", witness.source + WORK, instanceConcurrency=20)
            for number in range(20):
                assert await attempt(one, f"before{number}", accepted) == 202
            running = asyncio.create_task(one.invoke("work", b"slow"))
            await until(lambda: witness.begun["slow"], "the running call")

            await asyncio.to_thread(fill, small_disk / "filler")
            number = 0
            statuses: set[int] = set()
            while 503 not in statuses:
                number += 1
                assert number < 5000, "the disk is full and everything is accepted"
                statuses.add(await attempt(one, f"during{number}", accepted))
            await until(lambda: unready(one, b"full"), "/readyz says so")
            before = await health.holdings(one)
            created = await one.request(
                "POST", "/2016-08-15/services", orjson.dumps({"serviceName": "half"})
            )
            code = {"zipFile": base64.b64encode(zipped({"index.py": os.urandom(500_000)})).decode()}
            uploaded = await one.request(
                "PUT", "/2016-08-15/services/svc/functions/work", orjson.dumps({"code": code})
            )
            again = await attempt(one, "again", accepted)
            reply = await running
            sync = await one.invoke("work", b"sync")
            after = await health.holdings(one)
            alive = await one.request("GET", "/healthz", signed=False)

            (small_disk / "filler").unlink()
            await until(lambda: recovered(one), "the disk has space again")
            assert await attempt(one, "afterwards", accepted) == 202
            await until(
                lambda: all(witness.finished[name] for name in accepted), "every accepted event"
            )
            letters = (await one.status())["queue"]["deadLetters"]

        async with node(data=one.data, env=env) as two:  # its start collects unreferenced code
            restarted = await health.holdings(two)

        assert again == 503
        for refused in (created, uploaded):
            assert (refused.status, refused.json()["ErrorCode"]) == (503, "ServiceUnavailable")
        assert after.resources == before.resources
        assert restarted == before
        assert (reply.status, reply.body) == (200, b"slow")
        assert (sync.status, sync.body) == (200, b"sync")
        assert alive.status == 200
        assert letters == 0
        assert b"Traceback" not in one.output
        assert all(witness.begun[name] == 1 for name in accepted)


async def recovered(node: Node) -> bool:
    return (await node.request("GET", "/readyz", signed=False)).status == 200


@asynccontextmanager
async def failing_syncs(pid: int) -> AsyncIterator[None]:
    """From now on every fsync and fdatasync of the process says EIO."""
    calls = "fsync,fdatasync"
    tracer = await asyncio.create_subprocess_exec(
        "strace", "-f", "-qq", "-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO",
        "-o", "/dev/null", "-p", str(pid),
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await until(lambda: traced(pid), "strace is attached")
        yield
    finally:
        if tracer.returncode is None:
            tracer.terminate()
        assert tracer.stderr is not None
        await tracer.stderr.read()
        await tracer.wait()


def traced(pid: int) -> bool:
    """Whether a tracer holds every thread."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        text = Path(f"/proc/{pid}/task/{thread}/status").read_text()
        if "TracerPid:\t0\n" in text:
            return False
    return True


async def test_a_sync_that_fails_ends_the_daemon_and_keeps_what_was_accepted(
    node: NodeFactory,
) -> None:
    async with Witness() as witness:
        env = {"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"}
        first = node(env={**env, "EVENTD_QUEUE_CONCURRENCY": "1"})
        accepted: set[str] = set()
        await first.__aenter__()
        await first.deploy("work", witness.source + WORK)
        await first.invoke_async("work", b"slow")
        accepted.add("slow")
        await until(lambda: witness.begun["slow"], "the running call")
        for number in range(10):
            await attempt(first, f"kept{number}", accepted)
        assert first.process is not None
        async with failing_syncs(first.process.pid):
            refused = await attempt(first, "refused", accepted)
            async with asyncio.timeout(60):
                code = await first.process.wait()
        await first.end()
        output = first.output

        second = node(data=first.data, env=env)
        async with second:
            await until(
                lambda: all(witness.finished[name] for name in accepted), "every accepted event"
            )
            letters = (await second.status())["queue"]["deadLetters"]

    assert refused == 503
    assert code == 74, output
    assert b"Traceback" not in output
    assert letters == 0

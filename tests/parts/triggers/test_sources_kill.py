"""Kill -9 at random moments while files, lines and due times come in, on the real store."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

NODE = Path(__file__).with_name("sources_node.py")
KILLS = 20
DEADLINE_S = 60.0


@asynccontextmanager
async def node(data: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running node; killed with SIGKILL at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(NODE), str(data), "run", stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def wait_ready(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        assert await process.stdout.readline() == b"ready\n"


async def drained(data: Path) -> list[tuple[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(NODE), str(data), "drain", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE_S):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return [tuple(json.loads(line)) for line in out.splitlines()]


class Load:
    """Files in several directories, and lines of a log that is rotated."""

    def __init__(self, data: Path) -> None:
        self.bucket = data / "buckets" / "photos"
        self.log = data / "app.log"
        self.bucket.mkdir(parents=True)
        self.log.touch()
        self.count = 0
        self.ended = False

    async def run(self) -> None:
        while not self.ended:
            await asyncio.to_thread(self.add)
            await asyncio.sleep(0.002)

    def add(self) -> None:
        directory = self.bucket / str(self.count % 7)
        directory.mkdir(exist_ok=True)
        (directory / str(self.count)).write_text("x" * self.count)
        with self.log.open("a") as file:
            file.write(f"line {self.count}\n")
        if self.count % 300 == 299:
            self.log.rename(self.log.with_name(f"app.log.{self.count}"))
        self.count += 1


async def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    load = Load(tmp_path)
    chance = random.Random(4)
    async with node(tmp_path) as process:
        await wait_ready(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        for number in range(KILLS):
            async with node(tmp_path) as process:
                if number % 2:
                    await wait_ready(process)
                await asyncio.sleep(chance.uniform(0.0, 0.7))
        load.ended = True

    keys: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    times: Counter[str] = Counter()
    expected_keys = {f"{n % 7}/{n}" for n in range(load.count)}
    expected_lines = {f"line {n}" for n in range(load.count)}
    async with asyncio.timeout(DEADLINE_S):
        while not (set(keys) >= expected_keys and set(lines) >= expected_lines):
            async with node(tmp_path) as process:
                await wait_ready(process)
                await asyncio.sleep(chance.uniform(0.5, 1.5))  # and killed again
            for name, body in await drained(tmp_path):
                if name == "oss":
                    keys[body["events"][0]["oss"]["object"]["key"]] += 1
                elif name == "log":
                    lines.update(body["lines"])
                else:
                    times[body["triggerTime"]] += 1

    assert (set(keys), set(lines)) == (expected_keys, expected_lines)
    assert len(times) > 5
    assert {count for each in (keys, lines, times) for count in each.values()} == {1}

"""What a kill -9 leaves: everything acknowledged, and progress that agrees with it."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from store_support import Opener

SCRIPT = Path(__file__).with_name("killed_producer.py")
KILLS = 20


async def run_and_kill(data: Path, after_s: float) -> list[list[str]]:
    """What the producer said before it was killed, ``after_s`` after it began."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), str(data), stdout=asyncio.subprocess.PIPE, limit=1 << 24
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
    reading = asyncio.create_task(process.stdout.read())
    await asyncio.sleep(after_s)  # a moment of its life, not a condition
    process.kill()
    said = await asyncio.wait_for(reading, 60)
    await process.wait()
    return [line.split() for line in said.decode().splitlines(keepends=True) if line[-1] == "\n"]


async def test_nothing_acknowledged_is_lost_by_20_kills(opener: Opener, data: Path) -> None:
    moments = random.Random(4)
    put: set[str] = set()
    claimed: set[str] = set()
    finished: set[str] = set()
    cursors: dict[str, int] = {}
    for _ in range(KILLS):
        run_cursors: dict[str, int] = {}
        for word, invocation_id, *rest in await run_and_kill(data, moments.uniform(0.0, 0.4)):
            if word == "put":
                put.add(invocation_id)
                run_cursors[rest[0]] = int(rest[1])
            elif word == "claim":
                claimed.add(invocation_id)
                assert invocation_id not in finished
            else:
                finished.add(invocation_id)
        cursors.update(run_cursors)

    async with opener() as store:
        assert store.epoch == KILLS + 1
        left = store.queue.statistics().waiting
        found = {(await store.queue.claim()).id for _ in range(left)}
        for source, number in cursors.items():
            # It may be one further: committed, but killed before it could say so.
            assert int(await store.queue.load_cursor(source) or 0) in (number, number + 1, 1)

    assert len(put) > KILLS
    # A finish may have been committed without having been said; then it was claimed.
    assert put - found <= claimed
    assert not found & finished

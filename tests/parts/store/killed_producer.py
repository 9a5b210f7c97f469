"""Run by a test that kills it: puts as fast as it can, prints an id after its put returned."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from eventd.clock import Clock
from eventd.config import Settings
from eventd.metrics import Metrics
from eventd.model.identity import new_invocation_id
from eventd.model.invocation import Invocation
from eventd.store.interface import Progress
from eventd.store.opened import Store, open_store


async def produce(store: Store, name: str, size: int) -> None:
    number = 0
    while True:
        number += 1
        invocation = Invocation(
            id=new_invocation_id(),
            request_id=name,
            service="shop",
            function=name,
            incarnation="one",
            qualifier="LATEST",
            payload=b"x" * size,
            accepted_ms=number,
        )
        await store.queue.put([invocation], Progress(name, cursor=str(number)))
        sys.stdout.write(f"put {invocation.id} {name} {number}\n")
        sys.stdout.flush()


async def consume(store: Store) -> None:
    while True:
        invocation = await store.queue.claim()
        sys.stdout.write(f"claim {invocation.id}\n")
        sys.stdout.flush()
        await store.queue.finish(invocation.id)
        sys.stdout.write(f"finish {invocation.id}\n")
        sys.stdout.flush()


async def main(data: Path) -> None:
    async with (
        open_store(data, Settings(), Metrics(), Clock(), ballast_bytes=4096) as store,
        asyncio.TaskGroup() as group,
    ):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for number in range(16):
            size = 100_000 if number == 0 else 300
            group.create_task(produce(store, f"f{number}", size))
        for _ in range(4):
            group.create_task(consume(store))


asyncio.run(main(Path(sys.argv[1])))

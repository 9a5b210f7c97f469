"""Store, intake and sources in a process of their own, for tests that kill it.

usage: sources_node.py DATA run     watch, after the first start with three triggers
       sources_node.py DATA drain   print every accepted invocation as a line of JSON
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from eventd.adapters import load_adapters
from eventd.clock import Clock
from eventd.config import Settings
from eventd.metrics import Metrics
from eventd.model.resources import Function, Service, TriggerRecord
from eventd.plugin import SourceSettings
from eventd.router.backlog import Backlog
from eventd.router.intake import Intake
from eventd.rules.index import RuleIndex
from eventd.sources import Ports, Sources
from eventd.store.interface import Metadata
from eventd.store.opened import Store, open_store

CREATED = "2026-11-24T00:00:00Z"
TRIGGERS: dict[str, dict[str, Any]] = {
    "oss": {"events": ["oss:ObjectCreated:*"]},
    "log": {"path": "app.log", "batchWindowSeconds": 0.01},
    "timer": {"cronExpression": "@every 1s"},
}


async def deploy(metadata: Metadata) -> None:
    if metadata.service("s") is not None:
        return
    service = Service("s", "s-id", "life", "etag", CREATED, CREATED, {})
    await metadata.save_service(service, expect=None)
    function = Function("s", "f", "f-id", "etag", CREATED, CREATED, {}, "digest", "1", 1)
    await metadata.save_function(function, expect=None)


async def deploy_triggers(metadata: Metadata) -> None:
    for type_, config in TRIGGERS.items():
        if metadata.trigger("s", "f", type_) is None:
            record = TriggerRecord(
                service="s",
                function="f",
                name=type_,
                trigger_id=f"id-{type_}",
                type=type_,
                source_arn="acs:oss:cn-local:1:photos",
                invocation_role=None,
                qualifier=None,
                description="",
                config=config,
                etag="etag",
                created_time=CREATED,
                last_modified_time=CREATED,
            )
            await metadata.save_trigger(record, expect=None)


async def run(store: Store, data: Path) -> None:
    clock, metrics, rules = Clock(), Metrics(), RuleIndex()
    backlog = Backlog(store.queue, metrics, clock, limit=1_000_000)
    nobody: Any = SimpleNamespace(resolver=None)  # nothing is delivered directly here
    intake = Intake(rules, backlog, nobody, nobody, store.metadata, metrics, clock)
    await deploy(store.metadata)
    sources = Sources(
        load_adapters().types,
        lambda type_: SourceSettings(data, "1", "cn-local"),
        metadata=store.metadata,
        rules=rules,
        ports=Ports(intake, store.queue, clock, metrics),
    )
    async with sources:
        await deploy_triggers(store.metadata)
        for name in TRIGGERS:
            if not await sources.wait_effective("s", "f", name, timeout_s=20):
                raise SystemExit(f"{name} does not watch: {sources.status()}")
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def drain(store: Store) -> None:
    async with asyncio.TaskGroup() as group:
        while store.queue.statistics().waiting:
            invocation = await store.queue.claim()
            body = json.loads(invocation.payload)
            sys.stdout.write(json.dumps([invocation.trigger_name, body]) + "\n")
            group.create_task(cast(Any, store.queue.finish(invocation.id)))


async def main() -> None:
    data, mode = Path(sys.argv[1]), sys.argv[2]
    async with open_store(data, Settings(), Metrics(), Clock(), ballast_bytes=1 << 16) as store:
        work: Awaitable[None] = run(store, data) if mode == "run" else drain(store)
        await work


if __name__ == "__main__":
    uvloop.run(main())

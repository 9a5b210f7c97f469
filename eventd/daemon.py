"""The composition root: opens every part in one stack, top to bottom; leaving it drains upwards.

Nothing else knows all parts. What is entered last is left first: the sources stop, the listener
refuses new connections, running calls end, the queue keeps the rest, then instances, logs and store
close.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

import eventd
from eventd.adapters import Adapters, load_adapters
from eventd.api import dead_letters, health, logs, metrics, status
from eventd.api.app import build_app
from eventd.api.auth import Authenticator, Credentials
from eventd.api.edge import Edge
from eventd.api.http import HttpTriggers
from eventd.api.invoke import invocation_routes
from eventd.api.server import Listening, serving
from eventd.api.state import ControlState, Limits
from eventd.clock import Clock
from eventd.config import ConfigError, Settings
from eventd.console_log import console_log
from eventd.errors import EventdError
from eventd.local_access import (
    LocalAccess,
    load_or_create_access_key,
    remove_endpoint,
    write_endpoint,
)
from eventd.logs.store import LogStore, open_logs
from eventd.metrics import Metrics
from eventd.plugin import SourceSettings
from eventd.pool.pool import Pool
from eventd.pool.sandbox.fence import FenceError
from eventd.pool.sandbox.link import LauncherFailed
from eventd.pool.surroundings import Account
from eventd.pool.zygote import IsolationTooWeak, Zygote
from eventd.router.backlog import Backlog
from eventd.router.deletions import burying_deleted
from eventd.router.dispatch import Dispatcher, dispatching
from eventd.router.intake import Intake
from eventd.router.invoke import Invoker
from eventd.router.resolve import Resolver
from eventd.router.retirement import retiring
from eventd.router.settle import Settler
from eventd.rules.index import RuleIndex
from eventd.sources import Ports, Sources
from eventd.store.datadir import DataDirectoryInUse
from eventd.store.interface import StoreFailed
from eventd.store.opened import Store, open_store
from eventd.store.packages import Packages
from eventd.store.sqlite.connection import SchemaTooNew

log = logging.getLogger(__name__)

EXIT_REFUSED = 2
EXIT_DISK = 74  # EX_IOERR of sysexits.h
BOOTSTRAP = Path(__file__).parent / "runtimes" / "python" / "bootstrap.py"
SWITCH_S = 0.001
"""How long a writer thread may keep the loop waiting for the interpreter; Python's own is 5 ms."""
EFFECTIVE_S = 5.0
"""How long a created trigger's answer waits for its source; a broker that is away takes longer."""


@dataclass(slots=True)
class Shutdown:
    """Why and since when the daemon ends.

    Attributes:
        drain_s: how long what runs may still take, over all parts together.
        code: exit code.
    """

    drain_s: float
    requested: asyncio.Event = field(default_factory=asyncio.Event)
    code: int = 0
    _until: float = 0.0

    def request(self, reason: str, code: int = 0) -> None:
        """Begin to end; the first call counts."""
        if not self.requested.is_set():
            log.info("stopping: %s", reason)
            self.code = code
            self._until = time.monotonic() + self.drain_s
            self.requested.set()

    def left_s(self) -> float:
        """Seconds that running requests still have."""
        if not self.requested.is_set():
            return self.drain_s
        return max(0.0, self._until - time.monotonic())


def run(settings: Settings) -> int:
    """Run the daemon until SIGTERM or SIGINT; the process's exit code.

    0 after a drain, 2 when it may not start (said in one line), 74 when the disk failed.
    """
    sys.setswitchinterval(SWITCH_S)
    with console_log(settings.server.log_level, settings.server.log_format):
        factory = uvloop.new_event_loop if settings.server.loop == "uvloop" else None
        code = 0
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                code = runner.run(_main(settings))
        except* (
            ConfigError,
            DataDirectoryInUse,
            EventdError,
            FenceError,
            IsolationTooWeak,
            LauncherFailed,
            OSError,
            SchemaTooNew,
        ) as refused:
            for reason in _leaves(refused):
                log.error("cannot start: %s", reason)
            code = EXIT_REFUSED
        except* StoreFailed as failed:
            for reason in _leaves(failed):
                log.error("the store failed: %s", reason)
            code = EXIT_DISK
        return code


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def _main(settings: Settings) -> int:
    shutdown = Shutdown(settings.server.drain_s)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shutdown.request, signal.Signals(number).name)
    async with daemon(settings, shutdown):
        gc.collect()
        gc.freeze()  # a full collection would look at every module again, 40 ms long
        await shutdown.requested.wait()
    log.info("stopped")
    return shutdown.code


@asynccontextmanager
async def daemon(settings: Settings, shutdown: Shutdown) -> AsyncIterator[Listening]:
    """The whole daemon, serving during the block."""
    clock, counters = Clock(), Metrics()

    def disk_failed(failure: StoreFailed) -> None:
        if not failure.full:
            shutdown.request(str(failure), EXIT_DISK)

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        data = settings.server.data.absolute()
        store = await enter(open_store(data, settings, counters, clock, on_failure=disk_failed))
        access = await asyncio.to_thread(load_or_create_access_key, data, settings.server)
        if access.written is not None:
            log.info("wrote an access key into %s", access.written)
        output = await enter(open_logs(store, settings.logs, counters, clock))
        packages = await Packages.open(
            data / "code", store.blobs, max_unpacked_bytes=settings.pool.max_unpacked_bytes
        )
        await _collect_garbage(store, packages)
        zygote = await enter(
            Zygote(
                state_dir=data / "zygote",
                bootstrap=BOOTSTRAP,
                settings=settings.pool,
                allowed=settings.pool.allowed_addresses(),
            )
        )
        pool = await enter(
            Pool(
                zygote,
                packages,
                settings.pool,
                counters,
                clock,
                output,
                account=Account(access.account_id, settings.server.region),
                drain_s=shutdown.left_s,
            )
        )
        parts = _Parts(settings, shutdown, access, clock, counters, store, output, zygote, pool)
        yield await _serve(stack, parts)


@dataclass(slots=True)
class _Parts:
    """What is open already when the router and the fronts are put on top."""

    settings: Settings
    shutdown: Shutdown
    access: LocalAccess
    clock: Clock
    metrics: Metrics
    store: Store
    output: LogStore
    zygote: Zygote
    pool: Pool
    started_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def source_settings(self, trigger_type: str = "") -> SourceSettings:
        return SourceSettings(
            data_dir=self.store.directory.root,
            account_id=self.access.account_id,
            region=self.settings.server.region,
            buckets=self.settings.buckets,
            options=self.settings.triggers.get(trigger_type, {}),
        )

    def not_ready(self) -> list[str]:
        reasons = ["draining"] if self.shutdown.requested.is_set() else []
        disk = self.store.disk
        return reasons + [str(failure) for failure in (disk.failed, disk.full) if failure]


async def _serve(stack: AsyncExitStack, parts: _Parts) -> Listening:
    """Router, sources and listener on top of what is open."""
    settings, store, clock = parts.settings, parts.store, parts.clock
    enter = stack.enter_async_context
    adapters = load_adapters()
    resolver = Resolver(store.metadata)
    stack.callback(resolver.close)
    backlog = Backlog(
        store.queue, parts.metrics, clock, limit=settings.queue.max_backlog_per_function
    )
    invoker = Invoker(
        resolver,
        parts.pool,
        store.history,
        backlog,
        parts.metrics,
        clock,
        queue_deadline_s=settings.pool.queue_timeout_s,
    )
    settler = Settler(store.queue, parts.metrics, clock, jitter=random.random)
    rules = RuleIndex()
    intake = Intake(rules, backlog, invoker, settler, store.metadata, parts.metrics, clock)
    dispatcher = Dispatcher(
        invoker, settler, store.metadata, clock, retry_base_s=settings.queue.retry_base_s
    )
    stack.enter_context(retiring(store.metadata, resolver, parts.pool))
    await enter(burying_deleted(store.metadata, store.queue, parts.metrics))
    sources = Sources(
        adapters.types,
        parts.source_settings,
        metadata=store.metadata,
        rules=rules,
        ports=Ports(intake, store.queue, clock, parts.metrics),
    )
    edge = _edge(parts, invoker)
    closing = asyncio.Event()
    listening_at: list[Listening] = []
    app = build_app(
        _control(parts, adapters, sources, edge.authenticator),
        signed_routes=[
            *status.routes(_status_sources(parts, sources, adapters, listening_at)),
            *logs.routes(parts.output, closing),
            *dead_letters.routes(store.queue),
        ],
        open_routes=[
            *invocation_routes(edge),
            *health.routes(parts.not_ready),
            *metrics.routes(parts.metrics, _gauges(parts)),
        ],
    )
    listening = await enter(serving(app, edge, settings.server, drain_s=parts.shutdown.left_s))
    listening_at.append(listening)
    stack.callback(closing.set)
    data = store.directory.root
    await asyncio.to_thread(write_endpoint, data, listening.url)
    stack.callback(remove_endpoint, data)
    await enter(
        dispatching(
            store.queue,
            dispatcher.execute,
            limit=settings.queue.concurrency,
            drain_s=parts.shutdown.left_s,
        )
    )
    await enter(sources)
    log.info("ready at %s, isolation: %s", listening.url, parts.zygote.report.name)
    return listening


def _edge(parts: _Parts, invoker: Invoker) -> Edge:
    access = parts.access
    spool = parts.store.directory.root / "spool"
    spool.mkdir(mode=0o700, exist_ok=True)
    return Edge(
        invoker=invoker,
        authenticator=Authenticator(
            Credentials(access.access_key_id, access.access_key_secret), parts.clock
        ),
        triggers=HttpTriggers(parts.store.metadata),
        settings=parts.settings.http,
        metrics=parts.metrics,
        clock=parts.clock,
        spool_dir=spool,
    )


def _control(
    parts: _Parts, adapters: Adapters, sources: Sources, authenticator: Authenticator
) -> ControlState:
    async def wait_effective(service: str, function: str, name: str) -> None:
        await sources.wait_effective(service, function, name, timeout_s=EFFECTIVE_S)

    return ControlState(
        metadata=parts.store.metadata,
        blobs=parts.store.blobs,
        trigger_types=adapters.types,
        settings=parts.source_settings(),
        authenticator=authenticator,
        clock=parts.clock,
        limits=Limits(
            body_bytes=parts.settings.http.max_api_body_bytes,
            unpacked_bytes=parts.settings.pool.max_unpacked_bytes,
        ),
        wait_effective=wait_effective,
        settings_for=parts.source_settings,
    )


def _status_sources(
    parts: _Parts, sources: Sources, adapters: Adapters, listening: list[Listening]
) -> status.StatusSources:
    def about() -> Mapping[str, Any]:
        return {
            "version": eventd.__version__,
            "pid": os.getpid(),
            "startedMs": parts.started_ms,
            "endpoint": listening[0].url if listening else "",
            "data": str(parts.store.directory.root),
            "region": parts.settings.server.region,
            "accountId": parts.access.account_id,
            "isolation": parts.zygote.report.name,
            "brokenAdapters": [
                {"name": one.name, "target": one.target, "error": one.error}
                for one in adapters.broken
            ],
        }

    return status.StatusSources(
        metadata=parts.store.metadata,
        metrics=parts.metrics,
        queue=parts.store.queue.statistics,
        instances=parts.pool.instances,
        triggers=sources.status,
        about=about,
    )


def _gauges(parts: _Parts) -> Callable[[], Mapping[str, float]]:
    def gauges() -> Mapping[str, float]:
        pool, queue = parts.pool.statistics(), parts.store.queue.statistics()
        return {
            "instances": pool.instances,
            "instances_idle": pool.idle,
            "calls_running": pool.running,
            "calls_waiting": pool.waiting,
            "queue_waiting": queue.waiting,
            "queue_claimed": queue.claimed,
            "dead_letters_kept": queue.dead_letters,
        }

    return gauges


async def _collect_garbage(store: Store, packages: Packages) -> None:
    """Drop code that no function and no version refers to: before anything can add some."""
    referenced = store.metadata.code_digests()
    for digest in await asyncio.to_thread(store.blobs.digests):
        if digest not in referenced:
            await store.blobs.delete(digest)
    await packages.collect(referenced)

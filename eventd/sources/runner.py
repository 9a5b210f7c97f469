"""One source: its task from start to end, and what it may do while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eventd.errors import ServiceUnavailable
from eventd.model.event import Event
from eventd.plugin import Delivery, Run, SourceReport, SourceSettings, Trigger, TriggerType
from eventd.sources.ports import Ports
from eventd.store.interface import Progress, StoreFailed

RESTART_BASE_S = 1.0
RESTART_MAX_S = 60.0
COMMIT_GRACE_S = 2.0
"""How long a cancelled ``emit`` may still bring its commit home before it is given up."""
STUCK_AFTER_S = 10.0
"""A source that takes longer than this to end is reported; nothing starts beside it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """A trigger that shares a source, with its adapter."""

    trigger: Trigger[Any]
    type: TriggerType[Any]


class Runner:
    """Runs the source of one key from its first trigger to its last.

    Whoever calls ``join`` and ``leave`` only says what is wanted; ``run`` makes it so, one step
    after the other: a run has ended before its progress is forgotten or another run starts.

    Attributes:
        effective: the source reported for the first time since it was started or told to restart.
        report: its own last word; ``error``: why it does not run, empty while it does.
    """

    def __init__(self, key: str, settings: SourceSettings, ports: Ports) -> None:
        self.key = key
        self.settings = settings
        self.ports = ports
        self.members: dict[str, Member] = {}
        self.effective = asyncio.Event()
        self.report = SourceReport(text="starting")
        self.error = ""
        self.restarts = 0
        self.restart = False
        self._changed = asyncio.Event()
        self._forget = False

    def join(self, member: Member) -> None:
        """Let a trigger share the source, or replace what is known about it."""
        old = self.members.get(member.trigger.id)
        version = member.type.source_version
        if old and version(old.trigger) != version(member.trigger):
            self._restart()
        self.members[member.trigger.id] = member
        self._changed.set()

    def leave(self, trigger_id: str, *, forget: bool) -> None:
        """Take a trigger off; without any the source ends. ``forget``: with its progress."""
        self.members.pop(trigger_id, None)
        if not self.members:
            self._forget |= forget
            self._restart()  # also if somebody joins before the run has ended
        self._changed.set()

    def reported(self, report: SourceReport) -> None:
        if self.restart:
            return  # the last words of a run that is to end
        self.report = report
        self.error = ""
        self.effective.set()

    def _restart(self) -> None:
        self.restart = True
        self.effective.clear()

    async def run(self, on_ended: Callable[[], None]) -> None:
        """Run the source, again after errors and changes, until no trigger is left.

        ``on_ended`` is called whenever no run is left: what was emitted has been accepted.
        """
        pause = RESTART_BASE_S
        while True:
            self._changed.clear()
            self.restart = False
            if self._forget:
                self._forget = False
                await self._forget_progress()
                continue
            if not self.members:
                on_ended()
                return
            started = self.ports.clock.monotonic()
            failed = await self._run_once()
            on_ended()
            if not failed or self.ports.clock.monotonic() - started > RESTART_MAX_S:
                pause = RESTART_BASE_S
            if failed:
                await self._back_off(pause)
                pause = min(pause * 2, RESTART_MAX_S)

    async def _run_once(self) -> bool:
        """One run, until it fails (``True``) or a change asks for another; awaits its end."""
        member = next(iter(self.members.values()))
        context = Context(self)
        try:
            source = member.type.source(member.trigger, self.settings)
            task = asyncio.ensure_future(source.run(context))
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            return self._failed(error)
        try:
            while not (task.done() or self.restart):
                await self._wait_change(task)
        finally:
            task.cancel()
            try:
                await self._ended(task)
            finally:
                await context.aclose()
        if self.restart:
            if not task.cancelled() and (late := task.exception()):
                log.warning("source %s failed while it ended: %r", self.key, late)
            return False
        if task.cancelled():
            return self._failed(RuntimeError("the source cancelled itself"))
        if failure := task.exception():
            return self._failed(failure)
        await self._changed.wait()  # it ended of itself: nothing to watch before a change
        return False

    async def _wait_change(self, task: asyncio.Future[None]) -> None:
        """Wait for the end of the run or for a change; one that asks for no restart only lets the
        source see other triggers."""
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((task, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        self._changed.clear()

    async def _ended(self, task: asyncio.Future[None]) -> None:
        while not task.done():
            await asyncio.wait((task,), timeout=STUCK_AFTER_S)
            if not task.done():
                self.error = f"it was told to end and has not for {STUCK_AFTER_S:g} s"
                log.error("source %s: %s", self.key, self.error)

    def _failed(self, error: BaseException) -> bool:
        if not isinstance(error, Exception):
            raise error
        self.error = f"{type(error).__name__}: {error}"
        self.restarts += 1
        self.ports.metrics.source_restarts += 1
        self.effective.clear()
        log.warning("source %s failed and will be started again: %s", self.key, self.error)
        log.debug("source %s failed", self.key, exc_info=error)
        return True

    async def _back_off(self, seconds: float) -> None:
        """Wait before the next start; a change of its triggers ends the wait."""
        sleep = asyncio.ensure_future(self.ports.clock.sleep(seconds))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((sleep, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            changed.cancel()

    async def _forget_progress(self) -> None:
        try:
            await self.ports.store.forget_source(self.key)
        except StoreFailed as error:
            # Its rows stay behind; the daemon ends on this failure anyway.
            log.error("source %s: its progress could not be dropped: %s", self.key, error)


class Context:
    """``plugin.SourceContext`` for one run of a source."""

    def __init__(self, runner: Runner) -> None:
        self.key = runner.key
        self.settings = runner.settings
        self._runner = runner
        self._ports = runner.ports
        self._runs: set[asyncio.Task[None]] = set()
        self._closed = False

    def now(self) -> datetime:
        return self._ports.clock.now()

    async def sleep(self, seconds: float) -> None:
        await self._ports.clock.sleep(seconds)

    async def sleep_until(self, moment: datetime) -> None:
        await self._ports.clock.sleep_until(moment)

    def triggers(self) -> tuple[Trigger[Any], ...]:
        return tuple(member.trigger for member in self._runner.members.values())

    async def load_cursor(self) -> str | None:
        return await self._ports.store.load_cursor(self.key)

    async def load_state(self) -> dict[str, str]:
        return await self._ports.store.load_state(self.key)

    async def emit(
        self,
        events: Sequence[Event],
        *,
        cursor: str | None = None,
        state: Mapping[str, str | None] | None = None,
    ) -> None:
        """See ``SourceContext.emit``. A cancelled emit lets a commit that is on its way arrive, so
        that the next run of the source loads a cursor that tells the truth."""
        progress = None
        if cursor is not None or state:
            progress = Progress(self.key, cursor, state)
        accept = asyncio.ensure_future(self._ports.intake.accept(self.key, events, progress))
        try:
            await asyncio.shield(accept)
        except asyncio.CancelledError:
            await asyncio.wait((accept,), timeout=COMMIT_GRACE_S)
            accept.cancel()
            await asyncio.wait((accept,))
            if not accept.cancelled() and (error := accept.exception()):
                log.warning("source %s: the last emit failed: %s", self.key, error)
            raise
        except StoreFailed as error:
            raise ServiceUnavailable(f"the store takes nothing: {error}") from error

    async def deliver(self, event: Event, *, attempts: int = 3) -> Delivery:
        return await self._ports.intake.deliver(self.key, event, attempts=attempts)

    def deliver_nowait(
        self, event: Event, on_end: Callable[[Delivery | Exception], None], *, attempts: int = 3
    ) -> Run:
        """See ``SourceContext.deliver_nowait``. A run is known here once it has become a task; the
        pool knows the others."""
        return self._ports.intake.deliver_nowait(
            self.key, event, attempts=attempts, on_end=on_end, spawn=self._spawn
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if self._closed:
            work.close()
            return None
        task = asyncio.get_running_loop().create_task(work)
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        return task

    def report(self, report: SourceReport) -> None:
        self._runner.reported(report)

    async def aclose(self) -> None:
        """End what is left of the deliveries; the source has ended."""
        self._closed = True
        runs = tuple(self._runs)
        for task in runs:
            task.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

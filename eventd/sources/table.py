"""Triggers at work: their rules are in force, their sources run, each shows how it is.

``Sources`` follows ``Metadata``. Triggers with an equal source key share one task. In the listener
of a change, so before the API answers, the rule is put and the source is told; a source that has
to be started anew, or whose last trigger went away, first ends, and only then the next one starts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from eventd.model.resources import TriggerRecord
from eventd.plugin import SourceReport, SourceSettings, Trigger, TriggerType
from eventd.sources.ports import Ports, RuleRegistry
from eventd.sources.runner import Member, Runner
from eventd.sources.typed import typed_trigger
from eventd.store.interface import Change, Metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TriggerStatus:
    """A trigger as ``status`` shows it.

    Attributes:
        source: source key; empty if the trigger has no source (``http``, disabled).
        text: the source's own word.
        lag: events known to wait at the source; ``None`` when unknown.
        error: why it does not run now, or did not when it was last started; empty if all is well.
        restarts: of its source, because of errors.
    """

    service: str
    function: str
    name: str
    type: str
    source: str
    text: str
    lag: int | None
    healthy: bool
    error: str
    restarts: int


@dataclass(slots=True)
class _Entry:
    """A stored trigger.

    Attributes:
        member: with its typed config; ``None`` if it cannot be used, ``error`` says why.
        key: of its source; ``None`` if there is nothing to watch.
        kept: of the source whose progress waits for it while it is disabled.
    """

    record: TriggerRecord
    member: Member | None = None
    key: str | None = None
    kept: str | None = None
    error: str = ""


class Sources:
    """Runs the sources of all triggers while it is entered.

    On exit every source is cancelled and awaited; what they emitted is stored.

    Args:
        trigger_types: by ``triggerType`` (``adapters.load_adapters().types``).
        settings_for: the operator's settings for a trigger type.
    """

    def __init__(
        self,
        trigger_types: Mapping[str, TriggerType[Any]],
        settings_for: Callable[[str], SourceSettings],
        *,
        metadata: Metadata,
        rules: RuleRegistry,
        ports: Ports,
    ) -> None:
        self._types = trigger_types
        self._settings_for = settings_for
        self._metadata = metadata
        self._rules = rules
        self._ports = ports
        self._entries: dict[tuple[str, str, str], _Entry] = {}
        self._runners: dict[str, Runner] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._disabled: dict[tuple[str, str, str], str] = {}  # still in force: the source to end
        self._unsubscribe: Callable[[], None] = lambda: None

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        self._unsubscribe = self._metadata.subscribe(self._on_change)
        for record in tuple(self._metadata.triggers()):
            self._put(record)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def status(self) -> tuple[TriggerStatus, ...]:
        """Every stored trigger, by service, function and name."""
        return tuple(self._status(self._entries[identity]) for identity in sorted(self._entries))

    async def wait_effective(
        self, service: str, function: str, name: str, *, timeout_s: float
    ) -> bool:
        """Wait until the source of a trigger watches: it knows where "now" is, so what happens
        from here on reaches the trigger. ``False``: not within ``timeout_s`` (its source is down;
        ``status`` tells why). At once ``True`` for a trigger without a source, or an unknown one.
        """
        entry = self._entries.get((service, function, name))
        runner = self._runners.get(entry.key) if entry and entry.key else None
        if runner is None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await runner.effective.wait()
        except TimeoutError:
            return False
        return True

    # Changes: synchronous, in the listener of the commit.

    def _on_change(self, change: Change) -> None:
        if change.kind != "trigger":
            return
        identity = (change.service, change.function, change.name)
        record = self._metadata.trigger(*identity)
        known = self._entries.get(identity)
        if known and (record is None or record.trigger_id != known.record.trigger_id):
            self._remove(identity)
        if record is not None:
            self._put(record)

    def _put(self, record: TriggerRecord) -> None:
        identity = (record.service, record.function, record.name)
        old = self._entries.get(identity)
        entry = self._entries[identity] = self._entry(record)
        if entry.key and entry.member:
            self._put_rule(entry.member)
        elif old and old.key and len(self._runners[old.key].members) == 1:
            self._disabled[identity] = old.key  # what its source still emits is for this trigger
        else:
            self._rules.remove(record.trigger_id)
        if old and old.key and old.key != entry.key:
            # A disabled trigger comes back to its progress; one that moved on does not.
            self._leave(old.key, record.trigger_id, forget=entry.key is not None)
        if entry.key and entry.member:
            self._join(entry.key, entry.member)

    def _put_rule(self, member: Member) -> None:
        trigger, adapter = member.trigger, member.type
        settings = self._settings_for(adapter.name)
        self._rules.put(
            trigger,
            adapter.rule(trigger, settings),
            lambda event: adapter.payload(event, trigger, settings),
        )

    def _entry(self, record: TriggerRecord) -> _Entry:
        """A trigger that was stored by another version, or whose adapter is gone or broken, shows
        its error and harms no other."""
        adapter = self._types.get(record.type)
        if adapter is None:
            known = ", ".join(sorted(self._types)) or "none"
            return _Entry(record, error=f"no adapter for {record.type!r}; installed: {known}")
        try:
            trigger = typed_trigger(record, adapter)
            settings = self._settings_for(adapter.name)
            adapter.rule(trigger, settings)  # so that a failure shows here, not half-way
            adapter.source_version(trigger)
            key = adapter.source_key(trigger, settings)
            kept = None if key else _kept(trigger, adapter, settings)
            return _Entry(record, Member(trigger, adapter), key, kept)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            log.error("trigger %s of %s is not usable: %r", record.name, record.function, error)
            return _Entry(record, error=f"{type(error).__name__}: {error}")

    def _remove(self, identity: tuple[str, str, str]) -> None:
        entry = self._entries.pop(identity)
        self._disabled.pop(identity, None)
        self._rules.remove(entry.record.trigger_id)
        if entry.key:
            self._leave(entry.key, entry.record.trigger_id, forget=not self._waits(entry.key))
        elif entry.kept and entry.member and not self._waits(entry.kept):
            runner = self._runner(entry.kept, entry.member)  # runs nothing, only forgets
            runner.leave(entry.record.trigger_id, forget=True)

    def _waits(self, key: str) -> bool:
        """Whether the progress of a source is kept for a disabled trigger."""
        return any(entry.kept == key for entry in self._entries.values())

    def _join(self, key: str, member: Member) -> None:
        self._runner(key, member).join(member)

    def _runner(self, key: str, member: Member) -> Runner:
        runner = self._runners.get(key)
        if runner is None:
            runner = Runner(key, self._settings_for(member.type.name), self._ports)
            self._runners[key] = runner
            task = self._group.create_task(self._run(runner), name=f"source {key}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return runner

    async def _run(self, runner: Runner) -> None:
        await runner.run(lambda: self._drop_disabled(runner.key))
        del self._runners[runner.key]  # in the step in which it saw that no trigger is left

    def _leave(self, key: str, trigger_id: str, *, forget: bool) -> None:
        self._runners[key].leave(trigger_id, forget=forget)

    def _drop_disabled(self, key: str) -> None:
        """Nothing comes from this source any more: its disabled triggers lose their rules."""
        for identity in [each for each, source in self._disabled.items() if source == key]:
            del self._disabled[identity]
            entry = self._entries[identity]
            if entry.key is None:
                self._rules.remove(entry.record.trigger_id)

    def _status(self, entry: _Entry) -> TriggerStatus:
        record = entry.record
        runner = self._runners.get(entry.key) if entry.key else None
        report = runner.report if runner else SourceReport(text="")
        error = entry.error or (runner.error if runner else "")
        return TriggerStatus(
            service=record.service,
            function=record.function,
            name=record.name,
            type=record.type,
            source=entry.key or "",
            text=report.text,
            lag=report.lag,
            healthy=report.healthy and not error,
            error=error,
            restarts=runner.restarts if runner else 0,
        )


def _kept(trigger: Trigger[Any], adapter: TriggerType[Any], settings: SourceSettings) -> str | None:
    """The source key that a trigger with FC's switch ``enable`` has when it is on."""
    if getattr(trigger.config, "enable", True):
        return None
    enabled = trigger.config.model_copy(update={"enable": True})
    return adapter.source_key(replace(trigger, config=enabled), settings)

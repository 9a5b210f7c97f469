"""Log trigger: lines of files (``path``), or FC's form for a logstore.

The event has FC's shape; a file's lines are in it besides, under ``lines``, as there is no log
service that the function could pull them from. ``source.logstoreName`` is the file's path;
the cursors are base64 of ``INODE:OFFSET``, the range is half open.

Source: Function Compute 2.0, "Log Service trigger". ``path`` and its keys are eventd's own.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from eventd.plugin import (
    Event,
    Rule,
    Source,
    SourceContext,
    SourceReport,
    SourceSettings,
    Trigger,
    TriggerConfig,
    TriggerType,
)
from triggers.notices import CHANGED, Notices, listening
from triggers.tail import Batch, Limits, Step, Tail
from triggers.threads import in_thread

FIND_S = 5.0
"""How often files are looked for though nobody tells of a new one (deep patterns)."""
BLIND_S = 0.5
"""The same when the kernel does not tell about changes at all."""


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, strict=True)


class LogSource(_Part):
    logstore: str = Field(min_length=1)


class LogJob(_Part):
    max_retry_time: int | None = Field(default=None, ge=0, le=100)
    trigger_interval: int | None = Field(default=None, ge=3, le=600)


class LogTarget(_Part):
    project: str = ""
    logstore: str = ""


class LogConfig(TriggerConfig):
    """``triggerConfig`` of a log trigger: FC's keys with ``sourceConfig``, or with ``path``:

    Attributes:
        path: a glob (``**`` for any depth), relative to the data directory.
        starting_position: where a new trigger starts in files that are there: ``end`` or ``begin``.
        batch_lines, batch_bytes: the most of one event.
        batch_window_seconds: how long to wait for more lines after the first.
        flush_partial_seconds: a last line without line break is taken after so long; 0 = never.
    """

    model_config = ConfigDict(strict=True)

    source_config: LogSource | None = None
    job_config: LogJob = Field(default_factory=LogJob)
    function_parameter: dict[str, Any] = Field(default_factory=dict)
    log_config: LogTarget = Field(default_factory=LogTarget)
    enable: bool = True
    path: str | None = Field(default=None, min_length=1)
    starting_position: Literal["begin", "end"] = "end"
    batch_lines: int = Field(default=1000, ge=1, le=10_000)
    batch_bytes: int = Field(default=65536, ge=1024, le=1 << 20)
    batch_window_seconds: float = Field(default=0.1, ge=0, le=600)
    flush_partial_seconds: float = Field(default=5.0, ge=0, le=3600)

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, value: Any) -> Any:
        """The native form refuses unknown keys, FC's ignores them."""
        if isinstance(value, dict) and "path" in value:
            foreign = {"source_config", "job_config", "log_config"}
            known = {to_camel(name) for name in cls.model_fields if name not in foreign}
            for key in value:
                if key not in known and key not in cls.model_fields:
                    raise ValueError(f"{key!r} is unknown beside 'path'; known: {sorted(known)}")
        return value

    @model_validator(mode="after")
    def _some_source(self) -> LogConfig:
        if self.path is None and self.source_config is None:
            raise ValueError("expected sourceConfig.logstore, or path (a file or a glob)")
        if (
            self.source_config is not None
            and self.log_config.logstore == self.source_config.logstore
        ):
            raise ValueError("logConfig.logstore must differ from sourceConfig.logstore (a loop)")
        return self


class LogTrigger(TriggerType[LogConfig]):
    name = "log"
    config = LogConfig

    def source_key(self, trigger: Trigger[LogConfig], settings: SourceSettings) -> str | None:
        """Each trigger has its own place in the files."""
        return f"log:{trigger.id}" if trigger.config.enable else None

    def rule(self, trigger: Trigger[LogConfig], settings: SourceSettings) -> Rule:
        return Rule(source=f"log:{trigger.id}")

    def source(self, trigger: Trigger[LogConfig], settings: SourceSettings) -> Source:
        if trigger.config.path is None:
            return MissingLogstore(trigger)
        return TailSource(trigger, str(settings.data_dir / trigger.config.path))


@dataclass(frozen=True, slots=True)
class MissingLogstore:
    """FC's form is kept and shown; nothing writes into logstores yet."""

    trigger: Trigger[LogConfig]

    async def run(self, context: SourceContext) -> None:
        source = self.trigger.config.source_config
        name = source.logstore if source else ""
        context.report(SourceReport(text=f"no such logstore yet: {name}", healthy=False))
        while True:
            await context.sleep(3600.0)


@dataclass(frozen=True, slots=True)
class TailSource:
    """Emits the lines of the files that match ``pattern``; places are kept with each event."""

    trigger: Trigger[LogConfig]
    pattern: str

    async def run(self, context: SourceContext) -> None:
        config = self.trigger.config
        limits = Limits(config.batch_lines, config.batch_bytes, config.flush_partial_seconds)
        cursor = await context.load_cursor()
        rows = None if cursor is None else await context.load_state()
        tail = Tail(
            self.pattern,
            limits,
            rows,
            looked_s=time.time() if cursor is None else float(cursor),
            from_start=config.starting_position == "begin",
        )
        with closing(tail):
            async with listening(recursive=False) as notices:
                await self._follow(context, tail, notices, new=rows is None)

    async def _follow(
        self, context: SourceContext, tail: Tail, notices: Notices, *, new: bool
    ) -> None:
        find_at = 0.0
        while True:
            changes, lost = notices.take()
            names = lost or any(kind != CHANGED for kind, _ in changes)
            find = names or time.monotonic() >= find_at
            # A watched directory that went away: another one may take its place.
            again = not notices.paths.isdisjoint(path for _, path in changes)
            step = await in_thread(partial(_step, tail, notices, find=find, again=again))
            if find:
                find_at = time.monotonic() + (BLIND_S if notices.fault else FIND_S)
            if step.batches or step.rows or new:
                events = [self._event(batch, context.now()) for batch in step.batches]
                await context.emit(events, cursor=f"{tail.looked_s:.3f}", state=step.rows)
                new = False
            context.report(_report(tail, notices))
            if not step.more:
                await self._wait(notices, min(step.wait_s, find_at - time.monotonic()))

    async def _wait(self, notices: Notices, seconds: float) -> None:
        if notices.fault:
            seconds = min(seconds, BLIND_S)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await notices.heard.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self.trigger.config.batch_window_seconds)

    def _event(self, batch: Batch, now: datetime) -> Event:
        place = batch.place
        identity = f"{self.trigger.id}/{place.inode}/{place.head}/{batch.begin}-{place.offset}"
        digest = hashlib.md5(identity.encode(), usedforsecurity=False)
        path = place.path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        body = {
            "parameter": self.trigger.config.function_parameter,
            "source": {
                "endpoint": "file://",
                "projectName": _project(self.trigger.source_arn),
                "logstoreName": path,
                "shardId": 0,
                "beginCursor": _cursor(place.inode, batch.begin),
                "endCursor": _cursor(place.inode, place.offset),
            },
            "jobName": hashlib.sha1(self.trigger.id.encode(), usedforsecurity=False).hexdigest(),
            "taskId": str(uuid.UUID(bytes=digest.digest())),
            "cursorTime": int(now.timestamp()),
            "lines": batch.lines,
        }
        return Event(
            id=digest.hexdigest(),
            source=f"file://{path}",
            type="log:File:Lines",
            subject=path,
            time=now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            data=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
            ordering_key=str(place.inode),
        )


def _step(tail: Tail, notices: Notices, *, find: bool, again: bool) -> Step:
    """In a worker thread. A directory is watched before it is read, so nothing is missed."""
    if not find:
        return tail.step(find=False)
    notices.follow(_real(tail.directories()), again=again)
    step = tail.step(find=True)
    if notices.follow(_real(tail.directories())):
        step.more = True  # a directory was found: read again what came before its watch
    return step


def _real(directories: set[str]) -> set[str]:
    return {os.path.realpath(each) for each in directories if os.path.isdir(each)}


def _report(tail: Tail, notices: Notices) -> SourceReport:
    if tail.errors:
        path, reason = min(tail.errors.items())
        return SourceReport(text=f"{path}: {reason}", healthy=False)
    text = f"following {len(tail)} file{'s' if len(tail) != 1 else ''}"
    if notices.fault:
        text += f"; not watched ({notices.fault}): looking every {BLIND_S:g} s"
    return SourceReport(text=text, healthy=True)


def _cursor(inode: int, offset: int) -> str:
    return base64.b64encode(f"{inode}:{offset}".encode()).decode()


def _project(arn: str | None) -> str:
    return Path(arn).name if arn and "project/" in arn else ""

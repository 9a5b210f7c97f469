"""A trigger type of somebody else's package: it beats every ``intervalMs`` milliseconds."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import ConfigDict, Field

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


class HeartbeatConfig(TriggerConfig):
    model_config = ConfigDict(extra="forbid", strict=True)

    interval_ms: int = Field(default=50, ge=10, le=60_000)
    enable: bool = True


class HeartbeatTrigger(TriggerType[HeartbeatConfig]):
    name = "heartbeat"
    config = HeartbeatConfig
    has_source_arn = False

    def source_key(self, trigger: Trigger[HeartbeatConfig], settings: SourceSettings) -> str | None:
        return f"heartbeat:{trigger.id}" if trigger.config.enable else None

    def rule(self, trigger: Trigger[HeartbeatConfig], settings: SourceSettings) -> Rule:
        return Rule(source=f"heartbeat:{trigger.id}")

    def source(self, trigger: Trigger[HeartbeatConfig], settings: SourceSettings) -> Source:
        return HeartbeatSource(trigger)


@dataclass(frozen=True)
class HeartbeatSource:
    """Numbers its beats; the cursor is the number of the last one that was accepted."""

    trigger: Trigger[HeartbeatConfig]

    async def run(self, context: SourceContext) -> None:
        beat = int(await context.load_cursor() or 0)
        while True:
            await context.sleep(self.trigger.config.interval_ms / 1000)
            beat += 1
            await context.emit([self._event(beat, context)], cursor=str(beat))
            context.report(SourceReport(text=f"beat {beat}", lag=0))

    def _event(self, beat: int, context: SourceContext) -> Event:
        return Event(
            id=str(beat),
            source=f"heartbeat/{self.trigger.name}",
            type="heartbeat:Beat",
            subject=self.trigger.name,
            time=context.now().isoformat(),
            data=json.dumps({"beat": beat}).encode(),
        )

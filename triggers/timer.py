"""Timer trigger: ``@every 5m``, or a six-field cron expression with ``CRON_TZ=``.

Source: Function Compute 2.0, "Timer trigger". ``catchUp`` is eventd's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import ConfigDict, field_validator

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
from triggers import cron

CLOCK_SET_BACK = timedelta(hours=1)
"""A last firing further in the future than this means that the clock was wrong then."""


class TimerConfig(TriggerConfig):
    """``triggerConfig`` of a timer.

    Attributes:
        cron_expression: see ``triggers.cron``.
        payload: handed on as a string, never parsed.
        catch_up: what happens to firings that were due while nobody could fire them: ``once`` the
            last of them, ``all`` or ``none``.
    """

    model_config = ConfigDict(strict=True)

    cron_expression: str
    enable: bool = True
    payload: str = ""
    catch_up: Literal["once", "all", "none"] = "once"

    @field_validator("cron_expression")
    @classmethod
    def _readable(cls, text: str) -> str:
        cron.parse(text)
        return text


class TimerTrigger(TriggerType[TimerConfig]):
    name = "timer"
    config = TimerConfig

    def source_key(self, trigger: Trigger[TimerConfig], settings: SourceSettings) -> str | None:
        """A timer shares its source with nobody."""
        return f"timer:{trigger.id}" if trigger.config.enable else None

    def rule(self, trigger: Trigger[TimerConfig], settings: SourceSettings) -> Rule:
        return Rule(source=f"timer:{trigger.id}")

    def source(self, trigger: Trigger[TimerConfig], settings: SourceSettings) -> Source:
        return TimerSource(trigger)

    def source_version(self, trigger: Trigger[TimerConfig]) -> str:
        """Every update starts the phase of ``@every`` anew."""
        return f"{trigger.last_modified_time} {trigger.config.model_dump_json()}"


@dataclass(frozen=True, slots=True)
class TimerSource:
    """Fires at the due times of ``trigger``; the last one is kept with each firing, so that a
    restart neither skips nor repeats."""

    trigger: Trigger[TimerConfig]

    async def run(self, context: SourceContext) -> None:
        config = self.trigger.config
        schedule = cron.parse(config.cron_expression)
        anchor = datetime.fromisoformat(self.trigger.last_modified_time)
        cursor = await context.load_cursor()
        # What was due before the last update was due by another schedule, or while disabled.
        fired = max(datetime.fromisoformat(cursor), anchor) if cursor else anchor
        while True:
            fired = min(fired, context.now()) if _clock_went_back(fired, context) else fired
            due = schedule.next_after(fired, anchor=anchor)
            context.report(SourceReport(text=f"next at {_rfc3339(due)}", lag=0))
            await context.sleep_until(due)
            now = context.now()
            if config.catch_up != "all":
                last = schedule.last_until(now, after=fired, anchor=anchor)
                if last is None:  # the clock went back while we slept
                    continue
                if config.catch_up == "none" and now - last > timedelta(seconds=1):
                    fired = now
                    continue
                due = last
            await context.emit([self._event(due)], cursor=due.isoformat())
            fired = due

    def _event(self, due: datetime) -> Event:
        moment = _rfc3339(due)
        body = {
            "triggerTime": moment,
            "triggerName": self.trigger.name,
            "payload": self.trigger.config.payload,
        }
        return Event(
            id=f"{self.trigger.id}/{moment}",
            source=f"timer/{self.trigger.service}/{self.trigger.function}/{self.trigger.name}",
            type="timer:Timer:Fired",
            subject=self.trigger.name,
            time=moment,
            data=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
        )


def _clock_went_back(fired: datetime, context: SourceContext) -> bool:
    return fired - context.now() > CLOCK_SET_BACK


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

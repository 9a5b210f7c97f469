"""Timers on a virtual clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventd.plugin import Delivery, Event, SourceReport, SourceSettings, Trigger
from triggers.timer import TimerConfig, TimerSource, TimerTrigger

CREATED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SETTINGS = SourceSettings(Path("/nowhere"), "1200340056007800", "cn-local")


class Finished(Exception):
    """The virtual time is over."""


class VirtualContext:
    """Time moves only by sleeping; ``until`` ends the run."""

    def __init__(self, start: datetime, until: datetime, cursor: str | None = None) -> None:
        self.key = "timer"
        self.settings = SETTINGS
        self.moment = start
        self.until = until
        self.cursor = cursor
        self.fired: list[str] = []
        self.events: list[Event] = []
        self.emit_takes = timedelta()

    def now(self) -> datetime:
        return self.moment

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("timers sleep until a moment")

    async def sleep_until(self, moment: datetime) -> None:
        await asyncio.sleep(0)
        if moment > self.until:
            raise Finished
        self.moment = max(self.moment, moment)

    def triggers(self) -> tuple[Trigger[Any], ...]:
        return ()

    async def load_cursor(self) -> str | None:
        return self.cursor

    async def load_state(self) -> dict[str, str]:
        return {}

    async def emit(
        self,
        events: Sequence[Event],
        *,
        cursor: str | None = None,
        state: Mapping[str, str | None] | None = None,
    ) -> None:
        self.events += events
        self.fired += [json.loads(event.data)["triggerTime"][11:19] for event in events]
        self.cursor = cursor
        self.moment += self.emit_takes

    async def deliver(self, event: Event, *, attempts: int = 3) -> Delivery:
        raise AssertionError("not for timers")

    def report(self, report: SourceReport) -> None:
        assert report.healthy


def trigger(expression: str, modified: datetime = CREATED, **config: Any) -> Trigger[TimerConfig]:
    raw = {"cronExpression": expression, **config}
    return Trigger(
        id="t-1",
        service="s",
        function="f",
        name="tick",
        qualifier="LATEST",
        source_arn=None,
        config=TimerConfig.model_validate(raw),
        raw_config=raw,
        created_time="2026-11-24T12:00:00Z",
        last_modified_time=modified.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


async def run(context: VirtualContext, timer: Trigger[TimerConfig]) -> list[str]:
    with pytest.raises(Finished):
        await TimerSource(timer).run(context)
    return context.fired


async def test_every_fires_at_each_multiple_from_its_creation() -> None:
    context = VirtualContext(CREATED + timedelta(seconds=1), CREATED + timedelta(minutes=16))

    assert await run(context, trigger("@every 5m")) == ["12:05:00", "12:10:00", "12:15:00"]


async def test_the_event_is_that_of_fc_with_the_payload_as_a_string() -> None:
    context = VirtualContext(CREATED, CREATED + timedelta(minutes=5))
    await run(context, trigger("@every 5m", payload='{"job":"sweep"}'))

    assert context.events[0].data == (
        b'{"triggerTime":"2026-11-24T12:05:00Z","triggerName":"tick",'
        b'"payload":"{\\"job\\":\\"sweep\\"}"}'
    )


async def test_a_restart_between_two_firings_neither_skips_nor_repeats() -> None:
    first = VirtualContext(CREATED, CREATED + timedelta(seconds=7))
    await run(first, trigger("@every 3s"))
    second = VirtualContext(
        CREATED + timedelta(seconds=8), CREATED + timedelta(seconds=15), first.cursor
    )
    await run(second, trigger("@every 3s"))

    assert first.fired + second.fired == [f"12:00:{n:02}" for n in (3, 6, 9, 12, 15)]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("once", ["13:00:00", "13:05:00"]),
        ("none", ["13:05:00"]),
        ("all", [f"12:{n:02}:00" for n in range(10, 60, 5)] + ["13:00:00", "13:05:00"]),
    ],
)
async def test_missed_firings_are_caught_up_as_chosen(catch_up: str, expected: list[str]) -> None:
    start = CREATED + timedelta(minutes=62)
    context = VirtualContext(start, start + timedelta(minutes=5), "2026-11-24T12:05:00+00:00")

    assert await run(context, trigger("@every 5m", catchUp=catch_up)) == expected


async def test_a_year_of_missed_seconds_is_caught_up_at_once() -> None:
    start = CREATED + timedelta(days=365, milliseconds=300)
    context = VirtualContext(start, start + timedelta(seconds=1), CREATED.isoformat())

    assert await run(context, trigger("* * * * * *")) == ["12:00:00", "12:00:01"]


async def test_an_update_or_enabling_again_starts_from_there() -> None:
    enabled = CREATED + timedelta(hours=3, seconds=20)
    context = VirtualContext(enabled, enabled + timedelta(minutes=2), "2026-11-24T12:05:00+00:00")

    assert await run(context, trigger("@every 1m", enabled)) == ["15:01:20", "15:02:20"]


async def test_slow_acceptance_skips_what_it_missed_but_the_last() -> None:
    context = VirtualContext(CREATED, CREATED + timedelta(seconds=14))
    context.emit_takes = timedelta(seconds=4, milliseconds=500)

    assert await run(context, trigger("@every 1s")) == [
        "12:00:01",
        "12:00:05",
        "12:00:10",
        "12:00:14",
    ]


async def test_a_clock_that_was_wrong_does_not_silence_a_timer() -> None:
    context = VirtualContext(CREATED, CREATED + timedelta(seconds=2), "2031-01-01T00:00:00+00:00")

    assert await run(context, trigger("@every 1s")) == ["12:00:01", "12:00:02"]


def test_a_disabled_timer_has_no_source() -> None:
    assert TimerTrigger().source_key(trigger("@every 1s", enable=False), SETTINGS) is None
    assert TimerTrigger().source_key(trigger("@every 1s"), SETTINGS) == "timer:t-1"

"""Sources follow the stored triggers: with a plug-in of the test, on fakes of store and intake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import pytest

from eventd.adapters import load_adapters
from eventd.clock import Clock
from eventd.errors import ServiceUnavailable
from eventd.metrics import Metrics
from eventd.model.resources import TriggerRecord
from eventd.plugin import (
    Delivery,
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
from eventd.sources import Ports, Sources, TriggerStatus
from eventd.store.interface import Change, Metadata, Progress, StoreFailed

SETTINGS = SourceSettings(Path("/data"), "1", "cn-local")
DEADLINE_S = 10.0


class BellConfig(TriggerConfig):
    tower: str
    tone: int = 0
    enable: bool = True


@dataclass
class Tower:
    """What the sources of one key do; shared by all runs, so that overlap shows."""

    running: int = 0
    most: int = 0
    runs: int = 0
    fail: Exception | None = None
    ends: bool = False
    slow_end: asyncio.Event | None = None
    contexts: list[SourceContext] = field(default_factory=list)


TOWERS: dict[str, Tower] = {}


class Bell:
    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    async def run(self, context: SourceContext) -> None:
        tower = self.tower
        tower.running += 1
        tower.most = max(tower.most, tower.running)
        tower.runs += 1
        tower.contexts.append(context)
        try:
            await context.load_cursor()
            if tower.fail:
                raise tower.fail
            context.report(SourceReport(text="ringing", lag=3))
            if tower.ends:
                return
            await asyncio.Event().wait()
        finally:
            if tower.slow_end:
                await tower.slow_end.wait()
            tower.running -= 1


class BellTrigger(TriggerType[BellConfig]):
    name = "bell"
    config = BellConfig

    def source_key(self, trigger: Trigger[BellConfig], settings: SourceSettings) -> str | None:
        return f"bell:{trigger.config.tower}" if trigger.config.enable else None

    def rule(self, trigger: Trigger[BellConfig], settings: SourceSettings) -> Rule:
        return Rule(source=f"bell:{trigger.config.tower}")

    def source(self, trigger: Trigger[BellConfig], settings: SourceSettings) -> Source:
        return Bell(TOWERS[trigger.config.tower])

    def source_version(self, trigger: Trigger[BellConfig]) -> str:
        return str(trigger.config.tone)


class Store:
    """Metadata, intake, rules and progress in memory; ``log`` has what happened in order."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str, str], TriggerRecord] = {}
        self.listeners: list[Callable[[Change], None]] = []
        self.rules: dict[str, Rule] = {}
        self.log: list[str] = []
        self.cursors: dict[str, str | None] = {}
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    def trigger(self, service: str, function: str, name: str) -> TriggerRecord | None:
        return self.records.get((service, function, name))

    def triggers(self, *_: str) -> Iterable[TriggerRecord]:
        return tuple(self.records.values())

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def save(self, name: str, id_: str = "", type_: str = "bell", **config: Any) -> None:
        self.records["s", "f", name] = TriggerRecord(
            service="s",
            function="f",
            name=name,
            trigger_id=id_ or f"id-{name}",
            type=type_,
            source_arn=None,
            invocation_role=None,
            qualifier=None,
            description="",
            config=config,
            etag="",
            created_time="2026-11-24T00:00:00Z",
            last_modified_time="2026-11-24T00:00:00Z",
        )
        self.tell(Change("trigger", "s", name, "f"))

    def delete(self, name: str) -> None:
        del self.records["s", "f", name]
        self.tell(Change("trigger", "s", name, "f", deleted=True))

    def tell(self, change: Change) -> None:
        for listener in self.listeners:
            listener(change)

    async def accept(self, source: str, events: Sequence[Event], progress: Progress | None) -> None:
        await self.gate.wait()
        if self.failure:
            raise self.failure
        self.log += [f"accept {event.id}" for event in events]
        if progress:
            self.cursors[source] = progress.cursor

    async def deliver(self, source: str, event: Event, *, attempts: int) -> Delivery:
        return Delivery(1, 1)

    def put(self, trigger: Trigger[Any], rule: Rule, payload: Callable[[Event], bytes]) -> None:
        self.rules[trigger.id] = rule
        self.log.append(f"rule {trigger.id}")

    def remove(self, trigger_id: str) -> None:
        self.rules.pop(trigger_id, None)

    async def load_cursor(self, source: str) -> str | None:
        self.log.append(f"load {source}")
        return self.cursors.get(source)

    async def load_state(self, source: str) -> dict[str, str]:
        return {}

    async def forget_source(self, source: str) -> None:
        self.log.append(f"forget {source}")
        self.cursors.pop(source, None)


class QuickClock(Clock):
    """Back-offs take no time."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    TOWERS.clear()
    TOWERS.update(north=Tower(), south=Tower())
    yield Store()
    assert {name: tower.running for name, tower in TOWERS.items()} == {"north": 0, "south": 0}


@asynccontextmanager
async def at_work(store: Store, **types: TriggerType[Any]) -> AsyncIterator[Sources]:
    ports = Ports(intake=store, store=store, clock=QuickClock(), metrics=Metrics())
    sources = Sources(
        {"bell": BellTrigger(), **types},
        lambda name: SETTINGS,
        metadata=cast(Metadata, store),
        rules=store,
        ports=ports,
    )
    async with asyncio.timeout(DEADLINE_S), sources:
        yield sources


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - fakes have no event for each condition
            await asyncio.sleep(0)


def event(id_: str) -> Event:
    return Event(id_, "bell", "bell:Rang", "", "2026-11-24T00:00:00Z", b"{}")


def status(sources: Sources, name: str) -> TriggerStatus:
    return next(each for each in sources.status() if each.name == name)


async def test_triggers_with_an_equal_key_share_one_run(store: Store) -> None:
    store.save("a", tower="north")
    async with at_work(store) as sources:
        store.save("b", tower="north")
        store.save("c", tower="south")
        await until(lambda: TOWERS["north"].runs == TOWERS["south"].runs == 1)
        assert await sources.wait_effective("s", "f", "b", timeout_s=5)
        names = [trigger.name for trigger in TOWERS["north"].contexts[0].triggers()]
        shown = status(sources, "b")

    assert names == ["a", "b"]
    assert (shown.text, shown.lag, shown.healthy, shown.error) == ("ringing", 3, True, "")


async def test_a_rule_is_in_force_before_the_listener_returns_and_before_the_source_starts(
    store: Store,
) -> None:
    async with at_work(store):
        store.save("a", tower="north")
        assert store.log == ["rule id-a"]
        await until(lambda: TOWERS["north"].runs == 1)

    assert store.log == ["rule id-a", "load bell:north"]


async def test_deleting_the_last_trigger_ends_the_run_and_forgets_its_progress(
    store: Store,
) -> None:
    async with at_work(store) as sources:
        store.save("a", tower="north")
        store.save("b", tower="north")
        await until(lambda: TOWERS["north"].runs == 1)
        store.delete("a")
        await asyncio.sleep(0)
        assert TOWERS["north"].running == 1
        store.delete("b")
        assert store.rules == {}
        await until(lambda: "forget bell:north" in store.log)
        assert TOWERS["north"].running == 0
        assert sources.status() == ()


async def test_a_trigger_created_anew_starts_after_the_old_run_has_ended_and_is_forgotten(
    store: Store,
) -> None:
    TOWERS["north"].slow_end = asyncio.Event()
    async with at_work(store):
        store.save("a", "id-1", tower="north")
        await until(lambda: TOWERS["north"].runs == 1)
        store.delete("a")
        store.save("a", "id-2", tower="north")
        for _ in range(20):
            await asyncio.sleep(0)
        assert TOWERS["north"].runs == 1
        TOWERS["north"].slow_end.set()
        await until(lambda: TOWERS["north"].runs == 2)

    assert TOWERS["north"].most == 1
    assert store.log == [
        "rule id-1",
        "load bell:north",
        "rule id-2",
        "forget bell:north",
        "load bell:north",
    ]


async def test_a_change_that_the_source_cares_for_restarts_it_and_others_do_not(
    store: Store,
) -> None:
    async with at_work(store) as sources:
        store.save("a", tower="north")
        await until(lambda: TOWERS["north"].runs == 1)
        store.save("a", tower="north", ignored=1)
        await sources.wait_effective("s", "f", "a", timeout_s=5)
        assert TOWERS["north"].runs == 1
        store.save("a", tower="north", tone=5)
        await sources.wait_effective("s", "f", "a", timeout_s=5)
        assert TOWERS["north"].runs == 2

    assert TOWERS["north"].most == 1
    assert not any(line.startswith("forget") for line in store.log)


async def test_moving_to_another_source_leaves_nothing_of_the_old_one(store: Store) -> None:
    async with at_work(store):
        store.save("a", tower="north")
        await until(lambda: TOWERS["north"].runs == 1)
        store.save("a", tower="south")
        await until(lambda: TOWERS["south"].running == 1 and "forget bell:north" in store.log)
        assert TOWERS["north"].running == 0
        assert store.rules["id-a"].source == "bell:south"


async def test_a_disabled_trigger_keeps_its_progress_and_loses_its_rule_after_the_last_event(
    store: Store,
) -> None:
    async with at_work(store) as sources:
        store.save("a", tower="north")
        await until(lambda: TOWERS["north"].runs == 1)
        store.gate.clear()
        emit = asyncio.ensure_future(TOWERS["north"].contexts[0].emit([event("1")], cursor="1"))
        TOWERS["north"].slow_end = asyncio.Event()
        store.save("a", tower="north", enable=False)
        await asyncio.sleep(0)
        assert "id-a" in store.rules
        store.gate.set()
        await emit
        TOWERS["north"].slow_end.set()
        await until(lambda: store.rules == {})
        assert status(sources, "a").source == ""
        store.save("a", tower="north")
        await until(lambda: TOWERS["north"].runs == 2)

    assert store.cursors == {"bell:north": "1"}
    assert not any(line.startswith("forget") for line in store.log)


async def test_deleting_a_disabled_trigger_forgets_its_progress_also_after_a_restart(
    store: Store,
) -> None:
    store.cursors = {"bell:north": "1", "bell:south": "2"}
    store.save("a", tower="north")
    async with at_work(store):
        await until(lambda: TOWERS["north"].runs == 1)
        store.save("a", tower="north", enable=False)
        await until(lambda: TOWERS["north"].running == 0)
        store.delete("a")
        await until(lambda: "forget bell:north" in store.log)
    store.save("b", tower="south", enable=False)
    store.save("c", tower="south", enable=False)
    async with at_work(store) as sources:
        store.delete("b")
        assert "forget bell:south" not in store.log  # "c" comes back to it
        store.delete("c")
        await until(lambda: store.cursors == {})
        assert sources.status() == ()
    assert TOWERS["south"].runs == 0


async def test_deleting_a_trigger_keeps_the_progress_that_a_disabled_one_shares(
    store: Store,
) -> None:
    store.cursors = {"bell:north": "1"}
    async with at_work(store):
        store.save("a", tower="north")
        store.save("b", tower="north", enable=False)
        await until(lambda: TOWERS["north"].runs == 1)
        store.delete("a")
        await until(lambda: TOWERS["north"].running == 0)
        store.save("b", tower="north")
        await until(lambda: TOWERS["north"].runs == 2)

    assert store.cursors == {"bell:north": "1"}


async def test_disabling_one_of_two_that_share_a_source_takes_its_rule_at_once(
    store: Store,
) -> None:
    async with at_work(store):
        store.save("a", tower="north")
        store.save("b", tower="north")
        await until(lambda: TOWERS["north"].runs == 1)
        store.save("a", tower="north", enable=False)

        assert set(store.rules) == {"id-b"}


async def test_a_failing_source_is_started_again_and_shows_why(store: Store) -> None:
    TOWERS["north"].fail = ConnectionError("broker away")
    async with at_work(store) as sources:
        store.save("a", tower="north")
        await until(lambda: TOWERS["north"].runs >= 3)
        await until(lambda: bool(status(sources, "a").error))
        shown = status(sources, "a")
        assert (shown.error, shown.healthy) == ("ConnectionError: broker away", False)
        assert shown.restarts >= 2
        TOWERS["north"].fail = None
        assert await sources.wait_effective("s", "f", "a", timeout_s=5)
        assert status(sources, "a").error == ""

    assert TOWERS["north"].most == 1


async def test_a_source_that_ends_of_itself_rests_until_a_change(store: Store) -> None:
    TOWERS["north"].ends = True
    async with at_work(store) as sources:
        store.save("a", tower="north")
        await sources.wait_effective("s", "f", "a", timeout_s=5)
        for _ in range(50):
            await asyncio.sleep(0)
        assert TOWERS["north"].runs == 1
        store.save("a", tower="north", tone=1)
        await until(lambda: TOWERS["north"].runs == 2)


async def test_leaving_ends_every_source_and_listens_no_more(store: Store) -> None:
    async with at_work(store):
        store.save("a", tower="north")
        store.save("b", tower="south")
        await until(lambda: TOWERS["north"].running == TOWERS["south"].running == 1)

    assert TOWERS["north"].running == TOWERS["south"].running == 0
    assert store.listeners == []


async def test_a_stored_trigger_that_is_not_usable_shows_its_error_and_harms_no_other(
    store: Store,
) -> None:
    store.save("bad", tower=5)
    store.save("foreign", type_="gong")
    store.save("good", tower="north")
    async with at_work(store) as sources:
        assert await sources.wait_effective("s", "f", "good", timeout_s=5)
        assert await sources.wait_effective("s", "f", "bad", timeout_s=5)

        assert "TriggerConfig.tower" in status(sources, "bad").error
        assert status(sources, "foreign").error == "no adapter for 'gong'; installed: bell"
        assert status(sources, "good").healthy


async def test_an_emit_that_is_cancelled_lets_its_commit_arrive(store: Store) -> None:
    async with at_work(store):
        store.save("a", tower="north")
        await until(lambda: TOWERS["north"].runs == 1)
        store.gate.clear()
        emit = asyncio.ensure_future(TOWERS["north"].contexts[0].emit([event("1")], cursor="1"))
        await asyncio.sleep(0)
        emit.cancel()
        await asyncio.sleep(0)
        assert not emit.done()
        store.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await emit

    assert (store.cursors, store.log[-1]) == ({"bell:north": "1"}, "accept 1")


async def test_a_store_that_takes_nothing_is_unavailable_to_the_source(store: Store) -> None:
    async with at_work(store):
        store.save("a", tower="north")
        await until(lambda: TOWERS["north"].runs == 1)
        context = TOWERS["north"].contexts[0]
        await context.emit([event("1"), event("2")])
        store.failure = StoreFailed("disk full", full=True)
        with pytest.raises(ServiceUnavailable, match="disk full"):
            await context.emit([event("3")])


class Nameless(TriggerType[BellConfig]):
    """No name, no config: of no use."""

    source_key = BellTrigger.source_key  # type: ignore[assignment]
    rule = BellTrigger.rule  # type: ignore[assignment]
    source = BellTrigger.source  # type: ignore[assignment]


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "eventd.triggers")


def test_a_broken_adapter_is_named_and_the_others_are_there() -> None:
    adapters = load_adapters(
        [
            point("timer", "triggers.timer:TimerTrigger"),
            point("absent", "no_such_package:Trigger"),
            point("lost", "triggers.timer:NoSuchTrigger"),
            point("plain", "json:loads"),
            point("nameless", f"{__name__}:Nameless"),
            point("timer2", "triggers.timer:TimerTrigger"),
        ]
    )

    assert set(adapters.types) == {"timer"}
    errors = {each.name: each.error for each in adapters.broken}
    assert set(errors) == {"absent", "lost", "plain", "nameless", "timer2"}
    assert "no_such_package" in errors["absent"]
    assert "TriggerType" in errors["plain"]
    assert "name" in errors["nameless"]
    assert "already taken" in errors["timer2"]


def test_the_built_in_types_come_through_the_entry_points() -> None:
    assert {"http", "log", "oss", "timer"} <= set(load_adapters().types)


def test_without_adapters_there_are_no_types() -> None:
    assert load_adapters([]).types == {}


def test_a_record_keeps_its_config_as_sent() -> None:
    from eventd.sources import typed_trigger

    store = Store()
    store.save("a", tower="north", tone=None)
    record = replace(store.records["s", "f", "a"], qualifier="prod")

    trigger = typed_trigger(record, BellTrigger())

    assert trigger.raw_config == {"tower": "north", "tone": None}
    assert (trigger.config.tone, trigger.qualifier) == (0, "prod")

"""The router on the real store: what was accepted runs, in order, once, or is a dead letter."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from eventd.clock import Clock
from eventd.config import Settings
from eventd.metrics import Metrics
from eventd.model.invocation import Outcome
from eventd.model.resources import Function, Service, TriggerRecord
from eventd.plugin import Delivery, Event, Rule, Trigger, TriggerConfig
from eventd.pool.call import Call, CallKind
from eventd.router.backlog import Backlog
from eventd.router.deletions import burying_deleted
from eventd.router.dispatch import Dispatcher, dispatching
from eventd.router.intake import Intake
from eventd.router.invoke import Invoker, InvokeRequest
from eventd.router.resolve import Resolver
from eventd.router.settle import Settler
from eventd.rules.index import RuleIndex
from eventd.store.interface import Progress
from eventd.store.opened import Store, open_store

ERROR = Outcome("UnhandledInvocationError", b'{"errorMessage":"boom"}', error="Boom")
NOW = "2026-01-01T00:00:00Z"


class ScriptedPool:
    """Ends each call a moment later with the next of ``outcomes``, success when they ran out."""

    def __init__(self, outcomes: deque[Outcome]) -> None:
        self.outcomes = outcomes
        self.payloads: list[bytes] = []
        self.most = self._now = 0

    def submit(self, call: Call) -> None:
        self.payloads.append(bytes(call.payload))
        self._now += 1
        self.most = max(self.most, self._now)
        outcome = self.outcomes.popleft() if self.outcomes else Outcome()
        asyncio.get_running_loop().call_later(0.002, self._end, call, outcome)

    def cancel(self, call: Call) -> None:
        """Too short to be worth it."""

    def _end(self, call: Call, outcome: Outcome) -> None:
        self._now -= 1
        call.receiver.on_end(outcome)


@dataclass
class Node:
    store: Store
    pool: ScriptedPool
    intake: Intake
    rules: RuleIndex
    dispatcher: Dispatcher
    invoker: Invoker

    async def wait_idle(self) -> None:
        async with asyncio.timeout(20):
            while True:  # the queue has no event for it
                counts = self.store.queue.statistics()
                if not counts.waiting and not counts.claimed:
                    return
                await asyncio.sleep(0.01)

    def dispatching(self):  # type: ignore[no-untyped-def]
        return dispatching(
            self.store.queue, self.dispatcher.execute, limit=16, drain_s=lambda: 10.0
        )


@asynccontextmanager
async def node(data: Path, *outcomes: Outcome) -> AsyncIterator[Node]:
    metrics, clock = Metrics(), Clock()
    async with open_store(data, Settings(), metrics, clock, ballast_bytes=1 << 16) as store:
        await seed(store)
        pool = ScriptedPool(deque(outcomes))
        resolver = Resolver(store.metadata)
        backlog = Backlog(store.queue, metrics, clock, limit=1_000_000)
        invoker = Invoker(resolver, pool, store.history, backlog, metrics, clock)
        settler = Settler(store.queue, metrics, clock, jitter=lambda: 0.0)
        rules = RuleIndex()
        record = store.metadata.trigger("s", "f", "t")
        if record is not None:
            trigger = Trigger(
                record.trigger_id, "s", "f", "t", "LATEST", None, TriggerConfig(), {}, NOW, NOW
            )
            rules.put(trigger, Rule("src"), lambda event: event.data)
        intake = Intake(rules, backlog, invoker, settler, store.metadata, metrics, clock)
        dispatcher = Dispatcher(invoker, settler, store.metadata, clock, retry_base_s=0.01)
        async with burying_deleted(store.metadata, store.queue, metrics):
            yield Node(store, pool, intake, rules, dispatcher, invoker)
        resolver.close()


async def seed(store: Store) -> None:
    if store.metadata.service("s") is not None:
        return
    await store.metadata.save_service(Service("s", "sid", "inc", "e", NOW, NOW, {}), expect=None)
    config = {"runtime": "python3", "handler": "index.handler"}
    await store.metadata.save_function(
        Function("s", "f", "fid", "e", NOW, NOW, config, "digest", "1", 1), expect=None
    )
    await store.metadata.save_trigger(
        TriggerRecord("s", "f", "t", "tid", "x", None, None, None, "", {}, "e", NOW, NOW),
        expect=None,
    )


def event(number: int, key: str = "", *, dedupe: bool = False) -> Event:
    return Event(f"e{number}", "o", "k", "s", NOW, b"%d" % number, key, dedupe=dedupe)


async def test_accepted_events_run_after_a_restart_and_progress_is_kept(tmp_path: Path) -> None:
    async with node(tmp_path) as first:
        await first.intake.accept(
            "src", [event(n) for n in range(50)], Progress("src", cursor="50")
        )

    async with node(tmp_path) as second:
        assert await second.store.queue.load_cursor("src") == "50"
        async with second.dispatching():
            await second.wait_idle()

    assert sorted(map(int, second.pool.payloads)) == list(range(50))
    async with node(tmp_path) as third, third.dispatching():
        await third.wait_idle()
    assert third.pool.payloads == []


async def test_events_of_one_key_run_in_order_and_keys_side_by_side(tmp_path: Path) -> None:
    async with node(tmp_path, *[ERROR, ERROR]) as one:
        await one.intake.accept("src", [event(n, f"k{n % 8}") for n in range(80)], None)
        async with one.dispatching():
            await one.wait_idle()

    ran = list(map(int, one.pool.payloads))
    assert len(ran) == 82
    for key in range(8):
        mine = [number for number in ran if number % 8 == key]
        assert mine == sorted(mine)
    assert one.pool.most > 3


async def test_a_failing_event_ends_as_a_dead_letter_with_its_error(tmp_path: Path) -> None:
    async with node(tmp_path, *[ERROR] * 4) as one:
        await one.intake.accept("src", [event(1)], None)
        async with one.dispatching():
            await one.wait_idle()
        letters = await one.store.queue.dead_letters()

    assert len(one.pool.payloads) == 4
    assert [(given.reason, given.last_error, given.invocation.payload) for given in letters] == [
        ("RetriesExhausted", ERROR.payload, b"1")
    ]


async def test_a_direct_delivery_leaves_a_row_only_when_it_is_given_up(tmp_path: Path) -> None:
    async with node(tmp_path, *[ERROR] * 3) as one:
        assert await one.intake.deliver("src", event(1), attempts=3) == Delivery(1, 0)
        assert await one.intake.deliver("src", event(2), attempts=3) == Delivery(1, 1)
        letters = await one.store.queue.dead_letters()
        assert one.store.queue.statistics().waiting == 0

    assert [letter.invocation.event_id for letter in letters] == ["e1"]


async def test_repeats_of_an_outside_id_are_dropped(tmp_path: Path) -> None:
    async with node(tmp_path) as one:
        await one.intake.accept("src", [event(1, dedupe=True)], None)
        await one.intake.accept("src", [event(1, dedupe=True), event(2)], None)
        await one.intake.accept("src", [event(2)], None)
        async with one.dispatching():
            await one.wait_idle()

    assert sorted(one.pool.payloads) == [b"1", b"2", b"2"]


@pytest.mark.parametrize("what", ["trigger", "function"])
async def test_the_backlog_of_what_is_deleted_becomes_dead_letters(
    tmp_path: Path, what: str
) -> None:
    async with node(tmp_path) as one:
        if what == "trigger":
            await one.intake.accept("src", [event(n) for n in range(10)], None)
            await one.store.metadata.delete_trigger("s", "f", "t", expect="e")
        else:
            for n in range(10):
                await one.invoker.enqueue(
                    InvokeRequest("s", "f", "LATEST", CallKind.EVENT, f"r{n}", b"x")
                )
            await one.store.metadata.delete_function("s", "f", expect="e")
        await one.wait_idle()
        letters = await one.store.queue.dead_letters()

    expected = {"trigger": "TriggerDeleted", "function": "FunctionDeleted"}[what]
    assert [letter.reason for letter in letters] == [expected] * 10
    assert one.pool.payloads == []

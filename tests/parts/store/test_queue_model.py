"""The queue against a slow model: any sequence of calls, restarts among them, little memory."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import eventd.store.sqlite.queue as queue_module
import eventd.store.sqlite.queue_reads as reads_module
from eventd.clock import Clock
from eventd.metrics import Metrics
from eventd.model.invocation import DeadLetter, Invocation
from eventd.store.sqlite.backlog import Backlog
from eventd.store.sqlite.disk import Disk
from eventd.store.sqlite.payloads import PayloadFiles
from eventd.store.sqlite.queue import SqliteQueue
from eventd.store.sqlite.writer import Writer

T = TypeVar("T")
FUNCTIONS = ("a", "b")
LONG_S = 20


class TestClock(Clock):
    __test__ = False

    def __init__(self) -> None:
        self.ms = 1_000_000

    def time_ms(self) -> int:
        return self.ms


@dataclass
class Entry:
    """``plain``: no key, and never delayed, retried or released: strictly first in, first out."""

    invocation: Invocation
    plain: bool
    claimed: bool = False


class QueueModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp())
        self.clock = TestClock()
        self.entries: dict[str, Entry] = {}  # in order of put
        self.letters = 0
        self.count = 0
        self.seen: set[str] = set()
        self.run(self.open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, LONG_S))

    async def open(self) -> None:
        self.disk = Disk(self.root / "ballast", ballast_bytes=4096)
        metrics = Metrics()
        self.writer = await Writer.open(
            self.root / "queue.db", "queue", synchronous="OFF", disk=self.disk, metrics=metrics
        )
        self.queue = SqliteQueue(
            self.writer,
            PayloadFiles(self.root / "payloads"),
            self.disk,
            self.clock,
            metrics,
            max_in_flight=100,
            backlog=Backlog(max_held=4, low_water=2, max_bytes=200),
        )
        self.backlog = self.queue._backlog
        await self.queue.restore()

    async def close(self) -> None:
        self.queue.close()
        await self.writer.aclose()

    def teardown(self) -> None:
        self.clock.ms += 10_000_000
        while any(not entry.claimed for entry in self.entries.values()) or self.claimed():
            while self.claimable():
                self.claim()
            for entry in self.claimed():
                self.run(self.queue.finish(entry.invocation.id))
                del self.entries[entry.invocation.id]
        self.nothing_is_claimable()
        self.run(self.close())
        self.loop.close()
        shutil.rmtree(self.root)

    # -- the model --------------------------------------------------------------------------------

    def claimed(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.claimed]

    def claimable(self) -> list[Entry]:
        found = []
        lanes = set()
        plain = set()
        for entry in self.entries.values():
            one = entry.invocation
            lane = (one.function, one.ordering_key)
            if one.ordering_key:
                if lane in lanes:
                    continue
                lanes.add(lane)
            if entry.claimed or one.due_ms > self.clock.ms:
                continue
            if entry.plain:
                if one.function in plain:
                    continue
                plain.add(one.function)
            found.append(entry)
        return found

    # -- rules ------------------------------------------------------------------------------------

    @rule(
        specs=st.lists(
            st.tuples(
                st.sampled_from(FUNCTIONS),
                st.sampled_from(["", "", "k", "l"]),
                st.sampled_from([0, 0, 50, 90, 500]),
                st.sampled_from(["", "", "e1", "e2", "e3"]),
            ),
            min_size=1,
            max_size=12,
        )
    )
    def put(self, specs: list[tuple[str, str, int, str]]) -> None:
        given = []
        new = []
        for function, key, delay_ms, event in specs:
            self.count += 1
            one = Invocation(
                id=f"i{self.count}",
                request_id="r",
                service="s",
                function=function,
                incarnation="n",
                qualifier="LATEST",
                payload=b"p" * (self.count % 90),
                accepted_ms=self.clock.ms,
                due_ms=self.clock.ms + delay_ms if delay_ms else 0,
                ordering_key=key,
                trigger_id=f"t{self.count % 2}",
                event_id=event,
            )
            given.append(one)
            event_key = f"{one.trigger_id} {event}"
            if event and event_key in self.seen:
                continue
            if event:
                self.seen.add(event_key)
            new.append(one)
            self.entries[one.id] = Entry(one, plain=not key and not delay_ms)
        assert list(self.run(self.queue.put(given))) == new

    @precondition(lambda self: self.claimable())
    @rule()
    def claim(self) -> None:
        got = self.run(self.queue.claim())
        allowed = {entry.invocation.id: entry for entry in self.claimable()}
        assert got.id in allowed
        assert got == allowed[got.id].invocation
        allowed[got.id].claimed = True

    @precondition(lambda self: not self.claimable())
    @rule()
    def nothing_is_claimable(self) -> None:
        async def look() -> None:
            waiting = asyncio.ensure_future(self.queue.claim())
            for _ in range(3):
                await self.queue.load_cursor("a round trip")
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

        self.run(look())

    @precondition(lambda self: self.claimed())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.claimed()))
        self.run(self.queue.finish(entry.invocation.id))
        del self.entries[entry.invocation.id]

    @precondition(lambda self: self.claimed())
    @rule(data=st.data(), delay_ms=st.sampled_from([0, 50, 500]))
    def retry(self, data: st.DataObject, delay_ms: int) -> None:
        entry = data.draw(st.sampled_from(self.claimed()))
        one = entry.invocation
        entry.invocation = replace(
            one, attempts=one.attempts + 1, version=1, due_ms=self.clock.ms + delay_ms
        )
        entry.claimed = entry.plain = False
        self.run(self.queue.retry(entry.invocation))

    @precondition(lambda self: self.claimed())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.claimed()))
        entry.claimed = entry.plain = False
        self.queue.release(entry.invocation.id)

    @precondition(lambda self: self.claimed())
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.claimed()))
        self.run(self.queue.bury(DeadLetter(entry.invocation, "Why", b"", self.clock.ms)))
        del self.entries[entry.invocation.id]
        self.letters += 1

    @rule(trigger=st.sampled_from(["", "t0"]), function=st.sampled_from(["a", "b"]))
    def bury_waiting(self, trigger: str, function: str) -> None:
        doomed = [
            entry.invocation.id
            for entry in self.entries.values()
            if not entry.claimed
            and entry.invocation.function == function
            and trigger in ("", entry.invocation.trigger_id)
        ]
        work = self.queue.bury_waiting(reason="Gone", trigger_id=trigger, function=function)
        assert self.run(work) == len(doomed)
        for invocation_id in doomed:
            del self.entries[invocation_id]
        self.letters += len(doomed)

    @rule(ms=st.sampled_from([10, 60, 1000]))
    def time_passes(self, ms: int) -> None:
        self.clock.ms += ms

    @rule()
    def restart(self) -> None:
        self.run(self.close())
        for entry in self.entries.values():
            entry.claimed = False
        self.run(self.open())

    @invariant()
    def counts_agree(self) -> None:
        found = self.queue.statistics()
        assert found.claimed == len(self.claimed())
        assert found.waiting == len(self.entries) - found.claimed
        assert sum(found.waiting_by_function.values()) == found.waiting
        assert found.dead_letters == self.letters

    @invariant()
    def memory_knows_what_the_disk_holds(self) -> None:
        self.run(self.queue.load_cursor("loads that were asked for are done"))
        known = len(self.backlog._parked) + len(self.backlog._fetching)
        for function in self.backlog.functions.values():
            known += len(function.ready) + len(function.delayed)
            known += function.on_disk + function.delayed_on_disk
            known += sum(len(queue) for queue in function.lanes.values())
        assert known == len(self.entries) - len(self.claimed())


def test_the_queue_does_what_the_model_does(monkeypatch: Any) -> None:
    monkeypatch.setattr(queue_module, "LONGEST_TIMER_S", 0.002)
    monkeypatch.setattr(reads_module, "LOAD_ROWS", 3)
    run_state_machine_as_test(
        QueueModel,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

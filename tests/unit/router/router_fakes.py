"""In-memory metadata, pool and queue for the router's tests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from eventd.model.invocation import DeadLetter, Invocation, InvocationRecord, Outcome
from eventd.model.resources import Alias, AsyncConfig, Function, Service, TriggerRecord, Version
from eventd.pool.call import Call
from eventd.store.interface import Change, Metadata, Progress, Queue, QueueStatistics

CONFIG: dict[str, Any] = {
    "runtime": "python3.11",
    "handler": "index.handler",
    "memorySize": 256,
    "timeout": 7,
    "initializationTimeout": 5,
    "instanceConcurrency": 3,
    "environmentVariables": {"A": "1"},
}


def make_function(name: str = "f", digest: str = "d0", **config: Any) -> Function:
    return Function("s", name, "fid", "e", "c", "m", CONFIG | config, digest, "123", 10)


class MemoryMetadata:
    """The reading half of ``Metadata``, and plain setters that tell listeners."""

    def __init__(self) -> None:
        self.all_services: dict[str, Service] = {}
        self.all_functions: dict[tuple[str, str], Function] = {}
        self.all_versions: dict[tuple[str, int], Version] = {}
        self.all_aliases: dict[tuple[str, str], Alias] = {}
        self.all_triggers: dict[tuple[str, str, str], TriggerRecord] = {}
        self.all_configs: dict[tuple[str, str, str], AsyncConfig] = {}
        self.listeners: list[Callable[[Change], None]] = []

    def as_store(self) -> Metadata:
        return cast(Metadata, self)

    def service(self, name: str) -> Service | None:
        return self.all_services.get(name)

    def services(self) -> Iterable[Service]:
        return self.all_services.values()

    def function(self, service: str, name: str) -> Function | None:
        return self.all_functions.get((service, name))

    def version(self, service: str, version_id: int) -> Version | None:
        return self.all_versions.get((service, version_id))

    def versions(self, service: str) -> Iterable[Version]:
        return [v for (owner, _), v in self.all_versions.items() if owner == service]

    def alias(self, service: str, name: str) -> Alias | None:
        return self.all_aliases.get((service, name))

    def trigger(self, service: str, function: str, name: str) -> TriggerRecord | None:
        return self.all_triggers.get((service, function, name))

    def triggers(
        self, service: str | None = None, function: str | None = None
    ) -> Iterable[TriggerRecord]:
        return self.all_triggers.values()

    def async_config(self, service: str, function: str, qualifier: str) -> AsyncConfig | None:
        return self.all_configs.get((service, function, qualifier))

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def tell(self, change: Change) -> None:
        for listener in list(self.listeners):
            listener(change)

    def set_service(self, incarnation: str = "inc", **config: Any) -> None:
        self.all_services["s"] = Service("s", "sid", incarnation, "e", "c", "m", config)
        self.tell(Change("service", "s", "s"))

    def set_function(self, function: Function) -> None:
        self.all_functions["s", function.name] = function
        self.tell(Change("function", "s", function.name))

    def delete_function(self, name: str = "f") -> None:
        del self.all_functions["s", name]
        self.tell(Change("function", "s", name, deleted=True))

    def publish(self, number: int, *functions: Function, **config: Any) -> None:
        self.all_versions["s", number] = Version(
            "s", number, "", "c", "m", config, {f.name: f for f in functions}, "hash"
        )
        self.tell(Change("version", "s", str(number)))

    def delete_version(self, number: int) -> None:
        del self.all_versions["s", number]
        self.tell(Change("version", "s", str(number), deleted=True))

    def set_alias(self, name: str, version: str, weights: dict[str, float] | None = None) -> None:
        self.all_aliases["s", name] = Alias("s", name, version, "", weights, "e", "c", "m")
        self.tell(Change("alias", "s", name))

    def set_trigger(self, trigger_id: str, name: str = "t") -> None:
        self.all_triggers["s", "f", name] = TriggerRecord(
            "s", "f", name, trigger_id, "test", None, None, None, "", {}, "e", "c", "m"
        )
        self.tell(Change("trigger", "s", name, "f"))

    def delete_trigger(self, name: str = "t") -> None:
        del self.all_triggers["s", "f", name]
        self.tell(Change("trigger", "s", name, "f", deleted=True))


def metadata_with_function() -> MemoryMetadata:
    metadata = MemoryMetadata()
    metadata.set_service()
    metadata.set_function(make_function())
    return metadata


@dataclass
class FakePool:
    """Ends each call with the next of ``outcomes`` (success when they ran out); a ``None`` leaves
    it running until ``cancel``."""

    outcomes: deque[Outcome | None] = field(default_factory=deque)
    calls: list[Call] = field(default_factory=list)
    cancelled: list[Call] = field(default_factory=list)
    submitted: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_calls(self, count: int) -> None:
        """Until so many calls were submitted."""
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                self.submitted.clear()
                await self.submitted.wait()

    def submit(self, call: Call) -> None:
        self.calls.append(call)
        self.submitted.set()
        outcome = self.outcomes.popleft() if self.outcomes else Outcome(payload=b"ok")
        if outcome is not None:
            asyncio.get_running_loop().call_soon(call.receiver.on_end, outcome)

    def cancel(self, call: Call) -> None:
        self.cancelled.append(call)
        call.receiver.on_end(Outcome(system=True, error="ClientClosedRequest", status=499))


@dataclass
class Records:
    all: list[InvocationRecord] = field(default_factory=list)

    def add(self, record: InvocationRecord) -> None:
        self.all.append(record)


class MemoryQueue:
    """``Queue`` without a disk: the same order of claims, retries at once."""

    def __init__(self) -> None:
        self.rows: dict[str, Invocation] = {}
        self.claimed: set[str] = set()
        self.letters: list[DeadLetter] = []
        self.finished: list[str] = []
        self.retried: list[Invocation] = []
        self.released: list[str] = []
        self.progress: list[Progress] = []
        self.buried_for: list[dict[str, str]] = []
        self.fail: Exception | None = None
        self.changed = asyncio.Condition()

    def as_store(self) -> Queue:
        return cast(Queue, self)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    async def put(
        self, invocations: Sequence[Invocation], progress: Progress | None = None
    ) -> Sequence[Invocation]:
        if self.fail is not None:
            raise self.fail
        for invocation in invocations:
            self.rows[invocation.id] = invocation
        if progress is not None:
            self.progress.append(progress)
        await self._tell()
        return invocations

    def _next(self) -> Invocation | None:
        for name, row in self.rows.items():
            if name not in self.claimed:
                return row
        return None

    async def claim(self) -> Invocation:
        async with self.changed:
            await self.changed.wait_for(lambda: self._next() is not None)
        row = self._next()
        assert row is not None
        self.claimed.add(row.id)
        return row

    async def finish(self, invocation_id: str) -> None:
        del self.rows[invocation_id]
        self.finished.append(invocation_id)
        await self._tell()

    async def retry(self, invocation: Invocation) -> None:
        self.rows[invocation.id] = replace(invocation)
        self.retried.append(invocation)
        self.claimed.discard(invocation.id)
        await self._tell()

    def release(self, invocation_id: str) -> None:
        self.released.append(invocation_id)
        self.claimed.discard(invocation_id)

    async def bury(self, letter: DeadLetter) -> None:
        if self.fail is not None:
            raise self.fail
        self.rows.pop(letter.invocation.id, None)
        self.letters.append(letter)
        await self._tell()

    async def bury_waiting(
        self, *, reason: str, trigger_id: str = "", function: str = "", incarnation: str = ""
    ) -> int:
        self.buried_for.append(
            {
                "reason": reason,
                "trigger_id": trigger_id,
                "function": function,
                "incarnation": incarnation,
            }
        )
        await self._tell()
        return 1

    def statistics(self) -> QueueStatistics:
        counts: dict[tuple[str, str], int] = {}
        for row in self.rows.values():
            owner = (row.service, row.function)
            counts[owner] = counts.get(owner, 0) + 1
        return QueueStatistics(len(self.rows), len(self.claimed), len(self.letters), counts)

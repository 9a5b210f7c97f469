"""A router with a pool, a queue and metadata in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from router_fakes import FakePool, MemoryMetadata, MemoryQueue, Records, metadata_with_function

from eventd.clock import Clock
from eventd.metrics import Metrics
from eventd.plugin import Event, Rule, Trigger, TriggerConfig
from eventd.router.backlog import Backlog
from eventd.router.dispatch import Dispatcher
from eventd.router.intake import Intake
from eventd.router.invoke import Invoker
from eventd.router.resolve import Resolver
from eventd.router.settle import Settler
from eventd.rules.index import RuleIndex


class QuickClock(Clock):
    """Sleeps are remembered and take no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(0)


@dataclass
class Router:
    metadata: MemoryMetadata = field(default_factory=metadata_with_function)
    pool: FakePool = field(default_factory=FakePool)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    records: Records = field(default_factory=Records)
    metrics: Metrics = field(default_factory=Metrics)
    clock: QuickClock = field(default_factory=QuickClock)
    rules: RuleIndex = field(default_factory=RuleIndex)

    def __post_init__(self) -> None:
        self.resolver = Resolver(self.metadata.as_store())
        self.backlog = Backlog(self.queue.as_store(), self.metrics, self.clock, limit=1000)
        self.invoker = Invoker(
            self.resolver, self.pool, self.records, self.backlog, self.metrics, self.clock
        )
        self.settler = Settler(self.queue.as_store(), self.metrics, self.clock, jitter=lambda: 0.0)
        self.intake = Intake(
            self.rules,
            self.backlog,
            self.invoker,
            self.settler,
            self.metadata.as_store(),
            self.metrics,
            self.clock,
        )
        self.dispatcher = Dispatcher(
            self.invoker, self.settler, self.metadata.as_store(), self.clock, retry_base_s=0.0
        )

    def add_trigger(self, name: str = "t", prefix: str = "", qualifier: str = "LATEST") -> None:
        self.metadata.set_trigger(f"id-{name}", name)
        trigger = Trigger(
            f"id-{name}", "s", "f", name, qualifier, None, TriggerConfig(), {}, "", ""
        )
        self.rules.put(
            trigger, Rule("src", prefix=prefix), lambda event: event.data + name.encode()
        )


def make_event(subject: str = "a", *, dedupe: bool = False, key: str = "") -> Event:
    return Event("e1", "origin", "kind", subject, "", b"data-", key, dedupe=dedupe)

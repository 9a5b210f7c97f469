"""What sources need from the rest of the daemon; ``daemon.py`` hands it in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from eventd.clock import Clock
from eventd.metrics import Metrics
from eventd.model.event import Event
from eventd.plugin import Delivery, Rule, Run, Trigger
from eventd.store.interface import Progress


class Intake(Protocol):
    """Where events go (``router/intake.py``)."""

    async def accept(
        self, source: str, events: Sequence[Event], progress: Progress | None
    ) -> None: ...

    async def deliver(self, source: str, event: Event, *, attempts: int) -> Delivery: ...

    def deliver_nowait(
        self,
        source: str,
        event: Event,
        *,
        attempts: int,
        on_end: Callable[[Delivery | Exception], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
    ) -> Run: ...


class RuleRegistry(Protocol):
    """The rules in force (``rules/index.py``)."""

    def put(self, trigger: Trigger[Any], rule: Rule, payload: Callable[[Event], bytes]) -> None:
        """Add or replace the rule of ``trigger.id``."""

    def remove(self, trigger_id: str) -> None: ...


class ProgressStore(Protocol):
    """What a source asks the store for (part of ``store.Queue``)."""

    async def load_cursor(self, source: str) -> str | None: ...
    async def load_state(self, source: str) -> dict[str, str]: ...
    async def forget_source(self, source: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What a running source works with."""

    intake: Intake
    store: ProgressStore
    clock: Clock
    metrics: Metrics

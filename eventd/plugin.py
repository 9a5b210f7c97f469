"""The public surface for trigger adapters: everything that a plug-in may import.

A plug-in is a ``TriggerType`` named in the entry-point group ``eventd.triggers``. It describes its
``triggerConfig``, derives from a trigger a *source key* and a *rule*, and makes the ``Source`` that
watches for events. It owns no task, no store and no thread; effects go through ``SourceContext``.
Names here are stable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from eventd.errors import InvalidArgument, TriggerConflict
from eventd.model.event import Event
from eventd.model.fold import fold

__all__ = [
    "ConfigT",
    "Delivery",
    "Event",
    "InvalidArgument",
    "Rule",
    "Run",
    "Source",
    "SourceContext",
    "SourceReport",
    "SourceSettings",
    "Trigger",
    "TriggerConfig",
    "TriggerConflict",
    "TriggerType",
]


class TriggerConfig(BaseModel):
    """Base of a typed ``triggerConfig``: camelCase on the wire, unknown keys ignored as FC does.

    A native type (not one of FC's) sets ``model_config = ConfigDict(extra="forbid")`` on top, so
    that a misspelt key is an error.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _fold_keys(cls, content: Any) -> Any:
        """FC reads keys without regard to letter case (also of the objects inside), and ``null``
        as absent."""
        return fold(cls, content) if isinstance(content, Mapping) else content


ConfigT = TypeVar("ConfigT", bound=TriggerConfig)


@dataclass(frozen=True, slots=True)
class Trigger(Generic[ConfigT]):
    """A trigger with its validated config.

    Attributes:
        id: unique and constant over updates.
        qualifier: as stored; ``LATEST`` when none was given.
        raw_config: ``triggerConfig`` exactly as the client sent it.
        created_time, last_modified_time: RFC 3339, UTC; whole seconds.
    """

    id: str
    service: str
    function: str
    name: str
    qualifier: str
    source_arn: str | None
    config: ConfigT
    raw_config: Mapping[str, Any]
    created_time: str
    last_modified_time: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Which events of its source a trigger wants.

    Attributes:
        source: source key; a rule sees only events emitted by that source.
        types: event types; a final ``*`` is a wildcard; empty = every type.
        prefix, suffix: of the event's ``subject``; empty = any.
    """

    source: str
    types: tuple[str, ...] = ()
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What the operator configured that an adapter may need.

    Attributes:
        data_dir: the daemon's data directory (absolute).
        account_id, region: of this installation; they appear in FC's payloads and ARNs.
        buckets: name to directory of the configured buckets; besides them every directory below
            ``data_dir/buckets`` is a bucket.
        options: the adapter's own ``[triggers.NAME]`` table of ``eventd.toml``.
    """

    data_dir: Path
    account_id: str
    region: str
    buckets: Mapping[str, Path] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a direct delivery ended.

    Attributes:
        matched: triggers whose rule matched.
        succeeded: of these, the ones whose function succeeded. The others were dead-lettered.
    """

    matched: int
    succeeded: int


@dataclass(frozen=True, slots=True)
class SourceReport:
    """A source's own word for ``status``: what it does now and how far behind it is.

    Attributes:
        text: one line for a person (``"watching 12 directories"``, ``"broker away"``).
        lag: events known to wait at the source; ``None`` when unknown.
        healthy: whether it can take events now.
    """

    text: str
    lag: int | None = None
    healthy: bool = True


class Run(Protocol):
    """A direct delivery on its way."""

    def cancel(self) -> object:
        """Abandon it: ``on_end`` is not called any more, and the source must offer the event
        again. Nothing happens if it has ended."""


class SourceContext(Protocol):
    """What a running source may do. Every call may be cancelled; what was acknowledged stays."""

    key: str
    settings: SourceSettings

    def now(self) -> datetime:
        """The wall clock in UTC; a virtual clock may stand behind it."""

    async def sleep(self, seconds: float) -> None: ...

    async def sleep_until(self, moment: datetime) -> None: ...

    def triggers(self) -> tuple[Trigger[Any], ...]:
        """The triggers that share this source now; changes while it runs."""

    async def load_cursor(self) -> str | None:
        """The cursor of the last ``emit``, ``None`` for a new source."""

    async def load_state(self) -> dict[str, str]:
        """The source's own table, as the last ``emit`` left it."""

    async def emit(
        self,
        events: Sequence[Event],
        *,
        cursor: str | None = None,
        state: Mapping[str, str | None] | None = None,
    ) -> None:
        """Accept events together with the source's progress, in one synced transaction.

        Args:
            cursor: replaces the stored cursor; ``None`` leaves it.
            state: rows to set in the source's table; ``None`` as a value removes the row.

        Returns when events and progress are on disk. Waits while the queue is full: that is
        back-pressure. Cancelling leaves either all of it stored or nothing.

        Raises:
            ServiceUnavailable: the store takes nothing (disk full, failed sync); try again later.
        """

    async def deliver(self, event: Event, *, attempts: int = 3) -> Delivery:
        """Run the matching triggers now, without a row in the queue; for sources that can be
        asked again (Kafka). After ``attempts`` failures the event is dead-lettered, synced, before
        this returns. Cancelling abandons the run; the source must offer the event again.

        Raises:
            ServiceUnavailable: the dead letter cannot be stored.
        """

    def deliver_nowait(
        self, event: Event, on_end: Callable[[Delivery | Exception], None], *, attempts: int = 3
    ) -> Run:
        """``deliver`` without a task of the source's own, for thousands of events a second.

        ``on_end`` hears once, later and on the loop's thread, what ``deliver`` would have returned
        or raised; it must not block or raise. How many run at once is the source's affair. A source
        cancels its runs before it ends; one that is left is abandoned.
        """

    def report(self, report: SourceReport) -> None:
        """Replace what ``status`` shows for this source."""


class Source(Protocol):
    """Watches one source of events until cancelled; the daemon owns the task."""

    async def run(self, context: SourceContext) -> None:
        """Emit events until cancelled. An exception is shown in ``status``; the daemon starts the
        source again after a back-off."""


class TriggerType(ABC, Generic[ConfigT]):
    """An adapter: one trigger type. Instances hold no state."""

    name: ClassVar[str]
    config: type[ConfigT]
    has_source_arn: ClassVar[bool] = True
    """Whether ``sourceArn`` means something; if not, FC answers ``null`` whatever was sent."""

    @abstractmethod
    def source_key(self, trigger: Trigger[ConfigT], settings: SourceSettings) -> str | None:
        """Triggers with an equal key share one running source and its cursor. ``None``: nothing is
        to be watched (``http``, or the trigger is disabled)."""

    @abstractmethod
    def rule(self, trigger: Trigger[ConfigT], settings: SourceSettings) -> Rule:
        """Which of the source's events are for this trigger."""

    @abstractmethod
    def source(self, trigger: Trigger[ConfigT], settings: SourceSettings) -> Source:
        """The source of this trigger's key. Called with any one of the triggers that share it."""

    def source_version(self, trigger: Trigger[ConfigT]) -> str:
        """A running source is started anew when this text changes for one of its triggers. The
        default follows every change of the config; a shared source that does not look at its
        triggers' configs returns a constant."""
        return trigger.config.model_dump_json()

    def validate(self, trigger: Trigger[ConfigT], settings: SourceSettings) -> None:
        """Refuse, with ``InvalidArgument``, what the typed config alone cannot see."""

    def conflict(self, trigger: Trigger[ConfigT], other: Trigger[ConfigT]) -> str | None:
        """Why ``trigger`` may not stand beside ``other`` of the same type; ``None`` if it may."""
        return None

    def payload(self, event: Event, trigger: Trigger[ConfigT], settings: SourceSettings) -> bytes:
        """The bytes for this trigger's function. The default is the event's data, serialised once
        for all triggers."""
        return event.data

    def response_config(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """``triggerConfig`` as the API answers it; FC echoes what was sent."""
        return config

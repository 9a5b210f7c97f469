"""What waits for a deleted trigger or function becomes dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventd.metrics import Metrics
from eventd.store.interface import Change, Metadata, Queue


@asynccontextmanager
async def burying_deleted(
    metadata: Metadata, queue: Queue, metrics: Metrics
) -> AsyncIterator[None]:
    """During the block, the backlog of a trigger or function that gets deleted is dead-lettered.

    A function that a published version still holds keeps its backlog: what was accepted for that
    version runs, the rest is buried when its turn comes (``Dispatcher``). The same holds for what
    a crash or the end of the block left undone. A store that fails ends the block with an
    ExceptionGroup.
    """
    deletions = _Deletions(metadata)
    unsubscribe = metadata.subscribe(deletions.changed)
    try:
        async with asyncio.TaskGroup() as group:
            burying = group.create_task(
                _bury_forever(deletions, queue, metrics), name="bury deleted"
            )
            try:
                yield
            finally:
                burying.cancel()
    finally:
        unsubscribe()


async def _bury_forever(deletions: _Deletions, queue: Queue, metrics: Metrics) -> None:
    while True:
        await deletions.wake.wait()
        deletions.wake.clear()
        while deletions.pending:
            key = next(iter(deletions.pending))
            if key[0] == "trigger":
                count = await queue.bury_waiting(reason="TriggerDeleted", trigger_id=key[1])
            else:
                count = await queue.bury_waiting(
                    reason="FunctionDeleted", function=key[1], incarnation=key[2]
                )
            del deletions.pending[key]
            metrics.dead_letters += count


class _Deletions:
    """Follows the metadata. It remembers the ids itself, since a deleted resource cannot be asked.

    Attributes:
        pending: ``("trigger", id)`` or ``("function", name, incarnation)``; bounded by the
            resources there were.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.pending: dict[tuple[str, ...], None] = {}
        self.wake = asyncio.Event()
        self._metadata = metadata
        self._triggers = {
            (record.service, record.function, record.name): record.trigger_id
            for record in metadata.triggers()
        }
        self._incarnations = {service.name: service.incarnation for service in metadata.services()}

    def changed(self, change: Change) -> None:
        if change.kind == "trigger":
            self._trigger_changed(change)
        elif change.kind == "service":
            self._service_changed(change)
        elif change.kind == "function" and change.deleted:
            self._function_deleted(change)
        if self.pending:
            self.wake.set()

    def _trigger_changed(self, change: Change) -> None:
        key = (change.service, change.function, change.name)
        if change.deleted:
            if trigger_id := self._triggers.pop(key, ""):
                self.pending["trigger", trigger_id] = None
            return
        record = self._metadata.trigger(*key)
        if record is not None:
            self._triggers[key] = record.trigger_id

    def _service_changed(self, change: Change) -> None:
        service = self._metadata.service(change.name)
        if service is not None:
            self._incarnations[change.name] = service.incarnation
        elif change.deleted:
            self._incarnations.pop(change.name, None)

    def _function_deleted(self, change: Change) -> None:
        incarnation = self._incarnations.get(change.service)
        held = any(
            change.name in version.functions for version in self._metadata.versions(change.service)
        )
        if incarnation is not None and not held:
            self.pending["function", change.name, incarnation] = None

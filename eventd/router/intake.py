"""Events come in: match, one invocation per hit, on disk before their source hears of it."""

from __future__ import annotations

from collections.abc import Sequence

from eventd.clock import Clock
from eventd.metrics import Metrics
from eventd.model.event import Event
from eventd.model.identity import new_invocation_id, new_request_id
from eventd.model.invocation import Invocation
from eventd.model.resources import LATEST
from eventd.plugin import Delivery
from eventd.router.backlog import Backlog
from eventd.router.direct import Direct, DirectRun, Hits, OnEnd, Spawn
from eventd.router.invoke import Invoker
from eventd.router.settle import Settler
from eventd.rules.index import Hit, RuleIndex
from eventd.store.interface import Metadata, Progress


class Intake:
    """What a running source hands events to.

    ``accept`` stores them in the queue, ``deliver`` runs their functions at once. Which triggers
    want an event is decided by the rules in force at that moment.
    """

    def __init__(
        self,
        rules: RuleIndex,
        backlog: Backlog,
        invoker: Invoker,
        settler: Settler,
        metadata: Metadata,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._backlog = backlog
        self._direct = Direct(invoker, settler, metadata, clock)
        self._metadata = metadata
        self._metrics = metrics
        self._clock = clock

    async def accept(self, source: str, events: Sequence[Event], progress: Progress | None) -> None:
        """Store an invocation for each trigger that wants an event, with the source's progress, in
        one synced transaction; progress is stored also when nothing matched.

        Waits while a function's backlog or the queue is full. Cancelling: all or nothing.
        Raises ``ServiceUnavailable``: the store takes nothing now.
        """
        invocations: list[Invocation] = []
        for event in events:
            made = [
                invocation
                for hit in self._match(source, event)
                if (invocation := self._invocation(hit, event)) is not None
            ]
            invocations += made
        if invocations or progress is not None:
            await self._backlog.put(invocations, progress)

    async def deliver(self, source: str, event: Event, *, attempts: int) -> Delivery:
        """Run the functions of all triggers that want ``event``, side by side, without a row.

        A function's error is tried again at once, ``attempts`` runs in all, then the event is
        dead-lettered, synced. System errors (no capacity, a lost instance) are tried again with
        back-off and are not counted. Cancelling cancels the runs: the source must offer the event
        again. Raises ``ServiceUnavailable`` when the dead letter cannot be stored, or when no
        trigger asks for the source any more: the event is not done with.
        """
        return await self._direct.deliver(self._hits(source, event), event, attempts)

    def deliver_nowait(
        self, source: str, event: Event, *, attempts: int, on_end: OnEnd, spawn: Spawn
    ) -> DirectRun:
        """``deliver`` by callback (``plugin.SourceContext.deliver_nowait``); ``spawn`` makes a
        task, which the caller owns, for what does not go straight."""
        return self._direct.start(self._hits(source, event), event, attempts, on_end, spawn)

    def _hits(self, source: str, event: Event) -> Hits:
        return self._match(source, event) if source in self._rules else None

    def _match(self, source: str, event: Event) -> tuple[Hit, ...]:
        hits = self._rules.match(source, event)
        if not hits:
            filtered = self._metrics.events_filtered
            filtered[source] = filtered.get(source, 0) + 1
        return hits

    def _invocation(self, hit: Hit, event: Event) -> Invocation | None:
        """``None``: the trigger's service is gone, its rule about to follow."""
        trigger = hit.trigger
        service = self._metadata.service(trigger.service)
        if service is None:
            return None
        return Invocation(
            id=new_invocation_id(),
            request_id=new_request_id(),
            service=trigger.service,
            function=trigger.function,
            incarnation=service.incarnation,
            qualifier=trigger.qualifier or LATEST,
            payload=hit.payload(event),
            accepted_ms=self._clock.time_ms(),
            trigger_id=trigger.id,
            trigger_name=trigger.name,
            event_source=event.source,
            # only an id that comes from outside may drop a repeat
            event_id=event.id if event.dedupe else "",
            ordering_key=event.ordering_key,
            traceparent=event.traceparent,
        )

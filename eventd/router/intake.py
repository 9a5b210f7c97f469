"""Events come in: match, one invocation per hit, on disk before their source hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from eventd.clock import Clock
from eventd.errors import (
    AliasNotFound,
    FunctionNotFound,
    ServiceNotFound,
    ServiceUnavailable,
    VersionNotFound,
)
from eventd.metrics import Metrics
from eventd.model.event import Event
from eventd.model.identity import new_invocation_id, new_request_id
from eventd.model.invocation import Invocation, Outcome
from eventd.model.resources import LATEST
from eventd.plugin import Delivery
from eventd.pool.call import CallKind
from eventd.router.backlog import Backlog
from eventd.router.dispatch import reason_of
from eventd.router.invoke import Invoker, InvokeRequest
from eventd.router.settle import Bury, Done, RetryPolicy, Settler, Trials, decide, policy_for
from eventd.rules.index import Hit, RuleIndex
from eventd.store.interface import Metadata, Progress, StoreFailed

_NOTHING = Delivery(0, 0)


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
        self._invoker = invoker
        self._settler = settler
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
        again. Raises ``ServiceUnavailable`` when the dead letter cannot be stored.
        """
        hits = self._match(source, event)
        if len(hits) == 1:
            return Delivery(1, int(await self._deliver(hits[0], event, attempts)))
        if not hits:
            return _NOTHING
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(self._deliver(hit, event, attempts)) for hit in hits]
        return Delivery(len(hits), sum(run.result() for run in runs))

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

    async def _deliver(self, hit: Hit, event: Event, attempts: int) -> bool:
        """Whether the function succeeded; if not, the event is a dead letter."""
        trigger = hit.trigger
        request = InvokeRequest(
            trigger.service,
            trigger.function,
            trigger.qualifier or LATEST,
            CallKind.EVENT,
            new_request_id(),
            hit.payload(event),
            traceparent=event.traceparent,
            trigger_name=trigger.name,
        )
        try:
            snapshot = self._invoker.resolver.resolve(
                trigger.service,
                request.qualifier,
                trigger.function,
                event.ordering_key or request.request_id,
            )
            outcome = await self._invoker.run(request, snapshot=snapshot)
        except (ServiceNotFound, FunctionNotFound, VersionNotFound, AliasNotFound) as error:
            await self._bury_direct(hit, event, request, reason_of(error), str(error).encode())
            return False
        if outcome.succeeded:
            return True
        return await self._deliver_again(hit, event, request, attempts, outcome, snapshot.version)

    async def _deliver_again(
        self,
        hit: Hit,
        event: Event,
        request: InvokeRequest,
        attempts: int,
        outcome: Outcome,
        version: int,
    ) -> bool:
        """What follows a first run that failed; the same ``decide`` as for queued ones."""
        invocation = self._direct_invocation(hit, event, request)
        age = policy_for(
            self._metadata, request.service, request.function, request.qualifier, base_s=0.0
        ).max_age_ms
        policy = RetryPolicy(max_retries=attempts - 1, max_age_ms=age, base_s=0.0)
        trials = Trials()
        while True:
            trials = trials.after(outcome)
            verdict = decide(
                outcome,
                invocation,
                policy,
                self._clock.time_ms(),
                trials=trials,
                jitter=self._settler.jitter(),
            )
            if isinstance(verdict, Done):
                return True
            if isinstance(verdict, Bury):
                await self._bury(invocation, verdict.reason, outcome.payload)
                return False
            if outcome.system:
                await self._clock.sleep((verdict.due_ms - self._clock.time_ms()) / 1000.0)
            request.attempt = verdict.attempts
            invocation = replace(invocation, attempts=verdict.attempts, version=version)
            try:
                snapshot = self._invoker.resolver.resolve_again(
                    request.service,
                    request.qualifier,
                    request.function,
                    event.ordering_key or request.request_id,
                    version,
                )
            except (ServiceNotFound, FunctionNotFound, VersionNotFound, AliasNotFound) as error:
                await self._bury(invocation, reason_of(error), outcome.payload)
                return False
            version = snapshot.version
            outcome = await self._invoker.run(request, snapshot=snapshot)

    def _direct_invocation(self, hit: Hit, event: Event, request: InvokeRequest) -> Invocation:
        service = self._metadata.service(request.service)
        return Invocation(
            id=new_invocation_id(),
            request_id=request.request_id,
            service=request.service,
            function=request.function,
            incarnation=service.incarnation if service is not None else "",
            qualifier=request.qualifier,
            payload=bytes(request.payload),
            accepted_ms=self._clock.time_ms(),
            trigger_id=hit.trigger.id,
            trigger_name=hit.trigger.name,
            event_source=event.source,
            event_id=event.id,
            ordering_key=event.ordering_key,
            traceparent=event.traceparent,
        )

    async def _bury_direct(
        self, hit: Hit, event: Event, request: InvokeRequest, reason: str, error: bytes
    ) -> None:
        await self._bury(self._direct_invocation(hit, event, request), reason, error)

    async def _bury(self, invocation: Invocation, reason: str, error: bytes) -> None:
        try:
            await self._settler.bury(invocation, reason, error)
        except StoreFailed as failed:
            raise ServiceUnavailable(f"the store takes nothing: {failed}") from failed

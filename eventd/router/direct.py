"""Direct deliveries: the functions of an event run at once, without a row in the queue.

The first run of an event that one trigger wants, which is what a topic brings by the hundred
thousand, moves by callbacks alone. What is rare (several triggers, a failed run, a dead letter) is
a coroutine, in a task that the source's context owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from eventd.clock import Clock
from eventd.errors import (
    AliasNotFound,
    FunctionNotFound,
    ServiceNotFound,
    ServiceUnavailable,
    VersionNotFound,
)
from eventd.model.event import Event
from eventd.model.identity import RequestIds, new_invocation_id
from eventd.model.invocation import Invocation, Outcome
from eventd.model.resources import LATEST
from eventd.model.snapshot import FunctionSnapshot
from eventd.plugin import Delivery
from eventd.pool.call import Call, CallKind
from eventd.router.dispatch import reason_of
from eventd.router.invoke import Invoker, InvokeRequest
from eventd.router.settle import Bury, Done, RetryPolicy, Settler, Trials, decide, policy_for
from eventd.rules.index import Hit
from eventd.store.interface import Metadata, StoreFailed

NOTHING = Delivery(0, 0)
_ONE = Delivery(1, 1)
_GONE = (ServiceNotFound, FunctionNotFound, VersionNotFound, AliasNotFound)

Hits = tuple[Hit, ...] | None
"""Who wants an event. ``None``: the last trigger of its source went away, and the source is about
to end; what it brings now is not done with, for who asks for the source next must get it."""
OnEnd = Callable[[Delivery | Exception], None]
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None]
"""Makes a task that the caller owns; ``None`` when the source has ended and nobody is to hear."""


class Direct:
    """Runs the functions of ``hits``, retries what fails and buries what keeps failing."""

    def __init__(
        self, invoker: Invoker, settler: Settler, metadata: Metadata, clock: Clock
    ) -> None:
        self.invoker = invoker
        self.resolver = invoker.resolver
        self.new_request_id = RequestIds()
        self._settler = settler
        self._metadata = metadata
        self._clock = clock

    def start(
        self, hits: Hits, event: Event, attempts: int, on_end: OnEnd, spawn: Spawn
    ) -> DirectRun:
        """``deliver`` by callback; see ``SourceContext.deliver_nowait``."""
        run = DirectRun(self, event, attempts, on_end, spawn)
        if hits is not None and len(hits) == 1:
            hit = hits[0]
            trigger = hit.trigger
            request_id = self.new_request_id()
            try:
                snapshot = self.resolver.resolve(
                    trigger.service,
                    trigger.qualifier or LATEST,
                    trigger.function,
                    event.ordering_key or request_id,
                )
            except _GONE:
                pass  # the coroutine meets it again, and buries the event
            else:
                run.start(hit, snapshot, request_id)
                return run
        run.task = spawn(run.ending(self.deliver, hits, event, attempts))
        return run

    async def deliver(self, hits: Hits, event: Event, attempts: int) -> Delivery:
        """See ``Intake.deliver``."""
        if hits is None:
            raise ServiceUnavailable("no trigger asks for this source any more")
        if len(hits) == 1:
            return Delivery(1, int(await self._deliver(hits[0], event, attempts)))
        if not hits:
            return NOTHING
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(self._deliver(hit, event, attempts)) for hit in hits]
        return Delivery(len(hits), sum(run.result() for run in runs))

    async def _deliver(self, hit: Hit, event: Event, attempts: int) -> bool:
        """Whether the function succeeded; if not, the event is a dead letter."""
        request = self._request(hit, event, self.new_request_id())
        try:
            snapshot = self.resolver.resolve(
                request.service,
                request.qualifier,
                request.function,
                event.ordering_key or request.request_id,
            )
            outcome = await self.invoker.run(request, snapshot=snapshot)
        except _GONE as error:
            invocation = self._invocation(hit, event, request)
            await self._bury(invocation, reason_of(error), str(error).encode())
            return False
        if outcome.succeeded:
            return True
        return await self._again(hit, event, request, attempts, outcome, snapshot.version)

    async def again(self, run: DirectRun, outcome: Outcome) -> Delivery:
        """What follows the failed first run of ``run``."""
        call = run.call
        request = self._request(run.hit, run.event, call.request_id)
        version = call.function.version
        again = self._again(run.hit, run.event, request, run.attempts, outcome, version)
        return Delivery(1, int(await again))

    async def _again(
        self,
        hit: Hit,
        event: Event,
        request: InvokeRequest,
        attempts: int,
        outcome: Outcome,
        version: int,
    ) -> bool:
        """What follows a first run that failed; the same ``decide`` as for queued ones."""
        invocation = self._invocation(hit, event, request)
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
                snapshot = self.resolver.resolve_again(
                    request.service,
                    request.qualifier,
                    request.function,
                    event.ordering_key or request.request_id,
                    version,
                )
            except _GONE as error:
                await self._bury(invocation, reason_of(error), outcome.payload)
                return False
            version = snapshot.version
            outcome = await self.invoker.run(request, snapshot=snapshot)

    def _request(self, hit: Hit, event: Event, request_id: str) -> InvokeRequest:
        trigger = hit.trigger
        return InvokeRequest(
            trigger.service,
            trigger.function,
            trigger.qualifier or LATEST,
            CallKind.EVENT,
            request_id,
            hit.payload(event),
            traceparent=event.traceparent,
            trigger_name=trigger.name,
        )

    def _invocation(self, hit: Hit, event: Event, request: InvokeRequest) -> Invocation:
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

    async def _bury(self, invocation: Invocation, reason: str, error: bytes) -> None:
        try:
            await self._settler.bury(invocation, reason, error)
        except StoreFailed as failed:
            raise ServiceUnavailable(f"the store takes nothing: {failed}") from failed


class DirectRun:
    """One event on its way (``plugin.Run``); the receiver of its first call."""

    __slots__ = (
        "_direct",
        "_on_end",
        "_over",
        "_spawn",
        "attempts",
        "call",
        "event",
        "hit",
        "task",
    )

    hit: Hit
    call: Call
    invocation_id = ""
    attempt = 0

    def __init__(
        self, direct: Direct, event: Event, attempts: int, on_end: OnEnd, spawn: Spawn
    ) -> None:
        self._direct = direct
        self._on_end = on_end
        self._spawn = spawn
        self._over = False
        self.event = event
        self.attempts = attempts
        self.task: asyncio.Task[None] | None = None

    @property
    def trigger_name(self) -> str:
        return self.hit.trigger.name

    def start(self, hit: Hit, snapshot: FunctionSnapshot, request_id: str) -> None:
        event = self.event
        self.hit = hit
        self.call = call = Call(
            CallKind.EVENT,
            request_id,
            snapshot,
            hit.trigger.qualifier or LATEST,
            hit.payload(event),
            self,
            None,
            0,
            self._direct.invoker.queue_deadline_s,
            False,
            0,
            event.traceparent,
        )
        self._direct.invoker.submit(call)

    def cancel(self) -> None:
        if self._over:
            return
        self._over = True
        if self.task is not None:
            self.task.cancel()
        else:
            self._direct.invoker.cancel(self.call)

    async def ending(
        self, work: Callable[..., Coroutine[Any, Any, Delivery]], *arguments: object
    ) -> None:
        """Do ``work`` and tell how it ended; cancelled, it tells nothing."""
        end: Delivery | Exception
        try:
            end = await work(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, the source must hear of it
            end = error
        if not self._over:
            self._over = True
            self._on_end(end)

    # -- Receiver

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        pass  # an event call has none

    def on_data(self, data: bytes) -> None:
        pass

    def on_end(self, outcome: Outcome) -> None:
        self._direct.invoker.record(self.call, self, outcome)
        if self._over:
            return
        if outcome.error_type or outcome.system:
            self.task = self._spawn(self.ending(self._direct.again, self, outcome))
            return
        self._over = True
        del self.call  # it knows us: without the circle both go at once
        self._on_end(_ONE)

"""Queued invocations: claim, run, settle; bounded, and drained when the block ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from eventd.clock import Clock
from eventd.errors import (
    AliasNotFound,
    EventdError,
    FunctionNotFound,
    ServiceNotFound,
    VersionNotFound,
)
from eventd.model.invocation import Invocation
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.call import CallKind
from eventd.router import http_head
from eventd.router.invoke import Invoker, InvokeRequest
from eventd.router.settle import Bury, Settler, expired, policy_for
from eventd.store.interface import Metadata, Queue

Execute = Callable[[Invocation], Awaitable[None]]

_GONE = (ServiceNotFound, FunctionNotFound, VersionNotFound, AliasNotFound)


@asynccontextmanager
async def dispatching(
    queue: Queue, execute: Execute, *, limit: int, drain_s: Callable[[], float]
) -> AsyncIterator[None]:
    """Run queued invocations during the block, at most ``limit`` at once.

    Leaving the block claims nothing new, gives what runs ``drain_s()`` seconds, then cancels it; a
    cancelled invocation is runnable again without having used up an attempt (DESIGN.md, section
    5). A store that fails ends the block with an ExceptionGroup; ``execute`` settles every other
    error.
    """
    slots = asyncio.Semaphore(limit)
    running: set[asyncio.Task[None]] = set()

    async def run(invocation: Invocation) -> None:
        try:
            await execute(invocation)
        except asyncio.CancelledError:
            queue.release(invocation.id)
            raise
        finally:
            slots.release()

    async def claim_forever() -> None:
        while True:
            await slots.acquire()  # before the claim: a full node leaves work to others
            task = group.create_task(run(await queue.claim()))
            running.add(task)
            task.add_done_callback(running.discard)

    async with asyncio.TaskGroup() as group:
        claiming = group.create_task(claim_forever(), name="claim")
        try:
            yield
        finally:
            claiming.cancel()
            # a claim that came true in this very tick still starts, and is waited for below
            await asyncio.wait({claiming})
            if running:
                _, late = await asyncio.wait(set(running), timeout=drain_s())
                for task in late:
                    task.cancel()


class Dispatcher:
    """``execute`` for ``dispatching``: one attempt of a claimed invocation, and its settlement.

    Args:
        retry_base_s: first pause after a function's error (``QueueSettings.retry_base_s``).
    """

    def __init__(
        self,
        invoker: Invoker,
        settler: Settler,
        metadata: Metadata,
        clock: Clock,
        *,
        retry_base_s: float = 1.0,
    ) -> None:
        self._invoker = invoker
        self._settler = settler
        self._metadata = metadata
        self._clock = clock
        self._retry_base_s = retry_base_s

    async def execute(self, invocation: Invocation) -> None:
        """Raises ``StoreFailed`` only. Cancelling cancels the run; the claim is the caller's."""
        policy = policy_for(
            self._metadata,
            invocation.service,
            invocation.function,
            invocation.qualifier,
            base_s=self._retry_base_s,
        )
        if not self._trigger_lives(invocation):
            await self._settler.settle(Bury("TriggerDeleted"), invocation, b"")
            return
        if expired(invocation, policy, self._clock.time_ms()):
            await self._settler.settle(Bury("Expired"), invocation, b"")
            return
        try:
            found = self._resolve(invocation)
        except _GONE as error:
            await self._settler.settle(Bury(reason_of(error)), invocation, str(error).encode())
            return
        invocation = replace(invocation, version=found.version)
        outcome = await self._invoker.run(request_for(invocation), snapshot=found)
        verdict = self._settler.judge(outcome, invocation, policy)
        await self._settler.settle(verdict, invocation, outcome.payload)

    def _resolve(self, invocation: Invocation) -> FunctionSnapshot:
        found = self._invoker.resolver.resolve_again(
            invocation.service,
            invocation.qualifier,
            invocation.function,
            invocation.ordering_key or invocation.id,
            invocation.version,
        )
        if found.incarnation != invocation.incarnation:
            raise ServiceNotFound(
                f"service '{invocation.service}' was deleted after this event was accepted, "
                "and is another one now"
            )
        return found

    def _trigger_lives(self, invocation: Invocation) -> bool:
        """A trigger's deletion buries its backlog (``Intake``); this holds what a crash between
        the two left over."""
        if not invocation.trigger_id:
            return True
        trigger = self._metadata.trigger(
            invocation.service, invocation.function, invocation.trigger_name
        )
        return trigger is not None and trigger.trigger_id == invocation.trigger_id


def reason_of(error: EventdError) -> str:
    """The dead letter's reason when a function cannot be resolved any more."""
    if isinstance(error, ServiceNotFound | FunctionNotFound):
        return "FunctionDeleted"
    return error.code


def request_for(invocation: Invocation) -> InvokeRequest:
    """The call that one attempt of ``invocation`` makes."""
    http = http_head.decode(invocation.http) if invocation.http else None
    return InvokeRequest(
        service=invocation.service,
        function=invocation.function,
        qualifier=invocation.qualifier,
        kind=CallKind.HTTP if http is not None else CallKind.EVENT,
        request_id=invocation.request_id,
        payload=invocation.payload,
        http=http,
        depth=invocation.depth,
        traceparent=invocation.traceparent,
        invocation_id=invocation.id,
        attempt=invocation.attempts,
        trigger_name=invocation.trigger_name,
    )

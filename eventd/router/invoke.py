"""The one way to run a function: resolve, submit to the pool, record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from eventd.clock import Clock
from eventd.metrics import FunctionMetrics, Metrics
from eventd.model.identity import new_invocation_id
from eventd.model.invocation import Invocation, InvocationRecord, Outcome
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.call import Call, CallKind, HttpHead, Receiver
from eventd.pool.runtimes import check_runs
from eventd.router import http_head
from eventd.router.backlog import Backlog
from eventd.router.resolve import Resolver

_METRICS_CACHED = 10_000


class Pool(Protocol):
    """The part of the pool that the router uses; neither method waits or raises."""

    def submit(self, call: Call) -> None:
        """Run it; ``call.receiver.on_end`` hears how it ended, whatever happens."""

    def cancel(self, call: Call) -> None:
        """Nobody waits for it any more; ``on_end`` follows, if it did not come before."""


class Recorder(Protocol):
    """Takes the record of each attempt (``store.History``)."""

    def add(self, record: InvocationRecord) -> None: ...


@dataclass(slots=True)
class InvokeRequest:
    """A call as a front or the dispatcher makes it; ``qualifier`` as called, ``LATEST`` if none.

    Attributes:
        invocation_id: of a queued invocation; empty for a synchronous call.
        attempt: how many attempts were made before this one.
    """

    service: str
    function: str
    qualifier: str
    kind: CallKind
    request_id: str
    payload: bytes | memoryview = b""
    http: HttpHead | None = None
    want_tail: bool = False
    depth: int = 0
    traceparent: str = ""
    span_context: str = ""
    span_baggages: dict[str, str] = field(default_factory=dict)
    invocation_id: str = ""
    attempt: int = 0
    trigger_name: str = ""


class Origin(Protocol):
    """What a record tells of where a call came from (see ``InvokeRequest``)."""

    @property
    def invocation_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def trigger_name(self) -> str: ...


class _Recording:
    """Stands between the pool and the receiver: the end of a call is counted and recorded."""

    __slots__ = ("call", "invoker", "receiver", "request")

    call: Call

    def __init__(self, invoker: Invoker, request: InvokeRequest, receiver: Receiver) -> None:
        self.invoker = invoker
        self.request = request
        self.receiver = receiver

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.receiver.on_head(status, headers)

    def on_data(self, data: bytes) -> None:
        self.receiver.on_data(data)

    def on_end(self, outcome: Outcome) -> None:
        self.invoker.record(self.call, self.request, outcome)
        self.receiver.on_end(outcome)


class _Waiter:
    """A receiver for ``Invoker.run``: keeps the outcome and drops an HTTP answer."""

    __slots__ = ("call", "ended")

    def __init__(self, ended: asyncio.Future[Outcome]) -> None:
        self.ended = ended
        self.call: Call | None = None

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        pass

    def on_data(self, data: bytes) -> None:
        if self.call is not None:
            self.call.consumed(len(data))

    def on_end(self, outcome: Outcome) -> None:
        if not self.ended.done():
            self.ended.set_result(outcome)


class Invoker:
    """Both HTTP fronts, the dispatcher and direct deliveries call functions through this.

    Args:
        queue_deadline_s: how long a call waits for a slot before ``ResourceExhausted``.
    """

    def __init__(
        self,
        resolver: Resolver,
        pool: Pool,
        recorder: Recorder,
        backlog: Backlog,
        metrics: Metrics,
        clock: Clock,
        *,
        queue_deadline_s: float = 10.0,
    ) -> None:
        self.resolver = resolver
        self._pool = pool
        self._recorder = recorder
        self._backlog = backlog
        self._metrics = metrics
        self._clock = clock
        self.queue_deadline_s = queue_deadline_s
        self._metrics_of: dict[str, FunctionMetrics] = {}  # by snapshot key

    def resolve(
        self, service: str, qualifier: str, function: str, key: str = ""
    ) -> FunctionSnapshot:
        """Choose the version (by weight for an alias, drawn from ``key``) and give its snapshot.

        Raises ``ServiceNotFound``, ``VersionNotFound``, ``AliasNotFound``, ``FunctionNotFound``.
        """
        return self.resolver.resolve(service, qualifier, function, key)

    def start(
        self,
        request: InvokeRequest,
        receiver: Receiver,
        *,
        snapshot: FunctionSnapshot | None = None,
    ) -> Call:
        """Start a synchronous call and return at once; ``receiver`` hears the answer. Errors of
        ``resolve`` are raised; every later failure reaches ``receiver.on_end``."""
        if snapshot is None:
            snapshot = self.resolver.resolve(
                request.service, request.qualifier, request.function, request.request_id
            )
        recording = _Recording(self, request, receiver)
        call = recording.call = Call(
            request.kind,
            request.request_id,
            snapshot,
            request.qualifier,
            request.payload,
            recording,
            request.http,
            request.attempt,
            self.queue_deadline_s,
            request.want_tail,
            request.depth,
            request.traceparent,
            request.span_context,
            request.span_baggages,
        )
        self._pool.submit(call)
        return call

    def submit(self, call: Call) -> None:
        """Run a call whose receiver was made for it and calls ``record`` itself."""
        self._pool.submit(call)

    def cancel(self, call: Call) -> None:
        """The caller went away; ``on_end`` follows."""
        self._pool.cancel(call)

    async def run(
        self, request: InvokeRequest, *, snapshot: FunctionSnapshot | None = None
    ) -> Outcome:
        """``start`` and wait for the end; an HTTP answer's head and body are dropped. Cancelling
        cancels the call. The pool's deadlines bound the wait."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(ended)
        call = waiter.call = self.start(request, waiter, snapshot=snapshot)
        try:
            return await ended
        except asyncio.CancelledError:
            self._pool.cancel(call)
            raise

    async def enqueue(self, request: InvokeRequest, *, delay_s: int = 0) -> Invocation:
        """Accept an asynchronous call: returns after it is on disk.

        Raises the errors of ``resolve``, ``InvalidArgument`` (a runtime that can't run here),
        ``ResourceExhausted`` (backlog full),
        ``ServiceUnavailable`` (the disk takes nothing). Cancelling: it is stored, or not.
        """
        found = self.resolver.resolve(
            request.service, request.qualifier, request.function, request.request_id
        )
        check_runs(found.runtime)
        now_ms = self._clock.time_ms()
        invocation = Invocation(
            id=new_invocation_id(),
            request_id=request.request_id,
            service=request.service,
            function=request.function,
            incarnation=found.incarnation,
            qualifier=request.qualifier,
            payload=bytes(request.payload),
            accepted_ms=now_ms,
            due_ms=now_ms + delay_s * 1000 if delay_s else 0,
            http=http_head.encode(request.http) if request.http is not None else b"",
            traceparent=request.traceparent,
            depth=request.depth,
        )
        await self._backlog.put_now(invocation)
        return invocation

    def record(self, call: Call, request: Origin, outcome: Outcome) -> None:
        """Count and record a call that ended."""
        function = call.function
        self._count(function, call, outcome)
        started_at = call.started_at
        self._recorder.add(
            InvocationRecord(
                request.invocation_id,
                call.request_id,
                function.service,
                function.function,
                function.incarnation,
                call.qualifier,
                function.version,
                outcome.instance_id or call.instance_id,
                call.started_ms or self._clock.time_ms(),
                outcome.duration_ms,
                outcome.memory_mb,
                function.memory_mb,
                outcome.error_type,
                outcome.error,
                request.attempt,
                request.trigger_name,
                call.cold,
                (started_at - call.submitted_at) * 1000.0 if started_at else 0.0,
                call.spawn_ms,
                call.import_ms,
                call.init_ms,
            )
        )

    def _count(self, function: FunctionSnapshot, call: Call, outcome: Outcome) -> None:
        counts = self._metrics_of.get(function.key)
        if counts is None:
            counts = self._metrics.function(
                function.service, function.function, function.version_name
            )
            if len(self._metrics_of) >= _METRICS_CACHED:
                self._metrics_of.clear()
            self._metrics_of[function.key] = counts
        counts.invocations += 1
        counts.duration.observe(outcome.duration_ms / 1000.0)
        if call.cold:
            counts.cold_starts += 1
        if outcome.error:
            if outcome.error_type:
                counts.errors += 1
            if outcome.error == "FunctionTimeoutError":
                counts.timeouts += 1
            elif outcome.error == "FunctionOOMError":
                counts.out_of_memory += 1
            elif outcome.error == "ResourceExhausted":
                counts.throttled += 1

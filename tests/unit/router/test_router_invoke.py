"""One call: resolved, submitted, recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from memory_router import Router
from router_fakes import make_function

from eventd.errors import FunctionNotFound, InvalidArgument, ResourceExhausted, ServiceUnavailable
from eventd.model.invocation import Outcome
from eventd.pool.call import CallKind, HttpHead
from eventd.router import http_head
from eventd.router.backlog import Backlog
from eventd.router.invoke import Invoker, InvokeRequest
from eventd.store.interface import StoreFailed


def request(function: str = "f", **fields: object) -> InvokeRequest:
    made = InvokeRequest("s", function, "LATEST", CallKind.EVENT, "req-1", b"event")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Receiver:
    def __init__(self) -> None:
        self.heads: list[int] = []
        self.data = b""
        self.outcomes: list[Outcome] = []

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.heads.append(status)

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


async def test_a_call_reaches_the_pool_and_its_end_is_recorded(router: Router) -> None:
    router.pool.outcomes.append(None)
    receiver = Receiver()

    call = router.invoker.start(request(want_tail=True, depth=2), receiver)
    call.submitted_at, call.started_at, call.started_ms, call.cold = 1.0, 1.5, 77, True
    call.receiver.on_head(200, [])
    call.receiver.on_data(b"body")
    call.receiver.on_end(
        Outcome("UnhandledInvocationError", b"{}", error="FunctionTimeoutError", duration_ms=12.0)
    )

    assert (receiver.heads, receiver.data, len(receiver.outcomes)) == ([200], b"body", 1)
    assert (call.function.function, call.qualifier, call.want_tail, call.depth) == (
        "f",
        "LATEST",
        True,
        2,
    )
    record = router.records.all[0]
    assert (record.request_id, record.version, record.started_ms) == ("req-1", 0, 77)
    assert (record.duration_ms, record.queue_ms, record.cold) == (12.0, 500.0, True)
    assert (record.error_type, record.error) == (
        "UnhandledInvocationError",
        "FunctionTimeoutError",
    )
    counts = router.metrics.function("s", "f", "LATEST")
    assert (counts.invocations, counts.errors, counts.timeouts, counts.cold_starts) == (1, 1, 1, 1)


async def test_an_unknown_function_is_refused_before_the_pool(router: Router) -> None:
    with pytest.raises(FunctionNotFound):
        router.invoker.start(request("missing"), Receiver())

    assert router.pool.calls == []


async def test_run_gives_the_outcome(router: Router) -> None:
    outcome = await router.invoker.run(request())

    assert outcome.payload == b"ok"


async def test_cancelling_a_run_cancels_its_call(router: Router) -> None:
    router.pool.outcomes.append(None)
    task = asyncio.create_task(router.invoker.run(request()))
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert router.pool.cancelled == router.pool.calls
    assert router.records.all[0].error == "ClientClosedRequest"


async def test_an_asynchronous_call_is_stored_with_all_it_needs(router: Router) -> None:
    head = HttpHead("POST", "/p", "/2016/p?q=1", "q=1", (("a", "1"), ("a", "2")), "127.0.0.1")

    invocation = await router.invoker.enqueue(
        request(http=head, traceparent="tp", depth=1), delay_s=60
    )

    assert router.queue.rows[invocation.id] == invocation
    assert (invocation.request_id, invocation.payload) == ("req-1", b"event")
    assert invocation.due_ms - invocation.accepted_ms == 60_000
    assert (invocation.incarnation, invocation.traceparent, invocation.depth) == ("inc", "tp", 1)
    assert http_head.decode(invocation.http) == head


async def test_an_asynchronous_call_of_nothing_is_refused(router: Router) -> None:
    with pytest.raises(FunctionNotFound):
        await router.invoker.enqueue(request("missing"))

    assert router.queue.rows == {}


async def test_an_asynchronous_call_of_a_runtime_that_cannot_run_here_is_refused(
    router: Router,
) -> None:
    router.metadata.set_function(make_function("node", runtime="nodejs14"))

    with pytest.raises(InvalidArgument, match="runtime nodejs14 can't run here yet"):
        await router.invoker.enqueue(request("node"))

    assert router.queue.rows == {}


async def test_a_full_backlog_refuses_calls_and_names_the_limit(router: Router) -> None:
    backlog = Backlog(router.queue.as_store(), router.metrics, router.clock, limit=2)
    invoker = Invoker(
        router.resolver, router.pool, router.records, backlog, router.metrics, router.clock
    )
    await invoker.enqueue(request())
    await invoker.enqueue(request())

    with pytest.raises(ResourceExhausted, match="2 asynchronous invocations waiting"):
        await invoker.enqueue(request())

    assert len(router.queue.rows) == 2


async def test_a_failed_store_is_service_unavailable(router: Router) -> None:
    router.queue.fail = StoreFailed("disk full", full=True)

    with pytest.raises(ServiceUnavailable, match="disk full"):
        await router.invoker.enqueue(request())


def test_a_header_that_is_no_unicode_is_stored_with_a_mark() -> None:
    head = HttpHead("GET", "/", "/", "", (("x", "a\udcffb"),), "")

    assert http_head.decode(http_head.encode(head)).headers == (("x", "a?b"),)

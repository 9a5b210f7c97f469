"""Queued invocations: claimed, run, settled, drained."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from memory_router import Router
from router_fakes import make_function

from eventd.model.identity import new_invocation_id
from eventd.model.invocation import Invocation, Outcome
from eventd.model.resources import AsyncConfig
from eventd.router.dispatch import dispatching
from eventd.store.interface import StoreFailed

ERROR = Outcome("HandledInvocationError", b'{"errorMessage":"no"}', error="FunctionError")
NO_CAPACITY = Outcome(system=True, error="ResourceExhausted", status=429)


def make(router: Router, **changes: object) -> Invocation:
    invocation = Invocation(
        id=new_invocation_id(),
        request_id="req",
        service="s",
        function="f",
        incarnation="inc",
        qualifier="LATEST",
        payload=b"event",
        accepted_ms=router.clock.time_ms(),
    )
    return replace(invocation, **changes)  # type: ignore[arg-type]


async def put(router: Router, **changes: object) -> Invocation:
    invocation = make(router, **changes)
    await router.queue.put([invocation])
    return invocation


def running(router: Router, *, limit: int = 4, drain_s=lambda: 10.0):  # type: ignore[no-untyped-def]
    return dispatching(
        router.queue.as_store(), router.dispatcher.execute, limit=limit, drain_s=drain_s
    )


async def test_what_waits_runs_and_is_finished(router: Router) -> None:
    invocations = [await put(router) for _ in range(10)]

    async with running(router):
        await router.queue.wait_until(lambda: len(router.queue.finished) == 10)

    assert router.queue.finished == [invocation.id for invocation in invocations]
    assert router.metrics.invocations_succeeded == 10
    assert router.records.all[0].invocation_id == invocations[0].id


async def test_a_failure_is_retried_until_its_retries_are_used_up(router: Router) -> None:
    router.pool.outcomes.extend([ERROR] * 4)
    invocation = await put(router)

    async with running(router):
        await router.queue.wait_until(lambda: len(router.queue.letters) == 1)

    assert [row.attempts for row in router.queue.retried] == [1, 2, 3]
    assert {row.version for row in router.queue.retried} == {0}
    assert [call.retry_count for call in router.pool.calls] == [0, 1, 2, 3]
    letter = router.queue.letters[0]
    assert (letter.invocation.id, letter.reason) == (invocation.id, "RetriesExhausted")
    assert letter.last_error == ERROR.payload


async def test_the_async_config_of_the_qualifier_as_called_counts(router: Router) -> None:
    router.metadata.publish(1, make_function())
    router.metadata.set_alias("a", "1")
    router.metadata.all_configs["s", "f", "a"] = AsyncConfig(
        "s", "f", "a", {"maxAsyncRetryAttempts": 0}, "c", "m"
    )
    router.pool.outcomes.append(ERROR)
    await put(router, qualifier="a")

    async with running(router):
        await router.queue.wait_until(lambda: len(router.queue.letters) == 1)

    assert len(router.pool.calls) == 1


async def test_a_system_error_uses_no_attempt(router: Router) -> None:
    router.pool.outcomes.extend([NO_CAPACITY] * 5)
    await put(router)

    async with running(router):
        await router.queue.wait_until(lambda: len(router.queue.finished) == 1)

    assert [row.attempts for row in router.queue.retried] == [0] * 5
    assert router.queue.retried[1].due_ms > router.queue.retried[0].due_ms


async def test_at_most_limit_run_at_once(router: Router) -> None:
    router.pool.outcomes.extend([None] * 5)
    for _ in range(5):
        await put(router)

    async with running(router, limit=2):
        await router.pool.wait_calls(2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(router.pool.calls) == 2
        router.pool.calls[0].receiver.on_end(Outcome())
        await router.pool.wait_calls(3)
        for call in router.pool.calls[1:]:
            call.receiver.on_end(Outcome())
        router.pool.outcomes.clear()


async def test_leaving_the_block_lets_what_runs_end(router: Router) -> None:
    router.pool.outcomes.append(None)
    invocation = await put(router)

    async with running(router):
        await router.pool.wait_calls(1)
        asyncio.get_running_loop().call_later(
            0.05, lambda: router.pool.calls[0].receiver.on_end(Outcome())
        )

    assert router.queue.finished == [invocation.id]


async def test_what_outlasts_the_drain_is_runnable_again(router: Router) -> None:
    router.pool.outcomes.append(None)
    invocation = await put(router)

    async with running(router, drain_s=lambda: 0.05):
        await router.pool.wait_calls(1)

    assert router.queue.released == [invocation.id]
    assert router.queue.rows[invocation.id].attempts == 0
    assert router.pool.cancelled == router.pool.calls


async def test_a_store_that_fails_ends_the_block(router: Router) -> None:
    router.pool.outcomes.append(ERROR)
    router.metadata.all_configs["s", "f", "LATEST"] = AsyncConfig(
        "s", "f", "LATEST", {"maxAsyncRetryAttempts": 0}, "c", "m"
    )
    await put(router)
    router.queue.fail = StoreFailed("broken disk")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(10), running(router):
            await asyncio.Event().wait()

    assert caught.group_contains(StoreFailed)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"function": "gone"}, "FunctionDeleted"),
        ({"service": "gone"}, "FunctionDeleted"),
        ({"incarnation": "an earlier life"}, "FunctionDeleted"),
        ({"qualifier": "9"}, "VersionNotFound"),
        ({"qualifier": "gone"}, "AliasNotFound"),
        ({"trigger_id": "gone", "trigger_name": "t"}, "TriggerDeleted"),
        ({"accepted_ms": 1}, "Expired"),
    ],
)
async def test_what_cannot_run_any_more_is_a_dead_letter(
    router: Router, changes: dict[str, object], reason: str
) -> None:
    await put(router, **changes)

    async with running(router):
        await router.queue.wait_until(lambda: len(router.queue.letters) == 1)

    assert router.queue.letters[0].reason == reason
    assert router.pool.calls == []


async def test_a_recreated_trigger_of_the_same_name_does_not_inherit_the_backlog(
    router: Router,
) -> None:
    router.add_trigger()
    await put(router, trigger_id="id-t", trigger_name="t")
    router.metadata.set_trigger("another", "t")

    async with running(router):
        await router.queue.wait_until(lambda: len(router.queue.letters) == 1)

    assert router.queue.letters[0].reason == "TriggerDeleted"

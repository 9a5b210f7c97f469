"""Events become invocations, or run at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

import pytest
from memory_router import Router, make_event
from router_fakes import MemoryQueue, make_function

from eventd.errors import ServiceUnavailable
from eventd.metrics import Metrics
from eventd.model.invocation import Outcome
from eventd.model.resources import AsyncConfig
from eventd.plugin import Delivery, Run
from eventd.router.backlog import Backlog
from eventd.router.deletions import burying_deleted
from eventd.store.interface import Progress, QueueStatistics, StoreFailed

ERROR = Outcome("UnhandledInvocationError", b'{"errorMessage":"boom"}', error="FunctionError")
NO_CAPACITY = Outcome(system=True, error="ResourceExhausted", status=429)
OUT_OF_MEMORY = Outcome("UnhandledInvocationError", b"{}", error="FunctionOOMError")


async def test_each_trigger_that_wants_the_event_gets_an_invocation(router: Router) -> None:
    router.add_trigger("t1", prefix="in/")
    router.add_trigger("t2")
    progress = Progress("src", cursor="7")

    await router.intake.accept("src", [make_event("in/x"), make_event("out/x")], progress)

    rows = sorted(router.queue.rows.values(), key=lambda row: row.payload)
    assert [row.payload for row in rows] == [b"data-t1", b"data-t2", b"data-t2"]
    assert {row.trigger_id for row in rows} == {"id-t1", "id-t2"}
    assert {row.incarnation for row in rows} == {"inc"}
    assert len({row.request_id for row in rows}) == 3
    assert router.queue.progress == [progress]
    assert router.metrics.invocations_accepted == 3


async def test_progress_is_stored_when_nothing_matched(router: Router) -> None:
    router.add_trigger("t1", prefix="in/")

    await router.intake.accept("src", [make_event("out/x")], Progress("src", cursor="7"))

    assert router.queue.rows == {}
    assert router.queue.progress == [Progress("src", cursor="7")]
    assert router.metrics.events_filtered == {"src": 1}


async def test_only_an_id_from_outside_drops_repeats(router: Router) -> None:
    router.add_trigger()

    await router.intake.accept("src", [make_event(), make_event(dedupe=True)], None)

    assert sorted(row.event_id for row in router.queue.rows.values()) == ["", "e1"]


async def test_a_full_backlog_makes_a_source_wait(router: Router) -> None:
    router.add_trigger()
    looks = deque([5, 5, 1])

    class Crowded(MemoryQueue):
        def statistics(self) -> QueueStatistics:
            waiting = looks.popleft() if looks else 0
            return QueueStatistics(waiting, 0, 0, {("s", "f"): waiting})

    queue = Crowded()
    backlog = Backlog(queue.as_store(), Metrics(), router.clock, limit=5)
    backlog._read_at = float("-inf")
    invocation = router.intake._invocation(router.rules.match("src", make_event())[0], make_event())
    assert invocation is not None

    putting = asyncio.create_task(backlog.put([invocation], None))
    while len(router.clock.slept) < 3:  # it looks again after each pause
        assert queue.rows == {}
        await asyncio.sleep(0)
        backlog._read_at = float("-inf")
        if putting.done():
            break
    await putting

    assert router.clock.slept == [0.1, 0.1]
    assert list(queue.rows) == [invocation.id]


async def test_a_store_that_fails_is_told_to_the_source(router: Router) -> None:
    router.add_trigger()
    router.queue.fail = StoreFailed("no space", full=True)

    with pytest.raises(ServiceUnavailable, match="no space"):
        await router.intake.accept("src", [make_event()], None)


async def test_a_delivery_runs_all_triggers_side_by_side(router: Router) -> None:
    router.add_trigger("t1")
    router.add_trigger("t2")
    router.pool.outcomes.extend([None, None])

    delivering = asyncio.create_task(router.intake.deliver("src", make_event(), attempts=3))
    await router.pool.wait_calls(2)
    for call in router.pool.calls:
        call.receiver.on_end(Outcome())

    assert await delivering == Delivery(2, 2)
    assert router.queue.rows == {}


async def test_nothing_wants_the_event(router: Router) -> None:
    router.add_trigger(prefix="other")
    assert await router.intake.deliver("src", make_event(), attempts=3) == Delivery(0, 0)


async def test_what_comes_after_the_last_trigger_went_away_is_not_done_with(
    router: Router,
) -> None:
    """The rule goes with the answer to DELETE, the source a moment later; a topic's offset must
    not move past what it brings meanwhile."""
    router.add_trigger()
    router.rules.remove("id-t")
    ends = Ends(router)

    ends.start()

    assert isinstance(await ends.wait(), ServiceUnavailable)
    with pytest.raises(ServiceUnavailable):
        await router.intake.deliver("src", make_event(), attempts=3)


async def test_function_errors_are_tried_again_then_dead_lettered(router: Router) -> None:
    router.add_trigger()
    router.pool.outcomes.extend([ERROR, ERROR, ERROR])

    delivery = await router.intake.deliver("src", make_event(key="k"), attempts=3)

    assert delivery == Delivery(1, 0)
    assert [call.retry_count for call in router.pool.calls] == [0, 1, 2]
    assert len({call.request_id for call in router.pool.calls}) == 1
    letter = router.queue.letters[0]
    assert (letter.reason, letter.last_error) == ("RetriesExhausted", ERROR.payload)
    assert (letter.invocation.payload, letter.invocation.event_id) == (b"data-t", "e1")
    assert router.metrics.dead_letters == 1


async def test_a_later_attempt_may_succeed(router: Router) -> None:
    router.add_trigger()
    router.pool.outcomes.extend([ERROR, ERROR])

    assert await router.intake.deliver("src", make_event(), attempts=3) == Delivery(1, 1)
    assert router.queue.letters == []


async def test_system_errors_are_waited_out_and_use_no_attempt(router: Router) -> None:
    router.add_trigger()
    router.pool.outcomes.extend([NO_CAPACITY] * 6)

    assert await router.intake.deliver("src", make_event(), attempts=1) == Delivery(1, 1)
    assert [round(slept, 1) for slept in router.clock.slept] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert {call.retry_count for call in router.pool.calls} == {0}


async def test_an_event_that_takes_three_instances_down_is_poison(router: Router) -> None:
    router.add_trigger()
    router.pool.outcomes.extend([OUT_OF_MEMORY] * 3)

    assert await router.intake.deliver("src", make_event(), attempts=9) == Delivery(1, 0)
    assert router.queue.letters[0].reason == "Poison"


async def test_a_function_that_is_gone_is_a_dead_letter(router: Router) -> None:
    router.add_trigger()
    router.metadata.delete_function()

    assert await router.intake.deliver("src", make_event(), attempts=3) == Delivery(1, 0)
    assert router.queue.letters[0].reason == "FunctionDeleted"


async def test_a_dead_letter_that_cannot_be_stored_fails_the_delivery(router: Router) -> None:
    router.add_trigger()
    router.pool.outcomes.append(ERROR)
    router.queue.fail = StoreFailed("no space", full=True)

    with pytest.raises(ServiceUnavailable):
        await router.intake.deliver("src", make_event(), attempts=1)


async def test_cancelling_a_delivery_cancels_its_runs(router: Router) -> None:
    router.add_trigger("t1")
    router.add_trigger("t2")
    router.pool.outcomes.extend([None, None])
    delivering = asyncio.create_task(router.intake.deliver("src", make_event(), attempts=3))
    await router.pool.wait_calls(2)

    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering

    assert len(router.pool.cancelled) == 2
    assert router.queue.letters == []


async def test_a_partition_stays_on_one_side_of_a_canary(router: Router) -> None:
    router.add_trigger(qualifier="a")
    router.metadata.publish(1, make_function())
    router.metadata.publish(2, make_function(digest="d2"))
    router.metadata.set_alias("a", "1", {"2": 0.5})

    for number in range(40):
        await router.intake.deliver("src", make_event(key=f"p{number % 2}"), attempts=1)

    by_key = [{call.function.version for call in router.pool.calls[i::2]} for i in (0, 1)]
    assert [len(versions) for versions in by_key] == [1, 1]


async def test_what_waits_for_a_deleted_trigger_or_function_is_buried(router: Router) -> None:
    router.add_trigger()

    async with burying_deleted(router.metadata.as_store(), router.queue.as_store(), router.metrics):
        router.metadata.delete_trigger()
        router.metadata.delete_function()
        await router.queue.wait_until(lambda: len(router.queue.buried_for) == 2)

    assert router.queue.buried_for == [
        {"reason": "TriggerDeleted", "trigger_id": "id-t", "function": "", "incarnation": ""},
        {"reason": "FunctionDeleted", "trigger_id": "", "function": "f", "incarnation": "inc"},
    ]
    assert router.metrics.dead_letters == 2


async def test_a_function_that_lives_on_in_a_version_keeps_its_backlog(router: Router) -> None:
    router.metadata.publish(1, make_function())
    router.add_trigger()

    async with burying_deleted(router.metadata.as_store(), router.queue.as_store(), router.metrics):
        router.metadata.delete_function()
        router.metadata.delete_trigger()
        await router.queue.wait_until(lambda: len(router.queue.buried_for) == 1)

    assert router.queue.buried_for[0]["reason"] == "TriggerDeleted"


async def test_the_async_config_sets_the_age_of_direct_deliveries(router: Router) -> None:
    router.add_trigger()
    router.metadata.all_configs["s", "f", "LATEST"] = AsyncConfig(
        "s", "f", "LATEST", {"maxAsyncEventAgeInSeconds": 3}, "c", "m"
    )
    router.pool.outcomes.extend([NO_CAPACITY] * 50)

    assert await router.intake.deliver("src", make_event(), attempts=1) == Delivery(1, 0)
    assert router.queue.letters[0].reason == "Expired"


class Ends(list[Delivery | Exception]):
    """Starts deliveries and hears their ends."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router = router
        self.tasks: list[asyncio.Task[None]] = []
        self.heard = asyncio.Event()

    def start(self, attempts: int = 3) -> Run:
        return self.router.intake.deliver_nowait(
            "src", make_event(), attempts=attempts, on_end=self.hear, spawn=self.spawn
        )

    def hear(self, end: Delivery | Exception) -> None:
        self.append(end)
        self.heard.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    async def wait(self) -> Delivery | Exception:
        async with asyncio.timeout(10):
            await self.heard.wait()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        (end,) = self
        return end


async def test_a_delivery_by_callback_needs_no_task_while_all_goes_well(router: Router) -> None:
    router.add_trigger()
    ends = Ends(router)

    ends.start()

    assert ends == []  # never from within
    assert await ends.wait() == Delivery(1, 1)
    assert ends.tasks == []
    assert [record.trigger_name for record in router.records.all] == ["t"]


@pytest.mark.parametrize(
    ("triggers", "outcomes", "end"),
    [
        (2, [ERROR, ERROR, ERROR, ERROR, ERROR, ERROR], Delivery(2, 0)),
        (1, [ERROR, ERROR], Delivery(1, 1)),
        (1, [ERROR, ERROR, ERROR], Delivery(1, 0)),
        (1, [NO_CAPACITY, NO_CAPACITY], Delivery(1, 1)),
        (1, [OUT_OF_MEMORY, OUT_OF_MEMORY, OUT_OF_MEMORY], Delivery(1, 0)),
    ],
)
async def test_a_delivery_by_callback_ends_as_one_that_is_awaited(
    router: Router, triggers: int, outcomes: list[Outcome], end: Delivery
) -> None:
    for number in range(triggers):
        router.add_trigger(f"t{number}")
    router.pool.outcomes.extend(outcomes)
    ends = Ends(router)

    ends.start()

    assert await ends.wait() == end
    assert len(router.queue.letters) == end.matched - end.succeeded
    assert len({call.request_id for call in router.pool.calls}) == triggers


async def test_a_delivery_by_callback_to_a_function_that_is_gone_is_buried(router: Router) -> None:
    router.add_trigger()
    router.metadata.delete_function()
    ends = Ends(router)

    ends.start()

    assert await ends.wait() == Delivery(1, 0)
    assert router.queue.letters[0].reason == "FunctionDeleted"


async def test_a_dead_letter_that_cannot_be_stored_is_heard(router: Router) -> None:
    router.add_trigger()
    router.pool.outcomes.append(ERROR)
    router.queue.fail = StoreFailed("no space", full=True)
    ends = Ends(router)

    ends.start(attempts=1)

    assert isinstance(await ends.wait(), ServiceUnavailable)


async def test_a_cancelled_delivery_by_callback_is_not_heard_of(router: Router) -> None:
    router.add_trigger()
    router.pool.outcomes.extend([None, ERROR, None])
    ends = Ends(router)
    first, second = ends.start(), ends.start()
    await router.pool.wait_calls(3)  # the second one is at its second attempt

    first.cancel()
    second.cancel()
    await asyncio.gather(*ends.tasks, return_exceptions=True)
    first.cancel()

    assert len(router.pool.cancelled) == 2
    assert ends == []
    assert router.queue.letters == []

"""The queue on a real file."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from store_support import LONG_S, Maker, Opener

from eventd.config import QueueSettings, Settings
from eventd.metrics import Metrics
from eventd.model.invocation import DeadLetter
from eventd.store.interface import Progress, StoreFailed


async def test_what_was_put_comes_back_whole(opener: Opener, make: Maker) -> None:
    given = make(
        payload=b"\x00\xff",
        http=b"\x00GET\xfe",
        version=3,
        attempts=2,
        depth=4,
        trigger_id="t",
        trigger_name="n",
        ordering_key="schl\u00fcssel",
        traceparent="00-1",
    )
    async with opener() as store:
        assert await store.queue.put([given]) == [given]
        assert await store.queue.claim() == given
    async with opener() as store:
        assert await store.queue.claim() == given


async def test_a_claim_waits_until_something_is_put(opener: Opener, make: Maker) -> None:
    async with opener() as store:
        waiting = asyncio.create_task(store.queue.claim())
        await store.queue.load_cursor("a round trip")
        assert not waiting.done()
        given = make()
        await store.queue.put([given])
        assert await asyncio.wait_for(waiting, LONG_S) == given


async def test_a_cancelled_claim_takes_nothing(opener: Opener, make: Maker) -> None:
    async with opener() as store:
        waiting = asyncio.create_task(store.queue.claim())
        await asyncio.sleep(0)
        put = asyncio.create_task(store.queue.put([make()]))
        await asyncio.wait({put})
        waiting.cancel()  # it was handed the invocation, and did not run since
        await asyncio.gather(waiting, return_exceptions=True)
        if waiting.cancelled():
            assert store.queue.statistics().waiting == 1
            await asyncio.wait_for(store.queue.claim(), LONG_S)
        assert store.queue.statistics().claimed == 1


async def test_finished_ones_are_gone_after_a_restart(opener: Opener, make: Maker) -> None:
    first, second = make(), make()
    async with opener() as store:
        await store.queue.put([first, second])
        claimed = await store.queue.claim()
        await store.queue.finish(claimed.id)
    async with opener() as store:
        assert store.queue.statistics().waiting == 1
        assert await store.queue.claim() == second


async def test_finish_of_what_is_not_claimed_is_an_error(opener: Opener, make: Maker) -> None:
    given = make()
    async with opener() as store:
        await store.queue.put([given])
        with pytest.raises(KeyError):
            await store.queue.finish(given.id)
        assert await store.queue.claim() == given


async def test_functions_take_turns(opener: Opener, make: Maker) -> None:
    async with opener() as store:
        await store.queue.put([make(function="busy") for _ in range(50)])
        await store.queue.put([make(function="quiet")])
        names = [(await store.queue.claim()).function for _ in range(3)]
        assert "quiet" in names


async def test_a_lane_goes_on_after_its_head_ended(opener: Opener, make: Maker) -> None:
    first, second = make(ordering_key="k"), make(ordering_key="k")
    other = make(ordering_key="l")
    async with opener() as store:
        await store.queue.put([first, second, other])
        assert await store.queue.claim() == first
        assert await store.queue.claim() == other
        following = asyncio.create_task(store.queue.claim())
        await store.queue.load_cursor("a round trip")
        assert not following.done()
        await store.queue.finish(first.id)
        assert await asyncio.wait_for(following, LONG_S) == second


async def test_a_retried_head_keeps_its_lane(opener: Opener, make: Maker) -> None:
    first, second = make(ordering_key="k"), make(ordering_key="k")
    async with opener() as store:
        await store.queue.put([first, second])
        await store.queue.claim()
        again = replace(first, attempts=1, version=7, due_ms=int(time.time() * 1000) + 50)
        await store.queue.retry(again)
        assert await asyncio.wait_for(store.queue.claim(), LONG_S) == again
    async with opener() as store:
        assert await asyncio.wait_for(store.queue.claim(), LONG_S) == again
        assert store.queue.statistics().waiting == 1


async def test_a_retry_waits_for_its_time_and_survives(opener: Opener, make: Maker) -> None:
    given = make()
    async with opener() as store:
        await store.queue.put([given])
        await store.queue.claim()
        due_ms = int(time.time() * 1000) + 200
        again = replace(given, attempts=1, due_ms=due_ms)
        await store.queue.retry(again)
        assert store.queue.statistics().waiting == 1
    async with opener() as store:
        assert await asyncio.wait_for(store.queue.claim(), LONG_S) == again
        assert time.time() * 1000 >= due_ms - 1


async def test_release_makes_it_the_next_one(opener: Opener, make: Maker) -> None:
    first, second = make(), make()
    async with opener() as store:
        await store.queue.put([first, second])
        await store.queue.claim()
        store.queue.release(first.id)
        assert await store.queue.claim() == first


async def test_a_repeated_event_is_dropped_also_within_one_put(opener: Opener, make: Maker) -> None:
    event = {"trigger_id": "t", "event_source": "s", "event_id": "1"}
    first, repeat, other = make(**event), make(**event), make(**{**event, "trigger_id": "u"})
    async with opener() as store:
        assert await store.queue.put([first, repeat, other]) == [first, other]
    async with opener() as store:
        assert await store.queue.put([make(**event)]) == []
        assert store.queue.statistics().waiting == 2


async def test_events_without_id_are_never_repeats(opener: Opener, make: Maker) -> None:
    async with opener() as store:
        await store.queue.put([make(trigger_id="t"), make(trigger_id="t")])
        assert store.queue.statistics().waiting == 2


async def test_progress_is_stored_with_the_events(opener: Opener, make: Maker) -> None:
    async with opener() as store:
        await store.queue.put([make()], Progress("src", cursor="1", state={"a": "1", "b": "2"}))
        await store.queue.put([], Progress("src", state={"a": None, "c": "3"}))
        await store.queue.put([], Progress("other", cursor="9"))
    async with opener() as store:
        assert await store.queue.load_cursor("src") == "1"
        assert await store.queue.load_state("src") == {"b": "2", "c": "3"}
        await store.queue.forget_source("src")
        assert await store.queue.load_cursor("src") is None
        assert await store.queue.load_state("src") == {}
        assert await store.queue.load_cursor("other") == "9"


async def test_dead_letters_come_newest_first_and_keep_their_payload(
    opener: Opener, make: Maker
) -> None:
    queued = make(payload=b"q" * 200_000)
    direct = make(payload=b"d" * 200_000)
    async with opener() as store:
        await store.queue.put([queued])
        await store.queue.claim()
        await store.queue.bury(DeadLetter(queued, "RetriesExhausted", b"error", 5))
        await store.queue.bury(DeadLetter(direct, "Poison", b"", 6))
        assert store.queue.statistics().waiting == 0
    async with opener() as store:
        letters = await store.queue.dead_letters()
        assert store.queue.statistics().dead_letters == 2
    assert [letter.invocation for letter in letters] == [direct, queued]
    assert [letter.reason for letter in letters] == ["Poison", "RetriesExhausted"]
    assert letters[1].last_error == b"error"


async def test_a_large_payload_lies_in_a_file_until_it_is_finished(
    opener: Opener, make: Maker, data: Path
) -> None:
    given = make(payload=b"x" * 100_000)
    async with opener() as store:
        await store.queue.put([given])
        assert len(list((data / "payloads").iterdir())) == 1
    async with opener() as store:
        assert await store.queue.claim() == given
        await store.queue.finish(given.id)
    async with opener():
        assert list((data / "payloads").iterdir()) == []


async def test_a_payload_file_without_a_row_is_removed_at_start(opener: Opener, data: Path) -> None:
    async with opener():
        (data / "payloads" / "left-over").write_bytes(b"x")
    async with opener():
        assert list((data / "payloads").iterdir()) == []


async def test_what_waits_for_a_deleted_trigger_is_buried(opener: Opener, make: Maker) -> None:
    async with opener() as store:
        claimed = make(trigger_id="gone")
        await store.queue.put([claimed])
        await store.queue.claim()
        later = int(time.time() * 1000) + 1_000_000
        kept = make(trigger_id="kept", ordering_key="k")
        await store.queue.put(
            [
                make(trigger_id="gone", ordering_key="k"),
                kept,
                make(trigger_id="gone", ordering_key="k"),
                make(trigger_id="gone", due_ms=later),
                *(make(trigger_id="gone") for _ in range(2500)),
            ]
        )
        buried = await store.queue.bury_waiting(reason="TriggerDeleted", trigger_id="gone")
        assert buried == 2503
        assert store.queue.statistics().dead_letters == 2503
        assert store.queue.statistics().waiting == 1
        assert await asyncio.wait_for(store.queue.claim(), LONG_S) == kept
        await store.queue.finish(claimed.id)
        await store.queue.finish(kept.id)
    async with opener() as store:
        assert store.queue.statistics().waiting == 0
        assert (await store.queue.dead_letters(1))[0].reason == "TriggerDeleted"


async def test_only_the_named_function_and_incarnation_is_buried(
    opener: Opener, make: Maker
) -> None:
    async with opener() as store:
        await store.queue.put([make(), make(incarnation="two"), make(function="other")])
        buried = await store.queue.bury_waiting(
            reason="FunctionDeleted", function="orders", incarnation="one"
        )
        assert buried == 1
        assert store.queue.statistics().waiting == 2


async def test_producers_of_one_tick_share_a_commit(
    opener: Opener, make: Maker, metrics: Metrics
) -> None:
    async with opener() as store:
        await asyncio.gather(*(store.queue.put([make()]) for _ in range(64)))
        before = metrics.store_commits

        async def produce() -> None:
            for _ in range(10):
                await store.queue.put([make()])

        await asyncio.gather(*(produce() for _ in range(64)))
        commits = metrics.store_commits - before
        assert commits <= 40  # 640 puts, 10 rounds; other files commit, too
        assert store.queue.statistics().waiting == 704


async def test_a_cancelled_put_is_whole_or_absent(opener: Opener, make: Maker) -> None:
    async with opener() as store:
        for turns in range(12):
            given = [make(), make(), make()]
            before = store.queue.statistics().waiting
            put = asyncio.create_task(store.queue.put(given, Progress("src", cursor=str(turns))))
            for _ in range(turns):
                await asyncio.sleep(0)
            put.cancel()
            await asyncio.gather(put, return_exceptions=True)
            cursor = await store.queue.load_cursor("src")
            stored = store.queue.statistics().waiting - before
            assert stored in (0, 3)
            assert (cursor == str(turns)) == (stored == 3)


async def test_put_waits_while_too_much_is_on_its_way(opener: Opener, make: Maker) -> None:
    settings = Settings(queue=QueueSettings(max_waiting_put=10))
    async with opener(settings=settings) as store:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(store.queue.put([make() for _ in range(10)]))
        assert store.queue.statistics().waiting == 200


async def test_a_backlog_larger_than_memory_comes_in_order(opener: Opener, make: Maker) -> None:
    given = [make(payload=b"%d" % number) for number in range(3000)]
    async with opener() as store:
        for start in range(0, 3000, 500):
            await store.queue.put(given[start : start + 500])
        seen = []
        for _ in range(1500):
            invocation = await asyncio.wait_for(store.queue.claim(), LONG_S)
            seen.append(invocation)
            await store.queue.finish(invocation.id)
    async with opener() as store:
        assert store.queue.statistics().waiting == 1500
        seen += [await asyncio.wait_for(store.queue.claim(), LONG_S) for _ in range(1500)]
    assert seen == given


async def test_whoever_waits_for_a_claim_hears_of_the_close(opener: Opener) -> None:
    async with opener() as store:
        waiting = asyncio.create_task(store.queue.claim())
        await asyncio.sleep(0)
    with pytest.raises(StoreFailed):
        await waiting
    with pytest.raises(StoreFailed):
        await store.queue.load_cursor("closed")

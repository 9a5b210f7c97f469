"""How long event keys are remembered."""

from __future__ import annotations

from functools import partial

from store_support import Maker, Opener

from eventd.clock import Clock
from eventd.store.sqlite.seen import KEEP_MS, prune_seen


class StandingClock(Clock):
    ms = 10 * KEEP_MS

    def time_ms(self) -> int:
        return self.ms


async def test_a_key_is_forgotten_after_a_day(opener: Opener, make: Maker) -> None:
    clock = StandingClock()
    event = {"trigger_id": "t", "event_source": "s"}
    async with opener(clock=clock) as store:
        await store.queue.put([make(event_id="1", **event)])
        clock.ms += KEEP_MS - 1
        await store.queue.put([make(event_id="2", **event)])
        prune = partial(prune_seen, now_ms=clock.ms + 2)
        assert await store.queue._writer.call(prune) == 1
        assert len(await store.queue.put([make(event_id="1", **event)])) == 1
        assert await store.queue.put([make(event_id="2", **event)]) == []


async def test_beyond_a_number_per_trigger_the_oldest_are_forgotten(
    opener: Opener, make: Maker
) -> None:
    clock = StandingClock()
    async with opener(clock=clock) as store:
        for number in range(10):
            clock.ms += 1
            await store.queue.put([make(trigger_id="t", event_id=str(number))])
        await store.queue.put([make(trigger_id="u", event_id="0")])
        prune = partial(prune_seen, now_ms=clock.ms, keep_per_trigger=7)
        assert await store.queue._writer.call(prune) == 3
        again = [make(trigger_id="t", event_id=str(number)) for number in range(10)]
        assert await store.queue.put(again) == again[:3]
        assert await store.queue.put([make(trigger_id="u", event_id="0")]) == []

"""Who gets a slot, who waits, who is started and who has to go."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from pool_bench import Bench, wait_until

from eventd.config import PoolSettings
from eventd.pool.pool import Pool

GATED = """
import os, time
def handler(event, context):
    while not os.path.exists(event):
        time.sleep(0.005)
    return context.request_id
"""
PLAIN = "def handler(event, context): return context.request_id"


async def test_a_full_instance_makes_another_one(bench: Bench) -> None:
    function = bench.function(GATED, instance_concurrency=3)
    gate = bench.directory / "gate"

    calls = [bench.start(function, bytes(gate)) for _ in range(7)]
    await wait_until(lambda: bench.pool.statistics().running == 7)
    instances = bench.pool.instances()
    gate.touch()
    for call in calls:
        assert (await call.outcome()).succeeded

    assert sorted(instance.load for instance in instances) == [1, 3, 3]
    assert {instance.state for instance in instances} == {"busy"}


async def test_two_versions_never_share_an_instance(bench: Bench) -> None:
    one = bench.function(PLAIN, version=1)
    two = bench.function(PLAIN, version=2)

    first, second = await bench.run(one), await bench.run(two)

    assert first.instance_id != second.instance_id


class TestOneInstancePerFunction:
    @pytest.fixture
    def settings(self) -> PoolSettings:
        return PoolSettings(max_instances_per_function=1, max_waiting=5)

    async def test_calls_are_served_first_come_first_served(self, bench: Bench) -> None:
        function = bench.function(GATED)
        gate = bench.directory / "gate"
        order: list[str] = []
        calls = [bench.start(function, bytes(gate), request_id=f"r{n}") for n in range(5)]
        for call in calls:
            call.done.add_done_callback(lambda f: order.append(f.result().payload.decode()))

        gate.touch()
        for call in calls:
            await call.outcome()

        assert order == ["r0", "r1", "r2", "r3", "r4"]
        assert bench.pool.statistics().instances == 1

    async def test_a_call_that_waits_too_long_is_refused(self, bench: Bench) -> None:
        function = bench.function(GATED)
        gate = bench.directory / "gate"
        running = bench.start(function, bytes(gate))
        await wait_until(lambda: bench.pool.statistics().running == 1)

        began = time.monotonic()
        late = await bench.run(function, bytes(gate), queue_deadline_s=0.2)
        waited = time.monotonic() - began
        gate.touch()

        assert (late.system, late.error, late.status) == (True, "ResourceExhausted", 429)
        assert "0.2 seconds" in json.loads(late.payload)["ErrorMessage"]
        assert waited >= 0.2
        assert (await running.outcome()).succeeded

    async def test_the_queue_is_bounded(self, bench: Bench) -> None:
        function = bench.function(GATED)
        gate = bench.directory / "gate"

        calls = [bench.start(function, bytes(gate)) for _ in range(8)]
        refused = [await calls[n].outcome() for n in (5, 6, 7)]
        gate.touch()
        served = [await call.outcome() for call in calls[:5]]

        assert {outcome.error for outcome in refused} == {"ResourceExhausted"}
        assert all(outcome.succeeded for outcome in served)

    async def test_a_waiting_call_can_be_cancelled(self, bench: Bench) -> None:
        function = bench.function(GATED)
        gate = bench.directory / "gate"
        running = bench.start(function, bytes(gate))
        waiting = bench.start(function, bytes(gate))
        assert waiting.call is not None

        bench.pool.cancel(waiting.call)
        outcome = await waiting.outcome()
        gate.touch()

        assert outcome.error == "ClientClosedRequest"
        assert (await running.outcome()).succeeded
        assert bench.pool.statistics().waiting == 0


class TestTenInstancesInTotal:
    @pytest.fixture
    def settings(self) -> PoolSettings:
        return PoolSettings(max_instances=10)

    async def test_an_idle_instance_makes_room_for_another_function(self, bench: Bench) -> None:
        first = bench.function(GATED, "first")
        gate = bench.directory / "gate"
        calls = [bench.start(first, bytes(gate)) for _ in range(9)]
        await wait_until(lambda: bench.pool.statistics().running == 9)
        gate.touch()
        for call in calls:
            await call.outcome()

        outcome = await bench.run(bench.function(PLAIN, "second"))

        assert outcome.succeeded
        assert bench.pool.statistics().instances <= 9

    async def test_a_waiting_function_gets_the_first_instance_that_becomes_free(
        self, bench: Bench
    ) -> None:
        first = bench.function(GATED, "first")
        gate = bench.directory / "gate"
        calls = [bench.start(first, bytes(gate)) for _ in range(9)]
        await wait_until(lambda: bench.pool.statistics().running == 9)

        second = bench.start(bench.function(PLAIN, "second"))
        assert not second.done.done()
        gate.touch()

        assert (await second.outcome()).succeeded
        for call in calls:
            assert (await call.outcome()).succeeded

    async def test_a_tenth_is_kept_for_calls_made_by_functions(self, bench: Bench) -> None:
        outer = bench.function(GATED, "outer")
        inner = bench.function(PLAIN, "inner")
        gate = bench.directory / "gate"
        calls = [bench.start(outer, bytes(gate)) for _ in range(9)]
        await wait_until(lambda: bench.pool.statistics().running == 9)

        refused = await bench.run(inner, queue_deadline_s=0.3)
        nested = await bench.run(inner, depth=1)
        gate.touch()

        assert refused.error == "ResourceExhausted"
        assert nested.succeeded
        for call in calls:
            await call.outcome()


async def test_a_deep_chain_of_functions_is_refused(bench: Bench) -> None:
    function = bench.function(PLAIN)

    allowed = await bench.run(function, depth=16)
    refused = await bench.run(function, depth=17)

    assert allowed.succeeded
    assert (refused.error, refused.status) == ("RecursionDetected", 429)


class TestShortIdleTime:
    @pytest.fixture
    def settings(self) -> PoolSettings:
        return PoolSettings(idle_timeout_s=0.3)

    async def test_an_idle_instance_is_stopped(self, bench: Bench) -> None:
        await bench.run(bench.function(PLAIN))
        assert bench.pool.statistics().idle == 1

        await wait_until(lambda: bench.pool.statistics().instances == 0)

        assert bench.metrics.instances_ended == 1


async def test_retired_instances_end_after_their_calls(bench: Bench) -> None:
    old = bench.function(GATED, "echo", version=1)
    other = bench.function(PLAIN, "other")
    gate = bench.directory / "gate"
    running = bench.start(old, bytes(gate))
    await bench.run(other)
    await wait_until(lambda: bench.pool.statistics().running == 1)

    told = bench.pool.retire(incarnation="1", function="echo")
    again = bench.start(old, bytes(gate))
    gate.touch()
    first, second = await running.outcome(), await again.outcome()

    assert told == 1
    assert first.succeeded
    assert second.instance_id != first.instance_id
    assert bench.pool.retire(incarnation="1", keep={old.key, other.key}) == 0
    assert bench.pool.retire(incarnation="other") == 0


async def close(pool: Pool) -> None:
    await pool.__aexit__(None, None, None)


async def test_closing_the_pool_lets_calls_end(bench: Bench) -> None:
    function = bench.function(GATED)
    gate = bench.directory / "gate"
    running = bench.start(function, bytes(gate))
    await wait_until(lambda: bench.pool.statistics().running == 1)

    closing = asyncio.create_task(close(bench.pool))
    await asyncio.sleep(0)
    refused = await bench.run(function)
    gate.touch()
    outcome = await running.outcome()
    await closing

    assert outcome.succeeded
    assert (refused.system, refused.error, refused.status) == (True, "ServiceUnavailable", 503)
    assert bench.pool.statistics().instances == 0


async def test_closing_the_pool_kills_what_does_not_end(bench: Bench) -> None:
    function = bench.function(GATED)
    running = bench.start(function, b"/nowhere")
    await wait_until(lambda: bench.pool.statistics().running == 1)

    await asyncio.wait_for(close(bench.pool), 15)

    outcome = await running.outcome()
    assert (outcome.system, outcome.error, outcome.status) == (True, "InstanceLost", 502)


async def test_a_thousand_calls_of_three_functions_all_end(bench: Bench) -> None:
    functions = [
        bench.function(PLAIN, f"f{number}", instance_concurrency=1 + number) for number in range(3)
    ]

    calls = [
        bench.start(functions[n % 3], request_id=f"r{n}", queue_deadline_s=60.0)
        for n in range(1000)
    ]
    outcomes = [await call.outcome() for call in calls]

    assert [o.payload.decode() for o in outcomes] == [f"r{n}" for n in range(1000)]
    assert bench.pool.statistics().running == 0

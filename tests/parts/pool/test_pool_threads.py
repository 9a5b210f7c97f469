"""Sync handlers at concurrency above 1: who runs them changes, what callers see does not."""

from __future__ import annotations

import asyncio

import pytest
from pool_bench import Bench, wait_until

from eventd.pool.call import HttpHead

GATE = """
import os, threading, time
gate = threading.Event()
def handler(event, context):
    if event == b"stop":
        gate.wait(10)
        gate.clear()
    elif event == b"go":
        gate.set()
    elif event == b"nap":
        time.sleep(0.2)
    print(event.decode())
    return event + b" " + threading.current_thread().name.encode()
"""


async def test_a_quick_handler_runs_where_its_call_was_read(bench: Bench) -> None:
    function = bench.function(GATE, instance_concurrency=100)

    threads = {(await bench.run(function, b"quick")).payload for _ in range(20)}

    # on a busy machine some may have looked slow, and were handed over
    assert threads & {b"quick MainThread", b"quick eventd-reader"}


async def test_a_quick_handler_that_gets_stuck_holds_up_nobody(bench: Bench) -> None:
    function = bench.function(GATE, instance_concurrency=100)
    for _ in range(20):
        await bench.run(function, b"quick")

    for _ in range(3):  # whoever has become the reader may get stuck in turn
        stuck = bench.start(function, b"stop")
        others = [bench.start(function, b"quick") for _ in range(30)]
        for other in others:
            assert (await other.outcome()).payload.startswith(b"quick ")
        assert not stuck.done.done()
        await bench.run(function, b"go")
        assert (await stuck.outcome()).payload.startswith(b"stop ")
        assert len(bench.zygote.processes) == 1


async def test_answers_of_one_batch_do_not_wait_for_a_stuck_handler(bench: Bench) -> None:
    function = bench.function(GATE, instance_concurrency=100)
    await bench.run(function, b"quick")

    quick = [bench.start(function, b"quick") for _ in range(5)]  # one write, one read
    stuck = bench.start(function, b"stop")
    more = [bench.start(function, b"quick") for _ in range(5)]

    for each in quick + more:
        assert (await each.outcome()).succeeded
    assert not stuck.done.done()
    await bench.run(function, b"go")
    assert (await stuck.outcome()).succeeded


async def test_sleeping_handlers_sleep_side_by_side(bench: Bench) -> None:
    function = bench.function(GATE, instance_concurrency=100)
    await bench.run(function, b"quick")
    loop = asyncio.get_running_loop()

    began = loop.time()
    naps = [bench.start(function, b"nap") for _ in range(50)]
    for nap in naps:
        assert (await nap.outcome()).succeeded

    assert loop.time() - began < 5.0  # one after another: 10 s


async def test_lines_belong_to_their_request_whoever_runs_it(bench: Bench) -> None:
    function = bench.function(GATE, instance_concurrency=100)
    await bench.run(function, b"quick")
    words = [b"nap" if n % 7 == 0 else f"w{n}".encode() for n in range(60)]

    calls = [bench.start(function, word, request_id=f"r{n}") for n, word in enumerate(words)]
    for call in calls:
        assert (await call.outcome()).succeeded

    for n, word in enumerate(words):
        assert bench.lines.of(f"r{n}") == [word.decode()]


async def test_the_reader_itself_may_wait_for_credit(bench: Bench) -> None:
    function = bench.function(
        """
        def handler(environ, start_response):
            start_response("200 OK", [])
            if environ["PATH_INFO"] == "/big":
                return (b"x" * 65536 for _ in range(20))
            return [b"small"]
        """,
        instance_concurrency=100,
    )

    def get(path: str) -> HttpHead:
        return HttpHead("GET", path, path, "", [], "127.0.0.1")

    for _ in range(3):
        big = bench.start(function, http=get("/big"), hold=True)
        for _ in range(5):
            small = bench.start(function, http=get("/small"))
            assert (await small.outcome()).succeeded
            assert bytes(small.body) == b"small"
        assert not big.done.done()
        assert big.call is not None
        big.hold = False
        big.call.consumed(len(big.body))
        assert (await big.outcome()).succeeded
        assert len(big.body) == 20 * 65536


async def test_the_pre_stop_hook_runs_after_the_reader_has_changed(bench: Bench) -> None:
    function = bench.function(
        GATE + "\ndef last(context):\n    print('last words')\n",
        instance_concurrency=10,
        lifecycle={"preStop": {"handler": "index.last", "timeout": 5}},
    )
    await bench.run(function, b"quick")
    stuck = bench.start(function, b"stop")
    assert (await bench.run(function, b"quick")).succeeded
    await bench.run(function, b"go")
    assert (await stuck.outcome()).succeeded

    bench.pool.retire()

    await wait_until(lambda: "last words" in [line for _, line in bench.lines.lines])


@pytest.mark.parametrize("runtime", ["nodejs14", "java11", "custom"])
async def test_a_runtime_that_cannot_run_here_is_refused(bench: Bench, runtime: str) -> None:
    function = bench.function(GATE, runtime=runtime)

    outcome = await bench.run(function, b"quick")

    assert (outcome.system, outcome.error, outcome.status) == (True, "InvalidArgument", 400)
    assert f"runtime {runtime} can't run here yet".encode() in outcome.payload
    assert not bench.zygote.processes

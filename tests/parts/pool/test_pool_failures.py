"""What goes wrong in a handler is an error of its call, of nobody else."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from pool_bench import Bench, wait_until

from eventd.errors import ResourceThrottled
from eventd.model.invocation import ErrorType

EXITED = (
    r"Process exited unexpectedly before completing request "
    r"\(duration: \d+ms, maxMemoryUsage: \d+\.\d\dMB\)"
)


@pytest.mark.parametrize("concurrency", [1, 10])
@pytest.mark.parametrize(
    "crash",
    [
        "os._exit(3)",
        "ctypes.string_at(0)",
        "sys.exit(1)",
        "raise SystemExit",
    ],
)
async def test_a_process_that_ends_is_an_error_of_its_call(
    bench: Bench, crash: str, concurrency: int
) -> None:
    function = bench.function(
        f"""
        import ctypes, os, sys
        def handler(event, context):
            if event:
                {crash}
            return os.getpid()
        """,
        instance_concurrency=concurrency,
    )
    before = await bench.run(function)

    outcome = await bench.run(function, b"crash")
    after = await bench.run(function)

    assert outcome.error_type == ErrorType.UNHANDLED
    assert outcome.error == "FunctionExitError"
    assert re.fullmatch(EXITED, json.loads(outcome.payload)["errorMessage"])
    assert after.succeeded
    assert after.payload != before.payload


async def test_sys_exit_leaves_the_neighbours_alone(bench: Bench) -> None:
    function = bench.function(
        """
        import os, sys, time
        def handler(event, context):
            if event == b"exit":
                sys.exit(0)
            while not os.path.exists(event):
                time.sleep(0.01)
            return "done"
        """,
        instance_concurrency=10,
    )
    gate = bench.directory / "gate"
    neighbour = bench.start(function, bytes(gate))

    outcome = await bench.run(function, b"exit")
    gate.touch()

    assert re.fullmatch(EXITED, json.loads(outcome.payload)["errorMessage"])
    assert (await neighbour.outcome()).payload == b"done"
    await wait_until(lambda: bench.pool.statistics().instances == 0)


async def test_a_timeout_at_concurrency_one_kills_the_process(bench: Bench) -> None:
    function = bench.function(
        """
        import time
        def handler(event, context):
            while event:
                time.sleep(0.1)
        """,
        timeout_s=1,
    )

    outcome = await bench.run(function, b"hang")
    after = await bench.run(function)

    assert outcome.error == "FunctionTimeoutError"
    message = json.loads(outcome.payload)["errorMessage"]
    assert message == "Function timed out after 1 seconds (maxMemoryUsage: 20.00MB)"
    assert outcome.duration_ms == 1000
    assert after.succeeded
    assert after.instance_id != outcome.instance_id


async def test_a_timeout_above_concurrency_one_lets_the_others_end(bench: Bench) -> None:
    function = bench.function(
        """
        import os, time
        def handler(event, context):
            while not os.path.exists(event):
                time.sleep(0.01)
            return "done"
        """,
        timeout_s=2,
        instance_concurrency=10,
    )
    gate = bench.directory / "gate"
    stuck = bench.start(function, b"/nowhere")
    await wait_until(lambda: bench.pool.statistics().running == 1)
    await asyncio.sleep(1.0)  # so that the second call's own deadline is a second later
    other = bench.start(function, bytes(gate))

    late = await stuck.outcome()
    fresh = bench.start(function, bytes(gate))
    gate.touch()

    assert late.error == "FunctionTimeoutError"
    assert (await other.outcome()).payload == b"done"
    assert (await fresh.outcome()).instance_id != late.instance_id
    await wait_until(lambda: bench.pool.statistics().instances == 1)


async def test_a_failing_subprocess_has_its_own_return_code(bench: Bench) -> None:
    function = bench.function(
        """
        import subprocess
        def handler(event, context):
            return subprocess.run(["sh", "-c", "exit 7"]).returncode
        """
    )

    assert (await bench.run(function)).payload == b"7"


@pytest.mark.parametrize("concurrency", [1, 10])
@pytest.mark.parametrize("end", ["return 'child'", "raise ValueError('child')", "sys.exit(5)"])
async def test_a_forked_child_answers_nothing(bench: Bench, end: str, concurrency: int) -> None:
    function = bench.function(
        f"""
        import os, sys
        def handler(event, context):
            child = os.fork()
            if not child:
                {end}
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        """,
        instance_concurrency=concurrency,
    )

    outcomes = [await bench.run(function) for _ in range(2)]

    code = {"return 'child'": b"0", "sys.exit(5)": b"5"}.get(end, b"1")
    assert [outcome.payload for outcome in outcomes] == [code, code]
    assert bench.metrics.instance_protocol_errors == 0


async def test_an_initializer_that_fails_fails_the_call_and_the_instance(bench: Bench) -> None:
    function = bench.function(
        """
        import os
        def initializer(context):
            if not os.path.exists(os.environ["GATE"]):
                raise ValueError("not yet")
        def handler(event, context):
            return "done"
        """,
        initializer="index.initializer",
        environment={"GATE": str(bench.directory / "gate")},
    )

    outcome = await bench.run(function)
    (bench.directory / "gate").touch()
    after = await bench.run(function)

    assert json.loads(outcome.payload)["errorMessage"] == "not yet"
    assert outcome.error_type == ErrorType.UNHANDLED
    assert after.payload == b"done"


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_initializer_that_hangs_has_its_own_timeout(
    bench: Bench, concurrency: int
) -> None:
    function = bench.function(
        "import time\ndef initializer(context): time.sleep(60)\ndef handler(e, c): pass",
        initializer="index.initializer",
        initialization_timeout_s=1,
        instance_concurrency=concurrency,
    )

    outcomes = await asyncio.gather(*[bench.run(function) for _ in range(3)])

    for outcome in outcomes:
        message = json.loads(outcome.payload)["errorMessage"]
        assert message.startswith("Function initialization timed out after 1 seconds (max")
        assert outcome.error == "FunctionTimeoutError"


async def test_an_initializer_that_exits_is_an_error_of_the_call(bench: Bench) -> None:
    function = bench.function(
        "import os\ndef initializer(context): os._exit(1)\ndef handler(e, c): pass",
        initializer="index.initializer",
    )

    outcome = await bench.run(function)

    assert re.fullmatch(EXITED, json.loads(outcome.payload)["errorMessage"])


async def test_a_caller_who_leaves_at_concurrency_one_replaces_the_instance(bench: Bench) -> None:
    function = bench.function(
        "import time\ndef handler(event, context):\n    while event: time.sleep(0.1)"
    )
    first = await bench.run(function)
    hanging = bench.start(function, b"hang")
    assert hanging.call is not None

    bench.pool.cancel(hanging.call)
    outcome = await hanging.outcome()
    after = await bench.run(function)

    assert (outcome.error, outcome.status) == ("ClientClosedRequest", 499)
    assert after.instance_id != first.instance_id


@pytest.mark.parametrize("concurrency", [2, 5])
async def test_a_caller_who_leaves_an_async_handler_cancels_its_task(
    bench: Bench, concurrency: int
) -> None:
    function = bench.function(
        """
        import asyncio
        cancelled = 0
        async def handler(event, context):
            global cancelled
            print("running")
            try:
                await asyncio.sleep(60 if event else 0)
            except asyncio.CancelledError:
                cancelled += 1
                raise
            return cancelled
        """,
        instance_concurrency=concurrency,
    )
    first = await bench.run(function)
    hanging = bench.start(function, b"hang", request_id="hanging")
    assert hanging.call is not None
    await wait_until(lambda: bench.lines.of("hanging") == ["running"])
    bench.pool.cancel(hanging.call)
    await hanging.outcome()
    await wait_until(lambda: bench.pool.statistics().running == 0)

    after = await bench.run(function)

    assert (after.payload, after.instance_id) == (b"1", first.instance_id)


async def test_a_caller_who_leaves_a_stream_ends_the_generator(bench: Bench) -> None:
    from test_pool_calls import get

    function = bench.function(
        """
        import itertools
        def handler(environ, start_response):
            start_response("200 OK", [])
            if environ["PATH_INFO"] == "/endless":
                return (b"x" * 1000 for _ in itertools.count())
            return [b"done"]
        """,
        instance_concurrency=2,
    )
    endless = bench.start(function, http=get("/endless"), hold=True)
    await wait_until(lambda: len(endless.body) > 100_000)
    assert endless.call is not None

    bench.pool.cancel(endless.call)
    await wait_until(lambda: bench.pool.statistics().running == 0)
    after = bench.start(function, http=get("/"))
    await after.outcome()

    assert after.body == b"done"
    assert bench.metrics.instance_protocol_errors == 0


async def test_a_result_over_the_limit_is_an_error(bench: Bench) -> None:
    function = bench.function(
        "def handler(event, context): return b'x' * int(event)", instance_concurrency=2
    )

    outcome = await bench.run(function, b"40000000")
    after = await bench.run(function, b"1")

    assert (outcome.error, outcome.error_type) == ("BadResponse", ErrorType.UNHANDLED)
    assert after.payload == b"x"


async def test_a_machine_that_refuses_a_process_is_no_fault_of_the_function(bench: Bench) -> None:
    function = bench.function("def handler(event, context): return 1")
    bench.zygote.error = ResourceThrottled("no processes left")

    refused = await asyncio.gather(*[bench.run(function) for _ in range(3)])
    bench.zygote.error = None
    after = await bench.run(function)

    assert {(o.system, o.error, o.status) for o in refused} == {(True, "ResourceThrottled", 503)}
    assert after.succeeded


async def test_a_package_that_is_gone_is_no_fault_of_the_daemon(bench: Bench) -> None:
    function = bench.function("", code_digest="/nowhere")

    outcome = await bench.run(function)

    assert (outcome.system, outcome.error) == (True, "ServiceUnavailable")


async def test_an_instance_that_speaks_nonsense_is_ended(bench: Bench) -> None:
    function = bench.function(
        """
        import gc, os, sys
        def handler(event, context):
            if event:
                runtime = sys.modules["_eventd_runtime.serving"]
                server = next(o for o in gc.get_objects() if isinstance(o, runtime.Server))
                os.write(server.wire.fileno(), b"\\xff" * 100)
            return "done"
        """
    )

    outcome = await bench.run(function, b"nonsense")
    after = await bench.run(function)

    assert outcome.error == "FunctionExitError"
    assert bench.metrics.instance_protocol_errors == 1
    assert after.payload == b"done"


async def test_an_idle_instance_that_dies_is_replaced(bench: Bench) -> None:
    function = bench.function("def handler(event, context): return 1")
    await bench.run(function)

    bench.zygote.processes[0].kill()
    await wait_until(lambda: bench.pool.statistics().instances == 0)

    assert (await bench.run(function)).succeeded


async def test_an_instance_that_is_slow_to_go_takes_no_successor_along(bench: Bench) -> None:
    """The successors are still found for calls, and for the idle time-out."""
    function = bench.function(
        "import time\ndef handler(event, context):\n    while event: time.sleep(0.1)"
    )
    hanging = [bench.start(function, b"hang") for _ in range(2)]
    await wait_until(lambda: bench.pool.statistics().running == 2)
    slow = bench.zygote.processes[0]
    slow.held = asyncio.Event()
    for each in hanging:
        assert each.call is not None
        bench.pool.cancel(each.call)
        await each.outcome()
    await wait_until(lambda: bench.pool.statistics().instances == 1)
    fresh = await bench.run(function)

    slow.held.set()
    await wait_until(lambda: bench.pool.statistics().instances == 1)
    after = await bench.run(function)

    assert after.instance_id == fresh.instance_id
    assert bench.pool.statistics().idle == 1

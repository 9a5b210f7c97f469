"""Output reaches the request that wrote it."""

from __future__ import annotations

import asyncio
import re

import pytest
from pool_bench import Bench, wait_until

from eventd.config import PoolSettings

WRITERS = """
import asyncio, logging, os, subprocess, sys, threading
def work(event, context):
    kind, text = event.decode().split()
    if kind == "print":
        print(text, end="")
        print("-end")
    elif kind == "stderr":
        sys.stderr.write(text + "-end")
    elif kind == "buffer":
        sys.stdout.buffer.write(text.encode() + b"-end\\n")
    elif kind == "logging":
        logging.getLogger("x").info(text + "-end")
    elif kind == "logger":
        context.logger.warning("%s-end", text)
    elif kind == "subprocess":
        subprocess.run(["echo", text + "-end"])
    elif kind == "thread":
        thread = threading.Thread(target=print, args=(text + "-end",))
        thread.start()
        thread.join()
    elif kind == "fork":
        child = os.fork()
        if not child:
            print(text + "-end")
            os._exit(0)
        os.waitpid(child, 0)
    elif kind == "spawn":
        os.waitpid(os.posix_spawn("/bin/echo", ["echo", text + "-end"], os.environ), 0)
def handler(event, context):
    work(event, context)
async def coroutine(event, context):
    work(event, context)
    await asyncio.sleep(0)
"""
KINDS = [
    "print",
    "stderr",
    "buffer",
    "logging",
    "logger",
    "subprocess",
    "thread",
    "fork",
    "spawn",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("handler", "concurrency"), [("handler", 1), ("handler", 100), ("coroutine", 100)]
)
async def test_lines_of_many_at_once_have_the_right_request(
    bench: Bench, handler: str, concurrency: int, kind: str
) -> None:
    if kind == "fork" and handler == "coroutine":
        return  # a forked asyncio loop is the function's own trouble
    function = bench.function(WRITERS, handler=f"index.{handler}", instance_concurrency=concurrency)
    count = 100 if concurrency > 1 and kind not in ("subprocess", "fork", "spawn") else 12
    await bench.run(function, b"none none")

    names = [f"r{number}" for number in range(count)]
    if concurrency == 1:
        for name in names:
            await bench.run(function, f"{kind} {name}".encode(), request_id=name)
    else:
        calls = [bench.run(function, f"{kind} {n}".encode(), request_id=n) for n in names]
        assert all(outcome.succeeded for outcome in await asyncio.gather(*calls))

    # Every line came before its call's end: nothing to wait for.
    for name in names:
        (line,) = bench.lines.of(name)
        assert line.endswith(f"{name}-end")


async def test_a_logger_line_has_fc_s_form(bench: Bench) -> None:
    function = bench.function(
        """
        import logging
        def handler(event, context):
            logging.basicConfig(format="ignored", level=logging.DEBUG)
            logging.debug("hidden")
            context.logger.info("a %s", "b")
        """
    )

    await bench.run(function, request_id="r1")

    (line,) = bench.lines.of("r1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z r1 \[INFO\] a b", line)


async def test_a_raw_descriptor_belongs_to_the_only_running_request(bench: Bench) -> None:
    function = bench.function(
        """
        import os
        def handler(event, context):
            os.write(1, b"one\\ntwo\\n")
            os.write(2, b"three")
            os.system("echo four")
        """
    )

    await bench.run(function, request_id="r1")

    assert bench.lines.of("r1") == ["one", "two", "threefour"]


async def test_output_after_the_reply_keeps_its_request(bench: Bench) -> None:
    function = bench.function(
        """
        import os, threading, time
        def handler(event, context):
            threading.Thread(target=later, args=(event,), daemon=True).start()
        def later(gate):
            while not os.path.exists(gate):
                time.sleep(0.01)
            print("late")
        """
    )
    gate = bench.directory / "gate"
    await bench.run(function, bytes(gate), request_id="r1")

    gate.touch()

    await wait_until(lambda: bench.lines.of("r1") == ["late"])


async def test_lines_of_the_initializer_and_of_prestop_are_kept(bench: Bench) -> None:
    function = bench.function(
        """
        def initializer(context): print("initializing", context.function.handler)
        def handler(event, context): print("handling")
        def stop(context): print("stopping", context.function.handler)
        """,
        initializer="index.initializer",
        lifecycle={"preStop": {"handler": "index.stop", "timeout": 10}},
    )
    await bench.run(function, request_id="r1")

    bench.pool.retire()
    await wait_until(lambda: bench.pool.statistics().instances == 0)

    assert bench.lines.of("r1") == [
        "initializing index.handler",
        "handling",
        "stopping index.stop",
    ]


async def test_a_line_is_cut_at_32_kib(bench: Bench) -> None:
    function = bench.function("def handler(event, context): print('x' * 100_000)")

    await bench.run(function, request_id="r1")

    assert [len(line) for line in bench.lines.of("r1")] == [32768, 32768, 32768, 1696]


async def test_a_running_call_s_lines_come_while_it_runs(bench: Bench) -> None:
    function = bench.function(
        """
        import os, time
        def handler(event, context):
            print("waiting")
            while not os.path.exists(event):
                time.sleep(0.01)
        """
    )
    gate = bench.directory / "gate"
    heard = bench.start(function, bytes(gate), request_id="r1")

    await wait_until(lambda: bench.lines.of("r1") == ["waiting"])
    gate.touch()

    assert (await heard.outcome()).succeeded


class TestEndlessOutput:
    @pytest.fixture
    def settings(self) -> PoolSettings:
        return PoolSettings(max_log_bytes_s=100_000)

    @pytest.mark.parametrize(
        "line",
        ["print('y' * 99)", "os.write(1, b'y' * 99 + b'\\n')", "subprocess.run(['yes'])"],
    )
    async def test_endless_output_is_bounded_and_says_so(self, bench: Bench, line: str) -> None:
        function = bench.function(
            f"""
            import os, subprocess
            def handler(event, context):
                while True:
                    {line}
            """,
            timeout_s=3,
        )
        quiet = bench.function("def handler(event, context): return 1", "quiet")

        endless = bench.start(function)
        while not endless.done.done():
            assert (await bench.run(quiet)).succeeded
        outcome = await endless.outcome()

        assert outcome.error == "FunctionTimeoutError"
        assert bench.lines.bytes < 1_000_000
        assert any("bytes of output dropped" in text for _, text in bench.lines.lines)

    async def test_an_instance_that_ignores_the_limit_is_held_by_the_router(
        self, bench: Bench
    ) -> None:
        function = bench.function(
            """
            import sys
            def handler(event, context):
                logs = sys.stdout._logs
                logs._limiter.take = lambda size: True
                while True:
                    print("y" * 999)
            """,
            timeout_s=2,
        )

        outcome = await bench.run(function)

        assert outcome.error == "FunctionTimeoutError"
        assert bench.lines.bytes < 1_000_000
        assert bench.metrics.log_lines_dropped > 0


async def test_the_tail_has_fc_s_lines(bench: Bench) -> None:
    function = bench.function(
        "def initializer(context): print('init')\ndef handler(event, context): print('hello')",
        initializer="index.initializer",
    )

    cold = await bench.run(function, request_id="r1", want_tail=True)
    warm = await bench.run(function, request_id="r2", want_tail=True)

    end = (
        r"FC Invoke End RequestId: r\d\n\n"
        r"Duration: \d+\.\d\d ms, Billed Duration: \d+ ms, "
        r"Memory Size: 128 MB, Max Memory Used: 20\.00 MB"
    )
    assert re.fullmatch(
        r"FunctionCompute python3 runtime inited\.\nFC Initialize Start RequestId: r1\ninit\n"
        r"FC Initialize End RequestId: r1\nFC Invoke Start RequestId: r1\nhello\n" + end,
        cold.log_tail.decode(),
    )
    assert re.fullmatch(r"FC Invoke Start RequestId: r2\nhello\n" + end, warm.log_tail.decode())


async def test_the_tail_is_the_last_4_kib_and_tells_the_error(bench: Bench) -> None:
    function = bench.function(
        "def handler(event, context):\n    for n in range(5000): print(n)\n    raise ValueError"
    )

    outcome = await bench.run(function, want_tail=True)

    assert len(outcome.log_tail) == 4096
    assert b"\n4999\n" in outcome.log_tail
    assert b", Error: Unhandled function error\n\nDuration: " in outcome.log_tail

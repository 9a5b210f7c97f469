"""The pool on the real zygote: what only isolated instances can show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pool_bench import BOOTSTRAP, Bench, Directories, Lines

from eventd.clock import Clock
from eventd.config import PoolSettings
from eventd.metrics import Metrics
from eventd.model.invocation import ErrorType
from eventd.pool.pool import Pool
from eventd.pool.surroundings import Account
from eventd.pool.zygote import Zygote


@pytest.fixture
async def sandboxed(tmp_path: Path) -> AsyncIterator[Bench]:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)  # an instance is another user
    state, code = tmp_path / "state", tmp_path / "code"
    state.mkdir()
    code.mkdir()
    settings, lines, metrics = PoolSettings(), Lines(), Metrics()
    async with (
        Zygote(state_dir=state, bootstrap=BOOTSTRAP, settings=settings) as zygote,
        Pool(
            zygote,
            Directories(),
            settings,
            metrics,
            Clock(),
            lines,
            account=Account("1234567890", "cn-local"),
            drain_s=lambda: 2.0,
        ) as pool,
    ):
        yield Bench(pool, zygote, lines, metrics, code)


async def test_handlers_run_and_print_in_the_sandbox(sandboxed: Bench) -> None:
    function = sandboxed.function(
        """
        import os, subprocess
        def handler(event, context):
            print("hello")
            subprocess.run(["echo", "child"])
            return os.getcwd()
        """
    )

    outcome = await sandboxed.run(function, request_id="r1")

    assert outcome.succeeded
    assert Path(outcome.payload.decode()).name in ("code", Path(function.code_digest).name)
    assert sandboxed.lines.of("r1") == ["hello", "child"]


@pytest.mark.parametrize("concurrency", [1, 10])
async def test_memory_over_the_limit_is_an_error_with_the_peak(
    sandboxed: Bench, concurrency: int
) -> None:
    function = sandboxed.function(
        "def handler(event, context): return len(bytearray(int(event)))",
        instance_concurrency=concurrency,
    )

    outcome = await sandboxed.run(function, b"400000000")
    after = await sandboxed.run(function, b"7")

    message = json.loads(outcome.payload)["errorMessage"]
    assert (outcome.error, outcome.error_type) == ("FunctionOOMError", ErrorType.UNHANDLED)
    assert message.startswith("Process exited unexpectedly before completing request (duration: ")
    assert "128MB" in message
    assert outcome.memory_mb > 50
    assert after.payload == b"7"


async def test_a_crash_a_timeout_and_a_client_who_leaves_replace_the_instance(
    sandboxed: Bench,
) -> None:
    function = sandboxed.function(
        """
        import os, time
        def handler(event, context):
            if event == b"crash":
                os._exit(1)
            while event:
                time.sleep(0.05)
        """,
        timeout_s=1,
    )

    crash = await sandboxed.run(function, b"crash")
    late = await sandboxed.run(function, b"hang")
    left = sandboxed.start(function, b"hang")
    await asyncio.sleep(0)
    assert left.call is not None
    sandboxed.pool.cancel(left.call)
    gone = await left.outcome()
    after = await sandboxed.run(function)

    assert (crash.error, late.error) == ("FunctionExitError", "FunctionTimeoutError")
    assert gone.error == "ClientClosedRequest"
    assert after.succeeded

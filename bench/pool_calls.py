"""Small calls through the pool without a front, against the floor of a bare framed child.

``python bench/pool_calls.py [--seconds S] [--inflight N] [--loop uvloop|asyncio]`` prints, per kind
of handler: calls per second, CPU time per call in the router and in the instance, latency; then the
latency of small calls beside a reader at 1 KB/s in the same instance.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "parts" / "pool"))

from pool_bench import Bench, Directories, Heard, Lines, PlainZygote

from eventd.clock import Clock
from eventd.config import PoolSettings
from eventd.metrics import Metrics
from eventd.model.invocation import Outcome
from eventd.pool.call import Call, CallKind, HttpHead
from eventd.pool.pool import Pool
from eventd.pool.surroundings import Account

HEADERS = [("host", "127.0.0.1"), ("accept", "*/*")]
SYNC = "def handler(event, context): return b'hello'"
ASYNC = "async def handler(event, context): return b'hello'"
PRINT = "def handler(event, context):\n    print('one line')\n    return b'hello'"
WEB = """
def handler(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        start_response("200 OK", [])
        return (b"x" * 1024 for _ in range(100_000))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


class Repeat:
    """A receiver that submits the next call when one ends."""

    def __init__(self, bench: Bench, make: Any, until: float, done: asyncio.Event) -> None:
        self.bench, self.make, self.until, self.done = bench, make, until, done
        self.count = 0
        self.times: list[float] = []
        self.failed = 0

    def go(self) -> None:
        call = self.make(self)
        self.bench.pool.submit(call)
        self.call = call

    def on_head(self, status: int, headers: Any) -> None:
        pass

    def on_data(self, data: bytes) -> None:
        pass

    def on_end(self, outcome: Outcome) -> None:
        self.count += 1
        self.failed += not outcome.succeeded
        call = self.call
        self.times.append(call.ended_at - call.submitted_at)
        if call.ended_at < self.until:
            self.go()
        else:
            self.done.set()


Figures = tuple[float, float, float, float, float]


async def measure(bench: Bench, make: Any, seconds: float, inflight: int) -> Figures:
    router, child = time.process_time(), child_time(bench)
    until = time.monotonic() + seconds
    runs = [Repeat(bench, make, until, asyncio.Event()) for _ in range(inflight)]
    for run in runs:
        run.go()
    for run in runs:
        await run.done.wait()
    times = sorted(t for run in runs for t in run.times)
    assert not sum(run.failed for run in runs)
    count = len(times)
    router, child = time.process_time() - router, child_time(bench) - child
    return (
        count / seconds,
        router / count * 1e6,
        child / count * 1e6,
        times[count // 2] * 1e3,
        times[count * 99 // 100] * 1e3,
    )


def child_time(bench: Bench) -> float:
    """CPU seconds of all instances so far."""
    ticks = 0
    for process in bench.zygote.processes:
        if process.child.returncode is None:
            fields = Path(f"/proc/{process.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def show(name: str, figures: Figures) -> None:
    rate, router, child, p50, p99 = figures
    print(
        f"{name:34} {rate:9,.0f}/s  router {router:5.1f} us  instance {child:5.1f} us  "
        f"p50 {p50:.3f} ms  p99 {p99:.3f} ms",
        flush=True,
    )


def maker(function: Any, http: HttpHead | None = None) -> Any:
    kind = CallKind.EVENT if http is None else CallKind.HTTP
    rid = "0123456789abcdef0123456789abcdef0123"

    def make(receiver: Any) -> Call:
        return Call(kind, rid, function, "LATEST", b"", receiver, http)

    return make


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        zygote = PlainZygote()
        bench_pool = Pool(
            zygote,
            Directories(),
            PoolSettings(),
            Metrics(),
            Clock(),
            Lines(),
            account=Account("1", "cn-local"),
        )
        async with bench_pool:
            bench = Bench(bench_pool, zygote, Lines(), Metrics(), Path(directory))
            get = HttpHead(
                "GET", "/", "/", "", [("host", "127.0.0.1"), ("accept", "*/*")], "127.0.0.1"
            )
            for name, source, http, concurrency in (
                ("sync, one at a time per instance", SYNC, None, 1),
                ("sync, threads", SYNC, None, 100),
                ("async", ASYNC, None, 100),
                ("print", PRINT, None, 100),
                ("wsgi", WEB, get, 100),
            ):
                function = bench.function(
                    source, name.split(",")[0], instance_concurrency=concurrency
                )
                inflight = 1 if concurrency == 1 else options.inflight
                await measure(bench, maker(function, http), 0.5, inflight)
                show(name, await measure(bench, maker(function, http), options.seconds, inflight))
            await slow_reader(bench, function, get, options)


async def slow_reader(bench: Bench, function: Any, get: HttpHead, options: Any) -> None:
    slow = HttpHead("GET", "/slow", "/slow", "", [], "127.0.0.1")
    for name in ("alone", "beside a slow reader", "alone", "beside a slow reader"):
        heard: Heard | None = None
        if name != "alone":
            heard = bench.start(function, http=slow, hold=True)

            async def drip(heard: Heard) -> None:
                while True:
                    await asyncio.sleep(1)
                    assert heard.call is not None
                    heard.call.consumed(1024)

            task = asyncio.create_task(drip(heard))
        show(f"wsgi, {name}", await measure(bench, maker(function, get), options.seconds, 16))
        if heard is not None:
            task.cancel()
            print(f"  held for the slow reader: {len(heard.body):,} bytes")
            assert heard.call is not None
            bench.pool.cancel(heard.call)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--inflight", type=int, default=64)
    parser.add_argument("--loop", default="uvloop")
    arguments = parser.parse_args()
    if arguments.loop == "uvloop":
        import uvloop

        uvloop.run(main(arguments))
    else:
        asyncio.run(main(arguments))

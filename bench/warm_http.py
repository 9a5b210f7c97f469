"""Warm HTTP through a Python instance against bare aiohttp and functions-framework.

    python bench/warm_http.py [SECONDS=5] [ROUNDS=3]

64 keep-alive connections from one ``wrk`` thread on the same machine. ``signed + print`` stores
one log line and one record per call. Also the latency at one connection.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import lab

HERE = Path(__file__).parent
WSGI = """
def handler(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""
EVENT = "def handler(event, context):\n    return b'hello'\n"
PRINT = "def handler(event, context):\n    print('one line')\n    return b'hello'\n"
FRAMEWORK = "def hello(request):\n    return 'hello'\n"
POST = 'wrk.method = "POST"\n'


def targets(stack: ExitStack) -> dict[str, tuple[str, dict[str, str], bool]]:
    """Start every contestant; name -> (url, headers, POST)."""
    found: dict[str, tuple[str, dict[str, str], bool]] = {}
    port = lab.free_port()
    stack.enter_context(lab.process([lab.PYTHON, str(HERE / "aiohttp_hello.py"), str(port)]))
    lab.wait_port(port)
    found["bare aiohttp"] = (f"http://127.0.0.1:{port}/x", {}, False)

    daemon = stack.enter_context(lab.daemon())
    daemon.deploy("web", WSGI, instanceConcurrency=100)
    daemon.client().create_trigger(
        "bench", "web", "http", "http", {"authType": "anonymous", "methods": ["GET"]}, "", ""
    )
    daemon.deploy("event", EVENT, instanceConcurrency=100)
    daemon.deploy("line", PRINT, instanceConcurrency=100)
    found["eventd, anonymous HTTP trigger"] = (
        daemon.url + "/2016-08-15/proxy/bench/web/x",
        {},
        False,
    )
    for name, function in (("signed invocation", "event"), ("signed + one stored line", "line")):
        path = f"/2016-08-15/services/bench/functions/{function}/invocations"
        found[f"eventd, {name}"] = (daemon.url + path, lab.signature("POST", path), True)

    framework = Path(lab.PYTHON).parent / "functions-framework"
    if not framework.exists():
        return found  # `make bench` installs it
    port = lab.free_port()
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    (Path(folder) / "main.py").write_text(FRAMEWORK)
    command = [str(framework), "--target", "hello"]
    stack.enter_context(
        lab.process([*command, "--host", "127.0.0.1", "--port", str(port)], cwd=folder)
    )
    lab.wait_port(port)
    found["functions-framework"] = (f"http://127.0.0.1:{port}/x", {}, False)
    return found


def main(seconds: int, rounds: int) -> None:
    with ExitStack() as stack:
        script = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".lua"))
        script.write(POST)
        script.flush()
        names = targets(stack)
        full: dict[str, list[lab.Load]] = {name: [] for name in names}
        single: dict[str, list[lab.Load]] = {name: [] for name in names}
        for url, headers, post in names.values():
            lab.wrk(url, 1, 64, headers, script.name if post else None)  # warm
        for _ in range(rounds):
            for name, (url, headers, post) in names.items():
                lua = script.name if post else None
                full[name].append(lab.wrk(url, seconds, 64, headers, lua))
                single[name].append(lab.wrk(url, max(1, seconds // 2), 1, headers, lua))
    reference = full["bare aiohttp"]
    rows = []
    for name, runs in full.items():
        ratios = [run.rate / other.rate for run, other in zip(runs, reference, strict=True)]
        rows.append(
            (
                name,
                f"{lab.median([run.rate for run in runs]):,.0f}",
                f"{lab.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{lab.median([run.p50_ms for run in runs]):.2f}",
                f"{lab.median([run.p99_ms for run in runs]):.2f}",
                f"{lab.median([run.p50_ms for run in single[name]]):.3f}",
                f"{lab.median([run.p99_ms for run in single[name]]):.3f}",
                sum(run.bad for run in runs),
            )
        )
    print(f"### Warm HTTP, {rounds} interleaved rounds of {seconds} s\n")
    lab.table(
        (
            "target",
            "req/s",
            "ratio to aiohttp",
            "p50 ms",
            "p99 ms",
            "1 conn p50 ms",
            "1 conn p99 ms",
            "not 2xx",
        ),
        rows,
    )


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(*(arguments + [5, 3][len(arguments) :]))

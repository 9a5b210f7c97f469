"""First call of a function, through HTTP and isolation, against ``python -c pass``.

    python bench/cold_start.py [FUNCTIONS=100]

Each function is called once, so each call starts an instance. ``blank ready``: calls are spaced,
the zygote has refilled its blanks. ``burst``: one straight after another.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request

import lab

EVENT = "def handler(event, context):\n    return b'hello'\n"


def first_call(daemon: lab.Daemon, function: str) -> float:
    path = f"/2016-08-15/services/bench/functions/{function}/invocations"
    request = urllib.request.Request(
        daemon.url + path, data=b"", method="POST", headers=lab.signature("POST", path)
    )
    request.add_unredirected_header("Content-type", "")  # urllib's default would be signed over
    begin = time.perf_counter()
    with urllib.request.urlopen(request, timeout=30) as answer:
        body = answer.read()
    took = time.perf_counter() - begin
    if body != b"hello":
        raise RuntimeError(f"{function} answered {body!r}")
    return took * 1e3


def bare() -> float:
    begin = time.perf_counter()
    subprocess.run([lab.PYTHON, "-c", "pass"], check=True)
    return (time.perf_counter() - begin) * 1e3


def main(count: int) -> None:
    reference: list[float] = []
    spaced: list[float] = []
    burst: list[float] = []
    with lab.daemon(env={"EVENTD_POOL_MAX_INSTANCES": str(2 * count + 10)}) as daemon:
        for index in range(2 * count):
            daemon.deploy(f"f{index}", EVENT)
        for index in range(count):
            reference.append(bare())
            time.sleep(0.03)  # the refill of the blanks is not part of this row
            spaced.append(first_call(daemon, f"f{index}"))
        burst.extend(first_call(daemon, f"f{count + index}") for index in range(count))
        level = daemon.status().get("isolation", "?")
    base = lab.median(reference)
    print(f"### Cold start through HTTP, isolation `{level}`, n = {count}\n")
    lab.table(
        ("start", "p50 ms", "p99 ms", "p50 / python -c pass", "p99 / python -c pass"),
        [
            (
                name,
                f"{lab.median(values):.2f}",
                f"{lab.quantile(values, 0.99):.2f}",
                f"{lab.median(values) / base:.2f}",
                f"{lab.quantile(values, 0.99) / base:.2f}",
            )
            for name, values in (
                ("python -c pass", reference),
                ("eventd, blank ready", spaced),
                ("eventd, burst", burst),
            )
        ],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)

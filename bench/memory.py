"""PSS of an extra idle instance, isolated, and the idle daemon with 1,000 functions and triggers.

python bench/memory.py [INSTANCES=20]
"""

from __future__ import annotations

import concurrent.futures
import sys
import time
from pathlib import Path

import lab

SLEEPY = "import time\ndef handler(event, context):\n    time.sleep(0.5)\n    return b'x'\n"


def descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # it ended while we looked
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def total_pss(pid: int) -> float:
    return sum(lab.pss_mb(child) for child in descendants(pid))


def extra_instance(count: int) -> tuple[float, str]:
    with lab.daemon() as daemon:
        daemon.deploy("sleepy", SLEEPY)
        client = daemon.client()
        client.invoke_function("bench", "sleepy")
        before = total_pss(daemon.pid)
        one = len(daemon.status()["instances"])
        with concurrent.futures.ThreadPoolExecutor(count) as threads:
            list(
                threads.map(
                    lambda _: daemon.client().invoke_function("bench", "sleepy"), range(count)
                )
            )
        time.sleep(1.0)  # refilled blanks are part of both readings
        status = daemon.status()
        more = len(status["instances"]) - one
        return (total_pss(daemon.pid) - before) / more, status.get("isolation", "?")


def idle_daemon(functions: int = 1000) -> tuple[float, float]:
    """RSS in MB and share of one core, with that many functions and timer triggers."""
    with lab.daemon() as daemon:
        client = daemon.client()
        client.create_service("bench")
        code = lab.package(daemon.data.parent, SLEEPY)
        for index in range(functions):
            client.create_function(
                "bench", f"f{index}", "python3.10", "index.handler", codeZipFile=code
            )
            client.create_trigger(
                "bench",
                f"f{index}",
                "t",
                "timer",
                {"cronExpression": "0 0 3 1 1 *", "enable": True},
                "",
                "",
            )

        def ticks() -> int:
            fields = Path(f"/proc/{daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        time.sleep(3.0)  # let the last commits settle
        begin, start = ticks(), time.monotonic()
        time.sleep(10.0)
        share = (ticks() - begin) / 100 / (time.monotonic() - start)
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        rss = next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
        return rss / 1024, share


def main(count: int) -> None:
    pss, level = extra_instance(count)
    rss, share = idle_daemon()
    print("### Memory\n")
    lab.table(
        ("what", "figure"),
        [
            (f"PSS of an extra idle instance (`{level}`, {count} instances)", f"{pss:.2f} MB"),
            ("idle daemon, 1,000 functions and triggers, RSS", f"{rss:.0f} MB"),
            ("idle daemon, 1,000 functions and triggers, CPU", f"{share * 100:.2f} % of a core"),
        ],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)

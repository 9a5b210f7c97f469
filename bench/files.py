"""File closed -> handler running, beyond the settle time.

    python bench/files.py [SINGLES=50] [BURST=10000]

The function notes the wall clock when it runs, in its log; the writer notes when it closed the
file. Single files come one after another, the burst as fast as the disk takes it.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.parse
import urllib.request

import lab

SETTLE_MS = 50.0
OVERLAP_MS = 2000
"""Lines may be stored out of order by so much."""
SOURCE = """
import json, time
def handler(event, context):
    now = time.time()
    key = json.loads(event)["events"][0]["oss"]["object"]["key"]
    print("seen", key, repr(now))
"""


class Seen:
    """When each file's handler ran, from the stored log; asks only for what is new."""

    PAGE = 10_000

    def __init__(self, daemon: lab.Daemon) -> None:
        self.times: dict[str, float] = {}
        self.repeated = 0
        self._daemon = daemon
        self._since = 0
        self._lines: set[tuple[str, str]] = set()  # request and text

    def at_least(self, count: int) -> bool:
        self._read()
        return len(self.times) >= count

    def _read(self) -> None:
        wanted = {"service": "bench", "function": "seen", "text": "seen", "since": self._since}
        query = urllib.parse.urlencode({**wanted, "limit": self.PAGE})
        path = "/eventd/v1/logs"
        request = urllib.request.Request(
            f"{self._daemon.url}{path}?{query}", headers=lab.signature("GET", path)
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            lines = json.loads(answer.read())["lines"]
        if len(lines) == self.PAGE:
            raise RuntimeError("more came at once than a page of the log holds")
        for line in lines:
            words = line["text"].split()
            known = (line["requestId"], line["text"])
            self._since = max(self._since, line["timeMs"] - OVERLAP_MS)
            if len(words) == 3 and words[0] == "seen" and known not in self._lines:
                self._lines.add(known)
                self.repeated += words[1] in self.times
                self.times[words[1]] = float(words[2])


def main(singles: int, burst: int) -> None:
    with lab.daemon() as daemon:
        bucket = daemon.data / "buckets" / "in"
        bucket.mkdir(parents=True)
        daemon.deploy("seen", SOURCE, instanceConcurrency=100)
        account, region = lab.KEY["EVENTD_ACCOUNT_ID"], "cn-local"
        daemon.client().create_trigger(
            "bench",
            "seen",
            "files",
            "oss",
            {"events": ["oss:ObjectCreated:*"], "filter": {"key": {"prefix": "", "suffix": ""}}},
            f"acs:oss:{region}:{account}:in",
            "acs:ram::1:role/r",
        )
        time.sleep(1.0)  # the watch is in place
        closed: dict[str, float] = {}

        def write(name: str) -> None:
            (bucket / name).write_bytes(b"x" * 100)
            closed[name] = time.time()

        seen = Seen(daemon)
        cpu = lab.cpu_s(daemon.pid)
        for index in range(singles):
            write(f"s{index}")
            time.sleep(0.15)
        lab.wait_for(lambda: seen.at_least(singles), 60, "singles")
        single_cpu = lab.cpu_s(daemon.pid) - cpu
        began, cpu = time.time(), lab.cpu_s(daemon.pid)
        for index in range(burst):
            write(f"b{index}")
        writing_s = time.time() - began
        lab.wait_for(lambda: time.sleep(0.25) or seen.at_least(singles + burst), 180, "burst")
        burst_cpu = lab.cpu_s(daemon.pid) - cpu
    print(f"### File closed to handler running, beyond the settle time of {SETTLE_MS:.0f} ms\n")
    rows = []
    groups = (
        ("single", "s", single_cpu),
        (f"burst of {burst:,} written in {writing_s:.1f} s", "b", burst_cpu),
    )
    for name, first, used in groups:
        late = [
            (seen.times[key] - moment) * 1e3 - SETTLE_MS
            for key, moment in closed.items()
            if key[0] == first
        ]
        each = used / len(late) * 1e6
        p50, p99 = lab.median(late), lab.quantile(late, 0.99)
        rows.append((name, len(late), f"{p50:.1f}", f"{p99:.1f}", f"{each:.0f}"))
    lab.table(("files", "handled", "p50 ms", "p99 ms", "CPU of the router, us per file"), rows)
    print(f"{seen.repeated} files were handled twice.\n")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(*(arguments + [50, 10000][len(arguments) :]))

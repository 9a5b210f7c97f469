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
SOURCE = """
import json, time
def handler(event, context):
    now = time.time()
    key = json.loads(event)["events"][0]["oss"]["object"]["key"]
    print("seen", key, repr(now))
"""


def seen(daemon: lab.Daemon) -> dict[str, float]:
    """Key -> time at which its handler ran, from the stored log."""
    found: dict[str, float] = {}
    query = urllib.parse.urlencode(
        {"service": "bench", "function": "seen", "limit": 50000, "text": "seen"}
    )
    path = "/eventd/v1/logs"
    request = urllib.request.Request(
        f"{daemon.url}{path}?{query}", headers=lab.signature("GET", path)
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        lines = json.loads(answer.read())["lines"]
    for line in lines:
        words = line["text"].split()
        if len(words) == 3 and words[0] == "seen":
            found[words[1]] = float(words[2])
    return found


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

        for index in range(singles):
            write(f"s{index}")
            time.sleep(0.15)
        lab.wait_for(lambda: len(seen(daemon)) >= singles, 60, "singles")
        for index in range(burst):
            write(f"b{index}")
        lab.wait_for(lambda: len(seen(daemon)) >= singles + burst, 180, "burst")
        times = seen(daemon)
    print(f"### File closed to handler running, beyond the settle time of {SETTLE_MS:.0f} ms\n")
    rows = []
    for name, first in (("single", "s"), (f"burst of {burst:,}", "b")):
        late = [
            (times[key] - moment) * 1e3 - SETTLE_MS
            for key, moment in closed.items()
            if key[0] == first
        ]
        rows.append((name, len(late), f"{lab.median(late):.1f}", f"{lab.quantile(late, 0.99):.1f}"))
    lab.table(("files", "handled", "p50 ms", "p99 ms"), rows)


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(*(arguments + [50, 10000][len(arguments) :]))

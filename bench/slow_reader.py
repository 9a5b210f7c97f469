"""1,000 small calls beside a reader at 1 KB/s of a streamed answer, in one instance, through HTTP.

    python bench/slow_reader.py [ROUNDS=3] [CALLS=1000]

Prints p50 and p99 of the small calls alone and beside the slow reader, in turn, and what the
daemon's memory did meanwhile. The function would stream 100 MB if it were let.
"""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lab

SOURCE = """
import os
def handler(environ, start_response):
    start_response("200 OK", [("X-Pid", str(os.getpid()))])
    if environ["PATH_INFO"] == "/slow":
        return (b"x" * 16384 for _ in range(6400))
    return [b"small"]
"""
PATH = "/2016-08-15/proxy/bench/stream"


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} tells no memory")


def small_calls(port: int, count: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        connection.request("GET", PATH + "/small")
        answer = connection.getresponse()
        body = answer.read()
        times.append((time.perf_counter() - begin) * 1e3)
        if (answer.status, body) != (200, b"small"):
            raise RuntimeError(f"{answer.status} {body[:200]!r}")
    connection.close()
    return times


@contextmanager
def slow_reader(port: int, received: list[int]) -> Iterator[None]:
    """Reads 1 KB every second, with a receive window as small as the kernel lets it be."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.sendall(f"GET {PATH}/slow HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    stop = threading.Event()

    def drip() -> None:
        received.append(len(sock.recv(1024)))
        while not stop.wait(1.0):
            received.append(len(sock.recv(1024)))

    reader = threading.Thread(target=drip)
    reader.start()
    try:
        lab.wait_for(lambda: received, what="the first bytes of the stream")
        yield
    finally:
        stop.set()
        reader.join()
        sock.close()


def main(rounds: int, calls: int) -> None:
    rows: dict[str, list[list[float]]] = {"alone": [], "beside the slow reader": []}
    grown = []
    with lab.daemon() as daemon:
        port = int(daemon.url.rsplit(":", 1)[1])
        daemon.deploy("stream", SOURCE, instanceConcurrency=100, timeout=600)
        trigger = {"authType": "anonymous", "methods": ["GET"]}
        daemon.client().create_trigger("bench", "stream", "http", "http", trigger, "", "")
        small_calls(port, calls)
        for _ in range(rounds):
            rows["alone"].append(small_calls(port, calls))
            before = rss_mb(daemon.pid)
            received: list[int] = []
            with slow_reader(port, received):
                rows["beside the slow reader"].append(small_calls(port, calls))
                grown.append(rss_mb(daemon.pid) - before)
        instances = len(daemon.status()["instances"])
    p50 = {name: lab.median([lab.quantile(t, 0.5) for t in runs]) for name, runs in rows.items()}
    p99 = {name: [lab.quantile(times, 0.99) for times in runs] for name, runs in rows.items()}
    print(f"### {calls:,} small calls beside a reader at 1 KB/s, {instances} instance(s)\n")
    lab.table(
        ("small calls", "p50 ms", "p99 ms", "p99 ratio"),
        [
            (
                name,
                f"{p50[name]:.3f}",
                f"{lab.median(found):.3f}",
                f"{lab.median([a / b for a, b in zip(found, p99['alone'], strict=True)]):.2f}",
            )
            for name, found in p99.items()
        ],
    )
    print(f"The daemon's memory grew by at most {max(grown):.1f} MB.")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(*(arguments + [3, 1000][len(arguments) :]))

"""What every bench script shares: processes, the daemon under test, quantiles and tables.

Machines are shared and noisy: every script runs its contestants in turn, round by round, and
reports medians, spread and ratios paired by round. All traffic stays on loopback.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON = sys.executable
KEY = {
    "EVENTD_ACCESS_KEY_ID": "bench",
    "EVENTD_ACCESS_KEY_SECRET": "bench-secret",
    "EVENTD_ACCOUNT_ID": "1234567890123456",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    command: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in its own group, ended with SIGTERM, then SIGKILL, when the block is left."""
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            yield child
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read()[-3000:].decode(errors="replace"))
            raise
        finally:
            for how in (signal.SIGTERM, signal.SIGKILL):
                if child.poll() is None:
                    os.killpg(child.pid, how)
                    try:
                        child.wait(15)
                    except subprocess.TimeoutExpired:
                        continue


def wait_port(port: int, limit_s: float = 40.0) -> None:
    end = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            if time.monotonic() > end:
                raise TimeoutError(f"nothing listens on port {port}") from None
            time.sleep(0.02)
        else:
            return


def wait_for(condition: Callable[[], object], limit_s: float = 60.0, what: str = "") -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what or "the condition did not come true")
        time.sleep(0.005)


def package(folder: Path, source: str, name: str = "index.py") -> str:
    """A zip with one file in ``folder``; its path, as the SDK takes it."""
    path = folder / f"code-{zlib.crc32(source.encode()):08x}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, source)
    return str(path)


@dataclass(slots=True)
class Daemon:
    """A running daemon and a client for it."""

    url: str
    data: Path
    pid: int

    def client(self) -> Any:
        import fc2

        return fc2.Client(
            endpoint=self.url,
            accessKeyID=KEY["EVENTD_ACCESS_KEY_ID"],
            accessKeySecret=KEY["EVENTD_ACCESS_KEY_SECRET"],
            Timeout=60,
        )

    def deploy(self, name: str, source: str, **config: object) -> None:
        """Create function ``name`` of service ``bench`` (made when missing)."""
        client = self.client()
        if "bench" not in [s["serviceName"] for s in client.list_services().data["services"]]:
            client.create_service("bench")
        client.create_function(
            "bench",
            name,
            "python3.10",
            "index.handler",
            codeZipFile=package(self.data.parent, source),
            **config,
        )

    def status(self) -> dict[str, Any]:
        return json.loads(_signed_get(self, "/eventd/v1/status"))


def _signed_get(daemon: Daemon, path: str) -> bytes:
    request = urllib.request.Request(daemon.url + path, headers=signature("GET", path))
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def signature(method: str, path: str, *, proxy: bool = False) -> dict[str, str]:
    """Headers of a signed request (FC 2016-08-15, 1.2) without body headers and query."""
    import hashlib
    import hmac
    from email.utils import formatdate

    date = formatdate(usegmt=True)
    text = f"{method}\n\n\n{date}\n{path}" + ("\n" if proxy else "")
    mac = hmac.new(KEY["EVENTD_ACCESS_KEY_SECRET"].encode(), text.encode(), hashlib.sha256)
    key = KEY["EVENTD_ACCESS_KEY_ID"]
    return {
        "Date": date,
        "Authorization": f"FC {key}:{base64.b64encode(mac.digest()).decode()}",
    }


@contextmanager
def daemon(*flags: str, env: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """The daemon on a free port with a fresh data directory."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="eventd-bench-") as folder:
        data = os.path.join(folder, "data")
        command = [PYTHON, "-m", "eventd", "serve", "--data", data]
        command += ["--listen", f"127.0.0.1:{port}", *flags]
        with process(command, env={**KEY, **(env or {})}) as child:
            wait_port(port)
            yield Daemon(f"http://127.0.0.1:{port}", Path(data), child.pid)


@dataclass(frozen=True, slots=True)
class Load:
    """One run of the load generator."""

    rate: float
    p50_ms: float
    p99_ms: float
    bad: int


def wrk(
    url: str,
    seconds: int,
    connections: int = 64,
    headers: Mapping[str, str] | None = None,
    script: str | None = None,
) -> Load:
    """Load ``url`` for ``seconds``; needs Debian's ``wrk``."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "5s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    if script:
        command += ["-s", script]
    out = subprocess.run(
        [*command, url], capture_output=True, text=True, timeout=seconds + 30, check=True
    ).stdout
    bad = re.search(r"Non-2xx.*: (\d+)", out)
    return Load(
        float(_find(r"Requests/sec:\s+([\d.]+)", out)),
        _milliseconds(_find(r"\n\s+50%\s+(\S+)", out)),
        _milliseconds(_find(r"\n\s+99%\s+(\S+)", out)),
        int(bad[1]) if bad else 0,
    )


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the load generator printed no {pattern!r}:\n{text}")
    return found[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


def quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def pss_mb(pid: int) -> float:
    """Proportional set size of one process, MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(_find(r"Pss:\s+(\d+)", text)) / 1024


def cpu_s(pid: int) -> float:
    """Processor time of one process so far, user and system, s."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def machine() -> str:
    """One line that says where the figures come from."""
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return (
        f"{os.cpu_count()} cores ({model}), Linux {os.uname().release}, "
        f"Python {sys.version.split()[0]}, {time.strftime('%Y-%m-%d', time.gmtime())}"
    )

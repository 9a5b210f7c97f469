"""The checks of ``eventd doctor``; each looks at one ability of this machine."""

from __future__ import annotations

import asyncio
import importlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_WAL_RESET_FIXED = (3, 51, 3)
_INSTANCES_WANTED_FILES = 65536
_WATCHES_WANTED = 65536
_SYNCS = 20


class State(Enum):
    GOOD = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``advice`` says what to do for more, a line each, empty when all is
    well."""

    name: str
    state: State
    found: str
    advice: str = ""


def findings(data: Path) -> list[Finding]:
    """Run every check; takes about a second. ``data``: where the daemon would keep its files."""
    checks: list[Callable[[], Finding]] = [
        _system,
        _python,
        _isolation,
        _cgroups,
        _open_files,
        _inotify,
        _sqlite,
        lambda: _disk(data),
        lambda: _space(data),
        _kafka_codecs,
        _event_loop,
    ]
    return [check() for check in checks]


def _system() -> Finding:
    found = f"{platform.system()} {platform.release()}, {os.cpu_count()} processors"
    if platform.system() == "Linux":
        return Finding("system", State.GOOD, found)
    return Finding("system", State.MISSING, found, "eventd runs on Linux only")


def _python() -> Finding:
    """Which interpreters could run functions; today the daemon's own serves every python3 name."""
    found = [f"{platform.python_version()} ({sys.executable})"]
    for minor in range(9, 16):
        path = shutil.which(f"python3.{minor}")
        if path and minor != sys.version_info.minor and (version := _version_of(path)):
            found.append(f"{version} ({path})")
    others = f"; also here, not used yet: {', '.join(found[1:])}" if found[1:] else ""
    return Finding("runtime python3", State.GOOD, f"functions run on {found[0]}{others}")


def _version_of(python: str) -> str:
    """What the interpreter says of itself; empty when it does not run (a shim)."""
    try:
        done = subprocess.run(
            [python, "-c", "import platform; print(platform.python_version())"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _isolation() -> Finding:
    """The level that instances run at here."""
    try:
        sandbox = importlib.import_module("eventd.pool.sandbox.probe")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("eventd.pool.sandbox"):
            raise
        return Finding("isolation", State.MISSING, "this build brings no sandbox")
    try:
        report = asyncio.run(sandbox.probe())
    except (OSError, TimeoutError) as error:
        return Finding("isolation", State.MISSING, f"the probe failed: {error}")
    lacks = f", without {', '.join(report.lacks)}" if report.lacks else ""
    found = f"level {report.level} of 4, {report.name}{lacks}"
    if not report.safe:
        found += "; not for code of people who do not trust each other"
    state = State.GOOD if report.level == 1 else State.LIMITED if report.safe else State.MISSING
    return Finding("isolation", state, found, "\n".join(report.advice))


def _cgroups() -> Finding:
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").exists():
        if (root / "memory").is_dir() and os.access(root / "memory", os.W_OK):
            return Finding("cgroups", State.GOOD, "version 1, memory writable")
        return Finding(
            "cgroups",
            State.LIMITED,
            "none to write to",
            "memory limits are watched from outside instead; mount cgroup2 and run as root, or "
            "with Delegate=yes in the systemd unit",
        )
    controllers = (root / "cgroup.controllers").read_text().split()
    own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
    writable = os.access(root / own, os.W_OK) and "memory" in controllers
    if writable:
        return Finding("cgroups", State.GOOD, f"version 2, writable at /{own}")
    return Finding(
        "cgroups",
        State.LIMITED,
        f"version 2, /{own} not writable or no memory controller",
        "memory limits are watched from outside instead; use Delegate=yes in the systemd unit",
    )


def _open_files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = {resource.RLIM_INFINITY: "unlimited"}
    found = f"{words.get(soft, soft)}, at most {words.get(hard, hard)}"
    if hard == resource.RLIM_INFINITY or hard >= _INSTANCES_WANTED_FILES:
        return Finding("open files", State.GOOD, found)
    return Finding(
        "open files",
        State.LIMITED,
        found,
        f"ten thousand connections want more: LimitNOFILE={_INSTANCES_WANTED_FILES} in the unit",
    )


def _inotify() -> Finding:
    folder = Path("/proc/sys/fs/inotify")
    try:
        watches = int((folder / "max_user_watches").read_text())
        instances = int((folder / "max_user_instances").read_text())
    except (OSError, ValueError):
        return Finding(
            "file watches", State.MISSING, "no inotify", "buckets fall back to slow comparison"
        )
    found = f"{watches} directories, {instances} watchers"
    if watches >= _WATCHES_WANTED:
        return Finding("file watches", State.GOOD, found)
    return Finding(
        "file watches",
        State.LIMITED,
        found,
        f"for larger buckets: sysctl fs.inotify.max_user_watches={_WATCHES_WANTED}",
    )


def _sqlite() -> Finding:
    apsw = importlib.import_module("apsw")
    version = apsw.sqlite_lib_version()
    numbers = tuple(int(part) for part in version.split("."))
    if numbers >= _WAL_RESET_FIXED:
        return Finding("SQLite", State.GOOD, version)
    return Finding(
        "SQLite",
        State.MISSING,
        version,
        "older than 3.51.3, which may lose commits when the log is reset: pip install -U apsw",
    )


def _disk(data: Path) -> Finding:
    """Time of a synced append where the data live, since no acceptance is faster."""
    place = next(one for one in (data, *data.parents) if one.is_dir())
    times: list[float] = []
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".eventd-doctor-") as file:
            for _ in range(_SYNCS):
                began = time.perf_counter()
                os.write(file.fileno(), b"x" * 4096)
                os.fdatasync(file.fileno())
                times.append(time.perf_counter() - began)
    except OSError as error:
        return Finding(
            "disk sync", State.MISSING, f"{place}: {error.strerror}", "choose another --data"
        )
    median_ms = statistics.median(times) * 1000
    found = f"{median_ms:.2f} ms median, {max(times) * 1000:.2f} ms at most, in {place}"
    if median_ms <= 20:
        return Finding("disk sync", State.GOOD, found)
    return Finding(
        "disk sync", State.LIMITED, found, "each asynchronous call waits for one: use a faster disk"
    )


def _space(data: Path) -> Finding:
    place = next(one for one in (data, *data.parents) if one.is_dir())
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free in {place}"
    if free >= 2**30:
        return Finding("disk space", State.GOOD, found)
    return Finding("disk space", State.LIMITED, found, "less than 1 GiB is left")


def _kafka_codecs() -> Finding:
    codec = importlib.import_module("aiokafka.codec")
    names = ("gzip", "snappy", "lz4", "zstd")
    have = [name for name in names if getattr(codec, f"has_{name}")()]
    lack = [name for name in names if name not in have]
    found = f"client reads {', '.join(have)}"
    if not lack:
        return Finding("Kafka", State.GOOD, found)
    return Finding("Kafka", State.LIMITED, f"{found}; not {', '.join(lack)}", "pip install cramjam")


def _event_loop() -> Finding:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError as error:
        return Finding("event loop", State.LIMITED, f"asyncio ({error})", "pip install uvloop")
    return Finding("event loop", State.GOOD, f"uvloop {uvloop.__version__}")

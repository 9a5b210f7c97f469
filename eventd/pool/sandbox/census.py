"""Which processes are there: by parent, by memory, by mark. Reads ``/proc``; never blocks long."""

from __future__ import annotations

import os
import resource
import signal
import time

MARKS = 1 << 20
"""How many marks a launcher has: the last is its own, the others its instances'."""

_RLIMIT_RTTIME = 15  # missing in `resource`
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""  # it ended meanwhile


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` after the name: state, parent…; empty if it is gone."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def start_time(pid: int) -> str:
    """When it started, in ticks since boot; with the pid a process's identity. Empty if gone."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id").strip()


def below(roots: list[int]) -> dict[int, list[int]]:
    """For each root its living descendants, itself included."""
    parents = {}
    for pid in pids():
        fields = _stat(pid)
        if len(fields) > 1 and fields[0] not in "ZX":
            parents[pid] = int(fields[1])
    found: dict[int, list[int]] = {pid: [] for pid in roots}
    for pid in parents:
        at = pid
        while at not in found and at in parents:
            at = parents[at]
        if at in found:
            found[at].append(pid)
    return found


def private_bytes(pid: int) -> int:
    """Resident memory that is not of a file."""
    fields = _read(f"/proc/{pid}/statm").split()
    return (int(fields[1]) - int(fields[2])) * _PAGE if len(fields) > 2 else 0


def set_mark(mark: int) -> None:
    """Mark this process and all that it will start.

    The mark is a limit for real-time tasks, too high to matter: children inherit it, ``/proc``
    shows it, and without privilege it can only be lowered.
    """
    resource.setrlimit(_RLIMIT_RTTIME, (mark, mark))


def new_marks() -> int:
    """The first of ``MARKS`` marks that no other launcher has."""
    return (1 << 40) + int.from_bytes(os.urandom(4), "little") * MARKS


def marked(first: int, count: int = 1) -> list[int]:
    """Living processes whose mark is in ``[first, first + count)``."""
    found = []
    for pid in pids():
        for line in _read(f"/proc/{pid}/limits").splitlines():
            if line.startswith("Max realtime timeout"):
                word = line.split()[3]
                if word.isdigit() and first <= int(word) < first + count and start_time(pid):
                    found.append(pid)
                break
    return found


def kill_marked(first: int, count: int = 1, *, limit_s: float = 5.0) -> bool:
    """SIGKILL all marked processes until none is left; ``False`` if some still are."""
    deadline = time.monotonic() + limit_s
    while found := marked(first, count):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # gone meanwhile
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True

"""The fence: before new instances start, everything of an older epoch is killed and gone.

What would be needed for that is on disk before the first instance runs: the marks of the launcher
and its control groups. Kill -9 of the daemon at any line leaves nothing that a new one misses.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path

from eventd.pool.sandbox import census, cgroups

_LIMIT_S = 10.0


class FenceError(Exception):
    """Processes of an older epoch could not be ended, or another daemon runs on this directory."""


class Fence:
    """The fence of one state directory. All methods block; call them in a thread."""

    def __init__(self, state_dir: Path) -> None:
        self._dir = state_dir
        self._record = state_dir / "epoch.json"
        self._lock = -1
        digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()
        self.name = f"eventd-{digest[:12]}"
        """Name of the control groups: two daemons on one machine don't share them."""

    def lock(self) -> None:
        """Own the state directory until ``unlock``, or until this process ends."""
        self._dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise FenceError(f"{self._dir} belongs to another running eventd") from None
        self._lock = lock

    def unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def clear(self) -> None:
        """Kill what older epochs left and wait until it is gone; ``FenceError`` after 10 s."""
        try:
            old = json.loads(self._record.read_text(encoding="ascii"))
            boot, mark, groups = old["boot"], int(old["mark"]), list(old["groups"])
        except FileNotFoundError:
            boot, mark, groups = "", 0, []
        except (ValueError, KeyError, TypeError) as error:
            raise FenceError(
                f"{self._record} is damaged ({error}), so old instances can't be found: restart "
                "the machine or end them by hand, then remove this file"
            ) from error
        if boot == census.boot_id():
            for group in groups:
                if not cgroups.clear(group, limit_s=_LIMIT_S):
                    raise FenceError(f"processes in {group} resist SIGKILL")
            if not census.kill_marked(mark, census.MARKS, limit_s=_LIMIT_S):
                raise FenceError("instances of an earlier eventd resist SIGKILL")
        for directory in self._dir.glob("run-*"):
            shutil.rmtree(directory)

    def raise_epoch(self, mark: int, groups: list[str]) -> Path:
        """Record a new epoch on disk, after ``clear``; gives the launcher's own directory."""
        content = {"boot": census.boot_id(), "mark": mark, "groups": groups}
        fresh = self._record.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps(content).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(fresh, self._record)
        directory = os.open(self._dir, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        run_dir = self._dir / f"run-{mark:x}"
        run_dir.mkdir(mode=0o711)
        return run_dir

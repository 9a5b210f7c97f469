"""One look after another at a bucket: which paths to examine, and what each turns out to be.

Runs in worker threads, one step at a time; nothing here waits or emits.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from eventd.plugin import SourceReport
from triggers.oss.events import Change
from triggers.oss.lease import Writer, look
from triggers.oss.settling import Settling
from triggers.oss.snapshot import Snapshot, signature
from triggers.oss.tree import Difference, Tree

BATCH = 1000
"""The most changes of one step."""
WALK_BUDGET_S = 0.05
"""How long the first comparison may go on in one step."""
WALK_PAUSE_S = 0.02
"""Pause after each slice of a later comparison."""
COST_RATIO = 100
"""A comparison waits at least this many times as long as the one before it took."""
HELD_S = 1.0
"""When to ask again about a file that a writer has open; its closing is told at once."""


class DirectoryOptions(BaseModel):
    """``[triggers.oss]`` of ``eventd.toml``.

    Attributes:
        settle_ms: how long nobody may have touched a file before it becomes an event.
        stable_ms: the same where the kernel cannot tell whether it is still being written.
        compare_s: pause between two comparisons of the whole bucket with the snapshot.
        blind_compare_s: the same while the kernel does not tell about changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settle_ms: int = Field(default=50, ge=1, le=60_000)
    stable_ms: int = Field(default=2000, ge=1, le=600_000)
    compare_s: float = Field(default=30.0, gt=0)
    blind_compare_s: float = Field(default=1.0, gt=0)


@dataclass(slots=True)
class Known:
    """What the source remembers of its bucket.

    Attributes:
        before_ns: files older than this (ctime) were there before the first trigger and are no
            news; 0 once they all have their row.
    """

    snapshot: Snapshot
    before_ns: int


@dataclass(slots=True)
class Step:
    """What one look brought.

    Attributes:
        changes: to be told.
        silent: rows of objects that are no news.
        complete: the bucket has been compared whole at least once.
        wait_s: nothing is to be done for so long, unless there are notices.
    """

    changes: list[Change] = field(default_factory=list)
    silent: list[Change] = field(default_factory=list)
    complete: bool = False
    wait_s: float = 0.0


class Watch:
    """Looks at one bucket while its directory stays where it is."""

    def __init__(
        self, tree: Tree, known: Known, options: DirectoryOptions, *, leases: bool
    ) -> None:
        self._tree = tree
        self._known = known
        self._options = options
        self._settle_s = options.settle_ms / 1000
        self._stable_s = options.stable_ms / 1000
        self._leases = leases
        self._settling = Settling()
        self._seen: dict[str, str] = {}  # where the kernel cannot tell: what was seen last time
        self._walk: Generator[list[Difference], None, None] | None = tree.differences(
            known.snapshot
        )
        self._urgent = True
        self._complete = False
        self._walk_cost_s = 0.0
        self._next_walk = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_walk()

    def report(self) -> SourceReport:
        """Plain numbers; any thread."""
        text = f"{len(self._known.snapshot)} objects, watching {self._tree.watched} directories"
        if self._tree.blind:
            text += (
                "; the kernel gives no more watches (fs.inotify.max_user_watches or "
                f"max_user_instances): looking every {self._options.blind_compare_s:g} s"
            )
        unreadable = self._tree.unreadable
        if unreadable:
            text += f"; {len(unreadable)} not readable, such as {min(unreadable)!r}"
        return SourceReport(text=text, lag=len(self._settling), healthy=not unreadable)

    def step(self, notices: Sequence[tuple[float, bytes]]) -> Step:
        """Take in notices, go on with a comparison, examine what is due.

        ``OSError``: the bucket went away or may not be read; what was found before it is found
        again by the next ``Watch``.
        """
        for moment, data in notices:
            hints = self._tree.hints(data, self._known.snapshot)
            for path in hints.paths:
                self._settling.hint(path, moment + self._settle_s)
            for directory in hints.directories:
                self._list_new(directory)
        step = Step()
        self._compare(step)
        self._examine_due(step)
        step.complete = self._complete
        step.wait_s = self._wait_s()
        return step

    def _list_new(self, directory: str) -> None:
        for differences in self._tree.differences(self._known.snapshot, directory):
            self._hint(differences)

    def _hint(self, differences: list[Difference]) -> None:
        due = time.monotonic() + self._settle_s
        for difference in differences:
            self._settling.hint(difference.path, due)

    # Comparison of the whole bucket.

    def _end_walk(self) -> None:
        if self._walk is not None:
            self._walk.close()
            self._walk = None

    def _compare(self, step: Step) -> None:
        started = time.monotonic()
        if self._walk is None:
            if started < self._next_walk:
                return
            self._walk = self._tree.differences(self._known.snapshot)
            self._walk_cost_s = 0.0
            self._urgent = False
        elif not self._urgent and started < self._next_walk:
            return
        assert self._walk is not None
        while len(step.silent) < BATCH:
            differences = next(self._walk, None)
            if differences is None:
                self._walk_done(started)
                return
            self._judge(differences, step)
            if not self._urgent or time.monotonic() - started > WALK_BUDGET_S:
                break
        now = time.monotonic()
        self._walk_cost_s += now - started
        self._next_walk = now + WALK_PAUSE_S

    def _walk_done(self, started: float) -> None:
        now = time.monotonic()
        cost = self._walk_cost_s + now - started
        self._walk = None
        self._complete = True
        pause = self._options.blind_compare_s if self._tree.blind else self._options.compare_s
        ratio = COST_RATIO // 10 if self._tree.blind else COST_RATIO
        self._next_walk = now + max(pause, ratio * cost)

    def _judge(self, differences: list[Difference], step: Step) -> None:
        """Before the first comparison is complete, old files that are not known are no news."""
        if not self._known.before_ns:
            self._hint(differences)
            return
        for difference in differences:
            status = difference.status
            if status is not None and status.st_ctime_ns < self._known.before_ns:
                step.silent.append(Change(difference.path, "", signature(status)))
            else:
                self._hint([difference])

    # Single paths.

    def _examine_due(self, step: Step) -> None:
        if self._known.before_ns and not self._complete:
            return  # first everything old gets its row
        paths = self._settling.take_due(time.monotonic(), BATCH)
        for path in paths:
            change = self._examine(path)
            if change is not None:
                step.changes.append(change)
        if any(not change.new for change in step.changes):
            self._tree.check_root()  # else all of it went away, and nothing was removed
            step.changes.sort(key=lambda change: bool(change.new))  # renamed: removed, created

    def _examine(self, path: str) -> Change | None:
        """What happened to a path; ``None``: nothing, or it is not settled and comes again."""
        old = self._known.snapshot.get(path)
        full = self._tree.full(path)
        try:
            status = os.lstat(full)
            if stat.S_ISDIR(status.st_mode):
                self._list_new(path)
            if not stat.S_ISREG(status.st_mode):
                return Change(path, old, "") if old else None
            if old and signature(status) == old:
                return None
            status, settled = self._settled(path, full, status)
        except (FileNotFoundError, NotADirectoryError):
            return Change(path, old, "") if old else None
        except OSError:
            return None  # its directory may not be searched: reported with the directory
        new = signature(status)
        return Change(path, old, new) if settled and new != old else None

    def _settled(self, path: str, full: str, status: os.stat_result) -> tuple[os.stat_result, bool]:
        """The state, and whether it stays; if not, it is looked at again later."""
        writer = Writer.UNKNOWN
        if self._leases:
            try:
                status, writer = look(full)
            except PermissionError:
                pass  # not ours to open: told by staying the same
        now = time.monotonic()
        if writer is Writer.SOMEBODY:
            self._settling.hint(path, now + HELD_S)
            return status, False
        if writer is Writer.NONE:
            left = self._settle_s - (time.time_ns() - status.st_ctime_ns) / 1e9
            if 0 < left <= self._settle_s:
                self._settling.hint(path, now + left)
                return status, False
            return status, True
        state = signature(status)
        if self._seen.pop(path, "") == state:
            return status, True
        self._seen[path] = state
        self._settling.hint(path, now + self._stable_s)
        return status, False

    def _wait_s(self) -> float:
        if self._walk is not None and self._urgent:
            return 0.0
        due = self._settling.next_due()
        next_ = self._next_walk if due is None else min(due, self._next_walk)
        return max(0.0, next_ - time.monotonic())

"""One look after another at a bucket: which paths to examine, and what each turns out to be.

Runs in worker threads, one step at a time; nothing here waits or emits.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from eventd.plugin import SourceReport
from triggers.notices import STEP_MS, FileChange
from triggers.oss.events import Change
from triggers.oss.lease import Writer, look
from triggers.oss.settling import Settling
from triggers.oss.snapshot import Snapshot, signature
from triggers.oss.tree import Difference, Identity, Tree

BATCH = 1000
"""The most changes of one step."""
COALESCE_S = 0.005
"""What is due within this is taken together."""
WALK_BUDGET_S = 0.05
"""How long the first comparison may go on in one step."""
WALK_PAUSE_S = 0.02
"""Pause after each slice of a later comparison."""
COST_RATIO = 100
"""A comparison waits at least this many times as long as the one before it took."""
COST_RATIO_BLIND = 10
"""The same while there are no notices."""
AFTER_NOTICES_S = (1.0, 5.0)
"""Notices may be lost: so long after the last, and at most after the first, the next comparison
comes, if it costs little."""
HELD_S = (0.05, 0.25)
"""When to ask again whether a writer has closed a file: at first, and at last."""
HELD_EACH_S = 0.0005
"""The same for each file that is held, so that many of them cost no more than a few."""
NOTICE_S = 2 * STEP_MS / 1000
"""How long a notice may have been on its way."""
AGAIN = (1.0, 5.0, 20.0)
"""When a new directory is listed again, in settle times: it may not have been watched yet."""


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
        identity: of the directory that the snapshot is about; ``None`` before it was compared.
    """

    snapshot: Snapshot
    before_ns: int
    identity: Identity | None = None


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
        self._again = Settling()  # directories
        self._files: set[str] = set()  # of those that settle: known to be regular files
        self._held: dict[str, float] = {}  # what a writer has open, and the pause (s) of asking
        self._seen: dict[str, tuple[str, float]] = {}  # unsure of a writer: what stays, since when
        self._walk: Generator[list[Difference], None, None] | None = None
        self._urgent = True
        self._complete = False
        self._full = False  # there may be more that is due
        self._walked = 0.0  # when the comparison ended, or its last slice
        self._walk_cost_s = 0.0
        self._first_notice = 0.0  # since the comparison began; 0 = there was none
        self._last_notice = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_walk()

    def report(self) -> SourceReport:
        """Plain numbers; any thread."""
        tree = self._tree
        objects, directories = len(self._known.snapshot), len(tree.directories)
        text = (
            f"{objects} object{'s' if objects != 1 else ''} in "
            f"{directories} {'directories' if directories != 1 else 'directory'}"
        )
        if tree.blind:
            text += (
                f"; not watched ({tree.fault or f'{tree.unwatched} directories'}; perhaps raise "
                "fs.inotify.max_user_watches or max_user_instances): "
                f"looking every {self._options.blind_compare_s:g} s"
            )
        if tree.unreadable:
            text += f"; {len(tree.unreadable)} not readable, such as {min(tree.unreadable)!r}"
        return SourceReport(text=text, lag=len(self._settling), healthy=not tree.unreadable)

    def step(self, changes: Collection[FileChange], *, lost: bool) -> Step:
        """Take in notices, go on with a comparison, examine what is due. ``lost``: some notices
        are missing, so compare everything soon.

        ``OSError``: the bucket went away or may not be read, or has to be watched otherwise; what
        was found before it is found again by the next ``Watch``.
        """
        hints = self._tree.hints(changes, self._known.snapshot)
        self._notice(hints.paths)
        for directory in hints.directories:
            self._list(directory)
        self._list_again()
        if lost:
            self._end_walk()
            self._urgent = True
        elif changes:
            self._noticed()
        step = Step()
        self._compare(step)
        self._examine_due(step)
        step.complete = self._complete
        step.wait_s = self._wait_s()
        return step

    def _noticed(self) -> None:
        now = time.monotonic()
        self._first_notice = self._first_notice or now
        self._last_notice = now

    def _notice(self, paths: Iterable[str]) -> None:
        """Look at paths when they can have settled: what counts is when they were changed."""
        now = time.monotonic()
        gone: list[str] = []
        files: dict[int, float] = {}
        for path in paths:
            try:
                status = os.lstat(self._tree.full(path))
            except OSError:
                gone.append(path)
                continue
            if stat.S_ISDIR(status.st_mode):
                self._settling.hint(path, now)  # an object may have had its name
                self._list(path)
                for times in AGAIN:
                    self._again.hint(path, now + times * self._settle_s)
            else:
                if stat.S_ISREG(status.st_mode):
                    self._files.add(path)
                due = files[status.st_ino] = now + max(0.0, self._left_s(status))
                self._settling.hint(path, due)
        for path in gone:
            self._settling.hint(path, self._due_gone(path, files, now))

    def _due_gone(self, path: str, files: Mapping[int, float], now: float) -> float:
        """When a path that is missing counts as removed: together with the file that it became,
        else when its directory has settled, since it may come again at once."""
        before = self._known.snapshot.get(path)
        if before:
            due = files.get(int(before.partition(":")[0]))
            if due is not None:
                return due
        try:
            status = os.lstat(self._tree.full(path.rpartition("/")[0]))
        except OSError:
            return now + max(0.0, self._settle_s - NOTICE_S)
        return now + max(0.0, self._left_s(status))

    def _left_s(self, status: os.stat_result) -> float:
        """How long until a file has settled, if it stays as it is."""
        left = self._settle_s - (time.time_ns() - status.st_ctime_ns) / 1e9
        return left if left <= self._settle_s else 0.0  # the clock was put back

    def _list_again(self) -> None:
        now = time.monotonic()
        for path in self._again.take_due(now, BATCH):
            self._list(path)

    def _list(self, directory: str) -> None:
        for differences in self._tree.differences(self._known.snapshot, directory):
            self._hint(differences)

    def _hint(self, differences: Iterable[Difference]) -> None:
        now = time.monotonic()
        for path, status in differences:
            if path in self._held:
                continue
            if status is None:
                left = self._settle_s
            else:
                left = self._left_s(status)
                self._files.add(path)
            self._settling.hint(path, now + left)

    # Comparison of the whole bucket.

    def _end_walk(self) -> None:
        if self._walk is not None:
            self._walk.close()
            self._walk = None

    def _compare(self, step: Step) -> None:
        started = time.monotonic()
        if started < self._compare_at():
            return
        if self._walk is None:
            self._tree.check_root()
            self._walk = self._tree.differences(self._known.snapshot)
            self._walk_cost_s = 0.0
            self._first_notice = 0.0
        while len(step.silent) < BATCH:
            differences = next(self._walk, None)
            if differences is None:
                self._walk_done(started)
                return
            self._judge(differences, step)
            if not self._urgent or time.monotonic() - started > WALK_BUDGET_S:
                break
        self._walked = time.monotonic()
        self._walk_cost_s += self._walked - started

    def _walk_done(self, started: float) -> None:
        self._tree.count_unwatched()
        self._walked = time.monotonic()
        self._walk_cost_s += self._walked - started
        self._walk = None
        self._complete = True
        self._urgent = False
        if self._tree.follow():
            self._noticed()  # what was listed before it was watched is listed once more

    def _compare_at(self) -> float:
        """When to begin the next comparison, or to go on with the present one."""
        if self._urgent:
            return 0.0
        if self._walk is not None:
            return self._walked + WALK_PAUSE_S
        if self._tree.blind:
            cost = COST_RATIO_BLIND * self._walk_cost_s
            return self._walked + max(self._options.blind_compare_s, cost)
        pause = self._options.compare_s
        if self._first_notice:
            quiet, most = AFTER_NOTICES_S
            soon = min(self._last_notice + quiet, self._first_notice + most)
            pause = min(pause, soon - self._walked)
        return self._walked + max(pause, COST_RATIO * self._walk_cost_s)

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
        self._full = len(paths) == BATCH
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
        held = self._held.pop(path, 0.0)
        seen = self._seen.pop(path, None)
        try:
            status, writer = self._look(path, old)
        except (FileNotFoundError, NotADirectoryError):
            return Change(path, old, "") if old else None
        except OSError:
            return None  # its directory may not be searched: reported with the directory
        if not stat.S_ISREG(status.st_mode):
            return Change(path, old, "") if old else None
        new = signature(status)
        if writer is Writer.SOMEBODY:
            self._hold(path, held)
            return None
        if new == old:
            return None
        left = self._left_s(status) if writer is Writer.NONE else self._unsure_s(path, new, seen)
        if left > 0:
            self._settling.hint(path, time.monotonic() + left)
            return None
        return Change(path, old, new)

    def _look(self, path: str, old: str) -> tuple[os.stat_result, Writer]:
        """The state of a path and of its writers, if that matters. ``OSError``."""
        full = self._tree.full(path)
        regular = path in self._files
        self._files.discard(path)
        if old or not regular:  # opening what is no regular file may have effects
            status = os.lstat(full)
            if not stat.S_ISREG(status.st_mode) or signature(status) == old:
                return status, Writer.NONE
        if self._leases:
            try:
                return look(full)
            except PermissionError:
                pass  # not ours to open: told by staying the same
            except FileNotFoundError:
                raise
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise  # ELOOP: a link has taken its place
        return os.lstat(full), Writer.UNKNOWN

    def _hold(self, path: str, before: float) -> None:
        """Nobody tells of the close: ask again, soon at first."""
        pause = min(2 * before or HELD_S[0], HELD_S[1])
        self._held[path] = pause
        due = time.monotonic() + max(pause, len(self._held) * HELD_EACH_S)
        self._settling.hint(path, due)

    def _unsure_s(self, path: str, state: str, seen: tuple[str, float] | None) -> float:
        """How long a file that may have a writer still has to stay as it is."""
        now = time.monotonic()
        since = now if seen is None or seen[0] != state else seen[1]
        left = self._stable_s - (now - since)
        if left > 0:
            self._seen[path] = state, since
        return left

    def _wait_s(self) -> float:
        if self._full:
            return 0.0
        times = (self._compare_at(), self._settling.next_due(), self._again.next_due())
        left = min(each for each in times if each is not None) - time.monotonic()
        return max(COALESCE_S, left) if not self._urgent else 0.0

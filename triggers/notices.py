"""Notices of changes in directories, by watchfiles: where to look, never what happened there.

One thread for all sources of a kind asks watchfiles every ``STEP_MS``: its price (0.2 % of a core)
does not grow with the number of directories. A notice comes one to two steps late and may be lost
(watchfiles forgets what comes while it hands over; the kernel's queue is finite), so whoever
listens compares for himself, sooner when there were notices.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager

from watchfiles import Change
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from triggers.threads import in_thread

STEP_MS = 20
"""Shorter costs more of an idle processor; two of them must fit into a bucket's settle time."""
MAX_PENDING = 200_000
"""Changed paths that are kept for a listener; beyond it is told to look everywhere."""
REOPEN_S = (0.05, 5.0)
"""First and longest pause before a watcher that failed is made anew."""
REOPEN_CALM_S = 10.0
"""After so long without a failure the first pause holds again."""

FileChange = tuple[int, str]
CHANGED = int(Change.modified)
_FAILURES = (OSError, UnicodeError, WatchfilesRustInternalError)


class Notices:
    """What one listener hears; made by ``listening``.

    Attributes:
        heard: set when there is something to ``take``.
        fault: why nothing is heard at present; empty if all is well.
        paths: that are followed.
        left: nobody listens any more.
    """

    def __init__(self, hub: _Hub) -> None:
        self.heard = asyncio.Event()
        self.fault = "not watching yet"
        self.paths: frozenset[str] = frozenset()
        self.left = False
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._pending: set[FileChange] = set()
        self._lost = False

    def follow(self, paths: Collection[str], *, again: bool = False) -> bool:
        """Listen to these real paths, and no others; blocking, for a worker thread.

        What changes after it returns is heard. A directory that is missing is left out. ``again``:
        watch anew though the paths are the same, since a directory may be another one. Failures
        go to ``fault``; call it again later. Returns whether something is heard that was not.
        """
        wanted = frozenset(paths)
        if not (again or self.fault or wanted != self.paths):
            return False
        news = again or bool(self.fault) or not wanted <= self.paths
        self._hub.follow(self, wanted)
        return news and not self.fault

    def take(self) -> tuple[set[FileChange], bool]:
        """Changes since the last call, and whether some were lost: then look everywhere."""
        self.heard.clear()
        with self._lock:
            taken, self._pending = self._pending, set()
            lost, self._lost = self._lost, False
        return taken, lost

    def tell(self, changes: Iterable[FileChange], *, lost: bool = False) -> None:
        """Any thread."""
        with self._lock:
            self._pending.update(changes)
            self._lost |= lost
            if len(self._pending) > MAX_PENDING:
                self._pending.clear()
                self._lost = True
        try:
            self._loop.call_soon_threadsafe(self.heard.set)
        except RuntimeError:  # the loop has ended, and with it who listened
            pass


@asynccontextmanager
async def listening(*, recursive: bool) -> AsyncIterator[Notices]:
    """Notices for the block, of nothing until ``follow``; no thread outlives the last block."""
    hub = _RECURSIVE if recursive else _FLAT
    notices = Notices(hub)
    try:
        yield notices
    finally:
        await in_thread(lambda: hub.leave(notices))


class _Hub:
    """The listeners that share one watcher."""

    def __init__(self, *, recursive: bool) -> None:
        self._recursive = recursive
        self._changing = threading.Lock()
        self._listeners: tuple[Notices, ...] = ()
        self._watcher: _Watcher | None = None

    def follow(self, notices: Notices, paths: frozenset[str]) -> None:
        with self._changing:
            if notices.left:
                return
            before = notices.paths
            notices.paths = paths
            if notices not in self._listeners:
                self._listeners = (*self._listeners, notices)
            try:
                self._renew()
            except _FAILURES as error:
                notices.paths = before
                notices.fault = _reason(error)
            else:
                notices.fault = ""

    def leave(self, notices: Notices) -> None:
        """Paths that nobody wants stay watched until the next change: they harm nobody."""
        with self._changing:
            notices.left = True
            self._listeners = tuple(each for each in self._listeners if each is not notices)
            if not self._listeners and self._watcher is not None:
                self._watcher.end()
                self._watcher = None

    def _renew(self) -> None:
        """The new watcher listens before the old one is told to end: no gap."""
        paths = frozenset().union(*(each.paths for each in self._listeners))
        new = _Watcher(paths, self._recursive, self._tell, self._report)
        old, self._watcher = self._watcher, new
        if old is not None:
            old.end()

    def _tell(self, changes: set[FileChange], lost: bool) -> None:
        """Watcher's thread: give each listener what lies below its paths."""
        listeners = self._listeners
        if len(listeners) == 1 or lost:
            for each in listeners:
                each.tell(changes, lost=lost)
            return
        owners: dict[str, list[Notices]] = {}
        for each in listeners:
            for path in each.paths:
                owners.setdefault(path, []).append(each)
        found: dict[Notices, list[FileChange]] = {}
        for change in changes:
            path = change[1]
            while path:
                for each in owners.get(path, ()):
                    found.setdefault(each, []).append(change)
                path = path.rpartition("/")[0]
        for each, its in found.items():
            each.tell(its)

    def _report(self, fault: str) -> None:
        for each in self._listeners:
            if each.paths:
                each.fault = fault


class _Watcher:
    """One watchfiles watcher with the thread that asks it."""

    def __init__(
        self,
        paths: frozenset[str],
        recursive: bool,
        tell: Callable[[set[FileChange], bool], None],
        report: Callable[[str], None],
    ) -> None:
        """Watches from here on. ``OSError``, ``UnicodeError``, ``WatchfilesRustInternalError``."""
        self._paths = paths
        self._recursive = recursive
        self._tell = tell
        self._report = report
        self._ending = threading.Event()
        self._asked = 0
        self._rust = self._open()
        self._thread = threading.Thread(target=self._run, name="watchfiles", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """What happened before is still told; waits for the thread."""
        self._ending.set()
        self._thread.join()

    def is_set(self) -> bool:
        """watchfiles asks at each look whether to stop, and then forgets what it has: let it hand
        that over first, which takes two looks."""
        self._asked += self._ending.is_set()
        return self._asked > 2

    def _open(self) -> RustNotify:
        for _ in range(3):  # a directory may go away in between
            there = sorted(path for path in self._paths if os.path.isdir(path))
            try:
                return RustNotify(there, False, False, 0, self._recursive, True)
            except FileNotFoundError:
                continue
        raise FileNotFoundError("the watched directories come and go")

    def _run(self) -> None:
        pause_s = REOPEN_S[0]
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                self._listen()
            except WatchfilesRustInternalError:
                # Such as a name that is no UTF-8; the watcher is of no use from then on.
                calm = time.monotonic() - began > REOPEN_CALM_S
                pause_s = self._reopen(REOPEN_S[0] if calm else pause_s)
        self._rust.close()

    def _listen(self) -> None:
        while True:
            changes = self._rust.watch(0, STEP_MS, 0, self)
            if changes == "stop":
                return
            if not isinstance(changes, str):
                self._tell(changes, False)

    def _reopen(self, pause_s: float) -> float:
        """Make the watcher anew, after longer and longer pauses; returns the next one."""
        self._rust.close()
        while not self._ending.wait(pause_s):
            pause_s = min(pause_s * 2, REOPEN_S[1])
            try:
                self._rust = self._open()
            except _FAILURES as error:
                self._report(_reason(error))
                self._tell(set(), True)
                continue
            self._report("")
            self._tell(set(), True)
            break
        return pause_s


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def unwatched(inodes: Collection[int]) -> set[int]:
    """Which of these directories the kernel does not watch for this process.

    watchfiles passes over new directories for which there are no more watches. Source: proc(5),
    ``/proc/PID/fdinfo``. None of them where that cannot be read.
    """
    left = set(inodes)
    try:
        for name in os.listdir("/proc/self/fd"):
            left -= _watched_inodes(name)
    except OSError:
        return set()
    return left


def _watched_inodes(descriptor: str) -> set[int]:
    try:
        if os.readlink(f"/proc/self/fd/{descriptor}") != "anon_inode:inotify":
            return set()
        with open(f"/proc/self/fdinfo/{descriptor}") as lines:
            return {
                int(word[4:], 16)
                for line in lines
                if line.startswith("inotify")
                for word in line.split()
                if word.startswith("ino:")
            }
    except FileNotFoundError:
        return set()  # closed meanwhile


_RECURSIVE = _Hub(recursive=True)
_FLAT = _Hub(recursive=False)

"""The directories of a bucket: watched first, listed after, so that nothing falls between."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from triggers import inotify
from triggers.inotify import Inotify
from triggers.oss.snapshot import Snapshot, signature

SLICE = 500
"""Entries that are listed before ``differences`` gives control back."""

_MASK = (
    inotify.CREATE
    | inotify.CLOSE_WRITE
    | inotify.MOVED_TO
    | inotify.MOVED_FROM
    | inotify.DELETE
    | inotify.ATTRIB
    | inotify.DELETE_SELF
    | inotify.MOVE_SELF
)


class BucketGone(OSError):
    """The bucket's directory is not there (any more), or is another one."""


class NoticesLost(OSError):
    """The kernel's queue ran over; start anew, with a comparison of everything."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An object that is not as the snapshot has it; ``status`` is ``None`` if it seems gone."""

    path: str
    status: os.stat_result | None


@dataclass(slots=True)
class Hints:
    """Where to look: paths, and new directories to list."""

    paths: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)


class Tree:
    """The bucket at ``root``; symbolic links are no objects and are never followed.

    Attributes:
        watched: how many directories the kernel tells about.
        blind: some are not watched, since the kernel gives no more watches.
        unreadable: directories that may not be listed; what was known below them is kept.
    """

    def __init__(self, root: str, notifier: Inotify | None) -> None:
        """``BucketGone``, or another ``OSError`` if it may not be listed."""
        self.root = root
        self.blind = notifier is None
        self.unreadable: set[str] = set()
        self._notifier = notifier
        self._watches: dict[str, int] = {}
        self._paths: dict[int, str] = {}
        self._identity = self._identify()

    @property
    def watched(self) -> int:
        return len(self._watches)

    def full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def check_root(self) -> None:
        """``BucketGone`` if the bucket is no longer the directory that is being watched."""
        if self._identify() != self._identity:
            raise BucketGone(errno.ENOENT, "the bucket's directory was replaced", self.root)

    def hints(self, data: bytes, snapshot: Snapshot) -> Hints:
        """What the notices in ``data`` say.

        ``BucketGone``: the bucket itself went away. ``NoticesLost``: there were too many.
        """
        hints = Hints()
        for watch, mask, name in inotify.notices(data):
            if mask & inotify.OVERFLOW:
                raise NoticesLost(errno.EOVERFLOW, "the kernel's queue of notices ran over")
            directory = self._paths.get(watch)
            if directory is None:
                continue  # a directory that has left the bucket
            if not name:
                self._about_itself(watch, mask, directory)
                continue
            path = f"{directory}/{name}" if directory else name
            if not mask & inotify.IS_DIRECTORY:
                hints.paths.append(path)
            elif mask & (inotify.CREATE | inotify.MOVED_TO | inotify.ATTRIB):
                self._unwatch(path)  # it may have taken the place of another one
                hints.directories.append(path)
            elif mask & inotify.MOVED_FROM:
                self._unwatch_below(path)
                hints.paths.extend(snapshot.below(path))
            elif mask & inotify.DELETE:
                self._unwatch(path)
                hints.paths.extend(f"{path}/{each}" for each in snapshot.names(path))
        return hints

    def differences(
        self, snapshot: Snapshot, start: str = ""
    ) -> Generator[list[Difference], None, None]:
        """Compare listing and snapshot from ``start`` down, watching every directory on the way.

        Gives back control after each ``SLICE`` entries, with what differed among them. Close it
        when it is given up half-way.
        """
        found: list[Difference] = []
        listed: set[str] = set()
        directories = [start]
        while directories:
            directory = directories.pop()
            listed.add(directory)
            for count, difference in enumerate(self._list(directory, snapshot, directories), 1):
                if difference is not None:
                    found.append(difference)
                if count % SLICE == 0:
                    yield found
                    found = []
            yield found
            found = []
        inside = f"{start}/"
        for directory in [each for each in snapshot.directories() if each not in listed]:
            if not start or directory.startswith(inside):
                names = tuple(snapshot.names(directory))
                yield [Difference(f"{directory}/{name}", None) for name in names]

    def _list(
        self, directory: str, snapshot: Snapshot, deeper: list[str]
    ) -> Iterator[Difference | None]:
        """One item for each entry: how it differs, or ``None``; subdirectories go to ``deeper``."""
        prefix = f"{directory}/" if directory else ""
        present: set[str] = set()
        try:
            self._watch(directory)
            with os.scandir(self.full(directory)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        deeper.append(prefix + entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        present.add(entry.name)
                        yield self._difference(entry, prefix, snapshot)
                        continue
                    yield None
        except (FileNotFoundError, NotADirectoryError):
            if not directory:
                raise
            self._forget_watch(directory)
        except OSError:
            if not directory:
                raise
            self.unreadable.add(directory)
            return
        self.unreadable.discard(directory)
        for name in [each for each in snapshot.names(directory) if each not in present]:
            yield Difference(prefix + name, None)

    def _difference(
        self, entry: os.DirEntry[str], prefix: str, snapshot: Snapshot
    ) -> Difference | None:
        path = prefix + entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return Difference(path, None)
        return Difference(path, status) if signature(status) != snapshot.get(path) else None

    def _watch(self, directory: str) -> None:
        if self._notifier is None or directory in self._watches:
            return
        try:
            watch = self._notifier.add(os.fsencode(self.full(directory)), _MASK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.blind = True
            return
        before = self._paths.get(watch)
        if before is not None:  # the same directory under its new name
            self._watches.pop(before, None)
        self._paths[watch] = directory
        self._watches[directory] = watch

    def _about_itself(self, watch: int, mask: int, directory: str) -> None:
        if not mask & (inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.IGNORED):
            return
        if not directory:
            raise BucketGone(errno.ENOENT, "the bucket's directory went away", self.root)
        if mask & inotify.IGNORED and self._watches.get(directory) == watch:
            self._forget_watch(directory)

    def _forget_watch(self, directory: str) -> None:
        watch = self._watches.pop(directory, None)
        if watch is not None:
            self._paths.pop(watch, None)

    def _unwatch_below(self, directory: str) -> None:
        """A directory was moved: where to is told by another notice, if it stays in the bucket."""
        inside = f"{directory}/"
        self._unwatch(directory)
        for path in [each for each in self._watches if each.startswith(inside)]:
            self._unwatch(path)

    def _unwatch(self, directory: str) -> None:
        watch = self._watches.get(directory)
        if watch is not None and self._notifier is not None:
            self._notifier.remove(watch)
            self._forget_watch(directory)

    def _identify(self) -> tuple[int, int]:
        try:
            status = os.stat(self.root)
        except FileNotFoundError as error:
            raise BucketGone(error.errno, "there is no such directory", self.root) from error
        except NotADirectoryError as error:
            raise BucketGone(error.errno, error.strerror, self.root) from error
        if not os.path.isdir(self.root):
            raise BucketGone(errno.ENOTDIR, "this is no directory", self.root)
        return status.st_dev, status.st_ino

"""The directories of a bucket: watched first, listed after, so that nothing falls between."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from triggers.notices import FileChange, Notices, unwatched
from triggers.oss.snapshot import Snapshot, signature

SLICE = 500
"""Entries that are listed before ``differences`` gives control back."""


class BucketGone(OSError):
    """The bucket's directory is not there (any more), or is another one."""


class LinksFound(OSError):
    """There are symbolic links to directories; watch anew, one directory at a time."""


class Identity(NamedTuple):
    """Which directory the bucket is."""

    device: int
    inode: int


class Difference(NamedTuple):
    """An object that is not as the snapshot has it; ``status`` is ``None`` if it seems gone."""

    path: str
    status: os.stat_result | None


@dataclass(slots=True)
class Hints:
    """Where to look: paths, and directories to list."""

    paths: set[str] = field(default_factory=set)
    directories: list[str] = field(default_factory=list)


class Tree:
    """The bucket at ``root``; symbolic links are no objects and are never followed.

    watchfiles follows them when it watches recursively, to any place of the machine: where there
    are links to directories, each directory is watched by itself (``flat``).

    Attributes:
        root: its real path.
        identity: of the directory at ``root`` that is being watched.
        directories: those that were listed, with their inodes, by path.
        unwatched: how many of them the kernel does not tell about.
        unreadable: directories that may not be listed; what was known below them is kept.
    """

    def __init__(self, root: str, notices: Notices, *, flat: bool) -> None:
        """``BucketGone``, or another ``OSError`` if it may not be listed."""
        self._named = root
        self.root = os.path.realpath(root)
        self.flat = flat
        self.identity = identify(root)
        self.directories: dict[str, int] = {}
        self.unwatched = 0
        self.unreadable: set[str] = set()
        self._notices = notices
        os.scandir(self.root).close()
        self.follow()

    @property
    def fault(self) -> str:
        """Why there are no notices; empty if there are."""
        return self._notices.fault

    @property
    def blind(self) -> bool:
        """The kernel does not tell about every directory."""
        return bool(self.fault or self.unwatched)

    def full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def check_root(self) -> None:
        """``BucketGone`` if the bucket is no longer the directory that is being watched."""
        if identify(self._named) != self.identity:
            raise BucketGone(errno.ENOENT, "the bucket's directory was replaced", self._named)

    def follow(self) -> bool:
        """Watch what is to be watched; whether some of it was not. Failures show in ``fault``."""
        paths = [self.root]
        if self.flat:
            paths += [self.full(path) for path in self.directories if path]
        return self._notices.follow(paths)

    def hints(self, changes: Iterable[FileChange], snapshot: Snapshot) -> Hints:
        """What the notices in ``changes`` say. ``BucketGone``: the bucket itself went away."""
        hints = Hints()
        start = len(self.root) + 1
        for path in {path for _, path in changes}:
            if len(path) < start:
                self.check_root()
                continue
            self._hint(path[start:], hints, snapshot)
        return hints

    def _hint(self, path: str, hints: Hints, snapshot: Snapshot) -> None:
        known = self.directories.get(path)
        if known is not None:
            if self._inode(path) != known:  # gone, or another one has taken its place
                del self.directories[path]
                hints.paths.add(path)
                hints.paths.update(snapshot.below(path))
            else:
                hints.directories.append(path)
            return
        directory = path.rpartition("/")[0]
        while directory not in self.directories:  # not listed: an unknown one, or behind a link
            path, directory = directory, directory.rpartition("/")[0]
            if not path:
                return  # the first listing comes
        hints.paths.add(path)

    def _inode(self, path: str) -> int:
        """Of a directory; 0 if there is none."""
        try:
            status = os.lstat(self.full(path))
        except OSError:
            return 0
        return status.st_ino if stat.S_ISDIR(status.st_mode) else 0

    def differences(
        self, snapshot: Snapshot, start: str = ""
    ) -> Generator[list[Difference], None, None]:
        """Compare listing and snapshot from ``start`` down; from the root, objects of directories
        that are gone are among the differences.

        Gives back control after each ``SLICE`` entries, with what differed among them. Close it
        when it is given up half-way. ``LinksFound``: the tree has to be flat.
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
        if start:
            return
        for path in [each for each in self.directories if each not in listed]:
            del self.directories[path]
            self.unreadable.discard(path)
        for directory in [each for each in snapshot.directories() if each not in listed]:
            names = tuple(snapshot.names(directory))
            yield [Difference(f"{directory}/{name}", None) for name in names]

    def count_unwatched(self) -> None:
        """Ask the kernel what it watches; blocking, some ms for 10,000 directories."""
        left = unwatched(self.directories.values())
        if left:  # a mount point has another inode than its listing says
            for path in [each for each, inode in self.directories.items() if inode in left]:
                self.directories[path] = self._inode(path)
            left = unwatched(self.directories.values())
        self.unwatched = len(left - {0})

    def _list(
        self, directory: str, snapshot: Snapshot, deeper: list[str]
    ) -> Iterator[Difference | None]:
        """One item for each entry: how it differs, or ``None``; subdirectories go to ``deeper``."""
        prefix = f"{directory}/" if directory else ""
        present: set[str] = set()
        try:
            if directory not in self.directories:
                self.directories[directory] = os.lstat(self.full(directory)).st_ino
            with os.scandir(self.full(directory)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        path = prefix + entry.name
                        self.directories[path] = entry.inode()
                        deeper.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        present.add(entry.name)
                        yield self._difference(entry, prefix, snapshot)
                        continue
                    elif not self.flat and entry.is_symlink() and entry.is_dir():
                        raise LinksFound(errno.ELOOP, "a link to a directory", entry.path)
                    yield None
        except LinksFound:
            raise
        except (FileNotFoundError, NotADirectoryError):
            if not directory:
                raise
            self.directories.pop(directory, None)
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


def identify(root: str) -> Identity:
    """``BucketGone``: there is no such directory."""
    try:
        status = os.stat(root)
    except FileNotFoundError as error:
        raise BucketGone(error.errno, "there is no such directory", root) from error
    except NotADirectoryError as error:
        raise BucketGone(error.errno, error.strerror, root) from error
    if not stat.S_ISDIR(status.st_mode):
        raise BucketGone(errno.ENOTDIR, "this is no directory", root)
    return Identity(status.st_dev, status.st_ino)


def has_links(root: str) -> bool:
    """Whether there is a symbolic link to a directory anywhere below ``root``; blocking."""
    directories = [root]
    while directories:
        try:
            with os.scandir(directories.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.path)
                    elif entry.is_symlink() and entry.is_dir():
                        return True
        except OSError:
            continue  # told when it is listed
    return False

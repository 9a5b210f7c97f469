"""The data directory: whose it is, and where everything in it lies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eventd.store.files import make_directory
from eventd.store.interface import StoreFailed


class DataDirectoryInUse(StoreFailed):
    """Another daemon holds the directory."""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The paths below the directory that ``--data`` names."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def meta(self) -> Path:
        return self.root / "meta.db"

    @property
    def queue(self) -> Path:
        return self.root / "queue.db"

    @property
    def history(self) -> Path:
        return self.root / "history.db"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def payloads(self) -> Path:
        return self.root / "payloads"

    @property
    def ballast(self) -> Path:
        return self.root / "ballast"


@contextmanager
def hold(root: Path) -> Iterator[DataDirectory]:
    """Own ``root`` alone during the block; it is created (mode 0700) if it is missing.

    The lock goes with the process, also on kill -9.

    Raises:
        DataDirectoryInUse: another daemon has it; the message names its process id.
        StoreFailed: the directory cannot be created or written.
    """
    directory = DataDirectory(root.absolute())
    try:
        make_directory(directory.root)
        lock = os.open(directory.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFailed(f"cannot use the data directory {root}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise DataDirectoryInUse(
                f"the data directory {root} is in use by process {owner}; "
                "stop it, or give this one another --data"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        make_directory(directory.blobs)
        make_directory(directory.payloads)
        make_directory(directory.logs)
        yield directory
    finally:
        os.close(lock)

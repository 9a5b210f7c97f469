"""Files that are whole or absent: written aside, synced, renamed, directory synced. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def make_directory(path: Path) -> None:
    """Create ``path`` (mode 0700) if it is missing, and sync its parent."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make creations, renames and removals in ``path`` durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write ``path`` (mode 0600) with synced content. It is there after a crash only once its
    directory was synced, too. On an error nothing is left behind."""
    aside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def remove_files(paths: Iterable[Path]) -> None:
    """Remove what is there of ``paths``; not synced."""
    for path in paths:
        path.unlink(missing_ok=True)

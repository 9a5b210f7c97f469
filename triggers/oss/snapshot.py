"""What has been told about a bucket: the last state of each object that became an event."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

_QUOTED = "//"
"""Starts the row key of a path that is no UTF-8; no relative path starts with it."""


def signature(status: os.stat_result) -> str:
    """``inode:size:mtime_ns``: equal for as long as nobody wrote to or replaced the file."""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def row_key(path: str) -> str:
    """The key of a path's row: clean text, and never the same for two paths."""
    if path.isascii():
        return path
    try:
        path.encode()
    except UnicodeEncodeError:
        return _QUOTED + quote_from_bytes(os.fsencode(path))
    return path


def row_path(key: str) -> str:
    if key.startswith(_QUOTED):
        return os.fsdecode(unquote_to_bytes(key.removeprefix(_QUOTED)))
    return key


class Snapshot:
    """Signatures by directory and name; paths are relative to the bucket, ``""`` is its root.

    Kept in step with the source's table: a change is put here after it was emitted.
    """

    def __init__(self, rows: Mapping[str, str]) -> None:
        self._directories: dict[str, dict[str, str]] = {}
        self._count = 0
        for key, text in rows.items():
            self.put(row_path(key), text)

    def __len__(self) -> int:
        return self._count

    def get(self, path: str) -> str:
        """The signature, empty for an object that is not known."""
        directory, _, name = path.rpartition("/")
        return self._directories.get(directory, {}).get(name, "")

    def put(self, path: str, text: str) -> None:
        """Set the signature; an empty one removes the object."""
        directory, _, name = path.rpartition("/")
        names = self._directories.get(directory)
        if text:
            if names is None:
                names = self._directories[directory] = {}
            self._count += name not in names
            names[name] = text
        elif names is not None and names.pop(name, None) is not None:
            self._count -= 1
            if not names:
                del self._directories[directory]

    def names(self, directory: str) -> Mapping[str, str]:
        return self._directories.get(directory, {})

    def directories(self) -> Iterator[str]:
        """Those that hold objects."""
        return iter(self._directories)

    def below(self, directory: str) -> list[str]:
        """The paths of all objects in ``directory`` and deeper."""
        inside = f"{directory}/"
        return [
            f"{each}/{name}" if each else name
            for each, names in self._directories.items()
            if not directory or each == directory or each.startswith(inside)
            for name in names
        ]

"""Large payloads of queued invocations, a file each: written before the row, removed after it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from eventd.store.files import make_directory, remove_files, sync_directory, write_file

INLINE_BYTES = 64 << 10
"""A payload above this lies in a file."""


class PayloadFiles:
    """The directory of these files. Blocking: use it in threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        make_directory(root)

    def write(self, payloads: Sequence[bytes]) -> list[str]:
        """Store each under a new name; files and directory are synced then. ``OSError`` leaves
        none of them."""
        names: list[str] = []
        try:
            for payload in payloads:
                name = os.urandom(16).hex()
                write_file(self._root / name, payload)
                names.append(name)
            sync_directory(self._root)
        except OSError:
            self.remove(names)
            raise
        return names

    def read(self, name: str) -> bytes | None:
        """``None``: there is no such file."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, names: Iterable[str]) -> None:
        remove_files(self._root / name for name in names)

    def keep_only(self, names: set[str]) -> None:
        """Remove what a crash left behind."""
        remove_files(path for path in self._root.iterdir() if path.name not in names)

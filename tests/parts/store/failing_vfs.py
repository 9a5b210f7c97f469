"""A file layer for SQLite whose writes and syncs fail when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw


class FailingVfs(apsw.VFS):
    """Fails for files whose name ends with ``suffix``.

    Attributes:
        sync_error, write_error: the class that is raised, ``None`` for none.
        syncs: how many syncs of such files were tried since the failure began.
    """

    def __init__(self, name: str, suffix: str) -> None:
        self.suffix = suffix
        self.sync_error: type[Exception] | None = None
        self.write_error: type[Exception] | None = None
        self.syncs = 0
        self.name = name
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> FailingFile:  # noqa: N802 - SQLite's
        return FailingFile(self, name, flags)


class FailingFile(apsw.VFSFile):
    def __init__(self, vfs: FailingVfs, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._watched = bool(path) and path.endswith(vfs.suffix)
        super().__init__("", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._watched and self._vfs.sync_error is not None:
            self._vfs.syncs += 1
            raise self._vfs.sync_error
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._watched and self._vfs.write_error is not None:
            raise self._vfs.write_error
        super().xWrite(data, offset)


@contextmanager
def failing_vfs(suffix: str) -> Iterator[FailingVfs]:
    vfs = FailingVfs(f"failing-{id(object()):x}", suffix)
    try:
        yield vfs
    finally:
        vfs.unregister()

"""Unpacked code packages: ``DATA/code/<digest>/``, a cache that can be made again from ``Blobs``.

A directory there is whole: it was filled under another name and renamed. Files are not synced;
instead the cache belongs to one boot of the machine, since a power cut may leave a renamed
directory with empty files, and ``kill -9`` may not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from eventd.store.archive import Archive, Entry, chunks, open_archive
from eventd.store.interface import Blobs

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_MARK = ".boot"
_PARTIAL = ".partial-"


class Packages:
    """Unpacks packages on demand; open it with ``Packages.open``."""

    def __init__(self, directory: Path, blobs: Blobs, *, max_unpacked_bytes: int) -> None:
        self._directory = directory
        self._blobs = blobs
        self._max_unpacked_bytes = max_unpacked_bytes
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @classmethod
    async def open(
        cls, directory: Path, blobs: Blobs, *, max_unpacked_bytes: int = 2 << 30
    ) -> Packages:
        """Make ``directory`` usable: leftovers of a kill go, and everything after a reboot."""
        await asyncio.to_thread(_prepare, directory)
        return cls(directory, blobs, max_unpacked_bytes=max_unpacked_bytes)

    async def unpacked(self, digest: str) -> Path:
        """The directory of a package; unpacked now if it is not there, once for all who wait.

        Raises ``KeyError`` (no such package), ``ValueError`` (its bytes changed on disk),
        ``InvalidArgument`` (it is damaged or too large), ``OSError`` (disk full). Cancelling
        leaves nothing half-made: a running extraction ends and its result is kept.
        """
        path = self._directory / digest
        if path.is_dir():
            return path
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            if not path.is_dir():
                data = await self._blobs.get(digest)
                await asyncio.to_thread(
                    extract, data, path, max_unpacked_bytes=self._max_unpacked_bytes
                )
        return path

    async def forget(self, digest: str) -> None:
        """Remove a package's directory, if there is one. No instance may use it any more."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            await asyncio.to_thread(_remove, self._directory / digest)

    async def collect(self, referenced: set[str]) -> list[str]:
        """Forget every package that is not in ``referenced`` (functions, versions, and what runs);
        which ones."""
        present = await asyncio.to_thread(os.listdir, self._directory)
        gone = [name for name in present if name not in referenced and not name.startswith(".")]
        for digest in gone:
            await self.forget(digest)
        return gone


def extract(data: bytes, path: Path, *, max_unpacked_bytes: int) -> None:
    """Unpack the zip ``data`` to ``path``, whole or not at all; blocks.

    Files are 0644, or 0755 if the zip calls them executable; directories 0755. A ``path`` that
    somebody else finished meanwhile stays. Raises ``InvalidArgument`` and ``OSError``.
    """
    archive = open_archive(data, max_unpacked_bytes=max_unpacked_bytes)
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=path.parent))
    try:
        os.chmod(partial, 0o755)
        _fill(archive, partial)
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        _remove(partial)


def _fill(archive: Archive, root: Path) -> None:
    made: set[str] = {""}
    for entry in archive.entries:
        if entry.kind == "dir":
            _make_directory(root, entry.path, made)
        elif entry.kind == "file":
            _make_directory(root, entry.path.rpartition("/")[0], made)
            _write_file(archive, entry, root)
    for entry in archive.entries:  # links last: nothing is ever written through one
        if entry.kind == "link":
            _make_directory(root, entry.path.rpartition("/")[0], made)
            os.symlink(entry.target, root / entry.path)


def _make_directory(root: Path, path: str, made: set[str]) -> None:
    if path in made:
        return
    _make_directory(root, path.rpartition("/")[0], made)
    directory = root / path
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)  # whatever the umask
    made.add(path)


def _write_file(archive: Archive, entry: Entry, root: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(root / entry.path, flags, 0o600), "wb") as file:
        file.writelines(chunks(archive, entry))
        os.fchmod(file.fileno(), 0o755 if entry.executable else 0o644)


def _prepare(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    mark = directory / _BOOT_MARK
    same_boot = mark.exists() and mark.read_text() == boot
    for child in directory.iterdir():
        if child.name.startswith(_PARTIAL) or not (same_boot or child.name == _BOOT_MARK):
            _remove(child)
    mark.write_text(boot)


def _remove(path: Path) -> None:
    """Remove a tree under a name that nobody looks up, so that a kill leaves no half of it."""
    if not path.is_dir():
        return
    doomed = path
    if not path.name.startswith(_PARTIAL):
        doomed = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=path.parent)) / path.name
        path.rename(doomed)
    shutil.rmtree(doomed)
    if doomed is not path:
        doomed.parent.rmdir()

"""Content-addressed bytes in a directory: ``ab/abcdef…``, the name is the SHA-256 in hex."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path

from eventd.store.files import make_directory, sync_directory, write_file

_DIGEST = re.compile(r"[0-9a-f]{64}")


class DirectoryBlobs:
    """``Blobs`` in a directory (mode 0700, files 0600)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, data: bytes) -> str:
        """Store ``data`` and give its key; file and directory are synced then.

        ``OSError`` (``ENOSPC``, ``EIO``) leaves nothing behind. Cancelling leaves the blob whole
        or absent.
        """
        return await asyncio.to_thread(self._put, data)

    async def get(self, digest: str) -> bytes:
        """``KeyError``: unknown digest; ``ValueError``: the bytes no longer match it."""
        return await asyncio.to_thread(self._get, digest)

    async def delete(self, digest: str) -> None:
        """Remove it if it is there."""
        await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

    def digests(self) -> set[str]:
        """Every key that is stored."""
        return {path.name for path in self._root.glob("??/*") if _DIGEST.fullmatch(path.name)}

    def path(self, digest: str) -> Path:
        """Where the bytes lie, for who reads the file itself. ``KeyError``: unknown digest."""
        path = self._path(digest)
        if not path.is_file():
            raise KeyError(digest)
        return path

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise KeyError(digest)
        return self._root / digest[:2] / digest

    def _put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if path.is_file() and self._matches(path, digest):
            # It may come from a call that has not synced its directory yet.
            sync_directory(path.parent)
            return digest
        make_directory(path.parent)
        write_file(path, data)
        sync_directory(path.parent)
        return digest

    def _get(self, digest: str) -> bytes:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError:
            raise KeyError(digest) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"blob {digest} is damaged: its bytes have another hash")
        return data

    @staticmethod
    def _matches(path: Path, digest: str) -> bool:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest

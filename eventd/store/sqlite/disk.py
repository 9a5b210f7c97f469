"""What the disk still takes: the state that all files of one data directory share."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import apsw

from eventd.store.interface import StoreFailed

BALLAST_BYTES = 64 << 20
RECOVERY_POLL_S = 2.0

log = logging.getLogger(__name__)


def is_full(error: BaseException) -> bool:
    """Whether ``error`` says that the disk has no space."""
    if isinstance(error, apsw.FullError):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """Takes note of failures, and keeps a ballast file whose space is given to outcomes when the
    disk is full.

    ``failed`` (EIO and the like) is final for the process; ``full`` ends when space is back.
    ``failed`` and ``full`` change on any thread; listeners are called on the loop.
    """

    def __init__(
        self,
        ballast: Path,
        *,
        ballast_bytes: int = BALLAST_BYTES,
    ) -> None:
        self.failed: StoreFailed | None = None
        self.full: StoreFailed | None = None
        self._ballast = ballast
        self._bytes = ballast_bytes
        self._listeners: list[Callable[[StoreFailed], None]] = []
        self._loop = asyncio.get_running_loop()

    def subscribe(self, listener: Callable[[StoreFailed], None]) -> None:
        """Call ``listener`` on the loop when the disk fails or becomes full."""
        self._listeners.append(listener)

    def check_intake(self) -> None:
        """Raise ``StoreFailed`` while the disk takes nothing new."""
        if self.failed is not None:
            raise self.failed
        if self.full is not None:
            raise self.full

    def note(self, what: str, error: BaseException) -> StoreFailed:
        """Remember that ``what`` failed with ``error``; any thread. Gives what to raise."""
        full = is_full(error)
        failure = StoreFailed(f"{what}: {error}", full=full)
        failure.__cause__ = error
        if self.failed is not None:
            return failure
        if full:
            first, self.full = self.full is None, failure
            self._free_ballast()
        else:
            first, self.failed = True, failure
        if first:
            log.error("the store failed: %s", failure)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._tell, failure)
        return failure

    def _tell(self, failure: StoreFailed) -> None:
        for listener in self._listeners:
            listener(failure)

    def _free_ballast(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def make_ballast(self) -> bool:
        """Reserve the ballast's space; whether that was possible. Blocks: call it in a thread."""
        try:
            if self._ballast.exists() and self._ballast.stat().st_size == self._bytes:
                return True
            file = os.open(self._ballast, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(file, 0, self._bytes)
            finally:
                os.close(file)
        except OSError as error:
            self._free_ballast()
            if is_full(error):
                return False
            raise self.note("reserving space", error) from error
        return True

    def recover(self) -> bool:
        """Leave the full state if there is twice the ballast's space. Blocks."""
        if self.full is None or self.failed is not None:
            return False
        space = os.statvfs(self._ballast.parent)
        if space.f_bavail * space.f_frsize < 2 * self._bytes or not self.make_ballast():
            return False
        self.full = None
        log.warning("the disk has space again; the store takes new work")
        return True

    async def watch(self) -> None:
        """Look for space while the disk is full, until cancelled."""
        while True:
            await asyncio.sleep(RECOVERY_POLL_S)
            if self.full is not None and self.failed is None:
                await asyncio.to_thread(self.recover)

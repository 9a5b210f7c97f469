"""Request bodies as they arrive: in memory up to 1 MiB, beyond it in an unnamed file.

The file has no name from its first moment, so nothing is left of it after a crash; the finished
body is handed on as a mapping of it.
"""

from __future__ import annotations

import asyncio
import mmap
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

MEMORY_BYTES = 1 << 20
_BACKLOG_BYTES = 1 << 20

Finished = Callable[["bytes | memoryview | OSError"], None]


class Spool:
    """One body. Disk writes run in the loop's thread pool, one at a time and in order.

    Args:
        on_drained: called when a full spool takes bytes again.
    """

    __slots__ = (
        "_backlog",
        "_blocks",
        "_closed",
        "_directory",
        "_error",
        "_file",
        "_finished",
        "_loop",
        "_on_drained",
        "_was_full",
        "_writing",
        "size",
    )

    def __init__(self, directory: Path, on_drained: Callable[[], None]) -> None:
        self._directory = directory
        self._on_drained = on_drained
        self._loop = asyncio.get_running_loop()
        self._blocks: list[bytes] = []
        self._backlog = 0
        self._file: IO[bytes] | None = None
        self._writing = False
        self._was_full = False
        self._closed = False
        self._error: OSError | None = None
        self._finished: Finished | None = None
        self.size = 0

    @property
    def full(self) -> bool:
        """Too much waits for the disk: stop reading until ``on_drained``."""
        return self._writing and self._backlog > _BACKLOG_BYTES

    def write(self, data: bytes) -> None:
        """Take a part; never blocks. A failure of the disk shows at ``finish``."""
        self._blocks.append(data)
        self._backlog += len(data)
        self.size += len(data)
        if self.size > MEMORY_BYTES and not self._writing:
            self._start_writing()
        self._was_full = self._was_full or self.full

    def finish(self, finished: Finished) -> None:
        """Hand the whole body to ``finished``, at once if it is in memory. Not after ``close``."""
        if self.size <= MEMORY_BYTES:
            blocks, self._blocks = self._blocks, []
            finished(blocks[0] if len(blocks) == 1 else b"".join(blocks))
            return
        self._finished = finished
        if not self._writing:
            self._start_writing()

    def close(self) -> None:
        """Drop the body; ``finished`` and ``on_drained`` are not called any more."""
        self._closed = True
        self._blocks.clear()
        if self._file is not None and not self._writing:
            self._file.close()

    def _start_writing(self) -> None:
        self._writing = True
        blocks, self._blocks = self._blocks, []
        self._backlog = 0
        last = self._finished is not None
        job = self._loop.run_in_executor(None, self._write, blocks, last)
        job.add_done_callback(self._written)

    def _write(self, blocks: list[bytes], last: bool) -> memoryview | None:
        """In a thread: append ``blocks``; after the last ones give the mapped body."""
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
        for block in blocks:
            view = memoryview(block)
            while view:
                view = view[self._file.write(view) :]
        if not last:
            return None
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file.close()
        return memoryview(mapped)

    def _written(self, job: asyncio.Future[memoryview | None]) -> None:
        self._writing = False
        if job.cancelled():
            self.close()
            return
        error = job.exception()
        if isinstance(error, OSError):
            self._error = error
        elif error is not None:
            raise error
        if self._closed:
            self.close()
            return
        if error is None and (body := job.result()) is not None and self._finished is not None:
            self._finished(body)
            return
        if self._error is not None:
            self._blocks.clear()
            self._backlog = 0
            if self._finished is not None:
                self._finished(self._error)
        elif self._blocks or self._finished is not None:
            self._start_writing()
        if self._was_full and not self.full:
            self._was_full = False
            self._on_drained()

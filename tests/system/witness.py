"""A witness outside the daemon: functions tell it over loopback when they start and end.

What it saw does not die with the daemon, so it can say after a kill which events ran, and whether
two runs of one event overlapped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

SOURCE = '''
import json, socket

def tell(name, port={port}):
    """Hold a connection for as long as the run lasts."""
    line = socket.create_connection(("127.0.0.1", port), 20)
    line.sendall(name.encode() + b"\\n")
    assert line.recv(1) == b"+"
    return line

def done(line):
    line.sendall(b"end\\n")
    assert line.recv(1) == b"+"
    line.close()
'''


class Witness:
    """Counts the runs of each name.

    Attributes:
        finished: name -> runs that told their end.
        begun: name -> runs that told their start.
        overlaps: names of which two runs were under way at once.
    """

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.overlaps: list[str] = []
        self.order: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def source(self) -> str:
        """Module text with ``tell`` and ``done``; put it before the handler."""
        return SOURCE.format(port=self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        name = (await reader.readline()).decode().strip()
        try:
            if not name:
                return
            if self.running[name]:
                self.overlaps.append(name)
            self.running[name] += 1
            self.begun[name] += 1
            self.order.append(name)
            writer.write(b"+")
            with suppress(ConnectionError):
                if await reader.readline() == b"end\n":
                    self.finished[name] += 1
                    writer.write(b"+")
                    await writer.drain()
        finally:
            if name:
                self.running[name] -= 1
            writer.close()

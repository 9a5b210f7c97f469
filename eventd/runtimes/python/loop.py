"""``async def`` handlers: every call a task on one asyncio loop in the main thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from . import wire
from .request import CURRENT, Cancelled, Request
from .results import to_bytes
from .wsgi import InvalidResponse


class LoopMode:
    """Frames are read by the loop; what is written in one turn of it leaves in one write."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._stopped = asyncio.Event()
        server = self._server
        server.wire.later = self._later
        self._loop.add_reader(server.wire.fileno(), self._readable)
        self._start_waiting()
        await self._stopped.wait()
        self._loop.remove_reader(server.wire.fileno())
        server.wire.later = None
        server.wire.flush()

    def _later(self) -> None:
        if threading.get_ident() != self._thread:
            self._server.wire.flush()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._server.wire.flush()

    def _readable(self) -> None:
        server = self._server
        for kind, call_id, body in server.wire.receive(socket.MSG_DONTWAIT):
            request = server.take(kind, call_id, body)
            if request is not None and kind == wire.CREDIT and request.task is not None:
                request.task.wake()
            elif request is not None and kind == wire.CANCEL and request.task is not None:
                request.task.cancel()
        self._start_waiting()
        if server.stopping:
            self._stopped.set()

    def _start_waiting(self) -> None:
        waiting = self._server.waiting
        while waiting:
            running = Running(self._server, waiting.popleft())
            self._tasks.add(running.task)
            running.task.add_done_callback(self._tasks.discard)


class Running:
    """One call's task, and what it waits for while it sends a large result."""

    def __init__(self, server: Any, request: Request) -> None:
        self._server = server
        self._request = request
        self._window = asyncio.Event()
        request.task = self
        self.task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        self._window.set()

    def cancel(self) -> None:
        self.task.cancel()

    async def _run(self) -> None:
        server, request = self._server, self._request
        CURRENT.set(request)
        server.begin(request)
        try:
            if request.cancelled:
                raise Cancelled
            if request.http is not None:
                raise InvalidResponse
            result = await server.handler(request.payload(), server.contexts.make(request))
            body = await self._send(to_bytes(result))
        except asyncio.CancelledError as error:
            server.failed(request, Cancelled() if request.cancelled else error)
        except BaseException as error:  # noqa: BLE001 - every end of a handler has its answer
            server.failed(request, error)
        else:
            server.end(request, body)

    async def _send(self, body: bytes) -> bytes:
        """Send all but the last frame's part of a large result; returns that part."""
        request, link = self._request, self._server.wire
        if len(body) <= wire.MAX_DATA or link.disowned:
            return body
        view = memoryview(body)
        while len(view) > wire.MAX_DATA:
            self._window.clear()
            if request.window <= 0:
                await self._window.wait()
                continue
            size = min(len(view) - wire.MAX_DATA, request.window, wire.MAX_DATA)
            request.window -= size
            link.send(wire.encode(wire.DATA, request.id, bytes(view[:size])))
            view = view[size:]
        return bytes(view)

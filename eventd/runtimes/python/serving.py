"""The life of an instance: settings, module, initializer, calls, PreStop.

Until the first call (or the initializer) has loaded the module one thread does everything. Then
the handler decides: a coroutine function runs on an asyncio loop; others run in the main thread if
``instanceConcurrency`` is 1, else in a thread per slot.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import platform
import random
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from . import children, wire
from .context import ContextMaker, environment
from .loading import Loader
from .logs import Logs
from .loop import LoopMode
from .request import CURRENT, Answer, Cancelled, Request
from .results import LoadError, error_json, exception_json, to_bytes
from .threads import ThreadMode
from .wsgi import Environment, Response

VERSION = platform.python_version()
MAX_ERROR = 128 << 10
EXIT_TEXT = "Process exited unexpectedly before completing request"


class Server:
    """One instance. ``run`` returns when the router says stop."""

    def __init__(self, sock: socket.socket, code_path: str) -> None:
        self.wire = wire.Wire(sock)
        self.running: dict[int, Request] = {}
        """Calls whose handler runs."""
        self.requests: dict[int, Request] = {}
        """Calls between ``OPEN`` and ``END``."""
        self.waiting: deque[Request] = deque()
        """Calls whose payload is whole and whose handler has not begun."""
        self.handler: Callable[..., Any] | None = None
        self.stopping = False
        self.settings: dict[str, Any] = {}
        self.contexts: ContextMaker
        self.logs: Logs
        self._code_path = code_path
        self._loader = Loader(code_path)
        self._environment = Environment()
        self._initialized = False

    def run(self) -> None:
        sys.path.insert(0, self._code_path)
        while self.handler is None and not self.stopping:
            for kind, call_id, body in self.wire.receive():
                self.take(kind, call_id, body)
            while self.waiting and self.handler is None:
                request = self.waiting.popleft()
                if self._load(request):
                    self.waiting.appendleft(request)
        if not self.stopping:
            self._mode().run()
        self._pre_stop()

    # -- frames

    def take(self, kind: int, call_id: int, body: bytes) -> Request | None:
        """Handle one frame; the request that changed, if one did."""
        if kind == wire.OPEN:
            request = Request.opened(call_id, body)
            self.requests[call_id] = request
            if request.whole:
                self.waiting.append(request)
            return request
        if kind == wire.INIT:
            self._initialize(json.loads(body))
        elif kind == wire.STOP:
            self.stopping = True
        elif kind == wire.PING:
            self.wire.send(wire.encode(wire.PING, 0, body))
        else:
            found = self.requests.get(call_id)
            if found is not None:  # else its END was under way to the router
                self._about(found, kind, body)
            return found
        return None

    def _about(self, request: Request, kind: int, body: bytes) -> None:
        if kind == wire.DATA:
            request.chunks.append(body)
            self.wire.send(wire.encode(wire.CREDIT, request.id, wire.U32.pack(len(body))))
        elif kind == wire.END:
            request.whole = True
            self.waiting.append(request)
        elif kind == wire.CREDIT:
            request.window += wire.U32.unpack(body)[0]
        elif kind == wire.CANCEL:
            request.cancelled = True

    # -- start

    def _initialize(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.logs = Logs(self.wire, self.running, settings["logBytesPerSecond"])
        self.logs.install()
        children.install(self.wire, self.logs)
        random.seed()
        for name, value in environment(settings, self._code_path, VERSION).items():
            os.environ[name] = value
        self.contexts = ContextMaker(settings)
        if settings["initializer"]:
            starter = Request(0, settings["requestId"], settings["qualifier"])
            self._load(starter)

    def _load(self, request: Request) -> bool:
        """Load the module and run the initializer on behalf of ``request``; its failure is the
        request's answer."""
        token = CURRENT.set(request)
        self.running[request.id] = request
        request.started = began = time.perf_counter()
        try:
            handler = self._loader.load(self.settings["handler"])
            loaded = time.perf_counter()
            self._run_initializer(request)
        except LoadError as error:
            self.fail(request, error.body)
            return False
        except SystemExit:
            self.exit(request)
            return False
        except Exception as error:  # noqa: BLE001 - whatever the initializer raises is the answer
            self.fail(request, exception_json(error))
            return False
        finally:
            self.running.pop(request.id, None)
            CURRENT.reset(token)
        now = time.perf_counter()
        info = {"importMs": (loaded - began) * 1e3, "initMs": (now - loaded) * 1e3}
        if not request.id:
            self.logs.settle(request)
        self.wire.send(wire.encode(wire.READY, 0, json.dumps(info).encode()))
        self.handler = handler
        return True

    def _run_initializer(self, request: Request) -> None:
        name = self.settings["initializer"]
        if not name or self._initialized:
            return
        initializer = self._loader.load(name)
        result = initializer(self.contexts.make(request))
        if inspect.iscoroutine(result):
            asyncio.run(result)
        self._initialized = True

    def _mode(self) -> Any:
        if is_async(self.handler):
            return LoopMode(self)
        if self.settings["concurrency"] == 1:
            return MainMode(self)
        return ThreadMode(self)

    def _pre_stop(self) -> None:
        name = self.settings.get("preStop")
        if not name:
            return
        request = Request(0, self.settings["requestId"], self.settings["qualifier"])
        request.ended = True  # its lines go out under their request id, after every call
        CURRENT.set(request)
        try:
            result = self._loader.load(name)(self.contexts.make(request, name))
            if inspect.iscoroutine(result):
                asyncio.run(result)
        except LoadError as error:
            self._log_error(request, error.body)
        except Exception as error:  # noqa: BLE001 - the hook's result is only logged
            self._log_error(request, exception_json(error))
        self.wire.flush()

    # -- one call

    def begin(self, request: Request) -> None:
        self.running[request.id] = request
        request.started = time.perf_counter()

    def call(self, request: Request, wait_credit: Callable[[Request], None]) -> None:
        """Run a sync handler and answer. In a forked child it does not return."""
        token = CURRENT.set(request)
        self.begin(request)
        try:
            context = self.contexts.make(request)
            if request.http is None:
                body = self.handler(request.payload(), context)  # type: ignore[misc]
                if type(body) is not bytes:
                    body = to_bytes(body)
            else:
                body = self._call_http(request, context, wait_credit)
        except BaseException as error:  # noqa: BLE001 - every end of a handler has its answer
            self.failed(request, error)
        else:
            self.end(request, body, wait_credit)
        finally:
            CURRENT.reset(token)

    def _call_http(
        self, request: Request, context: Any, wait_credit: Callable[[Request], None]
    ) -> bytes:
        assert self.handler is not None
        assert request.http is not None
        response = Response(request, Answer(self.wire, request, wait_credit))
        environ = self._environment.make(request.http, request.payload(), context)
        return response.finish(self.handler(environ, response.start))

    def failed(self, request: Request, error: BaseException) -> None:
        """Answer with what a handler raised."""
        if self.wire.disowned:
            _leave_child(error)
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            self.exit(request)
        else:
            self.fail(request, exception_json(error), quiet=isinstance(error, Cancelled))

    def end(
        self,
        request: Request,
        body: bytes,
        wait_credit: Callable[[Request], None] | None = None,
    ) -> None:
        """Answer with the rest of the result; large ones go ahead as ``DATA``."""
        if self.wire.disowned:
            _leave_child(None)
        if len(body) > wire.MAX_DATA and wait_credit is not None:
            cut = len(body) - wire.MAX_DATA
            try:
                Answer(self.wire, request, wait_credit).data(body[:cut])
            except Cancelled:
                cut = len(body)  # nobody waits for the rest
            body = body[cut:]
        self.logs.settle(request)
        elapsed = int((time.perf_counter() - request.started) * 1e6) & 0xFFFFFFFF
        header = wire.END_HEADER.pack(4 + len(body), request.id, wire.END, elapsed)
        self._finish(request, header + body)

    def fail(self, request: Request, body: bytes, *, quiet: bool = False) -> None:
        if len(body) > MAX_ERROR:
            body = error_json("the error is too large to be shown", "TooLarge", [])
        if not quiet:
            self._log_error(request, body)
        self._answer_error(request, wire.FAILED, body)

    def exit(self, request: Request) -> None:
        """The handler asked the process to end: that is the end of its request, and the router
        lets the instance go when its other requests have ended."""
        self._answer_error(request, wire.EXITED, EXIT_TEXT.encode())

    def _answer_error(self, request: Request, kind: int, body: bytes) -> None:
        self.logs.settle(request)
        raw = wire.U32.pack(request.elapsed_us()) + bytes([kind]) + body
        self._finish(request, wire.encode(wire.ERROR, request.id, raw))

    def _finish(self, request: Request, frame: bytes) -> None:
        if request.head_frame:
            frame = request.head_frame + frame
        with self.wire.lock:
            request.ended = True
            self.running.pop(request.id, None)
            self.requests.pop(request.id, None)
            self.wire.send(frame)

    def _log_error(self, request: Request, body: bytes) -> None:
        moment = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        head = f"{stamp}.{int(moment % 1 * 1000):03d}Z {request.request_id} [ERROR] "
        self.logs.emit(request, head.encode("utf-8", "backslashreplace") + body)


class MainMode:
    """One call at a time, in the main thread: no hand-over, no lock."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def run(self) -> None:
        server = self._server
        while True:
            while server.waiting:
                server.call(server.waiting.popleft(), self._wait_credit)
            if server.stopping:
                return
            self._receive()

    def _receive(self) -> None:
        for kind, call_id, body in self._server.wire.receive():
            self._server.take(kind, call_id, body)

    def _wait_credit(self, request: Request) -> None:
        while request.window <= 0 and not request.cancelled:
            self._receive()


def is_async(handler: Any) -> bool:
    """Whether calling ``handler`` gives a coroutine."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )


def _leave_child(error: BaseException | None) -> None:
    """The end of a handler in a process that it forked: the child answers nothing."""
    if isinstance(error, SystemExit):
        code = error.code
        os._exit(code if isinstance(code, int) else int(code is not None))
    if error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)
    os._exit(int(error is not None))

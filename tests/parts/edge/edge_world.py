"""A whole edge in a thread of its own, with an invoker that answers from memory."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, cast

import uvloop
from aiohttp import web

from eventd.api.auth import Authenticator, Credentials
from eventd.api.edge import Edge
from eventd.api.http import HttpTriggers
from eventd.api.invoke import invocation_routes
from eventd.api.server import Listening, serving
from eventd.clock import Clock
from eventd.config import HttpSettings, ServerSettings
from eventd.errors import FunctionNotFound, ResourceExhausted, ServiceNotFound
from eventd.metrics import Metrics
from eventd.model.invocation import Invocation, Outcome
from eventd.model.resources import TriggerRecord
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.call import Call, Receiver
from eventd.router.invoke import Invoker, InvokeRequest
from eventd.store.interface import Change, Metadata

KEY_ID, SECRET = "key-of-tests", "secret-of-tests"
INVOKE = "/2016-08-15/services/demo/functions/{}/invocations"
PROXY = "/2016-08-15/proxy/demo/{}"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def snapshot(name: str, concurrency: int = 1) -> FunctionSnapshot:
    return FunctionSnapshot(
        service="demo", function=name, incarnation="i", version=0, runtime="python3",
        handler="index.handler", initializer="", memory_mb=128, timeout_s=3,
        initialization_timeout_s=3, instance_concurrency=concurrency, environment={},
        code_digest="d", code_checksum="9041537722810366214",
    )  # fmt: skip


class FakeMetadata:
    """Triggers only."""

    def __init__(self) -> None:
        self.records: list[TriggerRecord] = []
        self.listeners: list[Callable[[Change], None]] = []

    def triggers(self, service: str, function: str) -> list[TriggerRecord]:
        return [r for r in self.records if (r.service, r.function) == (service, function)]

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def add(self, function: str, *, auth: str, methods: Sequence[str], **more: Any) -> None:
        self.records.append(
            TriggerRecord(
                service="demo", function=function, name="t", trigger_id=function, type="http",
                source_arn=None, invocation_role=None, qualifier=None, description="",
                config={"authType": auth, "methods": list(methods), **more}, etag="e",
                created_time="", last_modified_time="",
            )
        )  # fmt: skip
        for listener in self.listeners:
            listener(Change("trigger", "demo", "t", function))

    def drop_last(self) -> None:
        record = self.records.pop()
        for listener in self.listeners:
            listener(Change("trigger", "demo", "t", record.function, deleted=True))


class MovableClock(Clock):
    """The real clock, until a test moves it."""

    offset_s = 0.0

    def time(self) -> float:
        return super().time() + self.offset_s


Script = Callable[["FakeInvoker", Call, InvokeRequest, Receiver], None]


class FakeLink:
    def __init__(self) -> None:
        self.consumed_bytes = 0

    def consumed(self, call: Call, size: int) -> None:
        self.consumed_bytes += size


@dataclass
class FakeInvoker(Invoker):
    """Answers as the script named by the function says; remembers what it was asked."""

    scripts: dict[str, Script]
    requests: list[InvokeRequest] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    enqueued: list[tuple[InvokeRequest, int]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    links: list[FakeLink] = field(default_factory=list)
    waiting: list[tuple[Call, Receiver]] = field(default_factory=list)

    def resolve(self, service: str, qualifier: str, function: str) -> FunctionSnapshot:
        if service != "demo":
            raise ServiceNotFound(f"service '{service}' does not exist")
        if function not in self.scripts:
            raise FunctionNotFound(f"function '{function}' does not exist in service '{service}'")
        return snapshot(function, concurrency=2 if function == "shared" else 1)

    def start(
        self,
        request: InvokeRequest,
        receiver: Receiver,
        *,
        snapshot: FunctionSnapshot | None = None,
    ) -> Call:
        function = self.resolve(request.service, request.qualifier, request.function)
        self.requests.append(request)
        self.payloads.append(bytes(request.payload))
        call = Call(
            request.kind, request.request_id, function, request.qualifier, request.payload,
            receiver, request.http,
        )  # fmt: skip
        link = FakeLink()
        call.link = link
        self.links.append(link)
        self.scripts[request.function](self, call, request, receiver)
        return call

    def cancel(self, call: Call) -> None:
        self.cancelled.append(call.request_id)
        waiting = [pair for pair in self.waiting if pair[0] is call]
        for pair in waiting:
            self.waiting.remove(pair)
            pair[1].on_end(Outcome(system=True, error="ClientClosedRequest", status=499))

    async def enqueue(self, request: InvokeRequest, *, delay_s: int = 0) -> Invocation:
        self.resolve(request.service, request.qualifier, request.function)
        if request.function == "full":
            raise ResourceExhausted("the backlog of the function is full")
        await asyncio.sleep(0)
        self.enqueued.append((request, delay_s))
        return Invocation(
            id="x", request_id=request.request_id, service="demo", function=request.function,
            incarnation="i", qualifier=request.qualifier, payload=bytes(request.payload),
            accepted_ms=0,
        )  # fmt: skip


OK = Outcome(duration_ms=21.38, memory_mb=41.069, instance_id="c-1", log_tail=b"tail of the log")


def with_payload(payload: bytes, **changes: Any) -> Outcome:
    return Outcome(
        payload=payload, duration_ms=21.38, memory_mb=41.069, instance_id="c-1",
        log_tail=b"tail of the log", **changes,
    )  # fmt: skip


def later(call: Callable[[], None], delay_s: float = 0.0) -> None:
    loop = asyncio.get_running_loop()
    if delay_s:
        loop.call_later(delay_s, call)
    else:
        loop.call_soon(call)


def event(answer: Callable[[InvokeRequest], Outcome]) -> Script:
    return lambda _i, _c, request, receiver: later(lambda: receiver.on_end(answer(request)))


def echo_now(_i: FakeInvoker, _c: Call, request: InvokeRequest, receiver: Receiver) -> None:
    receiver.on_end(with_payload(bytes(request.payload)))


def wait(invoker: FakeInvoker, call: Call, _r: InvokeRequest, receiver: Receiver) -> None:
    invoker.waiting.append((call, receiver))


def nap(_i: FakeInvoker, _c: Call, request: InvokeRequest, receiver: Receiver) -> None:
    later(lambda: receiver.on_end(with_payload(b"rested")), 0.5)


def http(
    body: bytes = b"",
    status: int = 200,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> Script:
    def run(_i: FakeInvoker, _c: Call, request: InvokeRequest, receiver: Receiver) -> None:
        def answer() -> None:
            receiver.on_head(status, headers)
            if body:
                receiver.on_data(body)
            receiver.on_end(OK)

        later(answer)

    return run


def http_echo(_i: FakeInvoker, _c: Call, request: InvokeRequest, receiver: Receiver) -> None:
    assert request.http is not None
    told = request.http
    body = json.dumps(
        {
            "method": told.method, "path": told.path, "uri": told.uri, "query": told.query,
            "headers": [list(pair) for pair in told.headers], "ip": told.client_ip,
            "body": bytes(request.payload).decode("latin-1"),
        }
    ).encode()  # fmt: skip
    receiver.on_head(200, [(b"content-type", b"application/json")])
    receiver.on_data(body)
    receiver.on_end(OK)


def http_stream(_i: FakeInvoker, call: Call, _r: InvokeRequest, receiver: Receiver) -> None:
    parts = [b"one,", b"two,", b"three"]

    def step() -> None:
        if parts:
            receiver.on_data(parts.pop(0))
            later(step, 0.02)
        else:
            receiver.on_end(OK)

    later(lambda: receiver.on_head(200, [(b"Content-Type", b"text/plain")]))
    later(step, 0.02)


def http_flood(_i: FakeInvoker, call: Call, _r: InvokeRequest, receiver: Receiver) -> None:
    """Sends 16 MiB, never more than a window of 256 KiB beyond what was consumed."""
    link = cast(FakeLink, call.link)
    sent = 0

    def step() -> None:
        nonlocal sent
        while sent < 16 << 20 and sent - link.consumed_bytes < 256 << 10:
            receiver.on_data(b"x" * 65536)
            sent += 65536
        if sent == 16 << 20:
            receiver.on_end(OK)
        else:
            later(step, 0.001)

    later(lambda: receiver.on_head(200, []))
    later(step, 0.01)


def http_cut(_i: FakeInvoker, _c: Call, _r: InvokeRequest, receiver: Receiver) -> None:
    later(lambda: (receiver.on_head(200, []), receiver.on_data(b"half"))[0])
    later(lambda: receiver.on_end(Outcome(error_type="UnhandledInvocationError")), 0.05)


def http_error(outcome: Outcome) -> Script:
    return lambda _i, _c, _r, receiver: later(lambda: receiver.on_end(outcome))


def broken(_i: FakeInvoker, _c: Call, _r: InvokeRequest, _receiver: Receiver) -> None:
    raise RuntimeError("a defect")


FAILED = b'{"errorMessage": "boom"}'
SCRIPTS: dict[str, Script] = {
    "echo": event(lambda request: with_payload(bytes(request.payload))),
    "echo_now": echo_now,
    "shared": event(lambda request: with_payload(bytes(request.payload))),
    "size": event(lambda request: with_payload(b"%d" % len(request.payload))),
    "fail": event(
        lambda request: with_payload(FAILED, error_type="UnhandledInvocationError")
    ),
    "busy": event(lambda request: Outcome(system=True, error="ResourceExhausted", status=429)),
    "exited": event(
        lambda request: Outcome(system=True, error="CAExited", payload=b"it can't start")
    ),
    "lost": event(lambda request: Outcome(system=True, error="InstanceLost")),
    "wait": wait,
    "nap": nap,
    "full": echo_now,
    "broken": broken,
    "web": http_echo,
    "signed": http_echo,
    "closed": http_echo,
    "web_wait": wait,
    "web_stream": http_stream,
    "web_flood": http_flood,
    "web_cut": http_cut,
    "web_page": http(
        b"<html>",
        202,
        [
            (b"Content-Type", b"text/html"), (b"Set-Cookie", b"a=b"), (b"X-Fc-Evil", b"1"),
            (b"Server", b"evil"), (b"Date", b"never"), (b"Content-Length", b"99"),
            (b"Content-Disposition", b"inline"), (b"X-Own", b"1"), (b"X-Own", b"2"),
            (b"Connection", b"x"), (b"", b"empty"), (b"N\xff", b"odd"), (b"X-Text", b"\xc3\xa4"),
        ],
    ),
    "web_plain": http(b"bytes"),
    "web_none": http(b"", 204),
    "web_redirect": http(b"", 302, [(b"Location", b"/there")]),
    "web_status": http(b"", 99),
    "web_split": http(b"", 200, [(b"X-A", b"a\r\nX-B: b")]),
    "web_heads": http(b"", 200, [(b"X-A", b"a" * 9000)]),
    "web_fail": http_error(with_payload(FAILED, error_type="UnhandledInvocationError")),
    "web_busy": http_error(Outcome(system=True, error="ResourceExhausted", status=429)),
}  # fmt: skip


class World:
    """The edge, running in a thread; reached over real sockets only."""

    def __init__(self, loop: str, spool_dir: Path, **settings: Any) -> None:
        self.invoker = FakeInvoker(dict(SCRIPTS))
        self.metadata = FakeMetadata()
        self.clock = MovableClock()
        methods = ["GET", "POST", "HEAD", "PUT"]
        for name in SCRIPTS:
            if name.startswith("web"):
                self.metadata.add(name, auth="anonymous", methods=methods)
        self.metadata.add("signed", auth="function", methods=methods)
        self.metadata.add("closed", auth="anonymous", methods=methods, disableURLInternet=True)
        self._loop_factory = LOOPS[loop]
        self._spool_dir = spool_dir
        server = {k: settings.pop(k) for k in ("drain_s", "tls_cert", "tls_key") if k in settings}
        self.server = ServerSettings(listen="127.0.0.1:0", **server)
        self.http = HttpSettings(**settings)
        self.metrics = Metrics()
        self.errors: list[dict[str, Any]] = []
        self._ready = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="edge")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self._stop = asyncio.Event()
        edge = Edge(
            invoker=self.invoker,
            authenticator=Authenticator(Credentials(KEY_ID, SECRET), self.clock),
            triggers=HttpTriggers(cast(Metadata, self.metadata)),
            settings=self.http,
            metrics=self.metrics,
            clock=self.clock,
            spool_dir=self._spool_dir,
        )
        self.edge = edge

        @web.middleware
        async def not_found(request: web.Request, handler: Any) -> web.StreamResponse:
            response: web.StreamResponse
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = web.json_response({"ErrorCode": "NotHere"}, status=error.status)
            return response

        app = web.Application(middlewares=[not_found])

        async def healthz(_request: web.Request) -> web.Response:
            return web.json_response({"status": "ok"})

        async def control(request: web.Request) -> web.Response:
            return web.json_response({"bytes": len(await request.read())})

        app.add_routes(
            [web.get("/healthz", healthz), web.post("/control", control), *invocation_routes(edge)]
        )
        async with serving(
            app, edge, self.server, drain_s=lambda: self.server.drain_s
        ) as listening:
            self.listening: Listening = listening
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> World:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def stop(self) -> None:
        """Ask once: after that the loop may close at any moment."""
        if not self._stopping:
            self._stopping = True
            self.loop.call_soon_threadsafe(self._stop.set)

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert not self.errors, self.errors

    def wait_stopped(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    lines: list[tuple[str, str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A raw HTTP/1 client on one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(15)
        self._data = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, *, head_only: bool = False) -> Answer:
        head = self._until(b"\r\n\r\n")
        first, *rest = head.decode("utf-8").split("\r\n")[:-2]
        lines = [(n.lower(), v) for n, _, v in (line.partition(": ") for line in rest)]
        headers = dict(lines)
        status = int(first.split()[1])
        if head_only or status in (204, 304) or status < 200:
            body = b""
        elif "content-length" in headers:
            body = self._exactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            body = self._chunked()
        else:
            body = self.rest()
        return Answer(status, headers, lines, body)

    def rest(self) -> bytes:
        """All until the server closes."""
        while data := self.sock.recv(65536):
            self._data += data
        data, self._data = self._data, b""
        return data

    def closed(self) -> bool:
        """Whether the server closes, with nothing more said; a reset counts."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def _chunked(self) -> bytes:
        parts = []
        while size := int(self._until(b"\r\n"), 16):
            parts.append(self._exactly(size))
            assert self._exactly(2) == b"\r\n"
        assert self._until(b"\r\n") == b"\r\n"
        return b"".join(parts)

    def _until(self, end: bytes) -> bytes:
        while end not in self._data:
            self._more()
        at = self._data.index(end) + len(end)
        found, self._data = self._data[:at], self._data[at:]
        return found

    def _exactly(self, size: int) -> bytes:
        parts, have = [self._data[:size]], min(size, len(self._data))
        self._data = self._data[size:]
        while have < size:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError
            parts.append(data[: size - have])
            self._data = data[size - have :]
            have += len(parts[-1])
        return b"".join(parts)

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(self._data)
        self._data += data


@contextmanager
def connected(world: World, front: str) -> Iterator[Client]:
    """A connection served by the ``fast`` front, or one that ``aiohttp`` already has."""
    with socket.create_connection((world.listening.host, world.listening.port), 10) as sock:
        client = Client(sock)
        if front == "aiohttp":
            client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().json() == {"status": "ok"}
        yield client


def signature(
    method: str,
    resource: str,
    headers: Mapping[str, str],
    secret: str = SECRET,
) -> str:
    own = sorted((n.lower(), v) for n, v in headers.items() if n.lower().startswith("x-fc-"))
    low = {n.lower(): v for n, v in headers.items()}
    text = "\n".join(
        [
            method, low.get("content-md5", ""), low.get("content-type", ""), low.get("date", ""),
            "".join(f"{n}:{v}\n" for n, v in own) + resource,
        ]
    )  # fmt: skip
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def signed_request(
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    resource: str | None = None,
    headers: Mapping[str, str] | None = None,
    unsigned: Mapping[str, str] | None = None,
    chunks: Sequence[bytes] | None = None,
    key_id: str = KEY_ID,
    secret: str = SECRET,
    at: float | None = None,
    version: str = "HTTP/1.1",
) -> bytes:
    date = formatdate(time.time() if at is None else at, usegmt=True)
    sent = {"Host": "localhost", "Date": date, "Content-Type": "application/json"}
    sent |= headers or {}
    given = signature(method, resource or path, sent, secret)
    sent["Authorization"] = f"FC {key_id}:{given}"
    sent |= unsigned or {}
    if chunks is not None:
        sent["Transfer-Encoding"] = "chunked"
        body = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n"
    elif body or method == "POST":
        sent.setdefault("Content-Length", str(len(body)))
    head = f"{method} {path} {version}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in sent.items())
    return head.encode() + b"\r\n" + body


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Until ``condition`` holds in the other thread."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.005)

"""A daemon in small: the real admin routes and signatures over loopback, resources in memory."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fc2 import auth

from eventd.api import dead_letters, health, logs, metrics, status
from eventd.api.status import StatusSources
from eventd.config import ServerSettings
from eventd.errors import EventdError, FunctionNotFound, InvalidArgument, SignatureNotMatch
from eventd.local_access import LocalAccess, load_or_create_access_key, write_endpoint
from eventd.metrics import Metrics
from eventd.model.invocation import DeadLetter, Invocation
from eventd.model.resources import Function, Service
from eventd.pool.report import InstanceReport
from eventd.sources import TriggerStatus
from eventd.store.interface import LogLine, QueueStatistics

DEADLINE_S = 20.0
PUBLIC = ("/healthz", "/readyz", "/metrics")


@dataclass
class Lines:
    """A log in memory; ``add`` may be called from another thread."""

    kept: list[LogLine] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    followers: int = 0

    async def query(self, **match: Any) -> Sequence[LogLine]:
        self.asked.append(match)
        return [line for line in self.kept if match["text"] in line.text][-match["limit"] :]

    async def follow(self, **match: Any) -> AsyncIterator[LogLine]:
        self.asked.append(match)
        self.followers += 1
        shown = 0
        try:
            while True:
                self.grown.clear()
                while shown < len(self.kept):
                    shown += 1
                    yield self.kept[shown - 1]
                if not self.grown.is_set():
                    await self.grown.wait()
        finally:
            self.followers -= 1


class Resources:
    """As much of ``Metadata`` and the FC API as the commands need."""

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}

    def services(self) -> list[Service]:
        return [
            Service(body["serviceName"], "", "", "", "", "", body)
            for path, body in sorted(self.bodies.items())
            if path.count("/") == 3
        ]

    def functions(self, service: str) -> list[Function]:
        return [
            Function(service, body["functionName"], "", "", "", "", body, "", "", 0)
            for path, body in sorted(self.bodies.items())
            if path.startswith(f"/2016-08-15/services/{service}/functions/")
            and path.count("/") == 5
        ]


class Letters:
    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        invocation = Invocation("i1", "r1", "shop", "orders", "", "LATEST", b"\x00payload", 1000)
        return [DeadLetter(invocation, "attempts", b"boom", 2000)][:limit]


@dataclass
class Daemon:
    """The running fake: ``call`` runs something on its loop."""

    url: str
    data: Path
    access: LocalAccess
    lines: Lines
    resources: Resources
    metrics: Metrics
    closing: asyncio.Event
    loop: asyncio.AbstractEventLoop
    reasons: list[str]

    def call(self, function: Callable[[], Any]) -> None:
        self.loop.call_soon_threadsafe(function)

    def add(self, line: LogLine) -> None:
        def put() -> None:
            self.lines.kept.append(line)
            self.lines.grown.set()

        self.call(put)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """The fake, whose data directory the commands find by EVENTD_DATA."""
    for name in ("EVENTD_ENDPOINT", "EVENTD_ACCESS_KEY_ID", "EVENTD_ACCESS_KEY_SECRET"):
        monkeypatch.delenv(name, raising=False)
    data = tmp_path / "data"
    monkeypatch.setenv("EVENTD_DATA", str(data))
    access = load_or_create_access_key(data, ServerSettings())
    ready = threading.Event()
    started: list[Daemon] = []
    ending: list[asyncio.Event] = []

    async def serve() -> None:
        end = asyncio.Event()
        ending.append(end)
        made = Daemon(
            "", data, access, Lines(), Resources(), Metrics(), asyncio.Event(),
            asyncio.get_running_loop(), [],
        )  # fmt: skip
        runner = web.AppRunner(_app(made), shutdown_timeout=5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.append(made)
        ready.set()
        await end.wait()
        made.closing.set()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    while not ready.wait(0.05):
        assert thread.is_alive(), "the fake daemon ended while it was starting"
    write_endpoint(data, started[0].url)
    yield started[0]
    started[0].call(ending[0].set)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def _app(daemon: Daemon) -> web.Application:
    @web.middleware
    async def edge(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if request.path not in PUBLIC:
                _verify(request, daemon.access)
            answer: web.StreamResponse = await handler(request)
        except EventdError as error:
            body = {"ErrorCode": error.code, "ErrorMessage": str(error)}
            return web.json_response(body, status=error.status, headers={"X-Fc-Request-Id": "r9"})
        return answer

    sources = StatusSources(
        metadata=daemon.resources,  # type: ignore[arg-type] # as much of it as status reads
        metrics=daemon.metrics,
        queue=lambda: QueueStatistics(3, 1, 2, {("demo", "hello"): 3}),
        instances=lambda: [
            InstanceReport("c-1", "demo", "hello", "LATEST", "busy", 2, 10, 31.25, 60.0, 0.0, 7)
        ],
        triggers=lambda: [
            TriggerStatus(
                "demo", "orders", "new-order", "kafka", "k", "broker away", 7, False, "", 0
            )
        ],
        about=lambda: {
            "version": "0.1.0",
            "endpoint": daemon.url,
            "region": "cn-local",
            "accountId": daemon.access.account_id,
        },
        waiting_calls=lambda: {("demo", "hello"): 1},
    )
    app = web.Application(middlewares=[edge])
    app.add_routes(health.routes(lambda: daemon.reasons))
    app.add_routes(metrics.routes(daemon.metrics, lambda: {"queue_waiting": 3}))
    app.add_routes(status.routes(sources))
    app.add_routes(logs.routes(daemon.lines, daemon.closing))
    app.add_routes(dead_letters.routes(Letters()))  # type: ignore[arg-type] # reads only these
    app.router.add_post("/2016-08-15/services/{service}/functions/{function}/invocations", _invoke)

    async def resource(request: web.Request) -> web.Response:
        return await _resource(request, daemon)

    app.router.add_route("*", "/2016-08-15/{tail:.*}", resource)
    return app


def _verify(request: web.Request, access: LocalAccess) -> None:
    """The official SDK's signature is the judge."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    wanted = auth.Auth(access.access_key_id, access.access_key_secret, "").sign_request(
        request.method, request.path, headers
    )
    if headers.get("authorization") != wanted:
        raise SignatureNotMatch("the signature does not match")


async def _invoke(request: web.Request) -> web.Response:
    """Echo the event; the function ``crash`` fails, ``gone`` does not exist."""
    function, event = request.match_info["function"], await request.read()
    headers = {"X-Fc-Request-Id": "r1", "X-Fc-Invocation-Service-Version": "1"}
    if function == "gone":
        raise FunctionNotFound("function 'gone' does not exist in service 'demo'")
    if request.headers.get("X-Fc-Invocation-Type") == "Async":
        return web.Response(status=202, headers=headers)
    if request.headers.get("X-Fc-Log-Type") == "Tail":
        headers["X-Fc-Log-Result"] = base64.b64encode(b"a line\n").decode()
    if function == "crash":
        headers["X-Fc-Error-Type"] = "UnhandledInvocationError"
        return web.Response(body=b'{"errorMessage":"boom"}', headers=headers)
    return web.Response(body=event + request.match_info["service"].encode(), headers=headers)


async def _resource(request: web.Request, daemon: Daemon) -> web.Response:
    body = await request.json() if request.can_read_body else {}
    bodies, path = daemon.resources.bodies, request.path
    if request.method == "PUT":
        if path not in bodies:
            raise FunctionNotFound("no such resource")
        bodies[path] = {**bodies[path], **body}
        return web.json_response(bodies[path])
    if request.method == "POST":
        kind = path.rsplit("/", 1)[1].removesuffix("s")
        path = f"{path}/{body[kind + 'Name']}"
        if path in bodies:
            raise InvalidArgument("exists", field=kind)
        bodies[path] = body
        return web.json_response(body)
    return web.json_response({})

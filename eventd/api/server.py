"""The listener: one port, the fast front on every new connection, aiohttp behind it."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from eventd.api.edge import Edge
from eventd.api.front import Front
from eventd.api.inner import InnerHandler
from eventd.config import ServerSettings
from eventd.errors import InvalidArgument

log = logging.getLogger(__name__)

_SWEEP_S = 1.0
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server answers; ``port`` is the real one when 0 was asked for."""

    host: str
    port: int
    tls: bool

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


@asynccontextmanager
async def serving(
    app: web.Application,
    edge: Edge,
    settings: ServerSettings,
    *,
    drain_s: Callable[[], float],
) -> AsyncIterator[Listening]:
    """Serve the API and the functions during the block.

    Leaving it refuses new connections, closes idle ones, gives running requests
    ``drain_s()`` seconds, then cuts them; their calls are cancelled.

    Raises:
        InvalidArgument: ``listen`` has another form, or is off loopback without TLS or
            ``insecure_http``.
        OSError: the address can't be bound, or a TLS file can't be read.
    """
    host, port = parse_listen(settings.listen)
    context = _tls_context(settings)
    loop = asyncio.get_running_loop()
    await _check_exposure(host, settings, tls=context is not None)
    app.on_response_prepare.append(_mark_response)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    assert runner.server is not None
    hand_over = partial(
        InnerHandler,
        edge,
        runner.server,
        loop,
        access_log=None,
        auto_decompress=False,  # a body reaches its function as it was sent
        keepalive_timeout=edge.settings.keepalive_s,
        # The guard before it holds the limits; a head that passed must pass here too.
        max_line_size=edge.limits.total,
        max_field_size=edge.limits.total,
        max_headers=edge.limits.total,
    )
    try:
        server = await loop.create_server(
            lambda: Front(edge, hand_over),
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=edge.settings.header_timeout_s if context else None,
            backlog=_BACKLOG,
        )
    except OSError as error:
        await runner.cleanup()
        raise OSError(_cannot_listen(settings.listen, error)) from error
    except BaseException:
        await runner.cleanup()
        raise
    try:
        async with _working(edge):
            bound = server.sockets[0].getsockname()
            try:
                yield Listening(host=bound[0], port=bound[1], tls=context is not None)
            finally:
                await _drain(server, runner, edge, drain_s())
    finally:
        edge.triggers.close()


def _cannot_listen(listen: str, error: OSError) -> str:
    """For the operator: the loop's own text is an error number and a tuple."""
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror or str(error)
    return f"cannot listen on {listen}: {reason.lower()}; give another --listen"


def parse_listen(listen: str) -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT``; ``InvalidArgument`` for anything else."""
    host, colon, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(
            f"expected HOST:PORT or [IPV6]:PORT, found '{listen}'", field="listen"
        )
    return host, int(port)


async def _check_exposure(host: str, settings: ServerSettings, *, tls: bool) -> None:
    if tls or settings.insecure_http:
        return
    found = await asyncio.get_running_loop().getaddrinfo(host, None)
    addresses = {str(address[0]).partition("%")[0] for *_, address in found}
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise InvalidArgument(
            f"{host} can be reached from other machines, and signatures don't cover bodies: give "
            "tls_cert and tls_key, or allow it with insecure_http",
            field="listen",
        )


def _tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    if not settings.tls_cert and not settings.tls_key:
        return None
    if not settings.tls_cert or not settings.tls_key:
        raise InvalidArgument("tls_cert and tls_key belong together", field="tls_cert")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


async def _mark_response(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "eventd"
    if response.status != 101 and "Upgrade" in request.headers:
        # Behind a refused upgrade the guard no longer looks at heads.
        response.force_close()


@asynccontextmanager
async def _working(edge: Edge) -> AsyncIterator[None]:
    """Own the tasks of the fast front: asynchronous calls on their way to disk, and once a second
    a look at every connection's time limits (a timer for each would cost more than the requests).
    """

    async def sweep_forever() -> None:
        loop = asyncio.get_running_loop()
        while True:
            await edge.clock.sleep(_SWEEP_S)
            now = loop.time()
            for connection in tuple(edge.connections):
                connection.sweep(now)

    tasks: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:

        def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
            task = group.create_task(coroutine)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        edge.spawn = spawn
        spawn(sweep_forever())
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _drain(server: asyncio.Server, runner: web.AppRunner, edge: Edge, drain_s: float) -> None:
    """Stop accepting, let what runs end, then cut."""
    edge.draining = True
    server.close()
    for connection in tuple(edge.connections):
        connection.drain(drain_s)
    try:
        if not await edge.connections.wait_empty(drain_s):
            log.warning("%d connections were cut after %.0f s", len(edge.connections), drain_s)
    finally:
        for connection in tuple(edge.connections):
            connection.abort()
        await runner.cleanup()
        await server.wait_closed()

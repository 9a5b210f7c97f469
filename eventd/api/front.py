"""The fast front: serves the invocation paths itself and hands every other connection to aiohttp.

One request of a connection runs at a time; later ones wait in its buffer, which is bounded by
not reading on. Heads are read by ``parse_head``, here and behind the handover (``guard.py``), so
both fronts refuse the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import IntEnum
from typing import cast

from aiohttp import web

from eventd.api.answers import EventAnswer, HttpAnswer
from eventd.api.chunks import ChunkDecoder
from eventd.api.edge import Edge
from eventd.api.guard import Guard
from eventd.api.head import (
    HeadersTooLarge,
    RequestTimeout,
    malformed_so_far,
    parse_head,
)
from eventd.api.plan import FOR_EVER, Plan, match_route
from eventd.api.responses import defect_reply, error_reply
from eventd.api.spool import Spool
from eventd.api.wire import Wire
from eventd.errors import EventdError, InvalidArgument, ServiceUnavailable
from eventd.pool.call import Call, CallKind

log = logging.getLogger(__name__)

_BUFFER_BYTES = 64 << 10
"""What may wait behind a running request, and how much of a refused body is read to keep the
connection."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER_S = 5.0


class _At(IntEnum):
    HEAD = 0
    LENGTH = 1
    CHUNKS = 2
    SPOOLED = 3  # the body is complete and on its way to the disk
    RUNNING = 4
    LINGER = 5  # answered and closing; what still comes is dropped


class Front(Wire):
    """One client connection until it ends or is handed over."""

    __slots__ = (
        "_answer", "_at", "_call", "_chunks", "_client_ip", "_first", "_hand_over",
        "_left", "_loop", "_looping",
        "_partial", "_plan", "_received", "_refusal", "_rest", "_since",
        "_spool", "_stalled_since",
    )  # fmt: skip

    def __init__(self, edge: Edge, hand_over: Callable[[], web.RequestHandler]) -> None:
        super().__init__(edge)
        self._hand_over = hand_over
        self._loop = asyncio.get_running_loop()
        self._client_ip = ""
        self._rest = b""
        self._at = _At.HEAD
        self._since = 0.0
        self._received = 0
        self._stalled_since = 0.0
        self._first = True
        self._partial = False
        self._looping = False
        self._left = 0
        self._chunks: ChunkDecoder | None = None
        self._spool: Spool | None = None
        self._refusal: EventdError | None = None
        self._call: Call | None = None
        self._answer: EventAnswer | HttpAnswer | None = None
        self._plan: Plan

    # -- the connection -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._client_ip = str(peer[0]) if isinstance(peer, tuple) else ""
        edge = self._edge
        if edge.draining or len(edge.connections) >= edge.settings.max_connections:
            edge.metrics.http_refused += 1
            error = ServiceUnavailable("too many open connections")
            self._keep_alive = False
            self._write(error_reply(error, edge.new_request_id()))
            self._transport.close()
            return
        edge.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._edge.connections.remove_lost(self)
        self._rest = b""
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        if self._call is not None:
            self._edge.invoker.cancel(self._call)

    def data_received(self, data: bytes) -> None:
        if self._at is _At.LINGER:
            return
        self._rest = self._rest + data if self._rest else data
        if self._at >= _At.SPOOLED:
            if len(self._rest) > _BUFFER_BYTES:
                self._pause_reading()
            return
        self._run()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._stalled_since = self._loop.time()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._answer is not None:
            self._answer.resume()
        if self._at < _At.SPOOLED:
            self._run()

    def sweep(self, now: float) -> None:
        settings = self._edge.settings
        if self.writing_paused and now - self._stalled_since > settings.keepalive_s:
            self._transport.abort()
        elif self._at is _At.HEAD:
            self._sweep_head(now)
        elif self._at in (_At.LENGTH, _At.CHUNKS):
            elapsed = now - self._since
            if not self._transport.is_reading():
                self._since, self._received = now, 0
            elif (
                elapsed > settings.header_timeout_s
                and self._received < elapsed * settings.body_min_rate_bytes_s
            ):
                self._fail(RequestTimeout("the request body arrives too slowly"))
        elif self._at is _At.LINGER and now - self._since > _LINGER_S:
            self._transport.close()

    def drain(self, within_s: float) -> None:
        self._keep_alive = False
        if self._at is _At.HEAD:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _sweep_head(self, now: float) -> None:
        settings = self._edge.settings
        waited = now - self._since
        if not self._since:
            self._since = now
        elif self._partial:
            if waited > settings.header_timeout_s:
                self._fail(RequestTimeout("the request headers did not arrive in time"))
        elif waited > (settings.header_timeout_s if self._first else settings.keepalive_s):
            self._transport.close()

    # -- reading --------------------------------------------------------------------------------

    def _run(self) -> None:
        """Take as much out of the buffer as can be taken now."""
        if self._looping:
            return
        self._looping = True
        try:
            while self._rest and self._at < _At.SPOOLED and not self.writing_paused:
                if not self._step():
                    break
        except EventdError as error:
            self._fail(error)
        finally:
            self._looping = False

    def _step(self) -> bool:
        """Take one head or one piece of a body; ``False`` when more bytes are needed."""
        if self._at is _At.HEAD:
            return self._take_head()
        data, self._rest = self._rest, b""
        self._received += len(data)
        if self._at is _At.LENGTH:
            piece = data[: self._left]
            self._rest = data[self._left :]
            self._left -= len(piece)
            self._take_body([piece], done=not self._left)
        else:
            assert self._chunks is not None
            parts, used = self._chunks.feed(data)
            self._rest = data[used:]
            self._take_body(parts, done=self._chunks.done)
        return True

    def _take_head(self) -> bool:
        data = self._rest
        while data.startswith(b"\r\n"):  # RFC 9112, 2.2: an empty line before a request
            data = self._rest = data[2:]
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > self._edge.limits.total:
                raise HeadersTooLarge(
                    f"the request headers exceed {self._edge.limits.headers} bytes"
                )
            if malformed_so_far(data):
                raise InvalidArgument("malformed HTTP request: a line must end with CRLF")
            if not self._partial:
                self._partial = True
                self._since = self._loop.time()
            return False
        raw = data[:end]
        self._partial = self._first = False
        edge = self._edge
        plan = edge.known.get((self._client_ip, raw))
        if plan is not None and (
            plan.valid_until == FOR_EVER or edge.clock.time() <= plan.valid_until
        ):
            self._plan = plan
            self._head = plan.head
            self._keep_alive = plan.head.keep_alive and not edge.draining
        elif not self._read_head(raw):
            return False
        self._rest = data[end:]
        self._expect_body()
        return True

    def _read_head(self, raw: bytes) -> bool:
        """Read and plan a head; ``False``: it is not for this front."""
        edge = self._edge
        head = parse_head(raw, edge.limits)
        route = match_route(head.target)
        if route is None or (route.kind is CallKind.EVENT and head.method != "POST"):
            self._hand_over_connection()
            return False
        self._head = head
        self._keep_alive = head.keep_alive and not edge.draining
        try:
            self._plan = edge.plan(route, head, self._client_ip)
        except EventdError as error:
            self._refusal = error
        else:
            edge.remember(self._client_ip, raw, self._plan)
        return True

    def _expect_body(self) -> None:
        head = self._head
        assert head is not None
        length = head.content_length
        limit = _BUFFER_BYTES if self._refusal is not None else self._plan.max_body_bytes
        if length is not None and length > limit:
            raise self._refusal or self._plan.too_large()
        if not length and not head.chunked:
            self._body_complete(b"")
            return
        rest = self._rest
        if length and len(rest) >= length:
            self._rest = rest[length:]
            self._body_complete(rest[:length])
            return
        if head.expects_continue and not rest:
            if self._refusal is not None:
                raise self._refusal
            self._transport.write(_CONTINUE)
        self._since, self._received = self._loop.time(), 0
        if length:
            self._at, self._left = _At.LENGTH, length
        else:
            self._at, self._chunks = _At.CHUNKS, ChunkDecoder()
        self._spool = Spool(self._edge.spool_dir, self._resume_reading)

    def _take_body(self, parts: list[bytes], *, done: bool) -> None:
        spool = self._spool
        assert spool is not None
        for part in parts:
            spool.write(part)
        refusal = self._refusal
        if spool.size > (_BUFFER_BYTES if refusal is not None else self._plan.max_body_bytes):
            raise refusal or self._plan.too_large()
        if done:
            self._at = _At.SPOOLED
            spool.finish(self._spooled)
        elif spool.full:
            self._pause_reading()

    def _spooled(self, body: bytes | memoryview | OSError) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()
        if isinstance(body, OSError):
            log.error("a request body can't be stored: %s", body)
            self._fail(ServiceUnavailable("the request body can't be stored"))
            return
        self._body_complete(body)
        self._run()

    def _hand_over_connection(self) -> None:
        """Give the connection with all that was read to aiohttp, for good."""
        transport, data = self._transport, self._rest
        self._rest = b""
        self._at = _At.LINGER
        self._edge.connections.discard(self)
        inner = self._hand_over()
        guard = Guard(self._edge, inner, transport)
        transport.set_protocol(guard)
        self._edge.connections.add(guard)
        inner.connection_made(transport)
        guard.data_received(data)

    # -- calling --------------------------------------------------------------------------------

    def _body_complete(self, body: bytes | memoryview) -> None:
        self._at = _At.RUNNING
        if self._refusal is not None:
            error, self._refusal = self._refusal, None
            self.answered(self._error_reply(error))
            return
        plan, edge = self._plan, self._edge
        request_id = plan.options.request_id or edge.new_request_id()
        if plan.options.asynchronous:
            assert edge.spawn is not None
            edge.spawn(self._enqueue(plan, bytes(body), request_id))
            return
        answer: EventAnswer | HttpAnswer
        if plan.http is None:
            answer = EventAnswer(edge, self, plan, request_id)
        else:
            answer = HttpAnswer(edge, self, plan, request_id)
        try:
            call = edge.start(plan, body, request_id, answer)
        except EventdError as error:
            self.answered(error_reply(error, request_id, plan.route.kind))
            return
        except Exception:
            log.exception("request %s failed", request_id)
            self.answered(defect_reply(request_id, plan.route.kind))
            return
        self._answer, self._call = answer, call
        answer.bind(call)

    async def _enqueue(self, plan: Plan, body: bytes, request_id: str) -> None:
        try:
            reply = await self._edge.enqueue(plan, body, request_id)
        except EventdError as error:
            reply = error_reply(error, request_id, plan.route.kind)
        except Exception:
            log.exception("request %s failed", request_id)
            reply = defect_reply(request_id, plan.route.kind)
        self.answered(reply)

    # -- ending -----------------------------------------------------------------------------------

    def _next_request(self) -> None:
        self._call = self._answer = self._head = None
        self._since = 0.0
        if not self._keep_alive:
            self._rest = b""
            self._at = _At.LINGER
            self._transport.close()
            return
        self._at = _At.HEAD
        self._resume_reading()
        if self._rest:
            self._run()

    def _fail(self, error: EventdError) -> None:
        """Answer a request that can't be read on; the connection ends with it."""
        if self._lost:
            return
        self._edge.metrics.http_refused += 1
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        self._keep_alive = False
        self._write(self._error_reply(error))
        self._rest = b""
        self._at = _At.LINGER
        self._since = self._loop.time()
        if not self._transport.can_write_eof():
            self._transport.close()
            return
        # The client may still send; a reset, caused by bytes that nobody read, would take the
        # answer from it. So only the own side is closed until the client closes, or _LINGER_S.
        self._transport.write_eof()
        self._resume_reading()

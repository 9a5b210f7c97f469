"""Stands before aiohttp on a connection that was handed over.

aiohttp's parser is laxer than ``parse_head``. So every head is read here first and passed on only
when it is whole and has one reading, and every body is measured, so that both agree on where the
next head begins. Time limits hold here as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum

from aiohttp import web

from eventd.api.chunks import ChunkDecoder
from eventd.api.edge import Edge
from eventd.api.head import HeadersTooLarge, RequestTimeout, malformed_so_far, parse_head
from eventd.api.responses import error_reply, status_line
from eventd.errors import EventdError, InvalidArgument

REFUSAL_PATH = "/.eventd/refused"
"""A request that can't be passed on is replaced by one for this path: its handler answers with
``Guard.refusal``, in its turn behind the requests before it."""

_REFUSAL_REQUEST = f"GET {REFUSAL_PATH} HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n".encode()
_UPGRADES = frozenset({"websocket", "tcp"})  # the ones that aiohttp knows


class _At(IntEnum):
    HEAD = 0
    LENGTH = 1
    CHUNKS = 2
    OPAQUE = 3  # after an upgrade: no HTTP any more
    REFUSED = 4


class Guard(asyncio.Protocol):
    """One connection from its handover to its end.

    Attributes:
        writing_paused: the client does not take what was written.
        refusal: why nothing more of this connection is read.
        on_lost: called when the client went away; the handler that runs may set it.
    """

    __slots__ = (
        "_at", "_chunks", "_drain_s", "_edge", "_inner", "_left", "_loop", "_received", "_rest",
        "_since", "_stalled_since", "_transport", "on_lost", "refusal",
        "writing_paused",
    )  # fmt: skip

    def __init__(self, edge: Edge, inner: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._edge = edge
        self._inner = inner
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._at = _At.HEAD
        self._drain_s = 0.0
        self._left = 0
        self._chunks = ChunkDecoder()
        self._since = 0.0
        self._received = 0
        self._stalled_since = 0.0
        self.writing_paused = False
        self.refusal: EventdError | None = None
        self.on_lost: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        if self._at is _At.OPAQUE:
            self._inner.data_received(data)
            return
        if self._at is _At.REFUSED:
            return
        self._rest = self._rest + data if self._rest else data
        try:
            while self._rest and self._step():
                pass
        except EventdError as error:
            self._refuse(error)

    def eof_received(self) -> None:
        """The client sends nothing more: as for aiohttp, and as in the fast front, it has left."""
        self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._edge.connections.remove_lost(self)
        self._inner.connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self._stalled_since = self._loop.time()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self._inner.resume_writing()

    def sweep(self, now: float) -> None:
        settings = self._edge.settings
        waited = now - self._since
        if self.writing_paused and now - self._stalled_since > settings.keepalive_s:
            self._transport.abort()
        elif self._at is _At.HEAD:
            if self._rest and waited > settings.header_timeout_s:
                self._refuse(RequestTimeout("the request headers did not arrive in time"))
        elif self._at in (_At.LENGTH, _At.CHUNKS):
            if not self._transport.is_reading():
                self._since, self._received = now, 0
            elif waited > settings.header_timeout_s and (
                self._received < waited * settings.body_min_rate_bytes_s
            ):
                self._refuse(RequestTimeout("the request body arrives too slowly"))

    def drain(self, within_s: float) -> None:
        self._drain_s = within_s
        if self._at in (_At.HEAD, _At.OPAQUE):
            self._end()

    def abort(self) -> None:
        self._transport.abort()

    def _step(self) -> bool:
        """Pass on one head or one piece of a body; ``False`` when more bytes are needed."""
        if self._at is _At.HEAD:
            return self._take_head()
        data, self._rest = self._rest, b""
        self._received += len(data)
        if self._at is _At.LENGTH:
            used = min(self._left, len(data))
            self._left -= used
            done = not self._left
        elif self._at is _At.CHUNKS:
            _, used = self._chunks.feed(data)
            done = self._chunks.done
        else:
            used, done = len(data), False
        self._rest = data[used:]
        self._inner.data_received(data[:used])
        if done:
            self._at = _At.HEAD
            if self._edge.draining:
                self._end()
        return True

    def _take_head(self) -> bool:
        data = self._rest
        while data.startswith(b"\r\n"):
            data = self._rest = data[2:]
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > self._edge.limits.total:
                raise HeadersTooLarge(
                    f"the request headers exceed {self._edge.limits.headers} bytes"
                )
            if malformed_so_far(data):
                raise InvalidArgument("malformed HTTP request: a line must end with CRLF")
            if not self._since:
                self._since = self._loop.time()
            return False
        head = parse_head(data[:end], self._edge.limits)
        self._rest = data[end:]
        self._since, self._received = self._loop.time(), 0
        if head.chunked:
            self._at, self._chunks = _At.CHUNKS, ChunkDecoder()
        elif head.content_length:
            self._at, self._left = _At.LENGTH, head.content_length
        elif head.upgrade in _UPGRADES:
            self._at = _At.OPAQUE
        else:
            self._since = 0.0
        self._inner.data_received(data[:end])
        return True

    def _end(self) -> None:
        """Let aiohttp end the connection after its request. From then on it drops what it is
        given, so this waits for the end of a body."""
        assert self._edge.spawn is not None
        self._inner.close()  # an idle connection's task ends here
        self._edge.spawn(self._inner.shutdown(self._drain_s))

    def _refuse(self, error: EventdError) -> None:
        """Answer with ``error`` and end the connection."""
        self._edge.metrics.http_refused += 1
        self.refusal = error
        self._rest = b""
        within_body, self._at = self._at is not _At.HEAD, _At.REFUSED
        if not within_body:
            self._inner.data_received(_REFUSAL_REQUEST)
            return
        # The handler still waits for this body, so no answer has begun.
        reply = error_reply(error, self._edge.new_request_id())
        self._edge.count(reply.status)
        head = b"%b%b%bContent-Length: %d\r\nConnection: close\r\n\r\n" % (
            status_line(reply.status),
            self._edge.date_lines(),
            reply.block,
            len(reply.body),
        )
        self._transport.write(head + reply.body)
        self._transport.close()

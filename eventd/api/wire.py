"""The writing half of the fast front: replies and streams become HTTP/1 on the connection."""

from __future__ import annotations

import asyncio

from eventd.api.edge import Edge
from eventd.api.head import RequestHead
from eventd.api.plan import PROXY_PREFIX, given_request_id
from eventd.api.responses import Reply, error_reply, status_line
from eventd.errors import EventdError
from eventd.pool.call import CallKind

_JOINED_BYTES = 64 << 10
"""A body up to this goes out in one piece with its head."""
_WITHOUT_BODY = frozenset({204, 304})


class Wire(asyncio.Protocol):
    """A connection that can answer the request it is at (``_head``; ``None``: none was readable).

    Attributes:
        writing_paused: the client does not take what was written.
    """

    __slots__ = (
        "_bodyless", "_edge", "_head", "_keep_alive", "_lost", "_reading_paused", "_transport",
        "writing_paused",
    )  # fmt: skip

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._head: RequestHead | None = None
        self._keep_alive = True
        self._bodyless = False
        self._lost = False
        self._reading_paused = False
        self.writing_paused = False
        self._transport: asyncio.Transport

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self._lost and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()

    def _next_request(self) -> None:
        """The answer is written whole."""
        raise NotImplementedError

    def answered(self, reply: Reply) -> None:
        if self._lost:
            return
        self._write(reply)
        self._next_request()

    def begin(self, status: int, block: bytes) -> None:
        head = self._head
        if self._lost or head is None:
            return
        self._edge.count(status)
        self._bodyless = head.method == "HEAD" or status in _WITHOUT_BODY
        self._keep_alive = self._keep_alive and not head.http_10
        framing = b"" if head.http_10 or self._bodyless else b"Transfer-Encoding: chunked\r\n"
        self._transport.write(self._head_bytes(status, block, framing))

    def write(self, data: bytes) -> None:
        if self._lost or self._bodyless or self._head is None:
            return
        if self._head.http_10:
            self._transport.write(data)
        else:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        if self._lost or self._head is None:
            return
        if not self._head.http_10 and not self._bodyless:
            self._transport.write(b"0\r\n\r\n")
        self._bodyless = False
        self._next_request()

    def break_off(self) -> None:
        self._transport.abort()

    def _write(self, reply: Reply) -> None:
        status, body = reply.status, reply.body
        self._edge.count(status)
        length = b"" if status in _WITHOUT_BODY else b"Content-Length: %d\r\n" % len(body)
        head = self._head_bytes(status, reply.block, length)
        if status in _WITHOUT_BODY or (self._head is not None and self._head.method == "HEAD"):
            self._transport.write(head)
        elif len(body) > _JOINED_BYTES:
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)

    def _head_bytes(self, status: int, block: bytes, framing: bytes) -> bytes:
        if not self._keep_alive:
            connection = b"Connection: close\r\n\r\n"
        elif self._head is not None and self._head.http_10:
            connection = b"Connection: keep-alive\r\n\r\n"
        else:
            connection = b"\r\n"
        return b"".join((status_line(status), self._edge.date_lines(), block, framing, connection))

    def _error_reply(self, error: EventdError) -> Reply:
        """An error before there is a call."""
        head, request_id, kind = self._head, "", CallKind.EVENT
        if head is not None:
            request_id = given_request_id(head.headers)
            kind = CallKind.HTTP if head.target.startswith(PROXY_PREFIX) else CallKind.EVENT
        return error_reply(error, request_id or self._edge.new_request_id(), kind)

"""One request inside the instance: what was asked, and how far its answer is."""

from __future__ import annotations

import contextvars
import json
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Dict, List, Optional, Tuple

from . import wire

CURRENT: contextvars.ContextVar[Request | None] = contextvars.ContextVar(
    "eventd_request", default=None
)
"""The request that the running code works for; threads and tasks started by it inherit it."""


class Cancelled(BaseException):
    """Nobody waits for the answer any more; ends a streaming handler."""


class Http:
    """The head of an HTTP request as the router sent it. Requests with the same head share it.

    Attributes:
        environ: what follows from it for ``environ``, with the environment that it was made from.
    """

    __slots__ = ("client_ip", "environ", "headers", "method", "path", "query", "uri")

    def __init__(self, text: str) -> None:
        self.environ: Optional[Tuple[Dict[str, Any], Dict[str, Any]]] = None
        count, rest = text.split("\0", 1)
        size = 2 * int(count)
        fields = rest.split("\0", 4 + size)
        self.method, self.uri, self.query, self.client_ip = fields[:4]
        self.headers: list[tuple[str, str]] = list(zip(fields[4:-1:2], fields[5:-1:2]))
        self.path = fields[-1]


KNOWN_CHARACTERS = 2048
_known_http = lru_cache(maxsize=128)(Http)


class Request:
    """A call from its ``OPEN`` to its ``END``. What most calls never change stands in the class: a
    small call stores little."""

    more: Mapping[str, Any] = MappingProxyType({})
    """The optional fields of ``OPEN``; replaced, never changed."""
    http: Optional[Http] = None
    whole = True
    window = wire.WINDOW
    cancelled = False
    ended = False
    head_sent = False
    head_frame = b""
    """The head of the answer, which leaves with what comes next."""
    partial: Optional[Dict[int, str]] = None
    pipe: Optional[int] = None
    started = 0.0
    task: Any = None

    def __init__(self, call_id: int, request_id: str, qualifier: str) -> None:
        self.id = call_id
        self.request_id = request_id
        self.qualifier = qualifier
        self.chunks: List[bytes] = []

    @classmethod
    def opened(cls, call_id: int, body: bytes) -> Request:
        flags, size = wire.OPEN_FIELDS.unpack_from(body)
        stop = 5 + size
        text = body[5:stop].decode("utf-8", "surrogateescape")
        if flags & ~wire.OPEN_LAST:
            request_id, qualifier, rest = text.split("\0", 2)
            request = cls(call_id, request_id, qualifier)
            if flags & wire.OPEN_MORE:
                more, _, rest = rest.partition("\0")
                request.more = json.loads(more)
            if flags & wire.OPEN_HTTP:
                request.http = _known_http(rest) if len(rest) <= KNOWN_CHARACTERS else Http(rest)
        else:
            request_id, _, qualifier = text.partition("\0")
            request = cls(call_id, request_id, qualifier)
        request.chunks.append(body[stop:])
        if not flags & wire.OPEN_LAST:
            request.whole = False
        return request

    def payload(self) -> bytes:
        """The whole payload; only once."""
        chunks, self.chunks = self.chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def elapsed_us(self) -> int:
        if not self.started:
            return 0
        return min(int((time.perf_counter() - self.started) * 1e6), 0xFFFFFFFF)


class Answer:
    """Sends the answer of one request.

    Args:
        wait_credit: blocks until ``request.window`` is above 0 or the request is cancelled.
    """

    __slots__ = ("_request", "_wait_credit", "_wire")

    def __init__(
        self, link: wire.Wire, request: Request, wait_credit: Callable[[Request], None]
    ) -> None:
        self._wire = link
        self._request = request
        self._wait_credit = wait_credit

    def head(self, status: int, fields: list[str]) -> None:
        """Send status and header fields with what comes next."""
        try:
            raw = "\0".join(fields).encode("latin-1")
        except UnicodeEncodeError:
            raw = "\0".join(fields).encode("utf-8")
        if len(raw) > wire.MAX_DATA:
            raise ValueError("the response headers are larger than 64 KiB")
        request = self._request
        request.head_frame = wire.encode(wire.HEAD, request.id, wire.U16.pack(status) + raw)
        request.head_sent = True

    def data(self, data: bytes) -> None:
        """Send part of the body; waits while the receiver is slow. ``Cancelled``: it went away."""
        request = self._request
        view = memoryview(data)
        if not view and request.head_frame:
            self._send(b"")
        while view:
            if request.window <= 0:
                self._wire.flush()
                self._wait_credit(request)
            if request.cancelled:
                raise Cancelled
            size = min(len(view), request.window, wire.MAX_DATA)
            request.window -= size
            self._send(wire.encode(wire.DATA, request.id, bytes(view[:size])))
            view = view[size:]

    def _send(self, frame: bytes) -> None:
        request = self._request
        if request.head_frame:
            frame, request.head_frame = request.head_frame + frame, b""
        self._wire.send(frame)

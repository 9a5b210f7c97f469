"""The router's end of an instance's socket: calls multiplexed over frames, by callbacks alone.

No task and no future per call. What is written in one tick of the loop leaves in one write. Memory
is bounded on both sides: an upload moves only while the instance gives credit and the transport
is not paused; a download stays within the window that the receiver renews with ``Call.consumed``.
Nothing here ever asks the socket for control messages: an instance cannot pass descriptors.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import lru_cache
from typing import Protocol, cast

import orjson

from eventd.pool import frames
from eventd.pool.call import Call, HttpHead, Transfer
from eventd.pool.frames import (
    CREDIT,
    DATA,
    END,
    ERROR,
    HEAD,
    LOG,
    MAX_DATA,
    OPEN,
    OPEN_HEADER,
    PING,
    READY,
    U16,
    U32,
    WINDOW,
    Decoder,
    ProtocolError,
    encode,
)

EXITED_BYTE = bytes([frames.EXITED])

RENEW = WINDOW // 4
"""Credit is given back in portions of this size: a frame for every 64 KiB, not for every byte."""

_KNOWN_HEAD_BYTES = 1024
"""Heads of answers up to this size are remembered: functions repeat themselves."""


class ChannelOwner(Protocol):
    """Who hears what an instance says. No method may block or raise."""

    def ready(self, info: bytes) -> None: ...

    def unready(self, body: bytes, *, exited: bool) -> None:
        """The module or the initializer failed; ``body`` is the error JSON."""

    def succeeded(self, call: Call, payload: bytes, duration_us: int) -> None:
        """The handler returned; ``call`` may have been answered before."""

    def failed(self, call: Call, error: bytes, duration_us: int, *, exited: bool) -> None:
        """The handler raised; ``call`` may have been answered before."""

    def oversized(self, call: Call) -> None:
        """The result of an event call is larger than allowed; the call runs on."""

    def logged(self, call: Call | None, request_id: str, text: bytes) -> None: ...

    def lost(self, reason: str) -> None:
        """The connection is gone; ``reason`` is empty when the instance just closed it."""


class Channel(asyncio.Protocol):
    """Speaks ``frames`` with one instance; an ``asyncio`` protocol over its socket.

    ``calls`` holds every call that the instance still works on, in the order of their start.
    """

    __slots__ = (
        "_decoder",
        "_last",
        "_loop",
        "_max_result",
        "_out",
        "_owner",
        "_paused",
        "_reason",
        "_transport",
        "_uploads",
        "calls",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: ChannelOwner, max_result_bytes: int
    ) -> None:
        self.calls: dict[int, Call] = {}
        self._loop = loop
        self._owner = owner
        self._max_result = max_result_bytes
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes | memoryview] = []
        self._uploads: deque[Call] = deque()
        self._paused = False
        self._last = 0
        self._reason = ""

    # -- what the router does

    def initialize(self, body: bytes) -> None:
        """Send ``INIT``; must come before every call."""
        self._send(encode(frames.INIT, 0, body))

    def open(self, call: Call) -> None:
        """Start ``call``; its payload follows as the instance takes it."""
        self._last = stream = self._last + 1
        self.calls[stream] = call
        call.stream = stream
        payload = call.payload
        flags = 0
        text = call.request_id + "\0" + call.qualifier
        if call.retry_count or call.span_context or call.span_baggages or call.traceparent:
            flags = frames.OPEN_MORE
            text = f"{text}\0{_more(call)}"
        if call.http is not None:
            flags |= frames.OPEN_HTTP
            text = f"{text}\0{call.http.encoded or _encoded(call.http)}"
        raw = text.encode("utf-8", "surrogateescape")
        if len(payload) <= MAX_DATA:
            flags |= frames.OPEN_LAST
        else:
            rest = memoryview(payload)
            payload = rest[:MAX_DATA]
            call.transfer = Transfer(upload=rest[MAX_DATA:], window=WINDOW - MAX_DATA)
            self._uploads.append(call)
        size = len(raw)
        out = self._out
        if not out and self._transport is not None:
            self._loop.call_soon(self._flush)
        out.append(OPEN_HEADER.pack(5 + size + len(payload), stream, OPEN, flags, size))
        out.append(raw)
        if payload:
            out.append(payload)

    def cancel(self, call: Call) -> None:
        """Tell the instance that nobody waits for ``call``; ``succeeded`` or ``failed`` follows."""
        self._send(encode(frames.CANCEL, call.stream))

    def stop(self) -> None:
        """Ask the instance to run its PreStop hook and exit."""
        self._send(encode(frames.STOP, 0))

    def consumed(self, call: Call, size: int) -> None:
        """``size`` bytes of the answer went on; the instance may send as many more."""
        transfer = call.transfer
        if transfer is None or call.stream not in self.calls:
            return
        transfer.outstanding -= size
        transfer.credit += size
        if transfer.credit >= RENEW:
            self._send(encode(CREDIT, call.stream, U32.pack(transfer.credit)))
            transfer.credit = 0

    def pause_reading(self) -> None:
        """Let the instance wait with everything it has to say."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        """Drop the connection; ``ChannelOwner.lost`` follows."""
        if self._transport is not None:
            self._transport.abort()

    # -- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._transport.set_write_buffer_limits(high=WINDOW)
        if self._out:
            self._loop.call_soon(self._flush)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._out.clear()
        self._uploads.clear()
        self._owner.lost(self._reason or (str(exc) if exc else ""))

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, stream, body in self._decoder.feed(data):
                if kind == END:
                    self._on_end(stream, body)
                elif kind == HEAD:
                    self._on_head(stream, body)
                elif kind == DATA:
                    self._on_data(stream, body)
                else:
                    self._on_other(kind, stream, body)
        except ProtocolError as error:
            self._reason = str(error)
            self.close()

    # -- writing

    def _send(self, frame: bytes) -> None:
        if not self._out and self._transport is not None:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or self._paused:
            return
        if self._out:
            transport.write(b"".join(self._out) if len(self._out) > 1 else self._out[0])
            self._out.clear()
        if self._uploads:
            self._pump(transport)

    def _pump(self, transport: asyncio.Transport) -> None:
        """Send one frame of each upload in turn, until windows or the socket are full."""
        stuck = 0
        while self._uploads and stuck < len(self._uploads) and not self._paused:
            call = self._uploads.popleft()
            transfer = call.transfer
            if transfer is None or transfer.upload is None:
                continue  # it ended meanwhile
            size = min(MAX_DATA, transfer.window, len(transfer.upload))
            if not size:
                self._uploads.append(call)
                stuck += 1
                continue
            stuck = 0
            transport.write(encode(DATA, call.stream, bytes(transfer.upload[:size])))
            transfer.window -= size
            transfer.upload = transfer.upload[size:]
            if transfer.upload:
                self._uploads.append(call)
            else:
                transfer.upload = None
                transport.write(encode(END, call.stream))

    # -- what the instance says

    def _known(self, stream: int) -> Call:
        call = self.calls.get(stream)
        if call is None:
            raise ProtocolError(f"a frame for call {stream}, which does not run here")
        return call

    def _on_end(self, stream: int, body: bytes) -> None:
        call = self.calls.get(stream)
        if call is None or not 4 <= len(body) <= 4 + MAX_DATA:
            raise ProtocolError(f"an END of {len(body)} bytes for call {stream}")
        payload = body[4:]
        if call.http is not None:
            if not call.answered:
                if not call.headed:
                    raise ProtocolError("the end of an HTTP answer without a head")
                if payload:
                    call.receiver.on_data(payload)
            payload = b""
        del self.calls[stream]
        if call.transfer is not None:
            if call.transfer.chunks:
                payload = b"".join([*call.transfer.chunks, payload])
            call.transfer = None
        self._owner.succeeded(call, payload, U32.unpack_from(body)[0])

    def _on_head(self, stream: int, body: bytes) -> None:
        call = self._known(stream)
        if call.headed or call.http is None:
            raise ProtocolError("an unexpected HEAD")
        status, headers = _known_head(body) if len(body) <= _KNOWN_HEAD_BYTES else _head(body)
        call.headed = True
        if not call.answered:
            call.receiver.on_head(status, headers)

    def _on_data(self, stream: int, body: bytes) -> None:
        call = self._known(stream)
        if call.answered:
            return
        transfer = call.transfer
        if transfer is None:
            transfer = call.transfer = Transfer()
        transfer.outstanding += len(body)
        if len(body) > MAX_DATA or transfer.outstanding > WINDOW:
            raise ProtocolError("more DATA than the window allows")
        if call.http is not None:
            if not call.headed:
                raise ProtocolError("DATA of an HTTP answer before its head")
            call.receiver.on_data(body)
            return
        transfer.received += len(body)
        if transfer.received > self._max_result:
            transfer.chunks.clear()
            self._owner.oversized(call)
            return
        transfer.chunks.append(body)
        self.consumed(call, len(body))

    def _on_other(self, kind: int, stream: int, body: bytes) -> None:
        if kind == LOG:
            self._on_log(stream, body)
        elif kind == CREDIT:
            self._on_credit(self._known(stream), body)
        elif kind == ERROR and stream:
            self._on_error(stream, body)
        elif kind == ERROR:
            self._owner.unready(body[5:], exited=body[4:5] == EXITED_BYTE)
        elif kind == READY and not stream:
            self._owner.ready(body)
        elif kind == PING and len(body) <= 8:
            self._send(encode(PING, 0, body))
        else:
            raise ProtocolError(f"a frame of kind {kind} for call {stream}")

    def _on_error(self, stream: int, body: bytes) -> None:
        call = self._known(stream)
        if len(body) <= U32.size:
            raise ProtocolError(f"an ERROR of {len(body)} bytes")
        del self.calls[stream]
        call.transfer = None
        exited = body[4] == frames.EXITED
        self._owner.failed(call, body[5:], U32.unpack_from(body)[0], exited=exited)

    def _on_credit(self, call: Call, body: bytes) -> None:
        if len(body) != U32.size:
            raise ProtocolError("a CREDIT without its number")
        transfer = call.transfer
        if transfer is None or transfer.upload is None:
            return  # the last bytes were taken after all had been sent
        transfer.window += U32.unpack(body)[0]
        if transfer.window > WINDOW:
            raise ProtocolError("more CREDIT than was used")
        self._flush()  # what waits goes first: a call may have been opened in this very tick

    def _on_log(self, stream: int, body: bytes) -> None:
        if not body or len(body) < 1 + body[0]:
            raise ProtocolError("a LOG without its request id")
        if len(body) > 1 + body[0] + MAX_DATA:
            raise ProtocolError(f"a LOG of {len(body)} bytes")
        start = 1 + body[0]
        if stream:
            self._owner.logged(self._known(stream), "", body[start:])
        else:
            self._owner.logged(None, body[1:start].decode("ascii", "replace"), body[start:])


def _more(call: Call) -> str:
    fields = {
        "retry": call.retry_count,
        "span": call.span_context,
        "baggages": call.span_baggages,
        "traceparent": call.traceparent,
    }
    return orjson.dumps(fields).decode()


def _encoded(http: HttpHead) -> str:
    fields = [str(len(http.headers)), http.method, http.uri, http.query, http.client_ip]
    for pair in http.headers:
        fields += pair
    fields.append(http.path)  # last: it alone may hold a NUL, from %00
    http.encoded = "\0".join(fields)
    return http.encoded


def _head(body: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
    """Status and header fields of a ``HEAD``; ``ProtocolError`` if it is none."""
    if len(body) < U16.size:
        raise ProtocolError("an unexpected HEAD")
    fields = body[2:].split(b"\0") if len(body) > U16.size else []
    status = U16.unpack_from(body)[0]
    if len(fields) % 2 or b"\r" in body[2:] or b"\n" in body[2:] or not 100 <= status <= 999:
        raise ProtocolError("a HEAD that is no HTTP head")
    return status, tuple(zip(fields[::2], fields[1::2], strict=True))


_known_head = lru_cache(maxsize=256)(_head)

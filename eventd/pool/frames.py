"""The protocol between the router and an instance: frames over a Unix stream socket.

A frame is a header (little endian: ``u32`` length of the body, ``u32`` call id, ``u8`` kind) and a
body of at most ``MAX_BODY`` bytes. Calls are multiplexed by id; ids ascend from 1 and are chosen by
the router; id 0 speaks about the instance itself. ``runtimes/python/wire.py`` is the other end.

Router to instance:

- ``INIT`` (id 0), first and once: JSON, everything that is constant for the instance's life.
- ``OPEN``: ``u8`` flags, ``u32`` length of the text, text, then the first bytes of the payload
  (at most ``MAX_DATA``). Flags: ``OPEN_HTTP``; ``OPEN_LAST``, the payload is whole; ``OPEN_MORE``,
  the text has the optional part. The text is UTF-8 (lone surrogates stand for bytes that are not),
  fields separated by NUL: request id, qualifier; with ``OPEN_MORE`` a JSON object (``retry``,
  ``span``, ``baggages``, ``traceparent``); with ``OPEN_HTTP`` the number of headers n, method,
  uri, query, client address, n names and values, and last the path, which may hold NULs.
- ``DATA``: more of the payload, at most ``MAX_DATA`` bytes. ``END``: the payload is whole.
- ``CREDIT``: ``u32``, so many bytes of the answer went on. ``CANCEL``: nobody waits any more; the
  instance still ends the call with ``END`` or ``ERROR``.
- ``STOP`` (id 0): run the PreStop hook and exit.

Instance to router:

- ``READY`` (id 0), once: JSON ``{"importMs", "initMs"}``; the module is loaded and the initializer
  has run. ``ERROR`` with id 0 instead: it failed, the body is as for a call.
- ``HEAD``: once, before the body of an HTTP answer: ``u16`` status, then names and values
  separated by NUL, without CR and LF.
- ``DATA``: part of the answer. ``END``: ``u32`` microseconds in the handler, then the last at most
  ``MAX_DATA`` bytes of the answer: a small call is one frame each way.
- ``ERROR``: ``u32`` microseconds, ``u8`` class (``FAILED``, or ``EXITED``: the handler asked to
  exit, the instance is of no further use), then the error JSON.
- ``CREDIT``: so many bytes of the payload were taken.
- ``LOG``: ``u8`` n, n bytes of request id, then whole lines of UTF-8 text without the last line
  break. A running call's lines have its id and n = 0; with id 0 the lines belong to the named
  request that has ended, or (n = 0) to nobody known.

``PING`` (id 0) is answered with the same body, in both directions. Per call and direction at most
``WINDOW`` bytes of ``DATA`` (and of ``OPEN``'s payload) may be under way beyond what ``CREDIT``
gave back; the bytes in ``END`` are not counted.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

HEADER: Final = Struct("<IIB")
OPEN_HEADER: Final = Struct("<IIBBI")
END_HEADER: Final = Struct("<IIBI")
U32: Final = Struct("<I")
U16: Final = Struct("<H")

MAX_DATA: Final = 64 << 10
MAX_BODY: Final = MAX_DATA + (128 << 10)
WINDOW: Final = 256 << 10

INIT: Final = 1
OPEN: Final = 2
DATA: Final = 3
END: Final = 4
ERROR: Final = 5
CREDIT: Final = 6
CANCEL: Final = 7
LOG: Final = 8
PING: Final = 9
READY: Final = 10
HEAD: Final = 11
STOP: Final = 12

OPEN_HTTP: Final = 1
OPEN_LAST: Final = 2
OPEN_MORE: Final = 4

FAILED: Final = 0
EXITED: Final = 1

Frame = tuple[int, int, bytes]
"""Kind, call id, body."""


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow; the connection is of no further use."""


def encode(kind: int, call_id: int, body: bytes = b"") -> bytes:
    """A whole frame.

    Raises ``ProtocolError`` if ``body`` is longer than a frame may be.
    """
    if len(body) > MAX_BODY:
        raise ProtocolError(f"a frame body of {len(body)} bytes, at most {MAX_BODY} are allowed")
    return HEADER.pack(len(body), call_id, kind) + body


class Decoder:
    """Cuts a byte stream into frames; keeps at most one unfinished frame."""

    __slots__ = ("_need", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._need = HEADER.size

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes, in order.

        Raises ``ProtocolError`` for an impossible length or kind; after that the stream has no
        meaning any more.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames = []
        size = HEADER.size
        position, end = 0, len(data)
        self._need = size
        while end - position >= size:
            length, call_id, kind = HEADER.unpack_from(data, position)
            if length > MAX_BODY or not INIT <= kind <= STOP:
                raise ProtocolError(f"a frame of kind {kind} with {length} bytes")
            start = position + size
            stop = start + length
            if stop > end:
                self._need = size + length
                break
            frames.append((kind, call_id, data[start:stop]))
            position = stop
        if position < end:
            self._rest += data[position:]
        return frames

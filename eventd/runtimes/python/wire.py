"""The instance's end of the protocol that ``eventd/pool/frames.py`` specifies."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Tuple

HEADER = struct.Struct("<IIB")
END_HEADER = struct.Struct("<IIBI")
OPEN_FIELDS = struct.Struct("<BI")
U32 = struct.Struct("<I")
U16 = struct.Struct("<H")

MAX_DATA = 64 << 10
MAX_BODY = MAX_DATA + (128 << 10)
WINDOW = 256 << 10

INIT, OPEN, DATA, END, ERROR, CREDIT, CANCEL, LOG, PING, READY, HEAD, STOP = range(1, 13)
OPEN_HTTP, OPEN_LAST, OPEN_MORE = 1, 2, 4
FAILED, EXITED = 0, 1

Frame = Tuple[int, int, bytes]


def encode(kind: int, call_id: int, body: bytes = b"") -> bytes:
    return HEADER.pack(len(body), call_id, kind) + body


class Wire:
    """Frames over the socket: one reader, many writers.

    ``send`` writes at once; ``post`` may keep its frame for a moment, to leave together with the
    next one (log lines before the end of their call). Frames keep the order of the calls.
    A forked child inherits the object, ``disown`` makes it silent there. When the router is gone
    there is nothing to live for: the process exits.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        sock.set_inheritable(False)
        self._sock = sock
        self._fd = sock.fileno()
        self._rest = bytearray()
        self._need = HEADER.size
        self._out: list[bytes] = []
        self.lock = threading.RLock()
        self.disowned = False
        self.later: Callable[[], Any] | None = None
        """Set by the asyncio mode: schedules ``flush`` on its loop."""
        self.posted: Callable[[], Any] = lambda: None
        """Called when a frame was kept by ``post``."""
        self.posts = 0
        self.hold = 0
        """So many frames may wait for one another; whoever sets it flushes in time."""

    def fileno(self) -> int:
        return self._fd

    def receive(self, flags: int = 0) -> list[Frame]:
        """The next complete frames; waits unless ``flags`` has ``MSG_DONTWAIT``."""
        try:
            data = self._sock.recv(262144, flags)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            os._exit(0)
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        frames = []
        size, position, end = HEADER.size, 0, len(data)
        self._need = size
        while end - position >= size:
            length, call_id, kind = HEADER.unpack_from(data, position)
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

    def send(self, frame: bytes) -> None:
        with self.lock:
            if self.later is not None:
                self._out.append(frame)
                self.later()
            elif self._out or self.hold:
                self._out.append(frame)
                if len(self._out) >= self.hold:
                    self.flush()
            else:
                self._write(frame)

    def post(self, frame: bytes) -> None:
        with self.lock:
            self.posts += 1
            self.posted()
            self._out.append(frame)
            if len(self._out) > 64:
                self.flush()

    def flush(self) -> None:
        with self.lock:
            if self._out:
                data = b"".join(self._out)
                self._out.clear()
                self._write(data)

    def _write(self, data: bytes) -> None:
        if self.disowned:
            return
        try:
            self._sock.sendall(data)
        except OSError:
            os._exit(0)

    def disown(self) -> None:
        """In a forked child: forget the parent's connection, keep its descriptor number taken."""
        self.disowned = True
        self.lock = threading.RLock()
        self._out = []
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._fd, False)
        os.close(null)

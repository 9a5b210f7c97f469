"""Output of function code on its way to ``LOG`` frames, with the request that wrote it.

``sys.stdout``, ``sys.stderr`` and the root logger know their request by context. Descriptors 1 and
2 are a pipe that this module reads: what arrives there belongs to the only running request, else to
nobody. A child process gets a pipe of its request. One thread reads the pipes; the end of a call
reads once more, so that its lines come before its ``END``.
"""

from __future__ import annotations

import _thread
import array
import fcntl
import io
import logging
import os
import select
import sys
import termios
import threading
import time
from typing import Any, Tuple

from . import wire
from .request import CURRENT, Request

MAX_LINE = 32 << 10
MAX_PIPES = 256
READ = 64 << 10
FLUSH_S = 0.01
"""A line waits at most this long for company."""
QUIET_S = 1.0


class Limiter:
    """So many bytes a second; what is more is dropped and counted."""

    def __init__(self, bytes_per_s: int) -> None:
        self._limit = bytes_per_s
        self._start = 0.0
        self._used = 0
        self.dropped = 0

    def take(self, size: int) -> bool:
        now = time.monotonic()
        if now - self._start >= 1.0:
            self._start = now
            self._used = 0
        self._used += size
        if self._used <= self._limit:
            return True
        self.dropped += size
        return False

    def open(self) -> bool:
        """Whether a new second has begun since bytes were dropped."""
        return time.monotonic() - self._start >= 1.0


class Pipe:
    """A pipe whose lines belong to ``request``, or (``None``) to whoever runs alone."""

    __slots__ = ("read_fd", "request", "rest", "write_fd")

    def __init__(self, request: Request | None) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        self.request = request
        self.rest = b""

    def close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1


class Logs:
    """Everything that an instance prints. ``running`` is the table of calls that run now."""

    def __init__(self, link: wire.Wire, running: dict[int, Request], bytes_per_s: int) -> None:
        self._wire = link
        self._running = running
        self._limiter = Limiter(bytes_per_s)
        self._lock = threading.RLock()
        self._epoll = select.epoll()
        self._pipes: dict[int, Pipe] = {}
        self._loose: dict[int, str] = {}
        self._main = Pipe(None)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._active = False
        self._pending = array.array("i", [0])

    def install(self) -> None:
        """Take over descriptors 1 and 2, the standard streams and the root logger."""
        for fd in (1, 2):
            os.dup2(self._main.write_fd, fd)
        self._watch(self._main)
        self._epoll.register(self._wake_read, select.EPOLLIN)
        sys.stdout = Stream(self, 1)
        sys.stderr = Stream(self, 2)
        handler = Handler(self)
        root = logging.root
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        self._wire.posted = self._wake
        _thread.start_new_thread(self._read_forever, ())  # a Thread object costs 0.3 MB more

    def close(self) -> None:
        """Before ``install`` only: nothing is left."""
        self._epoll.close()
        for fd in (self._main.read_fd, self._main.write_fd, self._wake_read, self._wake_write):
            os.close(fd)

    @property
    def disowned(self) -> bool:
        """Whether this is a forked child, which prints to its descriptors."""
        return self._wire.disowned

    # -- from function code

    def write(self, request: Request | None, fd: int, text: str) -> None:
        """Text of a standard stream; whole lines go on, the rest waits for its end."""
        if self._wire.disowned:
            _write_all(fd, text.encode("utf-8", "backslashreplace"))
            return
        if request is not None and request.ended:
            partial = self._loose
        elif request is not None:
            if request.partial is None:
                request.partial = {}
            partial = request.partial
        else:
            partial = self._loose
        with self._lock:
            if partial:
                text = partial.pop(fd, "") + text
            cut = text.rfind("\n")
            stop, rest = (cut, cut + 1) if cut >= 0 else _overlong(len(text))
            if rest < len(text):
                partial[fd] = text[rest:]
            if stop >= 0:
                self.emit(request, text[:stop].encode("utf-8", "backslashreplace"))

    def emit(self, request: Request | None, text: bytes) -> None:
        """Whole lines, without the last line break."""
        with self._lock:
            if not self._limiter.take(len(text) + 1):
                return
            if self._limiter.dropped:
                self._notice()
            for part in _pieces(text):
                self._post(request, part)

    def settle(self, request: Request) -> None:
        """Send what ``request`` has written so far; the call is about to end."""
        fcntl.ioctl(self._main.read_fd, termios.FIONREAD, self._pending)
        if self._pending[0]:
            self._drain(self._main)
        if self._main.rest:
            self._end_line(self._main)
        if request.partial:
            with self._lock:
                partial, request.partial = request.partial, None
                for fd in sorted(partial):
                    self.emit(request, partial[fd].encode("utf-8", "backslashreplace"))
        if request.pipe is not None:
            pipe = self._pipes[request.pipe]
            self._drain(pipe)
            self._end_line(pipe)
            pipe.close_write()

    def pipe_of(self, request: Request) -> int:
        """A descriptor for the output of a child process that ``request`` starts."""
        with self._lock:
            if request.ended:
                return self._main.write_fd
            if request.pipe is None:
                if len(self._pipes) >= MAX_PIPES:
                    return self._main.write_fd
                pipe = Pipe(request)
                self._watch(pipe)
                request.pipe = pipe.read_fd
            return self._pipes[request.pipe].write_fd

    def in_child(self, request: Request | None) -> None:
        """In a forked child: print through the pipe of its request."""
        self._lock = threading.RLock()
        if request is not None and request.pipe is not None:
            for fd in (1, 2):
                os.dup2(self._pipes[request.pipe].write_fd, fd)

    # -- inside

    def _post(self, request: Request | None, text: bytes) -> None:
        with self._wire.lock:
            if request is None:
                self._wire.post(wire.encode(wire.LOG, 0, b"\0" + text))
            elif request.ended or not request.id:
                name = request.request_id.encode("ascii", "replace")[:255]
                self._wire.post(wire.encode(wire.LOG, 0, bytes([len(name)]) + name + text))
            else:
                self._wire.post(wire.encode(wire.LOG, request.id, b"\0" + text))

    def _notice(self) -> None:
        dropped, self._limiter.dropped = self._limiter.dropped, 0
        text = f"... {dropped} bytes of output dropped: more than the log takes in a second"
        self._post(None, text.encode())

    def _watch(self, pipe: Pipe) -> None:
        self._pipes[pipe.read_fd] = pipe
        self._epoll.register(pipe.read_fd, select.EPOLLIN)

    def _owner(self, pipe: Pipe) -> Request | None:
        if pipe.request is not None:
            return pipe.request
        try:
            only = list(self._running.values())
        except RuntimeError:  # it changed while we looked: more than one
            return None
        return only[0] if len(only) == 1 else None

    def _drain(self, pipe: Pipe) -> bool:
        """Read what is there, at most a pipe full. False: the last writer is gone."""
        with self._lock:
            try:
                data = os.read(pipe.read_fd, READ)
            except BlockingIOError:
                return True
            if not data:
                self._end_line(pipe)
                return False
            data = pipe.rest + data
            cut = data.rfind(b"\n")
            stop, rest = (cut, cut + 1) if cut >= 0 else _overlong(len(data))
            pipe.rest = data[rest:]
            if stop >= 0:
                self.emit(self._owner(pipe), data[:stop])
            return True

    def _end_line(self, pipe: Pipe) -> None:
        with self._lock:
            if pipe.rest:
                rest, pipe.rest = pipe.rest, b""
                self.emit(self._owner(pipe), rest)

    def _wake(self) -> None:
        if not self._active:
            self._active = True
            os.write(self._wake_write, b"\0")

    def _read_forever(self) -> None:
        quiet_at = 0.0
        while True:
            for fd, _ in self._epoll.poll(FLUSH_S if self._active else None):
                self._ready(fd)
            self._wire.flush()
            now = time.monotonic()
            if self._limiter.dropped and self._limiter.open():
                with self._lock:
                    self._notice()
                self._wire.flush()
            if not self._active or self._wire_busy():
                quiet_at = now + QUIET_S
            elif now >= quiet_at and not self._limiter.dropped:
                self._active = False
                self._wire.flush()  # a line that came between the last flush and now

    def _wire_busy(self) -> bool:
        busy = self._wire.posts != getattr(self, "_seen", 0)
        self._seen = self._wire.posts
        return busy

    def _ready(self, fd: int) -> None:
        if fd == self._wake_read:
            os.read(fd, 4096)
            return
        pipe = self._pipes.get(fd)
        if pipe is None:
            return
        if not self._drain(pipe):
            with self._lock:
                self._epoll.unregister(fd)
                del self._pipes[fd]
                os.close(fd)
        elif self._limiter.dropped:
            time.sleep(FLUSH_S)  # whoever writes that much may wait a little


def _overlong(size: int) -> Tuple[int, int]:
    """Where to cut an unfinished line, if it is too long for one: end of the part that goes on
    (-1: none does), start of what stays."""
    cut = max(0, size - 1) // MAX_LINE * MAX_LINE
    return (cut, cut) if cut else (-1, 0)


def _pieces(text: bytes) -> list[bytes]:
    """Lines of at most 32 KiB, joined again up to the size of a frame."""
    if len(text) <= MAX_LINE:
        return [text]
    pieces: list[bytes] = []
    block: list[bytes] = []
    size = 0
    for line in text.split(b"\n"):
        for start in range(0, len(line) or 1, MAX_LINE):
            part = line[start : start + MAX_LINE]
            if size + len(part) + 1 > wire.MAX_DATA:
                pieces.append(b"\n".join(block))
                block, size = [], 0
            block.append(part)
            size += len(part) + 1
    pieces.append(b"\n".join(block))
    return pieces


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


class Binary(io.RawIOBase):
    """``sys.stdout.buffer``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._stream.write(raw.decode("utf-8", "backslashreplace"))
        return len(raw)


class Stream(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr``."""

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True

    def __init__(self, logs: Logs, fd: int) -> None:
        self._logs = logs
        self._fd = fd
        self.buffer = Binary(self)

    def write(self, text: str) -> int:
        self._logs.write(CURRENT.get(), self._fd, text)
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def reconfigure(self, **_: Any) -> None:
        """Encoding and buffering are the platform's."""

    def close(self) -> None:
        """The platform's streams stay open."""


class Handler(logging.Handler):
    """Writes FC's log line: ``2026-11-24T03:06:18.042Z {request id} [INFO] text``."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs
        self.formatter = FORMATTER

    def emit(self, record: logging.LogRecord) -> None:
        try:
            request = record.__dict__.get("eventd_request") or CURRENT.get()
            record.request_id = request.request_id if request is not None else ""
            self._logs.write(request, 1, self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - logging's own contract: its handler reports on stderr
            self.handleError(record)


class Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(request_id)s [%(levelname)s] %(message)s",
            "%Y-%m-%dT%H:%M:%S",
        )


FORMATTER = Formatter()  # made where all instances share it: checking its format is not cheap

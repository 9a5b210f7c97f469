"""Chunked request bodies (RFC 9112, 7.1), read strictly and without I/O."""

from __future__ import annotations

import re
from enum import Enum, auto

from eventd.errors import InvalidArgument

_MAX_LINE_BYTES = 256
_MAX_TRAILER_BYTES = 4096
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,8})((?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[^"\\\x00-\x1f\x7f]*"))?)*)'
)
_TRAILER_LINE = re.compile(_TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*")


class _At(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()
    DONE = auto()


class ChunkDecoder:
    """Takes a chunked body apart as its bytes arrive.

    Extensions are checked and ignored, trailers are checked and dropped.
    """

    __slots__ = ("_at", "_left", "_line", "_trailers")

    def __init__(self) -> None:
        self._at = _At.SIZE
        self._left = 0
        self._line = b""
        self._trailers = 0

    @property
    def done(self) -> bool:
        return self._at is _At.DONE

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """Decode what ``data`` holds.

        Returns the body's parts and how many bytes of ``data`` belong to this body; the rest is
        the next request's. Raises ``InvalidArgument`` for anything ambiguous.
        """
        parts: list[bytes] = []
        position, end = 0, len(data)
        while position < end and self._at is not _At.DONE:
            if self._at is _At.DATA:
                taken = data[position : position + self._left]
                parts.append(taken)
                self._left -= len(taken)
                position += len(taken)
                if not self._left:
                    self._at = _At.DATA_END
                continue
            line, position = self._read_line(data, position)
            if line is not None:
                self._take(line)
        return parts, position

    def _read_line(self, data: bytes, position: int) -> tuple[bytes | None, int]:
        """The next whole line without CRLF, or ``None`` while it is unfinished."""
        found = data.find(b"\n", position)
        end = len(data) if found < 0 else found + 1
        self._line += data[position:end]
        if len(self._line) > (_MAX_TRAILER_BYTES if self._at is _At.TRAILER else _MAX_LINE_BYTES):
            raise InvalidArgument("malformed chunked body: a line is too long")
        if found < 0:
            return None, end
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise InvalidArgument("malformed chunked body: a line must end with CRLF")
        return line[:-2], end

    def _take(self, line: bytes) -> None:
        if self._at is _At.DATA_END:
            if line:
                raise InvalidArgument("malformed chunked body: a chunk is longer than its size")
            self._at = _At.SIZE
        elif self._at is _At.TRAILER:
            self._take_trailer(line)
        else:
            size = _SIZE_LINE.fullmatch(line)
            if size is None:
                raise InvalidArgument("malformed chunked body: invalid chunk size or extension")
            self._left = int(size[1], 16)
            self._at = _At.DATA if self._left else _At.TRAILER

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self._at = _At.DONE
            return
        self._trailers += len(line) + 2
        if self._trailers > _MAX_TRAILER_BYTES or not _TRAILER_LINE.fullmatch(line):
            raise InvalidArgument("malformed chunked body: invalid trailer")

"""WSGI as FC 2.0 speaks it: ``handler(environ, start_response)`` (FC 5.3)."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from .context import Context
from .request import Answer, Http, Request

FIXED = {
    "SCRIPT_NAME": "",
    "SERVER_NAME": "FCRUNTIME",
    "SERVER_PORT": "9000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "FCRUNTIME/1.0",
    "HTTP": "on",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "http",
    "wsgi.multithread": False,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


class InvalidResponse(TypeError):
    """The handler returned something that is no body."""

    def __init__(self) -> None:
        super().__init__("invalid response type")


InvalidResponse.__name__ = "TypeError"


class Environment:
    """Makes ``environ``; the process environment is copied only when it has changed."""

    def __init__(self) -> None:
        self._raw: dict[Any, Any] = {}
        self._base: dict[str, Any] = {}

    def make(self, http: Http, body: bytes, context: Context) -> dict[str, Any]:
        raw = getattr(os.environ, "_data", None)
        if raw is None or raw != self._raw:
            self._raw = dict(raw or {})
            self._base = {**os.environ, **FIXED}
        made = http.environ
        if made is None or made[0] is not self._base:
            made = http.environ = (self._base, _of_head(self._base, http))
        environ = made[1].copy()
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["fc.context"] = context
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.errors"] = sys.stderr
        return environ


def _of_head(base: dict[str, Any], http: Http) -> dict[str, Any]:
    """``base`` with what the head of a request adds."""
    environ = base.copy()
    for name, value in http.headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    environ["REQUEST_METHOD"] = http.method
    environ["PATH_INFO"] = http.path
    environ["QUERY_STRING"] = http.query
    environ["REMOTE_ADDR"] = http.client_ip
    environ["CONTENT_TYPE"] = environ.get("HTTP_CONTENT_TYPE") or "application/octet-stream"
    environ["fc.request_uri"] = http.uri
    return environ


class Response:
    """One call's ``start_response`` and body."""

    __slots__ = ("_answer", "_fields", "_request", "_status")

    def __init__(self, request: Request, answer: Answer) -> None:
        self._request = request
        self._answer = answer
        self._status = 0
        self._fields: list[str] = []

    def start(
        self,
        status: str,
        headers: Iterable[tuple[str, str]],
        exc_info: tuple[Any, Any, Any] | None = None,
    ) -> Callable[[Any], None]:
        """``start_response``."""
        if self._request.head_sent:
            if exc_info is not None and exc_info[1] is not None:
                raise exc_info[1].with_traceback(exc_info[2])
            raise AssertionError("start_response was called after the body had begun")
        if self._status and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        self._status = _status(status)
        self._fields = []
        for name, value in headers:
            self._fields += (_field(name), _field(value))
        return self.write

    def write(self, data: Any) -> None:
        self.head()
        self._answer.data(_chunk(data))

    def head(self) -> None:
        if not self._request.head_sent:
            if not self._status:
                raise AssertionError("start_response was not called before the body")
            self._answer.head(self._status, self._fields)

    def finish(self, result: Any) -> bytes:
        """Send the body; what is left for the last frame is returned."""
        if isinstance(result, (bytes, str)):
            result = [result]
        if result is None or not hasattr(result, "__iter__"):
            raise InvalidResponse
        try:
            if isinstance(result, (list, tuple)):
                body = b"".join([_chunk(part) for part in result])
                self.head()
                return body
            for part in result:
                data = _chunk(part)
                if data:
                    self.write(data)
            self.head()
            return b""
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()


def _status(status: Any) -> int:
    try:
        code = int(str(status).split(None, 1)[0])
    except (ValueError, IndexError):
        code = 0
    if not 100 <= code <= 999:
        raise ValueError(f"the status {status!r} does not begin with a three-digit code")
    return code


def _field(text: Any) -> str:
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    if "\r" in text or "\n" in text or "\0" in text:
        raise ValueError(f"a response header has a line break or NUL: {text[:80]!r}")
    return text  # type: ignore[no-any-return]


def _chunk(part: Any) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        return part.encode("utf-8")
    if isinstance(part, (bytearray, memoryview)):
        return bytes(part)
    raise InvalidResponse

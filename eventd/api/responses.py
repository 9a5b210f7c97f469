"""Answers of the invocation paths as status, header lines and body; both fronts send the same.

Header sets: FC 2016-08-15, "InvokeFunction" and "HTTP trigger overview" (``fc/4-invocation.md``
4.2, 4.4, 4.8).
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from math import ceil

import orjson

from eventd.errors import BadResponse, EventdError
from eventd.model.invocation import Outcome
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.call import CallKind

MAX_RESPONSE_HEADER_BYTES = 8192
SERVER = b"Server: eventd\r\n"

_EXPOSE = (
    b"Access-Control-Expose-Headers: Date,x-fc-request-id,x-fc-error-type,x-fc-code-checksum,"
    b"x-fc-invocation-duration,x-fc-max-memory-usage,x-fc-log-result,"
    b"x-fc-invocation-code-version\r\n"
)
_OCTETS = b"Content-Type: application/octet-stream\r\n"
_JSON = b"Content-Type: application/json\r\n"
_SANDBOX = b"Content-Security-Policy: sandbox allow-scripts allow-forms\r\n"
_ATTACHMENT = b"Content-Disposition: attachment\r\n"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# FC 4.8; hop-by-hop ones; and set-cookie, since functions share this host with the console.
_NOT_FROM_FUNCTION = frozenset(
    {
        b"connection", b"content-length", b"date", b"keep-alive", b"server", b"upgrade",
        b"transfer-encoding", b"te", b"trailer", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"access-control-expose-headers", b"set-cookie", b"set-cookie2",
    }
)  # fmt: skip

_INTERNAL = "an internal error has occurred. Please retry."
_SYSTEM_STATUS = {
    "CAExited": 412,
    "CAFileNotFound": 412,
    "CAFilePermission": 412,
    "ClientClosedRequest": 499,
    "InstanceLost": 502,
    "RecursionDetected": 429,
    "ResourceExhausted": 429,
    "ResourceThrottled": 503,
    "ServiceUnavailable": 503,
}
_SYSTEM_TEXT = {
    "ResourceExhausted": "no instance of the function became free in time",
    "InstanceLost": "the function instance ended before the request was completed",
}


@dataclass(slots=True)
class Reply:
    """An answer. ``block``: header lines, each with CRLF, without ``Date``, ``Server``,
    ``Content-Length`` and ``Connection``."""

    status: int
    block: bytes
    body: bytes = b""


@lru_cache(maxsize=256)
def status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def error_reply(error: EventdError, request_id: str, kind: CallKind = CallKind.EVENT) -> Reply:
    """A platform error: FC's error JSON; on trigger requests marked ``FcCommonError``."""
    return _error(error.status, error.code, str(error), request_id, kind)


def defect_reply(request_id: str, kind: CallKind) -> Reply:
    """A defect of this program: the log tells the operator all, the caller hears no details."""
    return _error(500, EventdError.code, _INTERNAL, request_id, kind)


def event_reply(
    function: FunctionSnapshot, outcome: Outcome, request_id: str, *, want_tail: bool
) -> Reply:
    """The answer to ``.../invocations``: 200 also for the function's own errors (FC 4.4)."""
    if outcome.system:
        return _system_error(outcome, request_id, CallKind.EVENT)
    block = _common(function, outcome, request_id, want_tail=want_tail)
    if outcome.error_type:
        block = b"%bX-Fc-Error-Type: %b\r\n%b" % (_JSON, outcome.error_type.encode(), block)
    else:
        block = _OCTETS + block
    return Reply(200, block, outcome.payload)


def http_error_reply(
    function: FunctionSnapshot, outcome: Outcome, request_id: str, *, want_tail: bool
) -> Reply:
    """An HTTP function that failed before it answered: 502 and the runtime's error JSON."""
    if outcome.system:
        return _system_error(outcome, request_id, CallKind.HTTP)
    error_type = outcome.error_type or "UnhandledInvocationError"
    block = _common(function, outcome, request_id, want_tail=want_tail)
    block = b"%bX-Fc-Error-Type: %b\r\n%b" % (_JSON, error_type.encode(), block)
    return Reply(502, block, outcome.payload)


def http_block(
    function: FunctionSnapshot,
    headers: Sequence[tuple[bytes, bytes]],
    outcome: Outcome | None,
    request_id: str,
    *,
    want_tail: bool,
    attachment: bool,
) -> bytes:
    """The header lines of an HTTP function's answer on the API's host.

    Args:
        outcome: ``None`` while the body is still being streamed; then duration, memory and log
            are not known yet and left out.
    Raises:
        BadResponse: the function's headers are too large or would break the message.
    """
    lines = _function_lines(tuple(headers), attachment=attachment)
    if outcome is None:
        return lines + _streamed(function, request_id)
    return lines + _common(function, outcome, request_id, want_tail=want_tail)


def check_status(status: int) -> None:
    if not 200 <= status <= 599:
        raise BadResponse(f"the function answered with the HTTP status {status}")


def accepted_reply(request_id: str, stateful_id: str) -> Reply:
    """202 without a body: the asynchronous call is on disk (FC 4.6)."""
    block = b"X-Fc-Request-Id: %b\r\n%b" % (request_id.encode(), _EXPOSE)
    if stateful_id:
        block += b"X-Fc-Stateful-Async-Invocation-Id: %b\r\n" % stateful_id.encode()
    return Reply(202, block)


def _error(status: int, code: str, message: str, request_id: str, kind: CallKind) -> Reply:
    shown = message.encode("utf-8", "replace").decode()
    body = orjson.dumps({"ErrorCode": code, "ErrorMessage": shown})
    block = b"%bX-Fc-Request-Id: %b\r\n" % (_JSON, request_id.encode())
    if kind is CallKind.HTTP:
        block += b"X-Fc-Error-Type: FcCommonError\r\n"
    return Reply(status, block, body)


def _system_error(outcome: Outcome, request_id: str, kind: CallKind) -> Reply:
    code = outcome.error or "InternalServerError"
    status = outcome.status if outcome.status >= 400 else _SYSTEM_STATUS.get(code, 500)
    return _error(status, code, _system_message(outcome), request_id, kind)


def _system_message(outcome: Outcome) -> str:
    if not outcome.payload:
        return _SYSTEM_TEXT.get(outcome.error, _INTERNAL)
    try:
        found = orjson.loads(outcome.payload)
    except orjson.JSONDecodeError:
        return outcome.payload.decode("utf-8", "replace")
    if isinstance(found, dict):
        message = found.get("ErrorMessage") or found.get("errorMessage")
        if isinstance(message, str):
            return message
    return outcome.payload.decode("utf-8", "replace")


@lru_cache(maxsize=4096)
def _of_function(checksum: str, version: int) -> bytes:
    return b"X-Fc-Code-Checksum: %b\r\nX-Fc-Invocation-Service-Version: %b\r\n%b" % (
        checksum.encode(),
        str(version).encode() if version else b"LATEST",
        _EXPOSE,
    )


def _common(
    function: FunctionSnapshot, outcome: Outcome, request_id: str, *, want_tail: bool
) -> bytes:
    block = (
        b"%bX-Fc-Request-Id: %b\r\nX-Fc-Invocation-Duration: %d\r\n"
        b"X-Fc-Max-Memory-Usage: %.2f\r\nX-Fc-Instance-Id: %b\r\n"
    ) % (
        _of_function(function.code_checksum, function.version),
        request_id.encode(),
        ceil(outcome.duration_ms),
        outcome.memory_mb,
        outcome.instance_id.encode(),
    )
    # FC gives no log when requests of one instance interleave (4.11).
    if want_tail and function.instance_concurrency == 1:
        block += b"X-Fc-Log-Result: %b\r\n" % b2a_base64(outcome.log_tail, newline=False)
    return block


def _streamed(function: FunctionSnapshot, request_id: str) -> bytes:
    return b"%bX-Fc-Request-Id: %b\r\n" % (
        _of_function(function.code_checksum, function.version),
        request_id.encode(),
    )


@lru_cache(maxsize=256)
def _function_lines(headers: tuple[tuple[bytes, bytes], ...], *, attachment: bool) -> bytes:
    """What a function may set, as lines, and what this host adds to every function's answer."""
    lines: list[bytes] = []
    typed = False
    for name, value in headers:
        low = name.lower()
        if low in _NOT_FROM_FUNCTION or low.startswith(b"x-fc-") or not _NAME.fullmatch(name):
            continue
        if attachment and low == b"content-disposition":
            continue
        if _CONTROL.search(value):
            raise BadResponse(
                f"the value of the response header {name.decode()} holds a control character"
            )
        typed = typed or low == b"content-type"
        lines.append(b"%b: %b\r\n" % (name, value.strip(b" \t")))
    if sum(map(len, lines)) > MAX_RESPONSE_HEADER_BYTES:
        raise BadResponse(f"the response headers exceed {MAX_RESPONSE_HEADER_BYTES} bytes")
    if not typed:
        lines.append(_OCTETS)
    lines.append(_SANDBOX)
    if attachment:
        lines.append(_ATTACHMENT)
    return b"".join(lines)

"""The head of an HTTP/1 request, read strictly: what two readers could understand differently is
refused, since a proxy in front may be the other reader.

llhttp (through httptools, in its strict mode) refuses both framings at once, two
``Content-Length``, folded lines, bare LF and CR, blanks before the colon, control characters and
unknown methods. What it lets pass is refused here: other transfer codings, a missing or repeated
``Host``, other versions, several blanks in the request line, repeats of headers that must be one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import httptools

from eventd.errors import EventdError, InvalidArgument

_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]*) ([\x21-\x7e]+) HTTP/1\.([01])\r\n")
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?", re.ASCII)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_NOTHING = object()  # llhttp only checks: it calls nobody
_SINGLE = frozenset({"authorization", "content-type", "content-md5", "date", "host", "expect"})


class RequestTimeout(EventdError):
    """The client was too slow in sending."""

    code, status = "RequestTimeout", 408


class HeadersTooLarge(InvalidArgument):
    """The head is over a limit of FC 10.4; the connection can't go on."""


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Bytes of all header lines together, and of the path with its query."""

    headers: int
    path: int

    @property
    def total(self) -> int:
        return self.headers + self.path + 64


@dataclass(slots=True)
class RequestHead:
    """A request line and headers that have exactly one reading. Never changed once it is made
    (not ``frozen``: that would double the cost of making one).

    Attributes:
        target: as sent, path with query.
        headers: by lower-case name; repeats joined by ``,``.
        fields: in order, names in lower case, repeats kept.
        own: whether one of them begins with ``x-fc-``.
        content_length: ``None`` without the header.
        upgrade: value of ``Upgrade`` in lower case when ``Connection`` asks for it, else empty.
    """

    method: str
    target: str
    http_10: bool
    headers: dict[str, str]
    fields: list[tuple[str, str]]
    own: bool
    content_length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    upgrade: str = ""

    @property
    def expects_continue(self) -> bool:
        return "expect" in self.headers and not self.http_10


def header_text(value: bytes) -> str:
    """A header's value as text: UTF-8 if it is that, else Latin-1, without outer blanks."""
    try:
        return value.decode().strip(" \t")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \t")


def malformed_so_far(data: bytes) -> bool:
    """Whether an unfinished head holds a bare LF; it would otherwise wait for an end that, in the
    client's opinion, has already been."""
    return _BARE_LF.search(data) is not None


def parse_head(data: bytes, limits: HeadLimits) -> RequestHead:
    """Read one head, from the request line to the first empty line.

    Raises ``InvalidArgument`` for everything that is not exactly one well-formed head, and
    ``HeadersTooLarge`` beyond ``limits``.
    """
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise InvalidArgument("malformed HTTP request line")
    method, target, minor = line.groups()
    if len(data) - line.end() > limits.headers + 2:
        raise HeadersTooLarge(f"the request headers exceed {limits.headers} bytes")
    if len(target) > limits.path:
        raise HeadersTooLarge(f"the request path exceeds {limits.path} bytes")
    if method == b"CONNECT" or b"#" in target:
        raise InvalidArgument("malformed HTTP request: unsupported form of the target")
    try:
        httptools.HttpRequestParser(_NOTHING).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the head is complete; what follows it is for the caller to decide
    except httptools.HttpParserError as error:
        raise InvalidArgument(f"malformed HTTP request: {error}") from error
    # llhttp found every line to be `name:value` with CRLF: now they can simply be split.
    fields = _fields(data[line.end() : -4])
    return make_head(method.decode(), target.decode(), fields, http_10=minor == b"0")


def make_head(
    method: str, target: str, fields: list[tuple[str, str]], *, http_10: bool
) -> RequestHead:
    """A head from fields that were split and are well-formed one by one; ``InvalidArgument`` if
    together they are not."""
    headers, own = _one_value_each(fields)
    host = headers.get("host")
    if (host is None and not http_10) or (host and not _HOST.fullmatch(host)):
        raise InvalidArgument("malformed HTTP request: exactly one valid Host is required")
    head = RequestHead(method, target, http_10, headers, fields, own)
    if "content-length" in headers:
        head.content_length = int(headers["content-length"])
    if "transfer-encoding" in headers:
        if http_10 or headers["transfer-encoding"].lower() != "chunked":
            raise InvalidArgument("malformed HTTP request: the only transfer coding is chunked")
        head.chunked = True
    if "expect" in headers and headers["expect"].lower() != "100-continue":
        raise InvalidArgument(f"the expectation '{headers['expect']}' can't be met")
    if http_10 or "connection" in headers:
        _read_connection(head)
    return head


def _fields(data: bytes) -> list[tuple[str, str]]:
    if not data:
        return []
    fields: list[tuple[str, str]] = []
    if data.isascii():
        for line in data.decode().split("\r\n"):
            name, _, value = line.partition(":")
            fields.append((name.lower(), value.strip(" \t")))
    else:
        for raw in data.split(b"\r\n"):
            raw_name, _, raw_value = raw.partition(b":")
            fields.append((raw_name.decode("ascii").lower(), header_text(raw_value)))
    return fields


def _one_value_each(fields: list[tuple[str, str]]) -> tuple[dict[str, str], bool]:
    headers: dict[str, str] = {}
    own = False
    for name, value in fields:
        ours = name.startswith("x-fc-")
        own = own or ours
        if name not in headers:
            headers[name] = value
        elif ours or name in _SINGLE:
            raise InvalidArgument(f"malformed HTTP request: the header {name} is repeated")
        else:
            headers[name] += f",{value}"
    return headers, own


def _read_connection(head: RequestHead) -> None:
    given = head.headers.get("connection", "").lower()
    options = [option.strip() for option in given.split(",")]
    head.keep_alive = "keep-alive" in options if head.http_10 else "close" not in options
    if "upgrade" in options:
        head.upgrade = head.headers.get("upgrade", "").lower()

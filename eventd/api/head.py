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

_REQUEST_LINE = re.compile(rb"[A-Z][A-Z-]* [\x21-\x7e]+ HTTP/1\.[01]\r\n")
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?", re.ASCII)
_BARE_LF = re.compile(rb"(?<!\r)\n")
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


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request line and headers that have exactly one reading.

    Attributes:
        target: as sent, path with query.
        headers: by lower-case name; repeats joined by ``,``.
        fields: in order, names in lower case, repeats kept.
        content_length: ``None`` without the header.
        upgrade: value of ``Upgrade`` in lower case when ``Connection`` asks for it, else empty.
    """

    method: str
    target: str
    http_10: bool
    headers: dict[str, str]
    fields: list[tuple[str, str]]
    content_length: int | None
    chunked: bool
    keep_alive: bool
    upgrade: str

    @property
    def expects_continue(self) -> bool:
        return not self.http_10 and self.headers.get("expect", "").lower() == "100-continue"


class _Collector:
    """What httptools calls while it reads."""

    __slots__ = ("complete", "fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[str, str]] = []
        self.complete = False

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("ascii").lower(), header_text(value)))

    def on_headers_complete(self) -> None:
        self.complete = True


def header_text(value: bytes) -> str:
    """A header's value as text: UTF-8 if it is that, else Latin-1, without outer blanks."""
    try:
        return value.decode().strip(" \t")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \t")


def malformed_so_far(data: bytes | bytearray) -> bool:
    """Whether an unfinished head holds a bare LF; it would otherwise wait for an end that, in the
    client's opinion, has already been."""
    return _BARE_LF.search(data) is not None


def parse_head(data: bytes, limits: HeadLimits) -> RequestHead:
    """Read one head, from the request line to the empty line.

    Raises ``InvalidArgument`` for everything that is not exactly one well-formed head, and
    ``HeadersTooLarge`` beyond ``limits``.
    """
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise InvalidArgument("malformed HTTP request line")
    if len(data) - line.end() > limits.headers + 2:
        raise HeadersTooLarge(f"the request headers exceed {limits.headers} bytes")
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the head is complete; what follows it is for the caller to decide
    except httptools.HttpParserError as error:
        raise InvalidArgument(f"malformed HTTP request: {error}") from error
    if not collector.complete:
        raise InvalidArgument("malformed HTTP request: the headers end too early")
    if len(collector.target) > limits.path:
        raise HeadersTooLarge(f"the request path exceeds {limits.path} bytes")
    return _head(collector, parser)


def _head(collector: _Collector, parser: httptools.HttpRequestParser) -> RequestHead:
    headers = _one_value_each(collector.fields)
    http_10 = parser.get_http_version() == "1.0"
    method = parser.get_method().decode("ascii")
    target = collector.target.decode("ascii")
    if method == "CONNECT" or "#" in target:
        raise InvalidArgument(f"malformed HTTP request: {method} {target}")
    host = headers.get("host")
    if (host is None and not http_10) or (host and not _HOST.fullmatch(host)):
        raise InvalidArgument("malformed HTTP request: exactly one valid Host is required")
    coding = headers.get("transfer-encoding")
    if coding is not None and (http_10 or coding.lower() != "chunked"):
        raise InvalidArgument("malformed HTTP request: the only transfer coding is chunked")
    expect = headers.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise InvalidArgument(f"the expectation '{expect}' can't be met")
    length = headers.get("content-length")
    upgrades = "upgrade" in headers and "upgrade" in headers.get("connection", "").lower()
    return RequestHead(
        method=method,
        target=target,
        http_10=http_10,
        headers=headers,
        fields=collector.fields,
        content_length=None if length is None else int(length),
        chunked=coding is not None,
        keep_alive=_keeps_alive(headers, http_10=http_10),
        upgrade=headers["upgrade"].lower() if upgrades else "",
    )


def _one_value_each(fields: list[tuple[str, str]]) -> dict[str, str]:
    headers = dict(fields)
    if len(headers) != len(fields):
        headers.clear()
        for name, value in fields:
            if name not in headers:
                headers[name] = value
            elif name in _SINGLE or name.startswith("x-fc-"):
                raise InvalidArgument(f"malformed HTTP request: the header {name} is repeated")
            else:
                headers[name] += f",{value}"
    return headers


def _keeps_alive(headers: dict[str, str], *, http_10: bool) -> bool:
    options = [option.strip() for option in headers.get("connection", "").lower().split(",")]
    return "keep-alive" in options if http_10 else "close" not in options

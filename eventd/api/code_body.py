"""The body of create and update function: JSON with up to 100 MB of base64 in it.

Parsing such a text holds the interpreter's lock for a fifth of a second, and every running call
with it. So the one long string is set aside, and only what stands around it is parsed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from eventd.api.body import parse_object, read_body
from eventd.api.schemas.function import Code
from eventd.errors import InvalidArgument

_LONG_BYTES = 64 << 10
_MAX_STRINGS = 1000
_QUOTE = b'"'
_BACKSLASH = b"\\"


@dataclass(frozen=True, slots=True)
class CodeBody:
    """A request's object; its ``code.zipFile`` may be ``token``, which stands for ``text``."""

    content: dict[str, Any]
    token: str = ""
    text: memoryview | None = None

    def zip_text(self, code: Code) -> str | memoryview:
        """The base64 of ``code``, wherever it is kept."""
        if self.text is not None and code.zip_file == self.token:
            return self.text
        return code.zip_file or ""


async def read_code_body(request: web.Request, limit: int) -> CodeBody:
    """Raises as ``body.read_object`` does."""
    body = await read_body(request, limit)
    if len(body) > _LONG_BYTES:
        return await asyncio.to_thread(split_body, body)
    return CodeBody(parse_object(body))


def split_body(body: bytearray, *, long_bytes: int = _LONG_BYTES) -> CodeBody:
    """Parse ``body`` with its first long string set aside, if that string is the package.

    A string without escapes may be exchanged for another one without changing what the document
    says elsewhere; if the token turns up anywhere but as the package, all of it is parsed.
    """
    found = _long_string(body, long_bytes)
    if found is None:
        return CodeBody(parse_object(body))
    start, end = found
    token = secrets.token_hex(16)
    around = body[:start] + token.encode() + body[end:]
    try:
        content = parse_object(around)
    except InvalidArgument:
        return CodeBody(parse_object(body))  # its error has the right position
    if token not in _packages(content):
        return CodeBody(parse_object(body))
    return CodeBody(content, token, memoryview(body)[start:end])


def _long_string(body: bytearray, long_bytes: int) -> tuple[int, int] | None:
    """Bounds of the first long string without an escape."""
    start = body.find(_QUOTE)
    for _ in range(_MAX_STRINGS):
        end = _closing_quote(body, start)
        if start < 0 or end < 0:
            return None
        if end - start > long_bytes and body.find(_BACKSLASH, start, end) < 0:
            return start + 1, end
        start = body.find(_QUOTE, end + 1)
    return None


def _closing_quote(body: bytearray, start: int) -> int:
    end = body.find(_QUOTE, start + 1)
    for _ in range(_MAX_STRINGS):
        if end < 0:
            return -1
        escapes = body[max(start + 1, end - _MAX_STRINGS) : end]
        count = len(escapes) - len(escapes.rstrip(_BACKSLASH))
        if count == _MAX_STRINGS:
            return -1  # nobody writes such a thing; not worth counting on
        if count % 2 == 0:
            return end
        end = body.find(_QUOTE, end + 1)
    return -1


def _packages(content: dict[str, Any]) -> Iterator[Any]:
    for key, code in content.items():
        if key.lower() == "code" and isinstance(code, dict):
            yield from (value for name, value in code.items() if name.lower() == "zipfile")

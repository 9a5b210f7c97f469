"""Reading a request's JSON: bounded in size, time and depth, off the loop when it is large."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
from typing import Any

import orjson
from aiohttp import web

from eventd.errors import EntityTooLarge, InvalidArgument

SMALL_BODY_BYTES = 1 << 20
"""Bound of every control call that carries no code."""

_PATIENCE_S = 30.0
_MIN_RATE_BYTES_S = 1024
_THREAD_ABOVE_BYTES = 64 << 10
_MAX_DEPTH = 64


async def read_body(request: web.Request, limit: int) -> bytearray:
    """The whole body; not copied, since it may be a hundred megabytes.

    Raises ``EntityTooLarge`` beyond ``limit`` bytes (by ``Content-Length``, before reading) and
    ``InvalidArgument`` when it arrives slower than 1 KiB/s after the first 30 s.
    """
    too_large = EntityTooLarge(f"payload size exceeds maximum allowed size ({limit} bytes)")
    if (request.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(_PATIENCE_S) as patience:
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise too_large
                patience.reschedule(started + _PATIENCE_S + len(body) / _MIN_RATE_BYTES_S)
    except TimeoutError:
        raise InvalidArgument("the request body arrives too slowly") from None
    return body


async def read_object(request: web.Request, limit: int = SMALL_BODY_BYTES) -> dict[str, Any]:
    """The body as a JSON object; an empty body is ``{}``.

    Raises ``InvalidArgument`` for anything else, and the errors of ``read_body``.
    """
    body = await read_body(request, limit)
    if len(body) > _THREAD_ABOVE_BYTES:
        return await asyncio.to_thread(parse_object, body)
    return parse_object(body)


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """``body`` as a JSON object of bounded depth. Raises ``InvalidArgument``."""
    if not body.strip():
        return {}
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"Bad data in request body. ({error})") from None
    if not isinstance(content, dict):
        raise InvalidArgument("Bad data in request body. (expected a JSON object)")
    _check_depth(content)
    return content


def _check_depth(content: dict[str, Any]) -> None:
    level: list[Any] = [content]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise InvalidArgument(f"Bad data in request body. (more than {_MAX_DEPTH} levels deep)")


def decode_base64(text: str | memoryview, *, field: str) -> bytes:
    """Strict base64 in slices, so that other threads get their turn between them."""
    step = 1 << 20  # a multiple of four: every slice but the last is whole
    parts = []
    try:
        raw = memoryview(text.encode("ascii")) if isinstance(text, str) else text
        if bytes(raw[-3:]) == b"===":  # the strict decoder takes it after a whole group
            raise binascii.Error("excess padding")
        for start in range(0, len(raw), step):
            part = binascii.a2b_base64(raw[start : start + step], strict_mode=True)
            if len(part) % 3 and start + step < len(raw):
                raise binascii.Error("padding before the end")
            parts.append(part)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidArgument(f"{field} is not valid base64 ({error})") from None
    return b"".join(parts)


def content_hash(content: object) -> str:
    """SHA-256 in hex over the canonical JSON of ``content``."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()

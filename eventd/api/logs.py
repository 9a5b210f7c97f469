"""``GET /eventd/v1/logs``: the functions' output, once or as it comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from eventd.errors import InvalidArgument
from eventd.store.interface import LogLine

MAX_LINES = 10_000
HEARTBEAT_S = 10.0
"""A follower gets an empty line this often, so that one who left is noticed."""

_KEYS = ("service", "function", "requestId", "text", "since", "until", "limit", "follow")


class LogReader(Protocol):
    """Reads lines with FC's start, end and report lines among them. Empty texts and 0 = any."""

    async def query(
        self,
        *,
        service: str,
        function: str,
        request_id: str,
        text: str,
        since_ms: int,
        until_ms: int,
        limit: int,
    ) -> Sequence[LogLine]:
        """The newest ``limit`` lines that match, oldest first."""

    def follow(
        self, *, service: str, function: str, request_id: str, text: str, since_ms: int
    ) -> AsyncIterator[LogLine]:
        """What is stored since ``since_ms`` (0 = nothing), then each new line; never ends by
        itself. Cancelling the wait for the next line ends it."""


def routes(reader: LogReader, closing: asyncio.Event) -> list[web.RouteDef]:
    """The signed route ``GET /eventd/v1/logs``.

    Query: ``service``, ``function``, ``requestId``, ``text`` (a part of the line), ``since`` and
    ``until`` (wall clock in ms), ``limit`` (100; at most 10,000), ``follow=1``: newline-delimited
    JSON until the client leaves or ``closing`` is set.
    """

    async def get_logs(request: web.Request) -> web.StreamResponse:
        match = _match(request.query)
        if _flag(request.query):
            return await _follow(request, reader, closing, match)
        lines = await reader.query(
            **match,
            until_ms=_integer(request.query, "until", 0, 0, 1 << 53),
            limit=_integer(request.query, "limit", 100, 1, MAX_LINES),
        )
        return web.json_response({"lines": [rendered(line) for line in lines]})

    return [web.get("/eventd/v1/logs", get_logs)]


def rendered(line: LogLine) -> dict[str, Any]:
    """A line as JSON."""
    return {
        "timeMs": line.time_ms,
        "service": line.service,
        "function": line.function,
        "version": str(line.version) if line.version else "LATEST",
        "requestId": line.request_id,
        "instanceId": line.instance_id,
        "text": line.text,
    }


async def _follow(
    request: web.Request, reader: LogReader, closing: asyncio.Event, match: dict[str, Any]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    lines = aiter(reader.follow(**match))
    ended = asyncio.ensure_future(closing.wait())
    line = asyncio.ensure_future(anext(lines, None))
    try:
        while not closing.is_set():
            done, _ = await asyncio.wait(
                {line, ended}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
            )
            if line in done:
                found = line.result()
                if found is None:
                    break
                await response.write(json.dumps(rendered(found)).encode() + b"\n")
                line = asyncio.ensure_future(anext(lines, None))
            elif not done:
                await response.write(b"\n")
    except ConnectionResetError:
        pass  # the client left; that is how following ends
    finally:
        for task in (line, ended):
            task.cancel()
        await asyncio.gather(line, ended, return_exceptions=True)
    return response


def _match(query: Mapping[str, str]) -> dict[str, Any]:
    for key in query:
        if key not in _KEYS:
            raise InvalidArgument(f"unknown; known are {', '.join(_KEYS)}", field=key)
    return {
        "service": query.get("service", ""),
        "function": query.get("function", ""),
        "request_id": query.get("requestId", ""),
        "text": query.get("text", ""),
        "since_ms": _integer(query, "since", 0, 0, 1 << 53),
    }


def _flag(query: Mapping[str, str]) -> bool:
    given = query.get("follow", "0")
    if given not in ("0", "1"):
        raise InvalidArgument(f"expected 0 or 1, got {given!r}", field="follow")
    return given == "1"


def _integer(query: Mapping[str, str], key: str, default: int, low: int, high: int) -> int:
    given = query.get(key)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 20 and low <= int(given) <= high):
        raise InvalidArgument(f"expected an integer from {low} to {high}, got {given!r}", field=key)
    return int(given)

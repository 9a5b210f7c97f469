"""``GET /eventd/v1/dead-letters``: invocations that were given up, the newest first."""

from __future__ import annotations

import base64
from typing import Any

from aiohttp import web

from eventd.errors import InvalidArgument
from eventd.model.invocation import DeadLetter
from eventd.store.interface import Queue

MAX_LETTERS = 1000


def routes(queue: Queue) -> list[web.RouteDef]:
    """The signed route ``GET /eventd/v1/dead-letters?limit=`` (100; at most 1,000)."""

    async def get_dead_letters(request: web.Request) -> web.Response:
        given = request.query.get("limit", "100")
        digits = given.isascii() and given.isdigit() and len(given) < 20
        if not digits or not 1 <= int(given) <= MAX_LETTERS:
            raise InvalidArgument(
                f"expected an integer from 1 to {MAX_LETTERS}, got {given!r}", field="limit"
            )
        letters = await queue.dead_letters(int(given))
        return web.json_response({"deadLetters": [_rendered(letter) for letter in letters]})

    return [web.get("/eventd/v1/dead-letters", get_dead_letters)]


def _rendered(letter: DeadLetter) -> dict[str, Any]:
    invocation = letter.invocation
    return {
        "invocationId": invocation.id,
        "requestId": invocation.request_id,
        "service": invocation.service,
        "function": invocation.function,
        "qualifier": invocation.qualifier,
        "trigger": invocation.trigger_name,
        "attempts": invocation.attempts,
        "reason": letter.reason,
        "lastError": letter.last_error.decode(errors="replace"),
        "acceptedMs": invocation.accepted_ms,
        "buriedMs": letter.buried_ms,
        "payload": base64.b64encode(invocation.payload).decode(),
    }

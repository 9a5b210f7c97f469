"""Compare-and-set writes: try again when another writer was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from eventd.errors import ConcurrentUpdateError, PreconditionFailed
from eventd.store.interface import StaleWrite

_ATTEMPTS = 5

ResultT = TypeVar("ResultT")


async def retrying(request: web.Request, attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Run ``attempt``, which reads, checks and writes, until its write is not stale.

    Raises ``PreconditionFailed`` at once if the caller sent ``If-Match`` (what it saw is gone),
    ``ConcurrentUpdateError`` after five stale writes.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await attempt()
        except StaleWrite:
            if request.headers.get("If-Match"):
                raise PreconditionFailed from None
    raise ConcurrentUpdateError("the resource is being changed by others; try again")

"""aiohttp's connection handler, with the errors that it answers itself in FC's form.

They come before or beneath the application: what aiohttp's parser refuses although ``parse_head``
took it, and what escaped from a handler.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web

from eventd.api.edge import Edge
from eventd.api.invoke import response_of
from eventd.api.responses import defect_reply, error_reply
from eventd.errors import InvalidArgument
from eventd.pool.call import CallKind

log = logging.getLogger(__name__)


class InnerHandler(web.RequestHandler):
    """Serves a connection that was handed over; ``options`` are aiohttp's."""

    __slots__ = ("_edge",)

    def __init__(
        self, edge: Edge, server: web.Server, loop: asyncio.AbstractEventLoop, **options: Any
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self._edge = edge

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that no handler could answer; the connection ends with it."""
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("nobody can hear an answer") from exc
        request_id = self._edge.new_request_id()
        if status >= 500:
            log.error("request %s failed", request_id, exc_info=exc)
            reply = defect_reply(request_id, CallKind.EVENT)
        else:
            reason = (message or "not readable").partition("\n")[0]
            error = InvalidArgument(f"malformed HTTP request: {reason}")
            reply = error_reply(error, request_id)
        response = response_of(self._edge, reply)
        response.headers["Server"] = "eventd"
        response.force_close()
        return response

"""One JSON shape for every error, and the request id on every response.

``{"ErrorCode", "ErrorMessage"}`` and ``X-Fc-Request-Id``: FC 2016-08-15, "Error codes".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from eventd.errors import (
    ClientClosedRequest,
    ConcurrentUpdateError,
    EntityTooLarge,
    EventdError,
    InvalidArgument,
    PathNotSupported,
    ServiceUnavailable,
)
from eventd.model.identity import new_request_id
from eventd.store.interface import StaleWrite, StoreFailed

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
"""The id of the request, set before any handler runs."""

JSON_TYPE = "application/json"

_TRACE_ID = re.compile(r"[!-~]{1,128}")


def request_id_for(trace_id: str | None) -> str:
    """The caller's ``X-Fc-Trace-Id`` if it can stand in a header, else a new UUID."""
    if trace_id and _TRACE_ID.fullmatch(trace_id):
        return trace_id
    return new_request_id()


def error_body(error: EventdError) -> bytes:
    """The JSON that FC answers for ``error``."""
    return orjson.dumps({"ErrorCode": error.code, "ErrorMessage": str(error)})


def json_response(
    content: object, *, status: int = 200, etag: str = "", warning: str = ""
) -> web.Response:
    """A control-plane answer; ``warning`` goes into ``X-Eventd-Warning``."""
    response = web.Response(body=orjson.dumps(content), status=status, content_type=JSON_TYPE)
    if etag:
        response.headers["ETag"] = etag
    if warning:
        response.headers["X-Eventd-Warning"] = warning
    return response


def error_response(error: EventdError) -> web.Response:
    return web.Response(body=error_body(error), status=error.status, content_type=JSON_TYPE)


def not_supported(request: web.BaseRequest) -> PathNotSupported:
    return PathNotSupported(f"'{request.method}' against '{request.path}' is not supported")


def _known_error(request: web.Request, error: Exception) -> EventdError | None:
    """The FC error for what a handler raised; ``None`` for a defect of ours."""
    match error:
        case EventdError():
            return error
        case web.HTTPNotFound() | web.HTTPMethodNotAllowed():
            return not_supported(request)
        case web.HTTPRequestEntityTooLarge():
            return EntityTooLarge(str(error.text))
        case web.HTTPException() if error.status < 500:
            return InvalidArgument(error.reason)
        case ConnectionError() if request.transport is None or request.transport.is_closing():
            return ClientClosedRequest("the client went away")
        case StaleWrite():
            return ConcurrentUpdateError("the resource was changed by another request; try again")
        case StoreFailed():
            return ServiceUnavailable("the store takes nothing at the moment; try again later")
        case _:
            return None


@web.middleware
async def envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id and turn every exception into FC's error JSON.

    Cancelling passes through. A handler that starts a streamed response settles its own errors
    from then on and sets the id itself.
    """
    request_id = request_id_for(request.headers.get("X-Fc-Trace-Id"))
    request[REQUEST_ID] = request_id
    try:
        response = await handler(request)
    except Exception as error:
        known = _known_error(request, error)
        if known is None:
            log.exception("request %s %s failed (%s)", request.method, request.path, request_id)
            known = EventdError("an internal error has occurred. Please retry.")
        response = error_response(known)
    if not response.prepared:
        response.headers.setdefault("X-Fc-Request-Id", request_id)
    return response

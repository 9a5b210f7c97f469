"""The invocation paths behind aiohttp: for connections that were handed over.

What a request means and what its answer holds is decided in ``edge.py``, ``plan.py`` and
``responses.py``, for this front and the fast one alike.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from aiohttp import web

from eventd.api.edge import Edge
from eventd.api.guard import REFUSAL_PATH, Guard
from eventd.api.head import RequestHead, header_text, make_head
from eventd.api.plan import Plan, given_request_id, match_route
from eventd.api.responses import (
    Reply,
    check_status,
    defect_reply,
    error_reply,
    event_reply,
    http_block,
    http_error_reply,
)
from eventd.api.spool import Spool
from eventd.errors import BadResponse, EventdError, PathNotSupported, ServiceUnavailable
from eventd.model.invocation import Outcome
from eventd.pool.call import Call, CallKind

log = logging.getLogger(__name__)

INVOCATIONS = "/2016-08-15/services/{service}/functions/{function}/invocations"
PROXY = "/2016-08-15/proxy/{service}/{function}"


def invocation_routes(edge: Edge) -> list[web.RouteDef]:
    """Routes that check signatures themselves: the app's own authentication must let them pass."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return await _Serving(edge, request).run()

    async def refuse(request: web.Request) -> web.StreamResponse:
        guard = _guard(request)
        error = guard.refusal if guard is not None else None
        if error is None:
            error = PathNotSupported(
                f"'{request.method}' against '{request.path}' is not supported"
            )
        response = response_of(edge, error_reply(error, edge.new_request_id()))
        response.force_close()
        return response

    return [
        web.post(INVOCATIONS, serve),
        web.route("*", PROXY, serve),
        web.route("*", PROXY + "/{path:.*}", serve),
        web.get(REFUSAL_PATH, refuse),
    ]


class _Answer:
    """Hears a call's answer and keeps it for the handler; bounded by the window of the call."""

    def __init__(self) -> None:
        self.head: tuple[int, Sequence[tuple[bytes, bytes]]] | None = None
        self.parts: list[bytes] = []
        self.outcome: Outcome | None = None
        self.changed = asyncio.Event()

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.head = (status, headers)

    def on_data(self, data: bytes) -> None:
        self.parts.append(data)
        self.changed.set()

    def on_end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.changed.set()

    async def wait(self) -> None:
        """Until there is data or the end."""
        await self.changed.wait()
        self.changed.clear()

    def take(self) -> bytes:
        parts, self.parts = self.parts, []
        return b"".join(parts)


class _Serving:
    """One request on an invocation path."""

    def __init__(self, edge: Edge, request: web.Request) -> None:
        self._edge = edge
        self._request = request
        self._kind = CallKind.EVENT
        self._request_id = ""

    async def run(self) -> web.StreamResponse:
        """The response; errors of FC become one here."""
        edge, request = self._edge, self._request
        head = _head(request)
        self._request_id = given_request_id(head.headers) or edge.new_request_id()
        try:
            route = match_route(head.target)
            if route is None:
                raise PathNotSupported(
                    f"'{request.method}' against '{request.path}' is not supported"
                )
            self._kind = route.kind
            plan = edge.plan(route, head, request.remote or "")
            body = await self._read_body(plan)
            if plan.options.asynchronous:
                return self._respond(await edge.enqueue(plan, bytes(body), self._request_id))
            return await self._call(plan, body)
        except EventdError as error:
            return self._respond(error_reply(error, self._request_id, self._kind))
        except ConnectionError:
            raise  # the client went away; aiohttp knows what to do
        except Exception as error:
            if request.transport is None:  # aiohttp says this with several classes
                raise ConnectionResetError("the client went away") from error
            log.exception("request %s failed", self._request_id)
            return self._respond(defect_reply(self._request_id, self._kind))

    async def _read_body(self, plan: Plan) -> bytes | memoryview:
        request, limit = self._request, plan.max_body_bytes
        if (request.content_length or 0) > limit:
            raise plan.too_large()
        if not request.can_read_body:
            return b""
        drained = asyncio.Event()
        spool = Spool(self._edge.spool_dir, drained.set)
        try:
            async for data in request.content.iter_any():
                spool.write(data)
                if spool.size > limit:
                    raise plan.too_large()
                while spool.full:
                    drained.clear()
                    await drained.wait()
            done: asyncio.Future[bytes | memoryview | OSError] = (
                asyncio.get_running_loop().create_future()
            )
            spool.finish(done.set_result)
            body = await done
        finally:
            spool.close()
        if isinstance(body, OSError):
            raise ServiceUnavailable("the request body can't be stored") from body
        return body

    async def _call(self, plan: Plan, body: bytes | memoryview) -> web.StreamResponse:
        answer = _Answer()
        invoker = self._edge.invoker
        call = self._edge.start(plan, body, self._request_id, answer)
        guard = _guard(self._request)
        if guard is not None:
            guard.on_lost = lambda: invoker.cancel(call)
        try:
            await answer.wait()
            if answer.outcome is None:
                await asyncio.sleep(0)  # an end in the same turn of the loop spares the streaming
            if answer.outcome is None:
                return await self._stream(plan, call, answer)
            return self._respond(self._reply(plan, call, answer, answer.outcome))
        finally:
            if guard is not None:
                guard.on_lost = None
            if answer.outcome is None:
                invoker.cancel(call)

    def _reply(self, plan: Plan, call: Call, answer: _Answer, outcome: Outcome) -> Reply:
        want_tail = plan.options.want_tail
        if plan.http is None:
            return event_reply(call.function, outcome, self._request_id, want_tail=want_tail)
        if not outcome.succeeded:
            return http_error_reply(call.function, outcome, self._request_id, want_tail=want_tail)
        if answer.head is None:
            raise BadResponse("the function ended without an answer")
        return Reply(answer.head[0], self._block(plan, call, answer, outcome), answer.take())

    def _block(self, plan: Plan, call: Call, answer: _Answer, outcome: Outcome | None) -> bytes:
        assert answer.head is not None
        check_status(answer.head[0])
        return http_block(
            call.function,
            answer.head[1],
            outcome,
            self._request_id,
            want_tail=plan.options.want_tail,
            attachment=self._edge.settings.attachment,
        )

    async def _stream(self, plan: Plan, call: Call, answer: _Answer) -> web.StreamResponse:
        if answer.head is None:
            raise BadResponse("the function sent a body before its head")
        block = self._block(plan, call, answer, None)
        response = web.StreamResponse(status=answer.head[0])
        _set_headers(response, block)
        self._edge.count(response.status)
        await response.prepare(self._request)
        while True:
            if data := answer.take():
                await response.write(data)
                call.consumed(len(data))
            elif answer.outcome is None:
                await answer.wait()
            else:
                break
        if not answer.outcome.succeeded:
            # The length was not known: only a broken connection tells that the body is cut.
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the function failed within its answer")
        await response.write_eof()
        return response

    def _respond(self, reply: Reply) -> web.StreamResponse:
        return response_of(self._edge, reply)


def response_of(edge: Edge, reply: Reply) -> web.Response:
    """``reply`` as aiohttp sends it."""
    edge.count(reply.status)
    response = web.Response(status=reply.status, body=reply.body or None)
    _set_headers(response, reply.block)
    return response


def _set_headers(response: web.StreamResponse, block: bytes) -> None:
    response.headers.popall("Content-Type", None)
    for line in block.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        response.headers.add(name.decode("ascii"), header_text(value))


def _head(request: web.Request) -> RequestHead:
    """The head as ``guard.py`` has read it, from aiohttp's reading of the same bytes."""
    fields = [(name.decode("ascii").lower(), header_text(v)) for name, v in request.raw_headers]
    return make_head(request.method, request.raw_path, fields, http_10=request.version < (1, 1))


def _guard(request: web.Request) -> Guard | None:
    transport = request.transport
    protocol = transport.get_protocol() if transport is not None else None
    return protocol if isinstance(protocol, Guard) else None

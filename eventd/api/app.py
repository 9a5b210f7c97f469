"""The aiohttp application: every route of the API, request ids, errors, signatures."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from eventd.api.account import Account
from eventd.api.aliases import Aliases
from eventd.api.async_configs import AsyncConfigs
from eventd.api.code import CodeDownloads
from eventd.api.errors import Handler, envelope
from eventd.api.functions import Functions
from eventd.api.services import Services
from eventd.api.state import ControlState
from eventd.api.triggers import Triggers
from eventd.api.versions import Versions


def build_app(
    state: ControlState,
    *,
    signed_routes: Sequence[web.AbstractRouteDef] = (),
    open_routes: Sequence[web.AbstractRouteDef] = (),
) -> web.Application:
    """The control plane with the routes of other parts beside it.

    Args:
        signed_routes: more routes behind FC's header signature.
        open_routes: routes that are public or check their callers themselves (``/healthz``, HTTP
            functions, webhooks).

    Every answer has ``X-Fc-Request-Id``, every error FC's JSON; a path that does not exist is
    ``PathNotSupported``. Bodies are bounded by ``body.read_body``, not by ``client_max_size``.
    """
    downloads = CodeDownloads(state)
    app = web.Application()
    public = {
        route
        for definition in (*downloads.routes(), *open_routes)
        for route in definition.register(app.router)
    }
    app.add_routes([*control_routes(state, downloads), *signed_routes])
    app.middlewares.extend([envelope, _signatures(state, frozenset(public))])
    return app


def control_routes(state: ControlState, downloads: CodeDownloads) -> list[web.RouteDef]:
    """Every operation of FC 2016-08-15 that exists here."""
    return [
        *Services(state).routes(),
        *Functions(state, downloads).routes(),
        *Triggers(state).routes(),
        *Versions(state).routes(),
        *Aliases(state).routes(),
        *AsyncConfigs(state).routes(),
        *Account(state).routes(),
    ]


def _signatures(state: ControlState, public: frozenset[web.AbstractRoute]) -> Middleware:
    @web.middleware
    async def verify(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request to an existing, not public route pass only with a good signature. What
        does not exist is answered to anybody: the list of operations is no secret."""
        if request.match_info.http_exception is None and request.match_info.route not in public:
            path, _, query = request.raw_path.partition("?")
            headers = {name.lower(): value for name, value in request.headers.items()}
            state.authenticator.verify(request.method, path, query, headers, with_query=False)
        return await handler(request)

    return verify

"""Asynchronous invocation settings per function and qualifier. FC 2016-08-15, "Async configs"."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from eventd.api.body import read_object
from eventd.api.errors import json_response
from eventd.api.lookup import View, editable, find_service, find_view, view_of
from eventd.api.pagination import PageQuery, page
from eventd.api.schemas.async_config import PutAsyncConfig
from eventd.api.schemas.fields import parse
from eventd.api.state import ControlState
from eventd.errors import AsyncConfigNotExists
from eventd.model.resources import LATEST, AsyncConfig


class AsyncConfigs:
    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._metadata = state.metadata

    def routes(self) -> list[web.RouteDef]:
        function = "/2016-08-15/services/{service}/functions/{function}"
        one = function + "/async-invoke-config"
        return [
            web.put(one, self.put),
            web.get(one, self.get, allow_head=False),
            web.delete(one, self.delete),
            web.get(function + "/async-invoke-configs", self.list_page, allow_head=False),
        ]

    async def put(self, request: web.Request) -> web.Response:
        body = parse(PutAsyncConfig, await read_object(request), self._state.unknown)
        function = request.match_info["function"]
        service = request.match_info["service"].partition(".")[0]
        async with self._state.writers.hold(service):
            view = self._view(request)
            before = self._metadata.async_config(service, function, view.qualifier)
            now = self._state.now()
            config = AsyncConfig(
                service=service,
                function=function,
                qualifier=view.qualifier,
                config=body.config(),
                created_time=before.created_time if before else now,
                last_modified_time=now,
            )
            await self._metadata.save_async_config(config)
        return json_response(_content(config))

    def _view(self, request: web.Request) -> View:
        """The service at the path's qualifier; the function must be in it."""
        view = find_view(self._metadata, request.match_info["service"])
        view.function(self._metadata, request.match_info["function"])
        return view

    async def get(self, request: web.Request) -> web.Response:
        return json_response(_content(self._find(request)))

    def _find(self, request: web.Request) -> AsyncConfig:
        """Also of a qualifier that is gone: its config can still be read and deleted."""
        service, _, qualifier = request.match_info["service"].partition(".")
        function, qualifier = request.match_info["function"], qualifier or LATEST
        find_service(self._metadata, service)
        found = self._metadata.async_config(service, function, qualifier)
        if found is None:
            self._view(request)
            raise AsyncConfigNotExists(
                f"AsyncConfig for {service}.{qualifier}:{function} does not exist."
            )
        return found

    async def delete(self, request: web.Request) -> web.Response:
        async with self._state.writers.hold(request.match_info["service"].partition(".")[0]):
            found = self._find(request)
            await self._metadata.delete_async_config(found.service, found.function, found.qualifier)
        return web.Response(status=204)

    async def list_page(self, request: web.Request) -> web.Response:
        """All qualifiers. ``nextToken`` is always there, ``configs`` only if there are any."""
        service, function = editable(request), request.match_info["function"]
        view_of(self._metadata, find_service(self._metadata, service), LATEST).function(
            self._metadata, function
        )
        configs = self._metadata.async_configs(service, function)
        query = PageQuery.of(request.query)
        found, token = page(configs, lambda config: config.qualifier, query)
        content: dict[str, Any] = {"nextToken": token}
        if found:
            content["configs"] = [_content(config) for config in found]
        return json_response(content)


def _content(config: AsyncConfig) -> dict[str, Any]:
    return {
        "service": config.service,
        "function": config.function,
        "qualifier": config.qualifier,
        **config.config,
        "createdTime": config.created_time,
        "lastModifiedTime": config.last_modified_time,
    }

"""Services. FC 2016-08-15, "Services"."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from aiohttp import web

from eventd.api.body import read_object
from eventd.api.errors import json_response
from eventd.api.lookup import View, check_match, editable, find_service, find_view
from eventd.api.pagination import PageQuery, page, with_token
from eventd.api.schemas.fields import parse
from eventd.api.schemas.service import CreateService, UpdateService
from eventd.api.state import ControlState
from eventd.api.writing import retrying
from eventd.errors import ServiceAlreadyExists, ServiceNotEmpty
from eventd.model.identity import new_incarnation
from eventd.model.resources import LATEST, Service
from eventd.store.interface import StaleWrite


class Services:
    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._metadata = state.metadata

    def routes(self) -> list[web.RouteDef]:
        one = "/2016-08-15/services/{service}"
        return [
            web.post("/2016-08-15/services", self.create),
            web.get("/2016-08-15/services", self.list_page, allow_head=False),
            web.get(one, self.get, allow_head=False),
            web.put(one, self.update),
            web.delete(one, self.delete),
        ]

    async def create(self, request: web.Request) -> web.Response:
        body = parse(CreateService, await read_object(request), self._state.unknown)
        now = self._state.now()
        service = Service(
            name=body.service_name,
            service_id=str(uuid.uuid4()),
            incarnation=new_incarnation(),
            etag=uuid.uuid4().hex,
            created_time=now,
            last_modified_time=now,
            config=body.config(),
        )
        try:
            async with self._state.writers.hold(service.name):
                await self._metadata.save_service(service, expect=None)
        except StaleWrite:
            raise ServiceAlreadyExists(f"service '{service.name}' already exists") from None
        return _answer(View(service, LATEST, None))

    async def get(self, request: web.Request) -> web.Response:
        return _answer(find_view(self._metadata, request.match_info["service"]))

    async def list_page(self, request: web.Request) -> web.Response:
        # Tags cannot be set yet, so no service has one that is asked for.
        tagged = any(key.startswith("tag_") for key in request.query)
        services = [] if tagged else self._metadata.services()
        found, token = page(services, lambda service: service.name, PageQuery.of(request.query))
        listed = [_content(View(service, LATEST, None)) for service in found]
        return json_response(with_token({"services": listed}, token))

    async def update(self, request: web.Request) -> web.Response:
        name = editable(request)
        changes = parse(UpdateService, await read_object(request), self._state.unknown).given()

        async def attempt() -> Service:
            current = find_service(self._metadata, name)
            check_match(request, current.etag)
            changed = replace(
                current,
                etag=uuid.uuid4().hex,
                last_modified_time=self._state.now(),
                config={**current.config, **changes},
            )
            await self._metadata.save_service(changed, expect=current.etag)
            return changed

        async with self._state.writers.hold(name):
            service = await retrying(request, attempt)
        return _answer(View(service, LATEST, None))

    async def delete(self, request: web.Request) -> web.Response:
        name = editable(request)

        async def attempt() -> None:
            current = find_service(self._metadata, name)
            check_match(request, current.etag)
            self._check_empty(name)
            await self._metadata.delete_service(name, expect=current.etag)

        async with self._state.writers.hold(name):
            await retrying(request, attempt)
        return web.Response(status=204)

    def _check_empty(self, name: str) -> None:
        for what, found in (
            ("functions", self._metadata.functions(name)),
            ("versions", self._metadata.versions(name)),
            ("aliases", self._metadata.aliases(name)),
        ):
            if any(True for _ in found):
                raise ServiceNotEmpty(f"service '{name}' has active {what}")


def _content(view: View) -> dict[str, Any]:
    return {
        "serviceName": view.service.name,
        "serviceId": view.service.service_id,
        **view.config,
        "createdTime": view.service.created_time,
        "lastModifiedTime": view.last_modified_time,
    }


def _answer(view: View) -> web.Response:
    return json_response(_content(view), etag=view.etag)

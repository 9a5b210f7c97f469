"""Aliases: pointers to versions, with weights. FC 2016-08-15, "Aliases"."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from aiohttp import web

from eventd.api.body import read_object
from eventd.api.errors import json_response
from eventd.api.lookup import check_match, editable, find_service, find_version
from eventd.api.pagination import PageQuery, page, with_token
from eventd.api.schemas.alias import CreateAlias, UpdateAlias
from eventd.api.schemas.fields import parse
from eventd.api.state import ControlState
from eventd.api.writing import retrying
from eventd.errors import AliasAlreadyExists, AliasNotFound
from eventd.model.resources import Alias
from eventd.store.interface import StaleWrite

_EXTRA = ("resolvePolicy", "routePolicy")


class Aliases:
    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._metadata = state.metadata

    def routes(self) -> list[web.RouteDef]:
        many = "/2016-08-15/services/{service}/aliases"
        one = many + "/{alias}"
        return [
            web.post(many, self.create),
            web.get(many, self.list_page, allow_head=False),
            web.get(one, self.get, allow_head=False),
            web.put(one, self.update),
            web.delete(one, self.delete),
        ]

    async def create(self, request: web.Request) -> web.Response:
        service = editable(request)
        body = parse(CreateAlias, await read_object(request), self._state.unknown)
        given = body.given()
        now = self._state.now()
        alias = Alias(
            service=service,
            name=body.alias_name,
            version_id=body.version_id,
            description=body.description,
            additional_version_weight=body.additional_version_weight,
            etag=uuid.uuid4().hex,
            created_time=now,
            last_modified_time=now,
            extra={key: given[key] for key in _EXTRA if key in given},
        )
        async with self._state.writers.hold(service):
            find_service(self._metadata, service)
            self._check_versions(service, _named(body))
            try:
                await self._metadata.save_alias(alias, expect=None)
            except StaleWrite:
                raise AliasAlreadyExists(
                    f"alias '{alias.name}' of service '{service}' already exists"
                ) from None
        return _answer(alias)

    def _check_versions(self, service: str, version_ids: Iterable[str]) -> None:
        for version_id in version_ids:
            find_version(self._metadata, service, version_id)

    async def get(self, request: web.Request) -> web.Response:
        return _answer(self._find(editable(request), request.match_info["alias"]))

    def _find(self, service: str, name: str) -> Alias:
        find_service(self._metadata, service)
        found = self._metadata.alias(service, name)
        if found is None:
            raise AliasNotFound(f"alias '{name}' of service '{service}' does not exist")
        return found

    async def list_page(self, request: web.Request) -> web.Response:
        service = editable(request)
        find_service(self._metadata, service)
        aliases = self._metadata.aliases(service)
        found, token = page(aliases, lambda alias: alias.name, PageQuery.of(request.query))
        return json_response(with_token({"aliases": [_content(a) for a in found]}, token))

    async def update(self, request: web.Request) -> web.Response:
        service, name = editable(request), request.match_info["alias"]
        self._find(service, name)
        body = parse(UpdateAlias, await read_object(request), self._state.unknown)
        given = body.given()

        async def attempt() -> Alias:
            current = self._find(service, name)
            check_match(request, current.etag)
            self._check_versions(service, _named(body))
            changed = replace(
                current,
                version_id=body.version_id or current.version_id,
                description=given.get("description", current.description),
                additional_version_weight=given.get(
                    "additionalVersionWeight", current.additional_version_weight
                ),
                etag=uuid.uuid4().hex,
                last_modified_time=self._state.now(),
                extra={**current.extra, **{key: given[key] for key in _EXTRA if key in given}},
            )
            await self._metadata.save_alias(changed, expect=current.etag)
            return changed

        async with self._state.writers.hold(service):
            alias = await retrying(request, attempt)
        return _answer(alias)

    async def delete(self, request: web.Request) -> web.Response:
        service, name = editable(request), request.match_info["alias"]

        async def attempt() -> None:
            current = self._find(service, name)
            check_match(request, current.etag)
            await self._metadata.delete_alias(service, name, expect=current.etag)

        async with self._state.writers.hold(service):
            await retrying(request, attempt)
        return web.Response(status=204)


def _named(body: UpdateAlias) -> list[str]:
    """The version ids that a request names."""
    own = [body.version_id] if body.version_id else []
    return [*own, *(body.additional_version_weight or ())]


def _content(alias: Alias) -> dict[str, Any]:
    weights = alias.additional_version_weight
    return {
        "aliasName": alias.name,
        "versionId": alias.version_id,
        "description": alias.description,
        "additionalVersionWeight": None if weights is None else dict(weights),
        **alias.extra,
        "createdTime": alias.created_time,
        "lastModifiedTime": alias.last_modified_time,
    }


def _answer(alias: Alias) -> web.Response:
    return json_response(_content(alias), etag=alias.etag)

"""Versions: immutable snapshots of a service and all its functions. FC 2016-08-15, "Versions"."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from eventd.api.body import content_hash, read_object
from eventd.api.errors import json_response
from eventd.api.lookup import check_match, editable, find_service, find_version
from eventd.api.pagination import PageQuery, with_token
from eventd.api.schemas.alias import PublishVersion
from eventd.api.schemas.fields import parse
from eventd.api.state import ControlState
from eventd.api.writing import retrying
from eventd.errors import InvalidArgument, VersionPublishError
from eventd.model.resources import LATEST, Service, Version

IGNORE_HEADER = "x-fc-ignore-version-publish-error"
_DIRECTIONS = ("BACKWARD", "FORWARD")


class Versions:
    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._metadata = state.metadata

    def routes(self) -> list[web.RouteDef]:
        many = "/2016-08-15/services/{service}/versions"
        return [
            web.post(many, self.publish),
            web.get(many, self.list_page, allow_head=False),
            web.delete(many + "/{version}", self.delete),
        ]

    async def publish(self, request: web.Request) -> web.Response:
        """Publish unless nothing changed since the newest version that exists; a refusal uses up
        no id. ``x-fc-ignore-version-publish-error: true`` answers that version instead."""
        name = editable(request)
        body = parse(PublishVersion, await read_object(request), self._state.unknown)
        lenient = request.headers.get(IGNORE_HEADER, "").lower() == "true"

        async def attempt() -> tuple[Service, Version]:
            service = find_service(self._metadata, name)
            check_match(request, service.etag)
            snapshot = self._snapshot(service, body.description)
            newest = max(self._metadata.versions(name), key=_number, default=None)
            if newest is None or newest.content_hash != snapshot.content_hash:
                return service, await self._metadata.publish_version(snapshot, expect=service.etag)
            if lenient:
                return service, newest
            raise VersionPublishError(
                f"can not publish version for service '{name}', "
                "detail: 'No changes were made since last publish'"
            )

        async with self._state.writers.hold(name):
            service, version = await retrying(request, attempt)
        return json_response(_content(version), etag=service.etag)

    def _snapshot(self, service: Service, description: str) -> Version:
        functions = {f.name: f for f in self._metadata.functions(service.name)}
        content = {
            "service": dict(service.config),
            "functions": {
                name: [dict(function.config), function.code_digest]
                for name, function in functions.items()
            },
        }
        now = self._state.now()
        return Version(
            service=service.name,
            version_id=0,
            description=description,
            created_time=now,
            last_modified_time=now,
            service_config=service.config,
            functions=functions,
            content_hash=content_hash(content),
        )

    async def list_page(self, request: web.Request) -> web.Response:
        name = editable(request)
        find_service(self._metadata, name)
        direction = request.query.get("direction") or _DIRECTIONS[0]
        if direction not in _DIRECTIONS:
            raise InvalidArgument(
                "Direction is set to an invalid value "
                f"(allowed: {' | '.join(_DIRECTIONS)}, actual: '{direction[:50]}')"
            )
        versions = sorted(
            self._metadata.versions(name), key=_number, reverse=direction == _DIRECTIONS[0]
        )
        found, token = _page(versions, PageQuery.of(request.query))
        listed: dict[str, object] = {"versions": [_content(version) for version in found]}
        return json_response(with_token({**listed, "direction": direction}, token))

    async def delete(self, request: web.Request) -> web.Response:
        """Also under an alias that points to it; calls through that alias then fail."""
        name, version_id = editable(request), request.match_info["version"]
        find_service(self._metadata, name)
        if version_id == LATEST:
            raise InvalidArgument("VersionId: LATEST cannot be deleted")
        async with self._state.writers.hold(name):
            version = find_version(self._metadata, name, version_id)
            await self._metadata.delete_version(name, version.version_id)
        return web.Response(status=204)


def _page(versions: list[Version], query: PageQuery) -> tuple[list[Version], str]:
    """Like ``pagination.page``, but the order is numeric and may be falling."""
    first = query.next_token or query.start_key
    if first:
        number = _start(first)
        rising = len(versions) > 1 and versions[0].version_id < versions[-1].version_id
        versions = [
            v for v in versions if (v.version_id >= number if rising else v.version_id <= number)
        ]
    token = str(versions[query.limit].version_id) if len(versions) > query.limit else ""
    return versions[: query.limit], token


def _start(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(
            f"StartKey is set to an invalid value (allowed: a version id, actual: '{text[:50]}')"
        )
    return int(text[:18])


def _number(version: Version) -> int:
    return version.version_id


def _content(version: Version) -> dict[str, Any]:
    return {
        "versionId": str(version.version_id),
        "description": version.description,
        "createdTime": version.created_time,
        "lastModifiedTime": version.last_modified_time,
    }

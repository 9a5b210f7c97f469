"""Finding resources by the segments of a path, and FC's words when they are not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from eventd.api.errors import not_supported
from eventd.errors import (
    AliasNotFound,
    FunctionNotFound,
    PreconditionFailed,
    ServiceNotFound,
    VersionNotFound,
)
from eventd.model.resources import LATEST, Function, JsonObject, Service, Version
from eventd.store.interface import Metadata


@dataclass(frozen=True, slots=True)
class View:
    """A service as a qualifier shows it: the working copy, or a version's snapshot."""

    service: Service
    qualifier: str
    version: Version | None

    @property
    def config(self) -> JsonObject:
        """The service's config; of a version, with the version's description (FC, 7.4)."""
        if self.version is None:
            return self.service.config
        return {**self.version.service_config, "description": self.version.description}

    @property
    def etag(self) -> str:
        return self.service.etag if self.version is None else self.version.content_hash[:32]

    @property
    def last_modified_time(self) -> str:
        shown = self.service if self.version is None else self.version
        return shown.last_modified_time

    def functions(self, metadata: Metadata) -> list[Function]:
        """Ascending by name."""
        if self.version is None:
            return list(metadata.functions(self.service.name))
        frozen: Mapping[str, Function] = self.version.functions
        return [frozen[name] for name in sorted(frozen)]

    def function(self, metadata: Metadata, name: str) -> Function:
        """Raises ``FunctionNotFound``."""
        if self.version is None:
            found = metadata.function(self.service.name, name)
        else:
            found = self.version.functions.get(name)
        if found is None:
            raise FunctionNotFound(
                f"function '{name}' does not exist in service '{self.service.name}'"
            )
        return found


def find_service(metadata: Metadata, name: str) -> Service:
    found = metadata.service(name)
    if found is None:
        raise ServiceNotFound(f"service '{name}' does not exist")
    return found


def find_version(metadata: Metadata, service: str, version_id: str) -> Version:
    number = int(version_id) if version_id.isascii() and version_id.isdigit() else 0
    found = metadata.version(service, number) if 0 < number < 1 << 62 else None
    if found is None:
        raise VersionNotFound(f"version '{version_id}' of service '{service}' does not exist")
    return found


def find_view(metadata: Metadata, segment: str) -> View:
    """What ``service[.qualifier]`` names. Names hold no dot, so the first one splits.

    Raises ``ServiceNotFound``, ``VersionNotFound``, ``AliasNotFound``.
    """
    name, _, qualifier = segment.partition(".")
    return view_of(metadata, find_service(metadata, name), qualifier)


def view_of(metadata: Metadata, service: Service, qualifier: str) -> View:
    """``service`` as ``qualifier`` shows it; empty means ``LATEST``. Weights play no part."""
    if qualifier in ("", LATEST):
        return View(service, LATEST, None)
    if qualifier[0].isdigit():
        return View(service, qualifier, find_version(metadata, service.name, qualifier))
    alias = metadata.alias(service.name, qualifier)
    if alias is None:
        raise AliasNotFound(f"alias '{qualifier}' of service '{service.name}' does not exist")
    return View(service, qualifier, find_version(metadata, service.name, alias.version_id))


def editable(request: web.Request) -> str:
    """The service name of a path that may not name a version: published ones never change.

    Raises ``PathNotSupported`` for a qualifier other than ``LATEST``.
    """
    name, _, qualifier = request.match_info["service"].partition(".")
    if qualifier not in ("", LATEST):
        raise not_supported(request)
    return name


def check_match(request: web.Request, etag: str) -> None:
    """Raises ``PreconditionFailed`` when ``If-Match`` names another state than ``etag``."""
    given = request.headers.get("If-Match", "")
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in given.split(",")]
    if given and given.strip() != "*" and etag not in tags:
        raise PreconditionFailed

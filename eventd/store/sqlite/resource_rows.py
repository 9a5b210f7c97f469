"""Resources as rows of ``meta.db``: their key, and their fields as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from eventd.model.resources import Alias, AsyncConfig, Function, Service, TriggerRecord, Version

Resource = Service | Function | TriggerRecord | Version | Alias | AsyncConfig


@dataclass(frozen=True, slots=True)
class Key:
    """Of a row; ``function`` is empty where a kind has none, ``name`` is the version id or the
    qualifier for those that have no name."""

    kind: str
    service: str
    function: str
    name: str


def key_of(resource: Resource) -> Key:
    match resource:
        case Service():
            return Key("service", resource.name, "", resource.name)
        case Function():
            return Key("function", resource.service, "", resource.name)
        case TriggerRecord():
            return Key("trigger", resource.service, resource.function, resource.name)
        case Version():
            return Key("version", resource.service, "", str(resource.version_id))
        case Alias():
            return Key("alias", resource.service, "", resource.name)
        case AsyncConfig():
            return Key("async_config", resource.service, resource.function, resource.qualifier)


def etag_of(resource: Resource) -> str:
    """Empty for those that have none."""
    return "" if isinstance(resource, (Version, AsyncConfig)) else resource.etag


def encode(resource: Resource) -> str:
    return orjson.dumps(resource, default=_plain).decode()


def decode(kind: str, body: str) -> Resource:
    return _DECODERS[kind](orjson.loads(body))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a resource holds a {type(value).__name__}")


def _version(fields: dict[str, Any]) -> Version:
    functions = {name: Function(**function) for name, function in fields["functions"].items()}
    return Version(**{**fields, "functions": functions})


_DECODERS: dict[str, Callable[[dict[str, Any]], Resource]] = {
    "service": lambda fields: Service(**fields),
    "function": lambda fields: Function(**fields),
    "trigger": lambda fields: TriggerRecord(**fields),
    "version": _version,
    "alias": lambda fields: Alias(**fields),
    "async_config": lambda fields: AsyncConfig(**fields),
}

"""All resources in memory, as the last commit left them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypeVar

from eventd.model.resources import Alias, AsyncConfig, Function, Service, TriggerRecord, Version
from eventd.store.sqlite.resource_rows import Key, Resource

_Owner = TypeVar("_Owner")
_Name = TypeVar("_Name")


class Image:
    """Plain look-ups, and listings in ascending order of name (byte order; versions by number)."""

    def __init__(self) -> None:
        self._services: dict[str, Service] = {}
        self._functions: defaultdict[str, dict[str, Function]] = defaultdict(dict)
        self._triggers: defaultdict[tuple[str, str], dict[str, TriggerRecord]] = defaultdict(dict)
        self._versions: defaultdict[str, dict[int, Version]] = defaultdict(dict)
        self._aliases: defaultdict[str, dict[str, Alias]] = defaultdict(dict)
        self._configs: defaultdict[tuple[str, str], dict[str, AsyncConfig]] = defaultdict(dict)

    def service(self, name: str) -> Service | None:
        return self._services.get(name)

    def services(self) -> Iterable[Service]:
        return [self._services[name] for name in sorted(self._services)]

    def function(self, service: str, name: str) -> Function | None:
        found = self._functions.get(service)
        return found.get(name) if found is not None else None

    def functions(self, service: str) -> Iterable[Function]:
        found = self._functions.get(service, {})
        return [found[name] for name in sorted(found)]

    def trigger(self, service: str, function: str, name: str) -> TriggerRecord | None:
        return self._triggers.get((service, function), {}).get(name)

    def triggers(
        self, service: str | None = None, function: str | None = None
    ) -> Iterable[TriggerRecord]:
        return [
            found[name]
            for owner, found in sorted(self._triggers.items())
            if service in (None, owner[0]) and function in (None, owner[1])
            for name in sorted(found)
        ]

    def version(self, service: str, version_id: int) -> Version | None:
        found = self._versions.get(service)
        return found.get(version_id) if found is not None else None

    def versions(self, service: str) -> Iterable[Version]:
        found = self._versions.get(service, {})
        return [found[number] for number in sorted(found)]

    def alias(self, service: str, name: str) -> Alias | None:
        found = self._aliases.get(service)
        return found.get(name) if found is not None else None

    def aliases(self, service: str) -> Iterable[Alias]:
        found = self._aliases.get(service, {})
        return [found[name] for name in sorted(found)]

    def async_config(self, service: str, function: str, qualifier: str) -> AsyncConfig | None:
        return self._configs.get((service, function), {}).get(qualifier)

    def async_configs(self, service: str, function: str) -> Iterable[AsyncConfig]:
        found = self._configs.get((service, function), {})
        return [found[qualifier] for qualifier in sorted(found)]

    def code_digests(self) -> set[str]:
        working = {
            function.code_digest
            for functions in self._functions.values()
            for function in functions.values()
        }
        published = {
            function.code_digest
            for versions in self._versions.values()
            for version in versions.values()
            for function in version.functions.values()
        }
        return (working | published) - {""}

    def set(self, resource: Resource) -> None:
        match resource:
            case Service():
                self._services[resource.name] = resource
            case Function():
                self._functions[resource.service][resource.name] = resource
            case TriggerRecord():
                self._triggers[resource.service, resource.function][resource.name] = resource
            case Version():
                self._versions[resource.service][resource.version_id] = resource
            case Alias():
                self._aliases[resource.service][resource.name] = resource
            case AsyncConfig():
                owner = (resource.service, resource.function)
                self._configs[owner][resource.qualifier] = resource

    def remove(self, key: Key) -> None:
        owner = (key.service, key.function)
        match key.kind:
            case "service":
                self._services.pop(key.name, None)
            case "function":
                _remove(self._functions, key.service, key.name)
            case "trigger":
                _remove(self._triggers, owner, key.name)
            case "version":
                _remove(self._versions, key.service, int(key.name))
            case "alias":
                _remove(self._aliases, key.service, key.name)
            case "async_config":
                _remove(self._configs, owner, key.name)


def _remove(groups: dict[_Owner, dict[_Name, Any]], owner: _Owner, name: _Name) -> None:
    group = groups.get(owner)
    if group is not None:
        group.pop(name, None)
        if not group:
            del groups[owner]

"""Resources in ``meta.db``: compare-and-set in the transaction, an image of all of it in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import apsw

from eventd.model.resources import (
    LATEST,
    Alias,
    AsyncConfig,
    Function,
    Service,
    TriggerRecord,
    Version,
)
from eventd.store.interface import Change, StaleWrite
from eventd.store.sqlite.connection import select
from eventd.store.sqlite.image import Image
from eventd.store.sqlite.resource_rows import Key, Resource, decode, encode, etag_of, key_of
from eventd.store.sqlite.writer import Writer

ALL = "SELECT kind, body FROM resource"
ETAG = "SELECT etag FROM resource WHERE service = ? AND kind = ? AND function = ? AND name = ?"
BODY = "SELECT body FROM resource WHERE service = ? AND kind = ? AND function = ? AND name = ?"
SET = """
    INSERT OR REPLACE INTO resource (service, kind, function, name, etag, body)
    VALUES (?, ?, ?, ?, ?, ?)
"""
REMOVE = "DELETE FROM resource WHERE service = ? AND kind = ? AND function = ? AND name = ?"
OF_SERVICE = "SELECT kind, service, function, name FROM resource WHERE service = ?"
OF_FUNCTION = OF_SERVICE + " AND function = ?"

_LEAVES_FIRST = ("trigger", "async_config", "alias", "version", "function", "service")


@dataclass(frozen=True, slots=True)
class _Effect:
    """What a transaction changed; the image and the listeners follow it."""

    saved: tuple[Resource, ...] = ()
    removed: tuple[Key, ...] = ()


class SqliteMetadata(Image):
    """``Metadata`` on ``meta.db``.

    A row whose service (for a trigger: function) is gone is not written: ``StaleWrite``. Removing
    a service or function removes what belongs to it in the same transaction.
    """

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer
        self._listeners: list[Callable[[Change], None]] = []

    async def load(self) -> None:
        """Read everything. Once, before anything else."""
        for kind, body in await self._writer.call(lambda c: select(c, ALL)):
            self.set(decode(kind, body))

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # -- writes -----------------------------------------------------------------------------------

    async def save_service(self, service: Service, *, expect: str | None) -> None:
        def save(connection: apsw.Connection) -> _Effect:
            _compare(connection, key_of(service), expect)
            stored = service
            if expect is not None:  # a version may have been published since the caller read it
                last = _stored_service(connection, service.name).last_version
                stored = replace(service, last_version=max(last, service.last_version))
            _set(connection, stored)
            return _Effect(saved=(stored,))

        await self._write(save)

    async def save_function(self, function: Function, *, expect: str | None) -> None:
        await self._save(function, expect, Key("service", function.service, "", function.service))

    async def save_trigger(self, trigger: TriggerRecord, *, expect: str | None) -> None:
        await self._save(trigger, expect, Key("function", trigger.service, "", trigger.function))

    async def save_alias(self, alias: Alias, *, expect: str | None) -> None:
        await self._save(alias, expect, Key("service", alias.service, "", alias.service))

    async def save_async_config(self, config: AsyncConfig) -> None:
        def save(connection: apsw.Connection) -> _Effect:
            _require(connection, Key("service", config.service, "", config.service))
            _set(connection, config)
            return _Effect(saved=(config,))

        await self._write(save)

    async def publish_version(self, version: Version, *, expect: str) -> Version:
        service_key = Key("service", version.service, "", version.service)
        published: list[Version] = []

        def publish(connection: apsw.Connection) -> _Effect:
            _compare(connection, service_key, expect)
            service = _stored_service(connection, version.service)
            service = replace(service, last_version=service.last_version + 1)
            new = replace(version, version_id=service.last_version)
            _set(connection, new)
            _set(connection, service)
            published[:] = [new]  # the transaction may run again
            return _Effect(saved=(new, service))

        await self._write(publish)
        return published[0]

    async def delete_service(self, name: str, *, expect: str) -> None:
        def delete(connection: apsw.Connection) -> _Effect:
            _compare(connection, Key("service", name, "", name), expect)
            keys = [Key(*row) for row in connection.execute(OF_SERVICE, (name,))]
            return _remove(connection, keys)

        await self._write(delete)

    async def delete_function(self, service: str, name: str, *, expect: str) -> None:
        published = any(name in version.functions for version in self.versions(service))

        def delete(connection: apsw.Connection) -> _Effect:
            key = Key("function", service, "", name)
            _compare(connection, key, expect)
            own = [Key(*row) for row in connection.execute(OF_FUNCTION, (service, name))]
            # A version may still run the function, with the settings of its qualifier.
            kept = {
                found
                for found in own
                if published and found.kind == "async_config" and found.name != LATEST
            }
            return _remove(connection, [key, *(found for found in own if found not in kept)])

        await self._write(delete)

    async def delete_trigger(self, service: str, function: str, name: str, *, expect: str) -> None:
        await self._delete(Key("trigger", service, function, name), expect)

    async def delete_alias(self, service: str, name: str, *, expect: str) -> None:
        await self._delete(Key("alias", service, "", name), expect)

    async def delete_version(self, service: str, version_id: int) -> None:
        await self._delete(Key("version", service, "", str(version_id)), "")

    async def delete_async_config(self, service: str, function: str, qualifier: str) -> None:
        await self._delete(Key("async_config", service, function, qualifier), "")

    # -- inside -----------------------------------------------------------------------------------

    async def _save(self, resource: Resource, expect: str | None, parent: Key) -> None:
        def save(connection: apsw.Connection) -> _Effect:
            _require(connection, parent)
            _compare(connection, key_of(resource), expect)
            _set(connection, resource)
            return _Effect(saved=(resource,))

        await self._write(save)

    async def _delete(self, key: Key, expect: str) -> None:
        def delete(connection: apsw.Connection) -> _Effect:
            _compare(connection, key, expect)
            return _remove(connection, [key])

        await self._write(delete, intake=False)

    async def _write(
        self, run: Callable[[apsw.Connection], _Effect], *, intake: bool = True
    ) -> None:
        await self._writer.call(run, self._apply, intake=intake)

    def _apply(self, effect: _Effect) -> None:
        for key in effect.removed:
            self.remove(key)
            self._tell(key, deleted=True)
        for resource in effect.saved:
            self.set(resource)
            self._tell(key_of(resource), deleted=False)

    def _tell(self, key: Key, *, deleted: bool) -> None:
        function = key.name if key.kind == "function" else key.function
        change = Change(key.kind, key.service, key.name, function=function, deleted=deleted)
        for listener in tuple(self._listeners):
            listener(change)


def _row(key: Key) -> tuple[str, str, str, str]:
    return key.service, key.kind, key.function, key.name


def _compare(connection: apsw.Connection, key: Key, expect: str | None) -> None:
    found = connection.execute(ETAG, _row(key)).get
    if found != expect:
        raise StaleWrite(f"{key.kind} {key.name}: found etag {found!r}, expected {expect!r}")


def _require(connection: apsw.Connection, parent: Key) -> None:
    if connection.execute(ETAG, _row(parent)).get is None:
        raise StaleWrite(f"{parent.kind} {parent.name} is gone")


def _stored_service(connection: apsw.Connection, name: str) -> Service:
    body = connection.execute(BODY, _row(Key("service", name, "", name))).get
    service = decode("service", body)
    assert isinstance(service, Service)  # by its key
    return service


def _set(connection: apsw.Connection, resource: Resource) -> None:
    connection.execute(SET, (*_row(key_of(resource)), etag_of(resource), encode(resource)))


def _remove(connection: apsw.Connection, keys: list[Key]) -> _Effect:
    keys.sort(key=lambda key: _LEAVES_FIRST.index(key.kind))
    connection.executemany(REMOVE, [_row(key) for key in keys])
    return _Effect(removed=tuple(keys))

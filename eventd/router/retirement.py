"""After a change, instances of what is no longer current end once they are idle."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

from eventd.errors import EventdError
from eventd.model.resources import LATEST
from eventd.router.resolve import Resolver
from eventd.store.interface import Change, Metadata


class Retirement(Protocol):
    """The pool, as far as it lets instances go."""

    def retire(
        self, *, incarnation: str = "", function: str = "", keep: Collection[str] = ()
    ) -> int: ...


@contextmanager
def retiring(metadata: Metadata, resolver: Resolver, pool: Retirement) -> Iterator[None]:
    """During the block, a change of a service, function or version retires the instances whose
    snapshot it replaced. Calls that run in them end undisturbed."""
    incarnations = {service.name: service.incarnation for service in metadata.services()}

    def changed(change: Change) -> None:
        if change.kind not in ("service", "function", "version"):
            return
        service = metadata.service(change.service)
        before = incarnations.get(change.service)
        if before is not None and (service is None or service.incarnation != before):
            pool.retire(incarnation=before)
            del incarnations[change.service]
        if service is None:
            return
        incarnations[change.service] = service.incarnation
        one = change.name if change.kind == "function" else ""
        pool.retire(
            incarnation=service.incarnation,
            function=one,
            keep=_current(metadata, resolver, change.service, one),
        )

    unsubscribe = metadata.subscribe(changed)
    try:
        yield
    finally:
        unsubscribe()


def _current(metadata: Metadata, resolver: Resolver, service: str, function: str) -> set[str]:
    """Keys of the snapshots that may still be called."""
    working = [LATEST, *(str(version.version_id) for version in metadata.versions(service))]
    names = {function} if function else {found.name for found in metadata.functions(service)}
    if not function:
        for version in metadata.versions(service):
            names.update(version.functions)
    keys = set()
    for qualifier in working:
        for name in names:
            try:
                keys.add(resolver.resolve(service, qualifier, name, "").key)
            except EventdError:
                continue  # this version does not have that function
    return keys

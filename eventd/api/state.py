"""What the control plane's handlers share."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from eventd.clock import Clock
from eventd.plugin import SourceSettings, TriggerType
from eventd.store.interface import Blobs, Metadata

log = logging.getLogger(__name__)


class Authenticator(Protocol):
    """Checks FC's signatures."""

    def verify(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: Mapping[str, str],
        *,
        with_query: bool,
    ) -> None:
        """Return for a good signature, else raise the FC error. ``headers`` has lower-case names;
        ``with_query`` chooses the string to sign of the HTTP-trigger form."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts and sizes that a control call may reach.

    Attributes:
        body_bytes: of create and update function; FC's ``CodeSizeLimit``.
        object_bytes: package named by ``ossObjectName``.
        unpacked_bytes: of one package.
        functions: per service. FC starts at 50 and raises it on demand; one's own machine has no
            reason to.
        triggers: per function.
        code_url_s: how long a download address of ``GetFunctionCode`` holds.
    """

    body_bytes: int = 104857600
    object_bytes: int = 500 << 20
    unpacked_bytes: int = 2 << 30
    functions: int = 1000
    triggers: int = 50
    code_url_s: int = 3600


class UnknownKeys:
    """Logs each unknown request key once; FC ignores them silently, a misspelt one costs hours."""

    _BOUND = 1000

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, name: str) -> None:
        if name not in self._seen and len(self._seen) < self._BOUND:
            self._seen.add(name)
            log.info("request key %r is not known and is ignored", name[:200])


class Writers:
    """One writer at a time per key: a check and the write that relies on it are not torn apart.

    The compare-and-set of ``Metadata`` guards a row; this guards what lies between rows (a
    service is deleted while a function is created in it).
    """

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @asynccontextmanager
    async def hold(self, *keys: str) -> AsyncIterator[None]:
        """Hold ``keys`` during the block, taken in sorted order. Cancelling holds nothing."""
        locks = [self._locks.setdefault(key, asyncio.Lock()) for key in sorted(keys)]
        held: list[asyncio.Lock] = []
        try:
            for lock in locks:
                await lock.acquire()
                held.append(lock)
            yield
        finally:
            for lock in reversed(held):
                lock.release()


async def _at_once(service: str, function: str, name: str) -> None:
    """Without sources every trigger is in force at once."""


@dataclass(slots=True)
class ControlState:
    """Parts and settings of the control plane; made by ``daemon.py``.

    Attributes:
        trigger_types: adapters by their type name.
        settings: account, region, data directory and buckets.
        settings_for: the same with the options of a trigger type.
        available_azs: what ``GetAccountSettings`` answers.
        wait_effective: waits, a bounded time, until the source of a trigger (service, function,
            name) watches, so that what happens after the answer reaches the trigger.
    """

    metadata: Metadata
    blobs: Blobs
    trigger_types: Mapping[str, TriggerType[Any]]
    settings: SourceSettings
    authenticator: Authenticator
    clock: Clock
    limits: Limits = field(default_factory=Limits)
    wait_effective: Callable[[str, str, str], Awaitable[None]] = _at_once
    settings_for: Callable[[str], SourceSettings] | None = None
    available_azs: tuple[str, ...] = ("cn-hongkong-c",)
    unknown: UnknownKeys = field(default_factory=UnknownKeys)
    writers: Writers = field(default_factory=Writers)
    packing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Packages that are unpacked for inspection at the same time; each costs its size twice."""
    url_secret: bytes = field(default_factory=lambda: os.urandom(32))

    def source_settings(self, trigger_type: str) -> SourceSettings:
        return self.settings_for(trigger_type) if self.settings_for else self.settings

    def now(self) -> str:
        """The wall clock as FC writes it."""
        return timestamp(self.clock.now())


def timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

"""What a pool's instances share, and whom they tell what happens to them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from eventd.clock import Clock
from eventd.config import PoolSettings
from eventd.metrics import Metrics
from eventd.model.invocation import Outcome
from eventd.pool.call import Call, LogSink
from eventd.pool.zygote import Process, SpawnSpec

if TYPE_CHECKING:
    from eventd.pool.instance import Instance


class Packages(Protocol):
    """Code packages on this machine's disk."""

    async def unpacked(self, digest: str) -> Path:
        """The directory with the unpacked package; unpacks it once. ``KeyError``: unknown digest.
        Cancelling leaves nothing half-made."""


class Spawner(Protocol):
    """What the pool needs of ``Zygote``."""

    async def spawn(self, spec: SpawnSpec, sock: socket.socket) -> Process: ...


@dataclass(frozen=True, slots=True)
class Account:
    """Whose functions run, as ``context`` shows it."""

    account_id: str
    region: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every instance of a pool shares."""

    zygote: Spawner
    packages: Packages
    settings: PoolSettings
    metrics: Metrics
    clock: Clock
    log_sink: LogSink
    account: Account


class InstanceOwner(Protocol):
    """The pool, as its instances see it. No method may block or raise."""

    def bind(self, instance: Instance) -> Call | None:
        """The call on whose behalf ``instance`` initializes, if one still waits."""

    def ready(self, instance: Instance) -> None:
        """It takes calls now."""

    def warmed(self, instance: Instance) -> None:
        """Its module is loaded and its initializer has run."""

    def freed(self, instance: Instance, now: float) -> None:
        """A ready instance has one slot more."""

    def unavailable(self, instance: Instance) -> None:
        """It takes no further calls."""

    def failed(self, instance: Instance, outcome: Outcome, calls: int) -> None:
        """It could not start; ``outcome`` is for the ``calls`` next waiting calls, which it was
        meant to serve."""

"""How many instances a function gets: pure decisions, the effects are in ``pool.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_DEPTH = 16
"""Functions may call one another this deep; beyond it the call is taken for a loop."""

RAMP = 8
"""So many instances of a function warm up at once, or as many as are warm, if that is more: a burst
of short calls is over before a hundred interpreters have fought for two cores."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one function asks for.

    Attributes:
        waiting: calls without a slot.
        starting: instances on their way; they will take ``concurrency`` calls each.
        warming: instances whose module is not loaded yet, starting ones included.
        instances: all of its instances that may still take calls, starting ones included.
        concurrency: slots of an instance.
    """

    waiting: int
    starting: int
    warming: int
    instances: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Room:
    """What there is.

    Attributes:
        per_function: most instances of one function.
        total: most instances of all functions, for this kind of call.
        used: instances of all functions, also those that are ending.
        ending: how many of them are ending.
        idle_elsewhere: instances of other functions that do nothing now.
    """

    per_function: int
    total: int
    used: int
    ending: int
    idle_elsewhere: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Start so many instances now, stop so many idle ones of other functions to make room; so many
    are ``missing`` until an instance of another function has ended."""

    start: int
    evict: int
    missing: int


def plan(demand: Demand, room: Room) -> Plan:
    """Start only for calls that no started instance will take, and only within the limits."""
    uncovered = max(0, demand.waiting - demand.starting * demand.concurrency)
    needed = -(-uncovered // demand.concurrency)
    ramp = max(RAMP, demand.instances - demand.warming) - demand.warming
    allowed = max(0, min(needed, ramp, room.per_function - demand.instances))
    start = max(0, min(allowed, room.total - room.used))
    missing = allowed - start
    evict = min(max(0, missing - room.ending), room.idle_elsewhere)
    return Plan(start, evict, missing)


def total_for(max_instances: int, *, nested: bool) -> int:
    """The total limit: a tenth of the pool is kept for calls that functions make, for they hold an
    instance while they wait."""
    return max_instances if nested else max_instances - max_instances // 10


def least_loaded(loads: Sequence[int], concurrency: int) -> int:
    """The index of the smallest load that leaves a slot, the last of equals; -1 if there is none.

    With equal loads the same instance goes on working, so that the others can be reclaimed.
    """
    best, found = concurrency, -1
    for index, load in enumerate(loads):
        if load < best or (load == best and found >= 0):
            best, found = load, index
    return found


def expired(idle_since: Sequence[float], now: float, ttl_s: float) -> list[int]:
    """Indexes of those that have been idle for ``ttl_s`` seconds."""
    return [index for index, since in enumerate(idle_since) if now - since >= ttl_s]

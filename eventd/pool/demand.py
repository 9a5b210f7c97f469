"""How many instances the waiting calls of one function want, seen from the whole pool."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from eventd.config import PoolSettings
from eventd.pool import scaling
from eventd.pool.group import Group
from eventd.pool.instance import Instance
from eventd.pool.state import State


def plan_for(
    group: Group,
    groups: Iterable[Group],
    instances: Collection[Instance],
    settings: PoolSettings,
) -> scaling.Plan:
    """What to start and to evict for ``group``. Calls made by functions may use the share of the
    pool that is kept for them."""
    plan = _plan(group, group.waits, groups, instances, settings, nested=False)
    if not group.nested:
        return plan
    nested = _plan(group, len(group.nested), groups, instances, settings, nested=True)
    return max(plan, nested, key=lambda each: (each.start, each.evict))


def idle_elsewhere(group: Group, groups: Iterable[Group]) -> list[Instance]:
    """Idle instances of other functions, the longest idle first."""
    found = [instance for each in groups if each is not group for instance in each.idle]
    return sorted(found, key=lambda instance: instance.idle_since)


def _plan(
    group: Group,
    waiting: int,
    groups: Iterable[Group],
    instances: Collection[Instance],
    settings: PoolSettings,
    *,
    nested: bool,
) -> scaling.Plan:
    total = scaling.total_for(settings.max_instances, nested=nested)
    used = len(instances)
    full = total - used < waiting and len(group.live) < settings.max_instances_per_function
    demand = scaling.Demand(
        waiting=waiting,
        starting=group.starting,
        warming=group.warming,
        instances=len(group.live),
        concurrency=group.concurrency,
    )
    ending = sum(each.state in (State.DRAINING, State.GONE) for each in instances) if full else 0
    room = scaling.Room(
        per_function=settings.max_instances_per_function,
        total=total,
        used=used,
        ending=ending,
        idle_elsewhere=len(idle_elsewhere(group, groups)) if full else 0,
    )
    return scaling.plan(demand, room)

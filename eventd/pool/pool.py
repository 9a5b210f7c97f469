"""The pool: who gets a slot, who waits, who is started and who has to go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from types import TracebackType
from typing import Self

from eventd.clock import Clock
from eventd.config import PoolSettings
from eventd.errors import EventdError, InvalidArgument, RecursionDetected, ServiceUnavailable
from eventd.metrics import Metrics
from eventd.model.invocation import Outcome
from eventd.pool import failure, scaling
from eventd.pool.call import Call, LogSink
from eventd.pool.demand import idle_elsewhere, plan_for
from eventd.pool.group import Group
from eventd.pool.instance import Instance
from eventd.pool.report import InstanceReport, PoolStatistics, report
from eventd.pool.runtimes import check_runs
from eventd.pool.state import State
from eventd.pool.surroundings import Account, Packages, Spawner, Surroundings

SWEEP_S = 0.05
"""How exactly the deadline of a waiting call is kept."""
KILL_S = 10.0


class Pool:
    """Runs calls in instances; open it with ``async with``.

    Leaving the block refuses new and waiting calls, gives running ones ``drain_s`` seconds, then
    kills what is left (its calls end with ``InstanceLost``) and returns when every process is gone.
    Leaving it by an exception kills at once. Every call that was submitted gets its ``on_end``.

    Args:
        zygote: starts processes.
        packages: unpacked code.
        account: whose functions run.
        drain_s: asked when the block is left: see above, seconds.
    """

    def __init__(
        self,
        zygote: Spawner,
        packages: Packages,
        settings: PoolSettings,
        metrics: Metrics,
        clock: Clock,
        log_sink: LogSink,
        *,
        account: Account,
        drain_s: Callable[[], float] = lambda: 30.0,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._monotonic = clock.monotonic
        self._drain_s = drain_s
        self._shared = Surroundings(zygote, packages, settings, metrics, clock, log_sink, account)
        self._groups: dict[str, Group] = {}
        self._instances: dict[str, Instance] = {}
        self._group_of: dict[Instance, Group] = {}
        self._starved: dict[str, Group] = {}
        self._waiting = 0
        self._immediate = self._waited = self._refused = 0
        self._closing = False
        self._empty = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None
        self._reaper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._reap()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._refuse_waiting()
        try:
            if error is None:
                for instance in list(self._instances.values()):
                    instance.retire()
                await self._wait_empty(self._drain_s())
        finally:
            for instance in list(self._instances.values()):
                instance.kill()
            for timer in (self._sweeper, self._reaper):
                if timer is not None:
                    timer.cancel()
            await self._tasks.__aexit__(kind, error, trace)

    # -- calls

    def submit(self, call: Call) -> None:
        """Run ``call``, now or when a slot is free; never blocks and never raises.

        ``Receiver.on_end`` is called exactly once, never from within this method. A call that waits
        longer than its ``queue_deadline_s``, or finds the queue full, ends with
        ``ResourceExhausted``; one that is too deep in a chain of functions with
        ``RecursionDetected``; one that comes while the pool closes with ``ServiceUnavailable``; one
        of a function whose runtime can't run here with ``InvalidArgument``.
        """
        call.submitted_at = now = self._monotonic()
        if self._closing:
            self._refuse(call, ServiceUnavailable("the daemon is shutting down"))
            return
        if call.depth > scaling.MAX_DEPTH:
            text = f"functions called one another more than {scaling.MAX_DEPTH} times in a row"
            self._refuse(call, RecursionDetected(text))
            return
        key = call.function.key
        group = self._groups.get(key)
        if group is None:
            try:
                check_runs(call.function.runtime)
            except InvalidArgument as error:
                self._refuse(call, error)
                return
            group = self._groups[key] = Group(call.function)
        if not group.waiting and not group.nested:
            instance = group.free_instance()
            if instance is not None:
                self._immediate += 1
                instance.start(call, now)
                return
        self._wait(group, call)

    def cancel(self, call: Call) -> None:
        """The caller went away: ``on_end`` follows at once, unless it was called before."""
        if call.answered:
            return
        if isinstance(call.link, Instance):
            call.link.cancel(call)
            return
        group = self._groups.get(call.function.key)
        for line in (group.nested, group.waiting) if group is not None else ():
            if call in line:
                line.remove(call)
                self._waiting -= 1
                self._answer(call, failure.client_closed())
                return

    def retire(
        self, *, incarnation: str = "", function: str = "", keep: Collection[str] = ()
    ) -> int:
        """Let the instances of a deleted or changed function end after their running calls.

        Args:
            incarnation: of the service; empty for every service.
            function: name; empty for every function.
            keep: snapshot keys that are still current.

        Returns how many instances were told. Calls that wait for an old snapshot still run.
        """
        told = 0
        for instance in list(self._instances.values()):
            snapshot = instance.snapshot
            if incarnation and snapshot.incarnation != incarnation:
                continue
            if (function and snapshot.function != function) or snapshot.key in keep:
                continue
            if instance.state not in (State.DRAINING, State.GONE):
                instance.retire()
                told += 1
        return told

    def statistics(self) -> PoolStatistics:
        instances = self._instances.values()
        return PoolStatistics(
            instances=len(instances),
            starting=sum(group.starting for group in self._groups.values()),
            idle=sum(len(group.idle) for group in self._groups.values()),
            running=sum(instance.load for instance in instances),
            waiting=self._waiting,
            immediate=self._immediate,
            waited=self._waited,
            refused=self._refused,
        )

    def instances(self) -> list[InstanceReport]:
        """The oldest first."""
        now = self._monotonic()
        return [report(instance, now) for instance in self._instances.values()]

    # -- what instances say (InstanceOwner)

    def bind(self, instance: Instance) -> Call | None:
        return self._take_waiting(self._group_of[instance])

    def ready(self, instance: Instance) -> None:
        group = self._group_of[instance]
        self._started(group, instance)
        group.ready.append(instance)
        now = self._monotonic()
        while instance.load < instance.concurrency and instance.state is State.READY:
            call = self._take_waiting(group)
            if call is None:
                break
            instance.start(call, now)
        if not instance.load and instance.state is State.READY:
            self._idle(group, instance, now)

    def warmed(self, instance: Instance) -> None:
        group = self._group_of[instance]
        if instance in group.live:
            group.warming -= 1
            if group.waits:
                self._scale(group)

    def freed(self, instance: Instance, now: float) -> None:
        group = self._group_of[instance]
        if group.waiting or group.nested:
            call = self._take_waiting(group)
            assert call is not None
            instance.start(call, now)
        elif not instance.load:
            self._idle(group, instance, now)

    def unavailable(self, instance: Instance) -> None:
        group = self._group_of[instance]
        self._started(group, instance)
        if not instance.warm and instance in group.live:
            group.warming -= 1
        group.live.discard(instance)
        if instance in group.ready:
            group.ready.remove(instance)
        if instance in group.idle:
            group.idle.remove(instance)
        if group.waits and not self._closing:
            self._loop.call_soon(self._scale, group)

    def failed(self, instance: Instance, outcome: Outcome, calls: int) -> None:
        group = self._group_of[instance]
        for _ in range(calls):
            call = self._take_waiting(group)
            if call is None:
                return
            self._answer(call, replace(outcome))

    # -- waiting

    def _wait(self, group: Group, call: Call) -> None:
        if self._waiting >= self._settings.max_waiting:
            text = f"{self._waiting} calls already wait for an instance, as many as may wait"
            self._finish_soon(call, failure.exhausted(text))
            return
        (group.nested if call.depth else group.waiting).append(call)
        self._waiting += 1
        if call.depth or group.snapshot.key not in self._starved:  # else nothing has changed
            self._scale(group)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _take_waiting(self, group: Group) -> Call | None:
        call = group.next_call()
        if call is not None:
            self._waiting -= 1
            self._waited += 1
        return call

    def _sweep(self) -> None:
        """End what waited too long."""
        self._sweeper = None
        now = self._monotonic()
        for group in list(self._groups.values()):
            if not group.waits:
                continue
            late = group.take_late(now)
            self._waiting -= len(late)
            for call in late:
                self._answer(call, failure.waited_too_long(call))
        if self._waiting:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _refuse_waiting(self) -> None:
        for group in self._groups.values():
            while (call := self._take_waiting(group)) is not None:
                self._answer(
                    call, failure.refused(ServiceUnavailable("the daemon is shutting down"))
                )

    def _refuse(self, call: Call, error: EventdError) -> None:
        self._finish_soon(call, failure.refused(error))

    def _finish_soon(self, call: Call, outcome: Outcome) -> None:
        self._loop.call_soon(self._answer, call, outcome)

    def _answer(self, call: Call, outcome: Outcome) -> None:
        if not call.answered:
            call.answered = True
            call.ended_at = self._monotonic()
            self._refused += 1
            call.receiver.on_end(outcome)

    # -- scaling

    def _scale(self, group: Group) -> None:
        """Start what waiting calls need, as far as there is room; else make room."""
        self._starved.pop(group.snapshot.key, None)
        if self._closing:
            return
        groups = self._groups.values()
        plan = plan_for(group, groups, self._instances.values(), self._settings)
        for _ in range(plan.start):
            self._start(group)
        if plan.evict:
            for instance in idle_elsewhere(group, groups)[: plan.evict]:
                instance.retire()
        if plan.missing:
            self._starved[group.snapshot.key] = group

    def _start(self, group: Group) -> None:
        instance = Instance(group.snapshot, self._shared, self)
        self._instances[instance.id] = instance
        self._group_of[instance] = group
        group.live.add(instance)
        group.starting += 1
        group.warming += 1
        self._empty.clear()
        self._tasks.create_task(self._live(instance, group), name=f"instance {instance.id}")

    async def _live(self, instance: Instance, group: Group) -> None:
        try:
            await instance.live()
        finally:
            del self._instances[instance.id]
            del self._group_of[instance]
            if not self._instances:
                self._empty.set()
            self._relieve(group)
            if not group.live and not group.waits and self._groups.get(group.snapshot.key) is group:
                del self._groups[group.snapshot.key]

    def _relieve(self, group: Group | None = None) -> None:
        """There is room again: the function whose call waits longest comes first."""
        groups = set(self._starved.values())
        if group is not None and group.waits:
            groups.add(group)
        for each in sorted((g for g in groups if g.waits), key=lambda each: each.oldest):
            self._scale(each)
        for key in [key for key, each in self._starved.items() if not each.waits]:
            del self._starved[key]

    def _started(self, group: Group, instance: Instance) -> None:
        """It no longer counts as starting (told once: it leaves ``live`` or enters ``ready``)."""
        if instance in group.live and instance not in group.ready:
            group.starting -= 1

    def _idle(self, group: Group, instance: Instance, now: float) -> None:
        instance.idle_since = now
        group.idle.append(instance)
        if self._starved:
            self._loop.call_soon(self._relieve)

    def _reap(self) -> None:
        """Stop what has been idle for too long."""
        ttl = self._settings.idle_timeout_s
        now = self._monotonic()
        idle = [instance for group in self._groups.values() for instance in group.idle]
        for index in scaling.expired([instance.idle_since for instance in idle], now, ttl):
            idle[index].retire()
        self._reaper = self._loop.call_later(min(max(ttl / 10, SWEEP_S), 5.0), self._reap)

    async def _wait_empty(self, timeout_s: float) -> None:
        if self._instances:
            try:
                await asyncio.wait_for(self._empty.wait(), timeout_s)
            except TimeoutError:
                pass  # what is left is killed by the caller

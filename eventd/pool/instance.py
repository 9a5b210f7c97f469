"""One instance of a function: start, initialize, ready (busy or idle), draining, gone.

The only state machine of the pool. ``live`` is its life, a task that the pool owns; calls move by
callbacks of the channel between two of its steps.
"""

from __future__ import annotations

import asyncio
import logging
import os

from eventd.errors import EventdError, ServiceUnavailable
from eventd.model.invocation import Outcome
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool import failure, tail
from eventd.pool.call import Call
from eventd.pool.channel import Channel
from eventd.pool.deadlines import Deadlines
from eventd.pool.launch import init_body, launch, ready_times, wait_exit
from eventd.pool.output import Output
from eventd.pool.state import MOVES, State
from eventd.pool.surroundings import InstanceOwner, Surroundings
from eventd.pool.zygote import ExitStatus, Process

logger = logging.getLogger(__name__)

LATE_S = 10.0
"""After a timeout at concurrency above 1 the other calls of the instance have so long to end."""
MEMORY_EVERY_S = 0.25
PRE_STOP_S = 90


class Instance:
    """A process that serves up to ``instanceConcurrency`` calls of one snapshot at once."""

    def __init__(
        self, snapshot: FunctionSnapshot, shared: Surroundings, owner: InstanceOwner
    ) -> None:
        self.id = f"c-{os.urandom(4).hex()}-{os.urandom(10).hex()}"
        self.snapshot = snapshot
        self.concurrency = max(1, snapshot.instance_concurrency)
        self.state = State.STARTING
        self.warm = False
        self.load = 0
        self.served = 0
        self.memory_mb = 0.0
        self.spawn_ms = self.import_ms = self.init_ms = 0.0
        self.started_at = self.idle_since = shared.clock.monotonic()
        self._shared = shared
        self._owner = owner
        self._monotonic = shared.clock.monotonic
        self._process: Process | None = None
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(self._loop, self, shared.settings.max_result_bytes)
        self._channel_gone = asyncio.Event()
        self._first: Call | None = None
        self._killed = False
        self._deadlines = Deadlines(
            self._channel.calls, snapshot.timeout_s, self._monotonic, self._time_out
        )
        self._init_timer: asyncio.TimerHandle | None = None
        self._late_timer: asyncio.TimerHandle | None = None
        self._memory_due = 0.0
        self._wall_offset = shared.clock.time() - self.started_at
        self._output = Output(self.id, snapshot, shared, self._channel)
        self._retiring = False

    async def live(self) -> None:
        """Start, serve, end. Returns when the process is gone and every call was answered; a
        failure to start reaches the waiting calls. Cancelling kills the process."""
        try:
            process = await self._start()
        except EventdError as error:
            self._cannot_start(failure.refused(error))
            return
        except Exception as error:  # a broken package, a full disk: never the daemon's trouble
            text, trace = "instance %s of %s does not start: %s", not isinstance(error, OSError)
            logger.error(text, self.id, self.snapshot.function, error, exc_info=trace)
            self._cannot_start(failure.refused(ServiceUnavailable(f"no instance: {error}")))
            return
        except BaseException:
            self._gone(ExitStatus(0, False, 0.0))
            raise
        status = ExitStatus(-9, False, 0.0)
        try:
            status = await wait_exit(process, self._channel_gone) or status
        finally:
            process.kill()
            self._channel.close()
            self._shared.metrics.instances_ended += 1
            self._gone(status)

    async def _start(self) -> Process:
        began = self._monotonic()
        process = await launch(self.id, self.snapshot, self._shared, self._channel)
        self._process = process
        self.spawn_ms = (self._monotonic() - began) * 1e3
        self._shared.metrics.instances_started += 1
        self._initialize()
        return process

    def _initialize(self) -> None:
        if self.state is State.DRAINING:  # it was retired while it started
            self.kill()
            return
        first = self._owner.bind(self)
        snapshot = self.snapshot
        self._channel.initialize(init_body(self.id, snapshot, self._shared, first))
        if not snapshot.initializer:
            self._serve(first)
            return
        self._move(State.INITIALIZING)
        self._first = first
        if first is not None:
            first.link = self
            if first.want_tail and self.concurrency == 1:
                first.tail = bytearray(tail.initialize_begin(first.request_id))
        self._init_timer = self._loop.call_later(
            snapshot.initialization_timeout_s, self._initializer_late
        )

    def _serve(self, first: Call | None) -> None:
        """Take calls from now on, ``first`` before the others."""
        self._move(State.READY)
        self.idle_since = self._monotonic()
        if first is not None:
            self._first = first
            first.cold = True
            first.spawn_ms, first.import_ms = self.spawn_ms, self.import_ms
            first.init_ms = self.init_ms
            if first.want_tail and self.concurrency == 1 and first.tail is None:
                first.tail = bytearray(tail.INITED)
            self.start(first, self._monotonic())
        if self._retiring:
            self.retire()
        else:
            self._owner.ready(self)

    def _move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise RuntimeError(f"instance {self.id}: {self.state.name} to {state.name}")
        self.state = state

    def start(self, call: Call, now: float) -> None:
        """Send ``call``; the caller saw a free slot of a ready instance."""
        call.started_at = now
        call.started_ms = int((now + self._wall_offset) * 1e3)
        call.instance_id = self.id
        call.link = self
        self.load += 1
        if call.want_tail and self.concurrency == 1:
            if call.tail is None:
                call.tail = bytearray()
            call.tail += tail.begin(call.request_id)
        self._channel.open(call)
        self._deadlines.arm()

    def consumed(self, call: Call, size: int) -> None:
        self._channel.consumed(call, size)

    def cancel(self, call: Call) -> None:
        """Nobody waits for ``call`` any more. At concurrency 1 the instance is replaced; above it
        the call keeps its slot until the handler ends."""
        if call.answered:
            return
        self._answer(call, failure.client_closed(self.id), self._monotonic())
        if not call.stream:
            self._first = None  # it waited for the initializer, which goes on
        elif self.concurrency == 1:
            self.kill()
        else:
            self._channel.cancel(call)

    def _time_out(self, call: Call) -> None:
        now = self._monotonic()
        memory = self._sample(now, fresh=True)
        if not call.answered:
            self._answer(call, failure.timed_out(self.snapshot, memory, self.id), now)
        if self.concurrency == 1:
            self.kill()
            return
        self._channel.cancel(call)
        self._condemn()

    def _condemn(self) -> None:
        """No new calls; the others may end, for a while."""
        if self.state is State.READY:
            self._move(State.DRAINING)
            self._owner.unavailable(self)
        if self._late_timer is None:
            self._late_timer = self._loop.call_later(LATE_S, self.kill)
        self._kill_if_answered()

    def _kill_if_answered(self) -> None:
        if all(call.answered for call in self._channel.calls.values()):
            self._end()

    def _answer(self, call: Call, outcome: Outcome, now: float) -> None:
        call.answered = True
        call.ended_at = now
        call.transfer = None
        if call.tail is not None:
            outcome.log_tail = tail.finish(
                call.tail, call.request_id, self.snapshot.memory_mb, outcome
            )
            call.tail = None
        call.receiver.on_end(outcome)

    def ready(self, info: bytes) -> None:
        if self.warm:
            return
        self.warm = True
        self.import_ms, self.init_ms = ready_times(info)
        first = self._first
        if self.state is State.INITIALIZING:
            if self._init_timer is not None:
                self._init_timer.cancel()
            if first is not None and first.tail is not None:
                first.tail += tail.initialize_end(first.request_id)
            self._serve(first)
        elif first is not None:
            first.import_ms, first.init_ms = self.import_ms, self.init_ms
        self._owner.warmed(self)

    def unready(self, body: bytes, *, exited: bool) -> None:
        if self.state is not State.INITIALIZING:
            return
        memory = self._sample(self._monotonic(), fresh=True)
        if exited:
            outcome = failure.exited(0.0, memory, self.id)
        else:
            outcome = failure.unhandled(body, 0.0, memory, self.id)
        self._initializer_failed(outcome)

    def succeeded(self, call: Call, payload: bytes, duration_us: int) -> None:
        now = self._monotonic()
        self._release(call, now)
        if not call.answered:
            duration = duration_us * 1e-3
            elapsed = (now - call.started_at) * 1e3
            memory = self.memory_mb if now < self._memory_due else self._sample(now)
            outcome = Outcome(
                "",
                payload,
                False,
                "",
                200,
                min(elapsed, duration),
                memory,
                self.id,
            )
            self._answer(call, outcome, now)

    def failed(self, call: Call, error: bytes, duration_us: int, *, exited: bool) -> None:
        now = self._monotonic()
        answered = call.answered
        duration = min(duration_us * 1e-3, (now - call.started_at) * 1e3)
        memory = self._sample(now)
        if exited:
            outcome = failure.exited(duration, memory, self.id)
            self._condemn()
        else:
            outcome = failure.unhandled(error, duration, memory, self.id)
        self._release(call, now)
        if not answered:
            self._answer(call, outcome, now)

    def _release(self, call: Call, now: float) -> None:
        """The slot of ``call`` is free; the next waiting call takes it before ``call`` is
        answered."""
        self.load -= 1
        self.served += 1
        call.link = None
        if call is self._first:
            self._first = None
        if self.state is State.READY:
            self._owner.freed(self, now)
        elif self.state is State.DRAINING:
            self._kill_if_answered()

    def oversized(self, call: Call) -> None:
        limit = self._shared.settings.max_result_bytes
        now = self._monotonic()
        outcome = failure.too_large(
            limit, (now - call.started_at) * 1e3, self._sample(now), self.id
        )
        self._answer(call, outcome, now)
        self._channel.cancel(call)

    def logged(self, call: Call | None, request_id: str, text: bytes) -> None:
        if call is not None:
            request_id = call.request_id
        elif self.state is State.INITIALIZING and request_id:
            call = self._first
        if self._output.write(request_id, text) and call is not None and call.tail is not None:
            tail.add(call.tail, text)

    def lost(self, reason: str) -> None:
        if reason and not self._killed:
            self._shared.metrics.instance_protocol_errors += 1
            logger.warning("instance %s broke the protocol: %s", self.id, reason)
        self._channel_gone.set()

    def _sample(self, now: float, *, fresh: bool = False) -> float:
        """What is too dear to ask at every call: peak memory and the wall clock."""
        if self._process is not None and (fresh or now >= self._memory_due):
            self.memory_mb = max(self.memory_mb, self._process.memory_mb())
            self._wall_offset = self._shared.clock.time() - now
            self._memory_due = now + MEMORY_EVERY_S
        return self.memory_mb

    def retire(self) -> None:
        """Take no new calls; end when the running ones have ended."""
        if self.state in (State.DRAINING, State.GONE):
            return
        if self.state is State.INITIALIZING and self._first is not None:
            self._retiring = True  # the call that waits for it is still served
            return
        ready = self.state is State.READY
        self._move(State.DRAINING)
        self._owner.unavailable(self)
        if ready:
            self._kill_if_answered()
        elif self._process is not None:
            self.kill()

    def kill(self) -> None:
        """End it now; calls that still run are told ``InstanceLost``."""
        if self.state is not State.DRAINING and self.state is not State.GONE:
            self._move(State.DRAINING)
            self._owner.unavailable(self)
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def _end(self) -> None:
        """Nothing runs any more: PreStop if there is one, then the process goes."""
        hook = self.snapshot.lifecycle.get("preStop") or {}
        if self._late_timer is not None:
            self._late_timer.cancel()
        if not hook.get("handler") or self._killed or self._channel.calls:
            self.kill()
            return
        self._killed = True
        self._channel.stop()
        limit = min(hook.get("timeout") or 3, PRE_STOP_S)
        self._late_timer = self._loop.call_later(limit, self.kill)

    def _initializer_late(self) -> None:
        if self.state is not State.INITIALIZING:
            return
        memory = self._sample(self._monotonic(), fresh=True)
        self._initializer_failed(failure.initializer_timed_out(self.snapshot, memory, self.id))

    def _initializer_failed(self, outcome: Outcome) -> None:
        first, self._first = self._first, None
        if first is not None:
            first.instance_id = self.id
            first.cold = True
            first.spawn_ms = self.spawn_ms
            if first.tail is not None:
                first.tail += tail.initialize_end(first.request_id, failed=True)
            self._answer(first, outcome, self._monotonic())
        self.kill()
        self._owner.failed(self, outcome, self.concurrency - 1)

    def _cannot_start(self, outcome: Outcome) -> None:
        self._gone(ExitStatus(0, False, 0.0))
        self._owner.failed(self, outcome, self.concurrency)

    def _gone(self, status: ExitStatus) -> None:
        """Answer what is left, once the process is gone."""
        initializing = self.state is State.INITIALIZING
        if self.state in (State.STARTING, State.INITIALIZING, State.READY):
            self._move(State.DRAINING)
            self._owner.unavailable(self)
        self._move(State.GONE)
        self._deadlines.cancel()
        for timer in (self._init_timer, self._late_timer):
            if timer is not None:
                timer.cancel()
        self.memory_mb = max(self.memory_mb, status.peak_mb)
        left = [call for call in self._channel.calls.values() if not call.answered]
        self._channel.calls.clear()
        first, self._first = self._first, None
        if first is not None and not first.answered and first not in left:
            left.append(first)
        now = self._monotonic()
        self.load = 0
        for call in left:
            self._answer(call, self._epitaph(call, status, now, len(left)), now)
        if initializing and not self._killed:
            self._owner.failed(self, self._epitaph(None, status, now, 1), self.concurrency - 1)

    def _epitaph(self, call: Call | None, status: ExitStatus, now: float, calls: int) -> Outcome:
        duration = (now - call.started_at) * 1e3 if call is not None and call.stream else 0.0
        usage = (duration, self.memory_mb, self.id)
        return failure.ended_early(self.snapshot, status, *usage, killed=self._killed, calls=calls)

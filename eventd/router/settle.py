"""What follows from an attempt: ``decide`` is pure, ``Settler.settle`` has the effects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from eventd.clock import Clock
from eventd.metrics import Metrics
from eventd.model.invocation import DeadLetter, Invocation, Outcome
from eventd.model.resources import LATEST
from eventd.store.interface import Metadata, Queue

POISON_LIMIT = 3
"""After so many lost instances an invocation is not tried again."""

SYSTEM_BASE_S = 0.5
SYSTEM_CAP_S = 60.0
FUNCTION_CAP_S = 300.0

TOOK_DOWN = frozenset({"FunctionOOMError", "FunctionExitError"})
"""Outcomes of a run that ended its instance by its own doing. ``InstanceLost`` is not among them:
there the instance went for a neighbour's sake."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often an invocation is tried.

    Attributes:
        max_retries: runs after the first that failed by the function's own error (FC: 0-8).
        max_age_ms: counted from acceptance; older ones are not run.
        base_s: pause after the first failure of the function, doubling; 0 = at once.
    """

    max_retries: int = 3
    max_age_ms: int = 86_400_000
    base_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Trials:
    """What this node saw of an invocation's earlier attempts; not stored, a restart begins anew.

    Attributes:
        crashes: attempts that took the instance down.
        system: attempts in a row that failed for the system's reason.
    """

    crashes: int = 0
    system: int = 0

    def after(self, outcome: Outcome) -> Trials:
        return Trials(
            self.crashes + (outcome.error in TOOK_DOWN), self.system + 1 if outcome.system else 0
        )


@dataclass(frozen=True, slots=True)
class Done:
    """It succeeded."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Again at ``due_ms`` (wall clock); ``attempts`` of the function's own failures so far."""

    due_ms: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Bury:
    """Given up: ``RetriesExhausted``, ``Expired``, ``Poison``, ``TriggerDeleted``,
    ``FunctionDeleted``, or the FC code of an error that no retry changes."""

    reason: str


Verdict = Done | Retry | Bury


def _pointless(outcome: Outcome) -> bool:
    """A refusal that no later attempt changes: the call itself is wrong (4xx), except for want of
    capacity (429) or because nobody waited any more (499)."""
    if not outcome.system:
        return False
    wrong = 400 <= outcome.status < 500 and outcome.status not in (429, 499)
    return wrong or outcome.error == "RecursionDetected"


def expired(invocation: Invocation, policy: RetryPolicy, now_ms: int) -> bool:
    """Whether it is too old to run (FC: ``maxAsyncEventAgeInSeconds``)."""
    return now_ms - invocation.accepted_ms >= policy.max_age_ms


def decide(
    outcome: Outcome,
    invocation: Invocation,
    policy: RetryPolicy,
    now_ms: int,
    *,
    trials: Trials,
    jitter: float = 0.0,
) -> Verdict:
    """What follows from ``outcome``.

    Args:
        trials: with this outcome counted in.
        jitter: 0 to 1; stretches a pause by up to a half, so that failures do not march in step.

    A ``Retry`` is never due after the age limit, and only the function's own errors use up
    attempts. Source: FC 2.0, "Retry policies".
    """
    if outcome.succeeded:
        return Done()
    if _pointless(outcome):
        return Bury(outcome.error)
    if trials.crashes >= POISON_LIMIT:
        return Bury("Poison")
    if outcome.system:
        attempts = invocation.attempts
        pause_s = min(SYSTEM_CAP_S, SYSTEM_BASE_S * 2.0 ** min(trials.system - 1, 30))
    else:
        attempts = invocation.attempts + 1
        if attempts > policy.max_retries:
            return Bury("RetriesExhausted")
        pause_s = min(FUNCTION_CAP_S, policy.base_s * 2.0 ** min(attempts - 1, 30))
    due_ms = now_ms + int(pause_s * (1.0 + jitter / 2.0) * 1000.0)
    if due_ms - invocation.accepted_ms >= policy.max_age_ms:
        return Bury("Expired")
    return Retry(due_ms, attempts)


def policy_for(
    metadata: Metadata, service: str, function: str, qualifier: str, *, base_s: float
) -> RetryPolicy:
    """The policy of the async config under the qualifier as called; FC's defaults without one."""
    found = metadata.async_config(service, function, qualifier or LATEST)
    if found is None:
        return RetryPolicy(base_s=base_s)
    retries = found.config.get("maxAsyncRetryAttempts")
    age_s = found.config.get("maxAsyncEventAgeInSeconds")
    return RetryPolicy(
        max_retries=3 if retries is None else int(retries),
        max_age_ms=86_400_000 if age_s is None else int(age_s) * 1000,
        base_s=base_s,
    )


class Settler:
    """Carries verdicts out, and keeps the ``Trials`` of invocations that wait for a retry.

    Args:
        jitter: gives numbers in [0, 1).
    """

    def __init__(
        self, queue: Queue, metrics: Metrics, clock: Clock, *, jitter: Callable[[], float]
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._clock = clock
        self.jitter = jitter
        self._trials: dict[str, Trials] = {}

    def judge(self, outcome: Outcome, invocation: Invocation, policy: RetryPolicy) -> Verdict:
        """``decide`` with the trials so far; ``settle`` must follow."""
        trials = self._trials.get(invocation.id, Trials())
        if not outcome.succeeded:
            # a crowd that waits for retries stays bounded in memory; who falls out begins anew
            if len(self._trials) >= 100_000:
                self._trials.pop(next(iter(self._trials)))
            trials = self._trials[invocation.id] = trials.after(outcome)
        return decide(
            outcome,
            invocation,
            policy,
            self._clock.time_ms(),
            trials=trials,
            jitter=self.jitter(),
        )

    async def settle(self, verdict: Verdict, invocation: Invocation, last_error: bytes) -> None:
        """Store what was decided about a claimed invocation; returns when it is on disk.

        Args:
            last_error: the error JSON of the last attempt, kept with a dead letter.
        Raises ``StoreFailed``. Cancelling: the claim must be released; the verdict may be stored.
        """
        match verdict:
            case Done():
                self._trials.pop(invocation.id, None)
                await self._queue.finish(invocation.id)
                self._metrics.invocations_succeeded += 1
            case Retry(due_ms, attempts):
                await self._queue.retry(replace(invocation, due_ms=due_ms, attempts=attempts))
                self._metrics.invocations_retried += 1
            case Bury(reason):
                self._trials.pop(invocation.id, None)
                await self.bury(invocation, reason, last_error)

    async def bury(self, invocation: Invocation, reason: str, last_error: bytes) -> None:
        """Move it to the dead letters; also one that was never queued. Raises ``StoreFailed``."""
        letter = DeadLetter(invocation, reason, last_error, self._clock.time_ms())
        await self._queue.bury(letter)
        self._metrics.dead_letters += 1

"""What follows from an attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.model.invocation import Invocation, Outcome
from eventd.router.settle import (
    POISON_LIMIT,
    Bury,
    Done,
    Retry,
    RetryPolicy,
    Trials,
    decide,
    expired,
)

INVOCATION = Invocation("i", "r", "s", "f", "inc", "LATEST", b"", accepted_ms=1_000_000)
FUNCTION_ERROR = Outcome("UnhandledInvocationError", b"{}", error="FunctionUnhandledError")
NO_CAPACITY = Outcome(system=True, error="ResourceExhausted", status=429)
OUT_OF_MEMORY = Outcome("UnhandledInvocationError", b"{}", error="FunctionOOMError")
LOST = Outcome(system=True, error="InstanceLost", status=502)

outcomes = st.sampled_from([FUNCTION_ERROR, NO_CAPACITY, LOST, OUT_OF_MEMORY, Outcome()])
policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, 8),
    max_age_ms=st.integers(1000, 2_592_000_000),
    base_s=st.floats(0, 10),
)


@given(
    outcome=outcomes,
    policy=policies,
    attempts=st.integers(0, 9),
    waited_ms=st.integers(0, 100_000_000),
    trials=st.builds(Trials, st.integers(0, 4), st.integers(1, 10_000)),
    jitter=st.floats(0, 1),
)
def test_every_verdict_keeps_the_rules(
    outcome: Outcome,
    policy: RetryPolicy,
    attempts: int,
    waited_ms: int,
    trials: Trials,
    jitter: float,
) -> None:
    invocation = replace(INVOCATION, attempts=attempts)
    now_ms = invocation.accepted_ms + waited_ms

    verdict = decide(outcome, invocation, policy, now_ms, trials=trials, jitter=jitter)

    assert (verdict == Done()) == outcome.succeeded
    match verdict:
        case Retry(due_ms, counted):
            assert counted == attempts + (not outcome.system)
            assert counted <= max(policy.max_retries, attempts)
            assert due_ms >= now_ms
            assert not expired(invocation, policy, due_ms)
            assert trials.crashes < POISON_LIMIT
        case Bury(reason):
            assert reason in ("RetriesExhausted", "Expired", "Poison")
            assert (reason == "Poison") == (trials.crashes >= POISON_LIMIT)


@given(policy=policies, start=st.integers(0, 8))
def test_function_errors_end_after_one_run_and_the_retries(policy: RetryPolicy, start: int) -> None:
    policy = replace(policy, max_age_ms=10**15)
    invocation, runs, trials = INVOCATION, 0, Trials()
    while True:
        runs += 1
        trials = trials.after(FUNCTION_ERROR)
        verdict = decide(FUNCTION_ERROR, invocation, policy, 1_000_000, trials=trials)
        if not isinstance(verdict, Retry):
            break
        invocation = replace(invocation, attempts=verdict.attempts)

    assert verdict == Bury("RetriesExhausted")
    assert runs == policy.max_retries + 1


def test_pauses_double_and_system_errors_use_no_attempt() -> None:
    policy = RetryPolicy(base_s=1.0)

    def due(outcome: Outcome, attempts: int, system: int) -> tuple[int, int]:
        verdict = decide(
            outcome,
            replace(INVOCATION, attempts=attempts),
            policy,
            INVOCATION.accepted_ms,
            trials=Trials(system=system),
        )
        assert isinstance(verdict, Retry)
        return verdict.due_ms - INVOCATION.accepted_ms, verdict.attempts

    assert [due(FUNCTION_ERROR, n, 0) for n in (0, 1, 2)] == [(1000, 1), (2000, 2), (4000, 3)]
    assert [due(NO_CAPACITY, 2, n) for n in (1, 2, 3)] == [(500, 2), (1000, 2), (2000, 2)]


def test_three_instances_taken_down_are_poison_before_the_retries_are_used_up() -> None:
    policy = RetryPolicy(max_retries=8)
    trials, verdicts = Trials(), []
    for _ in range(3):
        trials = trials.after(OUT_OF_MEMORY)
        verdicts.append(decide(OUT_OF_MEMORY, INVOCATION, policy, 1_000_000, trials=trials))

    assert [type(verdict) for verdict in verdicts] == [Retry, Retry, Bury]
    assert verdicts[-1] == Bury("Poison")


def test_an_instance_lost_for_a_neighbour_is_no_poison() -> None:
    trials = Trials()
    for _ in range(20):
        trials = trials.after(LOST)
        verdict = decide(LOST, INVOCATION, RetryPolicy(), 1_000_000, trials=trials)
        assert isinstance(verdict, Retry)


@pytest.mark.parametrize(
    ("status", "error", "retried"),
    [
        (400, "InvalidArgument", False),
        (412, "CAExited", False),
        (429, "RecursionDetected", False),
        (429, "ResourceExhausted", True),
        (499, "ClientClosedRequest", True),
        (502, "InstanceLost", True),
        (503, "ServiceUnavailable", True),
    ],
)
def test_a_refusal_that_cannot_change_is_not_tried_again(
    status: int, error: str, retried: bool
) -> None:
    outcome = Outcome(system=True, error=error, status=status)

    verdict = decide(outcome, INVOCATION, RetryPolicy(), 1_000_000, trials=Trials(0, 1))

    assert isinstance(verdict, Retry) == retried
    if not retried:
        assert verdict == Bury(error)


def test_success_resets_the_count_of_system_errors_in_a_row_only() -> None:
    trials = Trials(crashes=1, system=4).after(Outcome())

    assert trials == Trials(crashes=1, system=0)


@pytest.mark.parametrize("age_ms", [0, 999])
def test_age_counts_from_acceptance(age_ms: int) -> None:
    policy = RetryPolicy(max_age_ms=1000)

    assert not expired(INVOCATION, policy, INVOCATION.accepted_ms + age_ms)
    assert expired(INVOCATION, policy, INVOCATION.accepted_ms + 1000)

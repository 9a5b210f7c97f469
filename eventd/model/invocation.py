"""An invocation that waits in the queue, and how an attempt at it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ErrorType(StrEnum):
    """FC's ``X-Fc-Error-Type``; empty on success."""

    NONE = ""
    HANDLED = "HandledInvocationError"
    UNHANDLED = "UnhandledInvocationError"


@dataclass(frozen=True, slots=True)
class Invocation:
    """One asynchronous run of a function, on disk from ``put`` to ``finish`` or ``bury``.

    Attributes:
        id: internal, time-ordered; never shown as a request id.
        request_id: what FC shows; a caller may choose it and it may repeat.
        qualifier: as called (``LATEST``, a version id, an alias).
        version: the version chosen at the first attempt; ``None`` before it.
        due_ms: wall clock in ms before which it does not run; 0 = at once.
        attempts: attempts that ended with the function's own error.
        http: the encoded HTTP head when an HTTP function is called asynchronously, else empty.
        trigger_id, event_source, event_id: the event key; empty for an API call.
        ordering_key: invocations of one function with an equal non-empty key run in order.
    """

    id: str
    request_id: str
    service: str
    function: str
    incarnation: str
    qualifier: str
    payload: bytes
    accepted_ms: int
    due_ms: int = 0
    attempts: int = 0
    version: int | None = None
    http: bytes = b""
    trigger_id: str = ""
    trigger_name: str = ""
    event_source: str = ""
    event_id: str = ""
    ordering_key: str = ""
    traceparent: str = ""
    depth: int = 0


@dataclass(slots=True)
class Outcome:
    """How one attempt ended. Nobody changes it; ``frozen`` would cost 2 us a call.

    Attributes:
        error_type: empty on success, else FC's error type.
        payload: the handler's result, or the error JSON of the runtime. Empty when the result
            was streamed to a receiver.
        system: the attempt failed for a reason that is not the function's (no capacity, the node
            went away); it does not use up an attempt.
        error: class name for statistics: ``FunctionTimeoutError``, ``FunctionOOMError``,
            ``FunctionUnhandledError``, ``FunctionExitError``, ``ResourceExhausted``,
            ``InstanceLost``, ... or empty.
        status: the HTTP status for a caller who waits (200 also for function errors, FC 4.4).
        duration_ms: time in the handler.
        memory_mb: peak memory of the instance.
        log_tail: the last 4 KiB of the invocation's log, when it was asked for.
    """

    error_type: str = ""
    payload: bytes = b""
    system: bool = False
    error: str = ""
    status: int = 200
    duration_ms: float = 0.0
    memory_mb: float = 0.0
    instance_id: str = ""
    log_tail: bytes = b""

    @property
    def succeeded(self) -> bool:
        return not self.error_type and not self.system


@dataclass(slots=True)  # not frozen: that costs 2 us more for every call; nobody changes it
class InvocationRecord:
    """The compact record of one attempt; FC's START, END and REPORT lines are rendered from it.

    ``invocation_id`` is empty for a synchronous call.

    Times are wall clock in ms, durations in ms. ``queue_ms``, ``spawn_ms``, ``import_ms`` and
    ``init_ms`` are what came before the handler (the last three are 0 in a warm instance).
    """

    invocation_id: str
    request_id: str
    service: str
    function: str
    incarnation: str
    qualifier: str
    version: int
    instance_id: str
    started_ms: int
    duration_ms: float
    memory_mb: float
    memory_size_mb: int
    error_type: str
    error: str
    attempt: int = 0
    trigger_name: str = ""
    cold: bool = False
    queue_ms: float = 0.0
    spawn_ms: float = 0.0
    import_ms: float = 0.0
    init_ms: float = 0.0
    initializer: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An invocation that was given up, with its payload and the reason."""

    invocation: Invocation
    reason: str
    last_error: bytes
    buried_ms: int

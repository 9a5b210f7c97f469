"""The outcomes of calls that did not end by their handler: FC's texts (FC 4.5), our classes."""

from __future__ import annotations

import orjson

from eventd.errors import ClientClosedRequest, EventdError, ResourceExhausted
from eventd.model.invocation import ErrorType, Outcome
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.call import Call
from eventd.pool.zygote import ExitStatus

EXIT_TEXT = "Process exited unexpectedly before completing request"


def timed_out(snapshot: FunctionSnapshot, memory_mb: float, instance_id: str) -> Outcome:
    text = f"Function timed out after {snapshot.timeout_s} seconds {_usage(memory_mb)}"
    return _function_error(
        "FunctionTimeoutError", text, snapshot.timeout_s * 1e3, memory_mb, instance_id
    )


def initializer_timed_out(
    snapshot: FunctionSnapshot, memory_mb: float, instance_id: str
) -> Outcome:
    limit = snapshot.initialization_timeout_s
    text = f"Function initialization timed out after {limit} seconds {_usage(memory_mb)}"
    return _function_error("FunctionTimeoutError", text, 0.0, memory_mb, instance_id)


def exited(duration_ms: float, memory_mb: float, instance_id: str, *, sure: bool = True) -> Outcome:
    """The call took its instance down; not ``sure``: it or another one that ran beside it."""
    text = f"{EXIT_TEXT} (duration: {duration_ms:.0f}ms, maxMemoryUsage: {memory_mb:.2f}MB)"
    error = "FunctionExitError" if sure else "FunctionUnhandledError"
    return _function_error(error, text, duration_ms, memory_mb, instance_id)


def out_of_memory(
    snapshot: FunctionSnapshot, duration_ms: float, memory_mb: float, instance_id: str
) -> Outcome:
    text = (
        f"{EXIT_TEXT} (duration: {duration_ms:.0f}ms, maxMemoryUsage: {memory_mb:.2f}MB): "
        f"out of memory, the limit is {snapshot.memory_mb}MB"
    )
    return _function_error("FunctionOOMError", text, duration_ms, memory_mb, instance_id)


def too_large(limit_bytes: int, duration_ms: float, memory_mb: float, instance_id: str) -> Outcome:
    text = f"the function's result is larger than {limit_bytes} bytes"
    return _function_error("BadResponse", text, duration_ms, memory_mb, instance_id)


def unhandled(payload: bytes, duration_ms: float, memory_mb: float, instance_id: str) -> Outcome:
    """The runtime's own error JSON."""
    return Outcome(
        error_type=ErrorType.UNHANDLED,
        payload=payload,
        error="FunctionUnhandledError",
        duration_ms=duration_ms,
        memory_mb=memory_mb,
        instance_id=instance_id,
    )


def refused(error: EventdError) -> Outcome:
    """The call never reached an instance, or not by its own fault: ``error`` says why. The payload
    is FC's API error."""
    return system(error.code, error.status, str(error))


def exhausted(text: str) -> Outcome:
    return refused(ResourceExhausted(text))


def waited_too_long(call: Call) -> Outcome:
    name = f"{call.function.service}/{call.function.function}"
    limit = f"{call.queue_deadline_s:g} seconds"
    return exhausted(f"no instance of {name} became free within {limit}")


def client_closed(instance_id: str = "") -> Outcome:
    error = ClientClosedRequest("the caller closed the connection")
    return system(error.code, error.status, str(error), instance_id)


def ended_early(
    snapshot: FunctionSnapshot,
    status: ExitStatus,
    duration_ms: float,
    memory_mb: float,
    instance_id: str,
    *,
    killed: bool,
    calls: int,
) -> Outcome:
    """The process ended under the call; ``killed`` by us, for another call's sake;
    ``calls`` ran in it."""
    if status.oom:
        return out_of_memory(snapshot, duration_ms, memory_mb, instance_id)
    if killed:
        return lost(instance_id)
    return exited(duration_ms, memory_mb, instance_id, sure=calls == 1)


def lost(instance_id: str) -> Outcome:
    """The instance was taken away while the call ran."""
    text = "the instance ended before the request, through no fault of the request"
    return system("InstanceLost", 502, text, instance_id)


def system(code: str, status: int, text: str, instance_id: str = "") -> Outcome:
    return Outcome(
        system=True,
        error=code,
        status=status,
        payload=orjson.dumps({"ErrorCode": code, "ErrorMessage": text}),
        instance_id=instance_id,
    )


def _usage(memory_mb: float) -> str:
    return f"(maxMemoryUsage: {memory_mb:.2f}MB)"


def _function_error(
    error: str, text: str, duration_ms: float, memory_mb: float, instance_id: str
) -> Outcome:
    return Outcome(
        error_type=ErrorType.UNHANDLED,
        payload=orjson.dumps({"errorMessage": text}),
        error=error,
        duration_ms=duration_ms,
        memory_mb=memory_mb,
        instance_id=instance_id,
    )

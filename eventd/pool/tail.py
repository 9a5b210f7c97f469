"""The log tail of one call: the last 4 KiB of its output between FC's lines (FC 4.3)."""

from __future__ import annotations

import math

from eventd.model.invocation import Outcome

TAIL_BYTES = 4096
INITED = b"FunctionCompute python3 runtime inited.\n"


def begin(request_id: str) -> bytes:
    return f"FC Invoke Start RequestId: {request_id}\n".encode()


def initialize_begin(request_id: str) -> bytes:
    return INITED + f"FC Initialize Start RequestId: {request_id}\n".encode()


def initialize_end(request_id: str, *, failed: bool = False) -> bytes:
    return f"FC Initialize End RequestId: {request_id}{_suffix(failed)}\n".encode()


def add(tail: bytearray, text: bytes) -> None:
    """Append whole lines, keep only what can still be seen."""
    tail += text
    tail += b"\n"
    if len(tail) > 4 * TAIL_BYTES:
        del tail[:-TAIL_BYTES]


def finish(tail: bytearray, request_id: str, memory_size_mb: int, outcome: Outcome) -> bytes:
    """The tail as it is answered."""
    duration = outcome.duration_ms
    tail += (
        f"FC Invoke End RequestId: {request_id}{_suffix(bool(outcome.error_type))}\n"
        f"\nDuration: {duration:.2f} ms, Billed Duration: {math.ceil(round(duration, 2))} ms, "
        f"Memory Size: {memory_size_mb} MB, Max Memory Used: {outcome.memory_mb:.2f} MB"
    ).encode()
    return bytes(tail[-TAIL_BYTES:])


def _suffix(failed: bool) -> str:
    return ", Error: Unhandled function error" if failed else ""

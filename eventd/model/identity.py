"""The identities of DESIGN.md section 2: invocation ids, request ids, incarnations."""

from __future__ import annotations

import os
import time
import uuid


def new_invocation_id() -> str:
    """32 hex digits, ordered by time (RFC 9562, version 7), so that an index on it stays cheap."""
    raw = (time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10)
    value = int.from_bytes(raw, "big")
    value &= ~(0xF << 76) & ~(0x3 << 62)
    value |= (0x7 << 76) | (0x2 << 62)
    return f"{value:032x}"


def new_request_id() -> str:
    """A 36-character UUID (version 4), the form that FC 2.0 shows in ``X-Fc-Request-Id``; made by
    hand, since ``uuid.uuid4`` costs twice as much."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class RequestIds:
    """36-character ids in the form of a UUID: a random prefix of the process, then a count.

    They only have to be unique; ``uuid4`` costs a third of the router's budget for a request.
    """

    def __init__(self) -> None:
        seed = os.urandom(10).hex()
        self._prefix = f"{seed[:8]}-{seed[8:12]}-4{seed[12:15]}-a{seed[15:18]}-"
        self._count = int.from_bytes(os.urandom(5), "big")

    def __call__(self) -> str:
        self._count += 1
        return "%s%012x" % (self._prefix, self._count & 0xFFFFFFFFFFFF)  # noqa: UP031 - hot path


def new_incarnation() -> str:
    """Names one life of a service; a service that is created again gets another."""
    return uuid.uuid4().hex[:16]

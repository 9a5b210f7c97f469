"""One call into an instance: what goes in, and who hears what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from eventd.model.invocation import Outcome
from eventd.model.snapshot import FunctionSnapshot


class CallKind(IntEnum):
    """Which of the function's handler forms runs (FC 5.3)."""

    EVENT = 0
    HTTP = 1


@dataclass(slots=True)
class HttpHead:
    """The request of an HTTP function. Never changed once it is made; calls may share it.

    Attributes:
        path: decoded path after the function, at least ``/``.
        uri: whole request target as sent, prefix and query included.
        query: raw query without ``?``.
        headers: names in lower case, in order, repeats kept; hop-by-hop and ``x-fc-*`` removed.
    """

    method: str
    path: str
    uri: str
    query: str
    headers: Sequence[tuple[str, str]]
    client_ip: str
    encoded: str = field(default="", init=False, repr=False, compare=False)
    """Its form in an ``OPEN`` frame, once a channel has made it: clients repeat themselves."""


class Receiver(Protocol):
    """Hears the answer of one call, on the loop's thread. None of the methods may block or raise.

    An HTTP call: ``on_head`` once, ``on_data`` any number of times, ``on_end`` once. An event call
    has no head; its whole result is ``Outcome.payload`` and ``on_data`` is not called. A failure
    may end it at any point; ``on_end`` is always called exactly once, also after ``Pool.cancel``.
    """

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None: ...

    def on_data(self, data: bytes) -> None:
        """Part of the body. The receiver owes ``Call.consumed(len(data))`` when it passed the
        bytes on: the instance may send at most a window (256 KiB) beyond that."""

    def on_end(self, outcome: Outcome) -> None: ...


@dataclass(slots=True, eq=False)
class Call:
    """A call, from ``Pool.submit`` to ``Receiver.on_end``.

    Attributes:
        payload: the event, or the body of the HTTP request.
        queue_deadline_s: how long it may wait for a slot before ``ResourceExhausted``.
        want_tail: collect the last 4 KiB of its log into ``Outcome.log_tail``.
        depth: how many functions called one another to get here.
        submitted_at, started_at (slot taken), ended_at: filled in by the pool, ``Clock.monotonic``.
        cold: whether an instance was started for it; then the ``*_ms`` parts tell its cost.
    """

    kind: CallKind
    request_id: str
    function: FunctionSnapshot
    qualifier: str
    payload: bytes | memoryview
    receiver: Receiver
    http: HttpHead | None = None
    retry_count: int = 0
    queue_deadline_s: float = 10.0
    want_tail: bool = False
    depth: int = 0
    traceparent: str = ""
    span_context: str = ""
    span_baggages: dict[str, str] = field(default_factory=dict)
    # filled in by the pool
    submitted_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    started_ms: int = 0
    instance_id: str = ""
    cold: bool = False
    spawn_ms: float = 0.0
    import_ms: float = 0.0
    init_ms: float = 0.0
    link: CallLink | None = None
    stream: int = 0
    """Its id on the instance's channel, 0 while it waits."""
    answered: bool = False
    """``on_end`` was called; the instance may still be running it."""
    headed: bool = False
    """``on_head`` was called."""
    transfer: Transfer | None = None
    tail: bytearray | None = None

    def consumed(self, size: int) -> None:
        """Tell the instance that ``size`` bytes of the answer went on; renews its window."""
        if self.link is not None:
            self.link.consumed(self, size)


@dataclass(slots=True, eq=False)
class Transfer:
    """What moves besides a call's first and last frame; most calls have none.

    Attributes:
        upload: the part of the payload that is not sent yet.
        window: how many bytes of it may be sent now.
        chunks: an event call's result so far.
        received: bytes in ``chunks``.
        outstanding: bytes of the answer that nobody has consumed.
        credit: bytes consumed that the instance does not know about yet.
    """

    upload: memoryview | None = None
    window: int = 0
    chunks: list[bytes] = field(default_factory=list)
    received: int = 0
    outstanding: int = 0
    credit: int = 0


class CallLink(Protocol):
    """The instance that serves a call, as far as the call may speak to it."""

    def consumed(self, call: Call, size: int) -> None: ...


class LogSink(Protocol):
    """Where instances' output goes; never blocks, never raises."""

    def write(
        self,
        function: FunctionSnapshot,
        instance_id: str,
        request_id: str,
        time_ms: int,
        text: str,
    ) -> None:
        """One or more whole lines without the final line break; ``request_id`` is empty when the
        writer is not known."""

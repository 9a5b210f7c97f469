"""The one way to run a function: resolve, submit to the pool, record.

Stub of the interface; see the class docstrings.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from eventd.model.invocation import Invocation, Outcome
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.call import Call, CallKind, HttpHead, Receiver


@dataclass(slots=True)
class InvokeRequest:
    """A call as a front or the dispatcher makes it; ``qualifier`` as called, ``LATEST`` if none."""

    service: str
    function: str
    qualifier: str
    kind: CallKind
    request_id: str
    payload: bytes | memoryview = b""
    http: HttpHead | None = None
    want_tail: bool = False
    depth: int = 0
    traceparent: str = ""
    span_context: str = ""
    span_baggages: dict[str, str] = field(default_factory=dict)


class Invoker:
    """Both HTTP fronts, the dispatcher and direct deliveries call functions through this."""

    def resolve(self, service: str, qualifier: str, function: str) -> FunctionSnapshot:
        """Choose the version (by weight for an alias) and give its snapshot.

        Raises ``ServiceNotFound``, ``VersionNotFound``, ``AliasNotFound``, ``FunctionNotFound``.
        """
        raise NotImplementedError

    def start(
        self,
        request: InvokeRequest,
        receiver: Receiver,
        *,
        snapshot: FunctionSnapshot | None = None,
    ) -> Call:
        """Start a synchronous call and return at once; ``receiver`` hears the answer. Errors of
        ``resolve`` are raised; every later failure reaches ``receiver.on_end``."""
        raise NotImplementedError

    def cancel(self, call: Call) -> None:
        """The caller went away; ``on_end`` follows."""
        raise NotImplementedError

    async def run(
        self, request: InvokeRequest, *, snapshot: FunctionSnapshot | None = None
    ) -> Outcome:
        """``start`` and wait for the end; an HTTP answer's head and body are dropped. Cancelling
        cancels the call."""
        raise NotImplementedError

    async def enqueue(self, request: InvokeRequest, *, delay_s: int = 0) -> Invocation:
        """Accept an asynchronous call: returns after it is on disk.

        Raises the errors of ``resolve``, ``ResourceExhausted`` (backlog full),
        ``ServiceUnavailable`` (the disk takes nothing).
        """
        raise NotImplementedError

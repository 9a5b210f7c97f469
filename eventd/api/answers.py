"""Receivers of the fast front: what an instance answers becomes bytes on the connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eventd.api.edge import Edge
from eventd.api.plan import Plan
from eventd.api.responses import (
    Reply,
    check_status,
    error_reply,
    event_reply,
    http_block,
    http_error_reply,
)
from eventd.errors import BadResponse
from eventd.model.invocation import Outcome
from eventd.pool.call import Call, CallKind


class Writer(Protocol):
    """The connection, as an answer sees it."""

    writing_paused: bool

    def answered(self, reply: Reply) -> None:
        """The whole answer; the connection goes on to its next request."""

    def begin(self, status: int, block: bytes) -> None:
        """The head of an answer whose length is not known."""

    def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def break_off(self) -> None:
        """The answer can't be completed: the client must see that it is cut."""


class EventAnswer:
    """Hears the answer of an event call."""

    __slots__ = ("_early", "_edge", "_plan", "_request_id", "_writer", "call", "ended")

    def __init__(self, edge: Edge, writer: Writer, plan: Plan, request_id: str) -> None:
        self._edge = edge
        self._writer = writer
        self._plan = plan
        self._request_id = request_id
        self._early: Outcome | None = None
        self.call: Call | None = None
        self.ended = False

    def bind(self, call: Call) -> None:
        """Know the call; delivers an outcome that was quicker than this."""
        self.call = call
        if self._early is not None:
            self.on_end(self._early)

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """An event call has none."""

    def on_data(self, data: bytes) -> None:
        """An event call's result comes with its end."""

    def resume(self) -> None:
        """Nothing is withheld here."""

    def on_end(self, outcome: Outcome) -> None:
        if self.call is None:
            self._early = outcome
            return
        self.ended = True
        self._writer.answered(
            event_reply(
                self.call.function,
                outcome,
                self._request_id,
                want_tail=self._plan.options.want_tail,
            )
        )


class HttpAnswer:
    """Hears the answer of an HTTP function.

    Parts that come within one turn of the loop, together with the end, go out as one message with
    its length; else the head goes out with the first part and the body is streamed. What the
    client doesn't take is not credited to the instance, which then stops sending.
    """

    __slots__ = (
        "_begun", "_early", "_edge", "_failed", "_head", "_owed", "_parts", "_plan",
        "_request_id", "_scheduled", "_writer", "call", "ended",
    )  # fmt: skip

    def __init__(self, edge: Edge, writer: Writer, plan: Plan, request_id: str) -> None:
        self._edge = edge
        self._writer = writer
        self._plan = plan
        self._request_id = request_id
        self._head: tuple[int, Sequence[tuple[bytes, bytes]]] | None = None
        self._parts: list[bytes] = []
        self._scheduled = False
        self._begun = False
        self._failed = False
        self._owed = 0
        self._early: Outcome | None = None
        self.call: Call | None = None
        self.ended = False

    def bind(self, call: Call) -> None:
        self.call = call
        if self._early is not None:
            self.on_end(self._early)

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._head = (status, headers)

    def on_data(self, data: bytes) -> None:
        self._parts.append(data)
        if not self._scheduled:
            self._scheduled = True
            self._edge.flush_soon(self._flush)

    def on_end(self, outcome: Outcome) -> None:
        if self.call is None:
            self._early = outcome
            return
        self.ended = True
        if self._failed:
            return
        if self._begun:
            self._finish_stream(outcome)
            return
        self._writer.answered(self._reply(outcome))

    def resume(self) -> None:
        """The client takes bytes again."""
        owed, self._owed = self._owed, 0
        if owed and self.call is not None:
            self.call.consumed(owed)

    def _reply(self, outcome: Outcome) -> Reply:
        assert self.call is not None
        want_tail = self._plan.options.want_tail
        if self._head is None or not outcome.succeeded:
            if outcome.succeeded:
                error = BadResponse("the function ended without an answer")
                return error_reply(error, self._request_id, CallKind.HTTP)
            return http_error_reply(
                self.call.function, outcome, self._request_id, want_tail=want_tail
            )
        try:
            block = self._block(self.call, outcome)
        except BadResponse as error:
            return error_reply(error, self._request_id, CallKind.HTTP)
        return Reply(self._head[0], block, b"".join(self._parts))

    def _block(self, call: Call, outcome: Outcome | None) -> bytes:
        assert self._head is not None
        status, headers = self._head
        check_status(status)
        return http_block(
            call.function,
            headers,
            outcome,
            self._request_id,
            want_tail=self._plan.options.want_tail,
            attachment=self._edge.settings.attachment,
        )

    def _flush(self) -> None:
        """Send what came; the end did not come with it."""
        self._scheduled = False
        call = self.call
        if self.ended or call is None or self._failed or self._head is None:
            return
        if not self._begun:
            try:
                block = self._block(call, None)
            except BadResponse as error:
                self._failed = True
                self._writer.answered(error_reply(error, self._request_id, CallKind.HTTP))
                self._edge.invoker.cancel(call)
                return
            self._begun = True
            self._writer.begin(self._head[0], block)
        self._send(call)

    def _send(self, call: Call) -> None:
        parts, self._parts = self._parts, []
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if not data:
            return
        self._writer.write(data)
        if self._writer.writing_paused:
            self._owed += len(data)
        else:
            call.consumed(len(data))

    def _finish_stream(self, outcome: Outcome) -> None:
        assert self.call is not None
        self._send(self.call)
        if outcome.succeeded:
            self._writer.end()
        else:
            self._writer.break_off()

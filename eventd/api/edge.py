"""What both HTTP fronts share: who may call what, and how a call is started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol

from eventd.api.auth import Authenticator
from eventd.api.head import HeadLimits, RequestHead
from eventd.api.http import HttpTriggers, function_request
from eventd.api.plan import FOR_EVER, Plan, Route, read_options
from eventd.api.responses import SERVER, Reply, accepted_reply
from eventd.clock import Clock
from eventd.config import HttpSettings
from eventd.errors import AccessDenied, InvalidArgument, PathNotSupported, TriggerNotFound
from eventd.metrics import Metrics
from eventd.model.identity import RequestIds
from eventd.pool.call import Call, CallKind, Receiver
from eventd.router.invoke import Invoker, InvokeRequest

_KNOWN_HEADS = 512
_STATUS_KEYS = tuple(str(status) for status in range(600))


class Connection(Protocol):
    """An open client connection, as the server looks after it."""

    writing_paused: bool
    """The client does not take what was written."""

    def sweep(self, now: float) -> None:
        """Once a second: end what is too slow. ``now``: loop time in s."""

    def drain(self, within_s: float) -> None:
        """End after what is running; the server aborts after ``within_s`` seconds."""

    def abort(self) -> None: ...


class Connections(set[Connection]):
    """Every open client connection."""

    def __init__(self) -> None:
        super().__init__()
        self._waiter: asyncio.Future[None] | None = None

    def remove_lost(self, connection: Connection) -> None:
        """Forget a connection; it may have been forgotten before."""
        self.discard(connection)
        if self._waiter is not None and not self and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait_empty(self, timeout_s: float) -> bool:
        """Until none is open, or ``timeout_s`` passed; whether none is. One waiter at a time."""
        if not self:
            return True
        self._waiter = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._waiter}, timeout=timeout_s)
        return not self


@dataclass(slots=True)
class Edge:
    """The parts that the fronts call.

    Attributes:
        known: plans by client address and the exact bytes of the head.
        spool_dir: where bodies above 1 MiB wait for their call.
        spawn: runs a coroutine in a task that the server owns and awaits; set by ``serving``.
    """

    invoker: Invoker
    authenticator: Authenticator
    triggers: HttpTriggers
    settings: HttpSettings
    metrics: Metrics
    clock: Clock
    spool_dir: Path
    new_request_id: Callable[[], str] = field(default_factory=RequestIds)
    spawn: Callable[[Coroutine[Any, Any, None]], None] | None = None
    connections: Connections = field(default_factory=Connections)
    draining: bool = False
    limits: HeadLimits = field(init=False)
    known: dict[tuple[str, bytes], Plan] = field(default_factory=dict)
    _unsent: list[Callable[[], None]] = field(default_factory=list)
    _date_s: int = 0
    _date_line: bytes = b""

    def __post_init__(self) -> None:
        self.limits = HeadLimits(self.settings.max_header_bytes, self.settings.max_path_bytes)
        self.triggers.on_change = self.known.clear

    def remember(self, client_ip: str, raw: bytes, plan: Plan) -> None:
        """Keep a plan for the next head with the same bytes: clients repeat themselves.

        ``known`` is looked up by the salted hash first, so time tells a stranger nothing about
        how much of a signature is right.
        """
        if len(self.known) >= _KNOWN_HEADS:
            self.known.clear()
        self.known[client_ip, raw] = plan

    def plan(self, route: Route, head: RequestHead, client_ip: str) -> Plan:
        """Authorise a request and read what it asks for; raises FC's errors."""
        if route.kind is CallKind.EVENT:
            return self._plan_invocation(route, head)
        return self._plan_http(route, head, client_ip)

    def start(
        self, plan: Plan, payload: bytes | memoryview, request_id: str, receiver: Receiver
    ) -> Call:
        """Start a synchronous call; errors of ``Invoker.start``."""
        return self.invoker.start(_request(plan, payload, request_id), receiver)

    async def enqueue(self, plan: Plan, payload: bytes, request_id: str) -> Reply:
        """Accept an asynchronous call; returns when it is on disk. Errors of
        ``Invoker.enqueue``."""
        request = _request(plan, payload, request_id)
        await self.invoker.enqueue(request, delay_s=plan.options.delay_s)
        return accepted_reply(request_id, plan.options.stateful_id)

    def date_lines(self) -> bytes:
        """``Date`` and ``Server``, made once a second."""
        now = int(self.clock.time())
        if now != self._date_s:
            self._date_s = now
            self._date_line = b"Date: %b\r\n%b" % (formatdate(now, usegmt=True).encode(), SERVER)
        return self._date_line

    def flush_soon(self, flush: Callable[[], None]) -> None:
        """Call ``flush`` in the next turn of the loop: one handle for all answers of this turn."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush_all)
        self._unsent.append(flush)

    def _flush_all(self) -> None:
        unsent, self._unsent = self._unsent, []
        for flush in unsent:
            flush()

    def count(self, status: int) -> None:
        key = _STATUS_KEYS[status]
        counts = self.metrics.http_requests
        counts[key] = counts.get(key, 0) + 1

    def _plan_invocation(self, route: Route, head: RequestHead) -> Plan:
        if head.method != "POST":
            raise PathNotSupported(f"'{head.method}' against '{route.path}' is not supported")
        valid_until = self.authenticator.verify_until(
            head.method, route.path, route.query, head.headers, with_query=False
        )
        options = read_options(head)
        trigger = next(iter(self.triggers.of(route.service, route.function).values()), None)
        if trigger is not None:
            raise InvalidArgument(
                f"Function with http trigger(name: {trigger.name}) can only be invoked with "
                "http trigger URL"
            )
        limit = self._max_body_bytes(asynchronous=options.asynchronous)
        return Plan(route, head, options, limit, valid_until=valid_until)

    def _plan_http(self, route: Route, head: RequestHead, client_ip: str) -> Plan:
        trigger = self.triggers.of(route.service, route.function).get(route.qualifier)
        if trigger is None:
            # Says that service, version or function is missing, if that is the reason.
            self.invoker.resolve(route.service, route.qualifier, route.function)
            raise TriggerNotFound(
                f"function '{route.function}' in service '{route.service}' has no http trigger "
                f"for qualifier '{route.qualifier}'"
            )
        if trigger.internet_disabled:
            raise AccessDenied("access denied due to function internet URL is disable")
        valid_until = FOR_EVER
        if not trigger.anonymous:
            valid_until = self.authenticator.verify_until(
                head.method, route.path, route.query, head.headers, with_query=True
            )
        if head.method not in trigger.methods:
            raise AccessDenied(
                f"Method is set to an invalid value (allowed: "
                f"{' | '.join(sorted(trigger.methods))}, actual: '{head.method}')"
            )
        if head.upgrade == "websocket":
            raise AccessDenied("the function's runtime takes no WebSocket connections")
        options = read_options(head)
        return Plan(
            route,
            head,
            options,
            self._max_body_bytes(asynchronous=options.asynchronous),
            http=function_request(route, head, client_ip),
            valid_until=valid_until,
        )

    def _max_body_bytes(self, *, asynchronous: bool) -> int:
        settings = self.settings
        return settings.max_async_body_bytes if asynchronous else settings.max_sync_body_bytes


def _request(plan: Plan, payload: bytes | memoryview, request_id: str) -> InvokeRequest:
    route, options = plan.route, plan.options
    return InvokeRequest(
        route.service,
        route.function,
        route.qualifier,
        route.kind,
        request_id,
        payload,
        plan.http,
        options.want_tail,
        0,
        options.traceparent,
        options.span_context,
        options.span_baggages,
    )

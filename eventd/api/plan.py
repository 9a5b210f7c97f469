"""What a request on an invocation path asks for, decided before its body is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

from eventd.api.head import RequestHead
from eventd.errors import EntityTooLarge, EventdError, InvalidArgument
from eventd.model.resources import LATEST
from eventd.pool.call import CallKind, HttpHead

MAX_DELAY_S = 3600
FOR_EVER = float("inf")
PROXY_PREFIX = "/2016-08-15/proxy/"

_INVOCATIONS = re.compile(
    r"(/2016-08-15/services/([^/?.]+)(?:\.([^/?]+))?/functions/([^/?]+)/invocations)(?:\?(.*))?",
    re.DOTALL,
)
_PROXY = re.compile(
    r"(/2016-08-15/proxy/([^/?.]+)(?:\.([^/?]+))?/([^/?]+)(/[^?]*)?)(?:\?(.*))?", re.DOTALL
)
_TRACE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_STATEFUL_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_SPAN = "x-fc-tracing-opentracing-span-context"
_BAGGAGE = f"{_SPAN}-baggage-"


@dataclass(frozen=True, slots=True)
class Route:
    """A request target that names a function.

    Attributes:
        kind: ``EVENT`` for ``.../invocations``, ``HTTP`` for the proxy path of a trigger.
        path, query: as sent.
        rest: what follows the function on a proxy path, as sent; may be empty.
    """

    kind: CallKind
    service: str
    qualifier: str
    function: str
    path: str
    query: str
    rest: str = ""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The ``X-Fc-*`` headers of FC 4.1 and the trace context."""

    asynchronous: bool = False
    want_tail: bool = False
    delay_s: int = 0
    request_id: str = ""
    stateful_id: str = ""
    traceparent: str = ""
    span_context: str = ""
    span_baggages: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """A call that was authorised and checked, all but its body. Never changed once it is made.

    Attributes:
        valid_until: wall clock second after which the same request needs a new check.
        max_body_bytes: beyond it ``too_large`` is the answer.
    """

    route: Route
    head: RequestHead
    options: CallOptions
    max_body_bytes: int
    http: HttpHead | None = None
    valid_until: float = FOR_EVER

    def too_large(self) -> EventdError:
        text = f"payload size exceeds maximum allowed size ({self.max_body_bytes} bytes)"
        return EntityTooLarge(text) if self.route.kind is CallKind.EVENT else InvalidArgument(text)


@lru_cache(maxsize=1024)
def match_route(target: str) -> Route | None:
    """The function that ``target`` names, or ``None`` if it is none of the invocation paths."""
    if (found := _INVOCATIONS.fullmatch(target)) is not None:
        path, service, qualifier, function, query = found.groups()
        kind, rest = CallKind.EVENT, ""
    elif (found := _PROXY.fullmatch(target)) is not None:
        path, service, qualifier, function, rest, query = found.groups()
        kind = CallKind.HTTP
    else:
        return None
    return Route(
        kind=kind,
        service=unquote(service),
        qualifier=unquote(qualifier or LATEST),
        function=unquote(function),
        path=path,
        query=query or "",
        rest=rest or "",
    )


_NO_OPTIONS = CallOptions()


def read_options(head: RequestHead) -> CallOptions:
    """The options of a call, validated; ``InvalidArgument`` names the field and what it allows."""
    headers = head.headers
    if not head.own and "traceparent" not in headers:
        return _NO_OPTIONS
    kind = _choice(headers, "x-fc-invocation-type", "InvocationType", ("Sync", "Async"))
    asynchronous = kind == "Async"
    log_types = ("None",) if asynchronous else ("Tail", "None")
    log_type = _choice(headers, "x-fc-log-type", "LogType", log_types)
    request_id = headers.get("x-fc-trace-id", "")
    if request_id and not _TRACE_ID.fullmatch(request_id):
        raise InvalidArgument(
            f"TraceId doesn't match expected format (allowed: {_TRACE_ID.pattern}, "
            f"actual: '{request_id[:200]}')"
        )
    return CallOptions(
        asynchronous=asynchronous,
        want_tail=log_type == "Tail",
        delay_s=_delay(headers.get("x-fc-async-delay", "")),
        request_id=request_id,
        stateful_id=_stateful_id(headers.get("x-fc-stateful-async-invocation-id", "")),
        traceparent=headers.get("traceparent", ""),
        span_context=headers.get(_SPAN, ""),
        span_baggages={
            name.removeprefix(_BAGGAGE): value
            for name, value in headers.items()
            if name.startswith(_BAGGAGE)
        },
    )


def given_request_id(headers: Mapping[str, str]) -> str:
    """The caller's own request id, or empty if there is no usable one."""
    given = headers.get("x-fc-trace-id", "")
    return given if _TRACE_ID.fullmatch(given) else ""


def _choice(headers: Mapping[str, str], name: str, shown: str, allowed: tuple[str, ...]) -> str:
    given = headers.get(name, "")
    if not given:
        return ""
    for value in allowed:
        if value.lower() == given.lower():
            return value
    raise InvalidArgument(
        f"{shown} is set to an invalid value (allowed: {' | '.join(allowed)}, actual: '{given}')"
    )


def _delay(given: str) -> int:
    if not given:
        return 0
    if not given.isascii() or not given.isdigit() or len(given) > 4 or int(given) > MAX_DELAY_S:
        raise InvalidArgument(
            "AsyncDelay is set to an invalid value "
            f"(allowed: 0 to {MAX_DELAY_S} seconds, actual: '{given}')"
        )
    return int(given)


def _stateful_id(given: str) -> str:
    if given and not _STATEFUL_ID.fullmatch(given):
        raise InvalidArgument(
            "StatefulAsyncInvocationId doesn't match expected format "
            f"(allowed: ^{_STATEFUL_ID.pattern}$, actual: '{given}')"
        )
    return given

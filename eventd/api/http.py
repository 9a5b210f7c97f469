"""HTTP triggers: which functions they open, to whom, and what of a request reaches the function.

Source: FC 2016-08-15, "HTTP trigger overview" (``fc/4-invocation.md`` 4.7).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from eventd.api.head import RequestHead
from eventd.api.plan import Route
from eventd.model.resources import LATEST, TriggerRecord
from eventd.pool.call import HttpHead
from eventd.store.interface import Change, Metadata

TRIGGER_TYPE = "http"
_REMEMBERED = 4096

# FC 4.7, both lists; what belongs to one connection never goes further.
_NOT_TO_FUNCTION = frozenset(
    {
        "accept-encoding", "connection", "keep-alive", "proxy-authorization", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade", "expect",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpTrigger:
    """An HTTP trigger as the edge needs it."""

    name: str
    methods: frozenset[str]
    anonymous: bool
    internet_disabled: bool


class HttpTriggers:
    """The HTTP triggers by function and qualifier; follows the metadata at once."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self._found: dict[tuple[str, str], Mapping[str, HttpTrigger]] = {}
        self.on_change: Callable[[], object] = lambda: None
        """Called when a resource changed: what was derived before may no longer hold."""
        self.close: Callable[[], None] = metadata.subscribe(self._changed)
        """Stop following the metadata."""

    def of(self, service: str, function: str) -> Mapping[str, HttpTrigger]:
        """The function's HTTP triggers by qualifier; empty for an event function."""
        key = (service, function)
        found = self._found.get(key)
        if found is None:
            found = {
                record.qualifier or LATEST: _trigger(record)
                for record in self._metadata.triggers(service, function)
                if record.type == TRIGGER_TYPE
            }
            if len(self._found) >= _REMEMBERED:  # also names that nobody has are kept
                self._found.clear()
            self._found[key] = found
        return found

    def _changed(self, change: Change) -> None:
        self._found.clear()
        self.on_change()


def _trigger(record: TriggerRecord) -> HttpTrigger:
    config = record.config
    return HttpTrigger(
        name=record.name,
        methods=frozenset(str(method).upper() for method in config.get("methods") or ()),
        anonymous=str(config.get("authType") or "function").lower() == "anonymous",
        internet_disabled=bool(config.get("disableURLInternet", False)),
    )


def function_request(route: Route, head: RequestHead, client_ip: str) -> HttpHead:
    """The request as the function sees it."""
    return HttpHead(
        method=head.method,
        path=unquote(route.rest) or "/",
        uri=head.target,
        query=route.query,
        headers=[
            field
            for field in head.fields
            if field[0] not in _NOT_TO_FUNCTION and not field[0].startswith("x-fc-")
        ],
        client_ip=client_ip,
    )

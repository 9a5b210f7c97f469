"""``eventd logs``: what functions printed."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

import typer

from eventd.cli.client import ADMIN, API, Client, connect, function_path
from eventd.cli.failure import Failure, Refused
from eventd.cli.options import DataOption, EndpointOption, JsonOption

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS = (31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96)


def logs(
    name: Annotated[str, typer.Argument(metavar="[SERVICE[/FUNCTION]]")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    request_id: Annotated[str, typer.Option(metavar="ID", help="Lines of one request only.")] = "",
    since: Annotated[
        str, typer.Option(metavar="AGE|TIME", help="10m, 2h, 1d, or 2026-11-24T15:00.")
    ] = "",
    grep: Annotated[str, typer.Option(metavar="TEXT", help="Lines that contain TEXT.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="At most N lines.")
    ] = 100,
    as_json: JsonOption = False,
    endpoint: EndpointOption = None,
    data: DataOption = None,
) -> None:
    """Show what functions printed.

    Function Compute's start, end and report lines are among them. The newest lines come last. Each
    request has its own colour on a terminal.

    Examples:

      eventd logs

      eventd logs demo/orders --follow

      eventd logs demo --since 10m --grep ERROR --json
    """
    service, _, function = name.partition("/")
    query: dict[str, Any] = {
        "service": service,
        "function": function,
        "requestId": request_id,
        "text": grep,
        "since": _since_ms(since, time.time()) if since else None,
    }
    client = connect(endpoint, data)
    path = f"{ADMIN}/logs"
    if follow:
        _warn_of_name(client, service, function)
        for line in client.lines(path, {**query, "follow": "1"}):
            _print([json.loads(line)], as_json=as_json)
            sys.stdout.flush()
        return
    lines = client.json("GET", path, **query, limit=limit)["lines"]
    _print(lines, as_json=as_json)
    if not lines:
        _explain_nothing(client, service, function)


def _explain_nothing(client: Client, service: str, function: str) -> None:
    """No line was found: a name that nobody has is an error (``Refused``), silence is not."""
    _check_name(client, service, function)
    print("no such lines; a function logs when it is called", file=sys.stderr)


def _warn_of_name(client: Client, service: str, function: str) -> None:
    """It may be made while we follow, so it is no error."""
    try:
        _check_name(client, service, function)
    except Refused as error:
        if error.status != 404:
            raise
        print(f"{error.message}; waiting for it", file=sys.stderr)


def _check_name(client: Client, service: str, function: str) -> None:
    if service:
        what = function_path(service, function) if function else f"{API}/services/{quote(service)}"
        client.json("GET", what)


def _print(lines: Iterable[Mapping[str, Any]], *, as_json: bool) -> None:
    """For people without empty lines: FC's report begins with one."""
    terminal = sys.stdout.isatty()
    for line in lines:
        if as_json:
            print(json.dumps(line))
        elif line["text"].strip():
            print(_text(line, colour=terminal))


def _text(line: Mapping[str, Any], *, colour: bool) -> str:
    moment = datetime.fromtimestamp(line["timeMs"] / 1000, UTC).astimezone()
    who = line["requestId"] or line["instanceId"]
    head = (
        f"{moment:%m-%d %H:%M:%S}.{line['timeMs'] % 1000:03d} {line['service']}/{line['function']}"
    )
    if not colour:
        return f"{head} {who} {line['text']}"
    # A handler's output goes to a terminal: control characters must not reach it.
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", line["text"])
    shade = _COLOURS[sum(who.encode()) % len(_COLOURS)]
    return f"\x1b[2m{head}\x1b[0m \x1b[{shade}m{who[:8]}\x1b[0m {text}"


def _since_ms(given: str, now_s: float) -> int:
    """An age (``10m``) or a local or zoned ISO time as wall clock in ms. Raises ``Failure``."""
    age = re.fullmatch(r"([0-9]{1,9})([smhd])", given)
    if age:
        return max(0, int((now_s - int(age[1]) * _UNITS_S[age[2]]) * 1000))
    try:
        return max(0, int(datetime.fromisoformat(given).timestamp() * 1000))
    except (ValueError, OverflowError):
        raise Failure(
            f"--since: expected an age such as 30s, 10m, 2h, 1d, or a time such as "
            f"2026-11-24T15:00, got {given!r}"
        ) from None

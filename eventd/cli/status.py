"""``eventd status``: functions, instances, triggers and lag, once or live."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventd.cli.client import ADMIN, Client, connect
from eventd.cli.failure import Unreachable
from eventd.cli.options import DataOption, EndpointOption, JsonOption

if TYPE_CHECKING:  # rich costs 60 ms; --json does without it
    from rich.console import Group, JustifyMethod, RenderableType
    from rich.table import Table

_REFRESH_S = 1.0
_PIPE_WIDTH = 160
"""Columns when nobody's terminal limits them."""


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh each second.")] = False,
    as_json: JsonOption = False,
    endpoint: EndpointOption = None,
    data: DataOption = None,
) -> None:
    """Show functions, instances, triggers and lag.

    With --watch it is a live table; it goes on when the daemon is restarted. --json with --watch
    prints one object a line.

    Examples:

      eventd status

      eventd status --watch

      eventd status --json | jq '.functions[] | select(.errors > 0)'
    """
    client = connect(endpoint, data)
    if as_json:
        print(json.dumps(_fetch(client)), flush=True)
        while watch:
            time.sleep(_REFRESH_S)
            print(json.dumps(_fetch(client)), flush=True)
        return

    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    if not watch:
        console.print(_page(_fetch(client)))
        return
    live = Live(_page(_fetch(client)), console=console, screen=console.is_terminal)
    try:  # not ``with``: a Ctrl-C while it starts must give the terminal back, too
        live.start()
        while True:
            time.sleep(_REFRESH_S)
            live.update(_fresh(client))
    finally:
        live.stop()


def _fetch(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.json("GET", f"{ADMIN}/status")
    return found


def _fresh(client: Client) -> RenderableType:
    from rich.text import Text

    try:
        return _page(_fetch(client))
    except Unreachable as error:
        return Text(f"{error}; asking again", style="red")


def _page(status: Mapping[str, Any]) -> Group:
    """Everything on one screen; a part without rows is left out."""
    from rich.console import Group
    from rich.text import Text

    queue = status["queue"]
    head = Text.assemble(
        ("eventd ", "bold"),
        " · ".join(
            str(status[key])
            for key in ("version", "endpoint", "region", "accountId", "isolation")
            if status.get(key)
        ),
        "\n",
        f"queue: {queue['waiting']} waiting, {queue['claimed']} running, ",
        (f"{queue['deadLetters']} dead letters", "red" if queue["deadLetters"] else ""),
    )
    parts: list[RenderableType] = [head]
    for one in status.get("brokenAdapters", ()):
        text = f"trigger type {one['name']} is not usable: {one['error']} ({one['target']})"
        parts.append(Text(text, style="red"))
    if status["functions"]:
        parts.append(_functions(status["functions"]))
    else:
        parts.append(Text("no functions yet; eventd deploy-demo makes some", style="dim"))
    if status["triggers"]:
        parts.append(_triggers(status["triggers"]))
    if status["instances"]:
        parts.append(_instances(status["instances"]))
    return Group(*parts)


def _functions(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = _table(
        "function", "#instances", "#busy", "#waiting", "#calls", "#errors", "#cold", "#p50",
        "#p99",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            f"{row['service']}/{row['function']}",
            str(row["instances"]),
            str(row["busy"]),
            str(row["waiting"]),
            str(row["invocations"]),
            f"[red]{row['errors']}[/red]" if row["errors"] else "0",
            str(row["coldStarts"]),
            _milliseconds(row["p50Ms"]),
            _milliseconds(row["p99Ms"]),
        )
    return table


def _triggers(rows: Iterable[Mapping[str, Any]]) -> Table:
    from rich.text import Text

    table = _table("trigger", "type", "function", "#lag", "state")
    for row in rows:
        table.add_row(
            Text(row["trigger"]),
            row["type"],
            f"{row['service']}/{row['function']}",
            _lag(row),
            Text(row["text"] or "-", style="" if row["healthy"] else "red"),
        )
    return table


def _instances(rows: Iterable[Mapping[str, Any]]) -> Table:
    table = _table("instance", "function", "version", "state", "#busy", "#memory", "#age")
    for row in rows:
        table.add_row(
            row["instanceId"],
            f"{row['service']}/{row['function']}",
            row["version"],
            row["state"],
            f"{row['busy']}/{row['slots']}",
            f"{row['memoryMb']:.0f} MB",
            _age(row["ageS"]),
        )
    return table


def _table(*columns: str) -> Table:
    """``#`` before a name: numbers, to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        justify: JustifyMethod = "right" if column[0] == "#" else "left"
        table.add_column(column.removeprefix("#"), justify=justify, no_wrap=column[0] == "#")
    return table


def _lag(row: Mapping[str, Any]) -> str:
    """Events that wait at the source; ``-`` where none can (HTTP), ``?`` when it is not known."""
    if row["lag"] is not None:
        return str(row["lag"])
    return "?" if row["text"] else "-"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"

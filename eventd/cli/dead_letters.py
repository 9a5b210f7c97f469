"""``eventd dead-letters``: what was given up, and why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from eventd.cli.client import ADMIN, connect
from eventd.cli.options import DataOption, EndpointOption, JsonOption


def dead_letters(
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="At most N.")
    ] = 20,
    as_json: JsonOption = False,
    endpoint: EndpointOption = None,
    data: DataOption = None,
) -> None:
    """Show invocations that were given up.

    The newest first, with the reason and the last error.

    Examples:

      eventd dead-letters

      eventd dead-letters --json --limit 1
    """
    found = connect(endpoint, data).json("GET", f"{ADMIN}/dead-letters", limit=limit)
    if as_json:
        print(json.dumps(found))
        return
    if not found["deadLetters"]:
        print("no dead letters")
    for letter in found["deadLetters"]:
        moment = datetime.fromtimestamp(letter["buriedMs"] / 1000, UTC).astimezone()
        name = f"{letter['service']}/{letter['function']}"
        via = f" by {letter['trigger']}" if letter["trigger"] else ""
        print(f"{moment:%m-%d %H:%M:%S} {name}{via} {letter['reason']}: {letter['requestId']}")
        if letter["lastError"]:
            print(f"    {letter['lastError'][:200]}")

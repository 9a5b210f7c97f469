"""``eventd doctor``: what this machine can do, and what to install for more."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from eventd.cli.checks import Finding, State, findings
from eventd.cli.client import data_directory
from eventd.cli.options import DataOption, JsonOption

_MARK = {State.GOOD: "ok  ", State.LIMITED: "less", State.MISSING: "no  "}
_COLOUR = {State.GOOD: 32, State.LIMITED: 33, State.MISSING: 31}


def doctor(
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 when something is missing.")
    ] = False,
    as_json: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Say what this machine can do.

    And what to install for more. It needs no daemon.

    Examples:

      eventd doctor

      eventd doctor --data /srv/eventd --json
    """
    found = findings(data_directory(data))
    if as_json:
        print(json.dumps({"checks": [_as_json(one) for one in found]}))
    else:
        for one in found:
            _print(one)
    if strict and any(one.state is State.MISSING for one in found):
        raise typer.Exit(1)


def _print(one: Finding) -> None:
    mark = _MARK[one.state]
    if sys.stdout.isatty():
        mark = f"\x1b[{_COLOUR[one.state]}m{mark}\x1b[0m"
    print(f"{mark} {one.name}: {one.found}")
    for line in one.advice.splitlines():
        print(f"       {line}")


def _as_json(one: Finding) -> dict[str, str]:
    return {
        "name": one.name,
        "state": one.state.value,
        "found": one.found,
        "advice": one.advice,
    }

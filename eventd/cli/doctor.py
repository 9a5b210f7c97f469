"""``eventd doctor``: what this machine can do, and what to install for more."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
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
        _print(found)
    if strict and any(one.state is State.MISSING for one in found):
        raise typer.Exit(1)


def _print(found: Sequence[Finding]) -> None:
    """A line or more for each finding, in columns, and what they come to."""
    column = max(len(one.name) for one in found)
    indent = " " * (len(_MARK[State.GOOD]) + column + 4)
    width = max(60, shutil.get_terminal_size((100, 24)).columns)
    for one in found:
        mark = _MARK[one.state]
        if sys.stdout.isatty():
            mark = f"\x1b[{_COLOUR[one.state]}m{mark}\x1b[0m"
        lines = [
            wrapped
            for part in (one.found, *one.advice.splitlines())
            for wrapped in textwrap.wrap(
                part, width - len(indent), break_long_words=False, break_on_hyphens=False
            )
        ]
        print(f"{mark}  {one.name:{column}}  {lines[0]}")
        for line in lines[1:]:
            print(indent + line)
    missing = sum(one.state is State.MISSING for one in found)
    limited = sum(one.state is State.LIMITED for one in found)
    print(f"\n{missing} missing, {limited} could be better, {len(found)} looked at")


def _as_json(one: Finding) -> dict[str, str]:
    return {
        "name": one.name,
        "state": one.state.value,
        "found": one.found,
        "advice": one.advice,
    }

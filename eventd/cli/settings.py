"""``eventd settings``: every setting, and the reference page made from the same table."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Annotated

import typer

from eventd.cli.options import JsonOption
from eventd.config import Setting, table

_GROUP_TEXT = {
    "server": "The daemon: where it lives, listens and logs.",
    "http": "Limits of requests.",
    "pool": "Instances of functions.",
    "queue": "Asynchronous invocations.",
    "logs": "How long logs and records are kept.",
}

_HEAD = """# Settings

Made by `eventd settings --markdown`; do not edit.

A setting comes from the file that `--config` names, from the environment, or from a flag of
`eventd serve`; the later one wins. `--set KEY=VALUE` sets any of them. An unknown key is an error
that names the nearest one.

Two more tables exist in the file only:

```toml
[buckets.pictures]        # a bucket outside DATA/buckets; relative to this file
path = "/srv/pictures"

[triggers.kafka]          # options of one trigger type, as its documentation names them
```
"""


def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/reference/settings.md.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List every setting.

    With its variable, its default and what it does.

    Examples:

      eventd settings

      eventd settings --json
    """
    if markdown:
        print(reference(), end="")
    elif as_json:
        print(json.dumps([_as_json(row) for row in table()]))
    else:
        for group, rows in groupby(table(), key=lambda row: row.group):
            print(f"[{group}]  {_GROUP_TEXT[group]}")
            for row in rows:
                print(f"  {row.name} = {_default(row)}")
                print(f"      {row.help}; {row.expected}; {row.variable}")


def reference() -> str:
    """The text of ``docs/reference/settings.md``."""
    parts = [_HEAD]
    for group, rows in groupby(table(), key=lambda row: row.group):
        parts.append(f"\n## {group}\n\n{_GROUP_TEXT[group]}\n\n")
        parts.append("| key | default | what | expected | variable |\n|---|---|---|---|---|\n")
        parts.extend(
            f"| `{row.name}` | `{_default(row)}` | {row.help} | {row.expected} "
            f"| `{row.variable}` |\n"
            for row in rows
        )
    return "".join(parts)


def _default(row: Setting) -> str:
    """As ``eventd.toml`` writes it."""
    if row.type is bool:
        return str(row.default).lower()
    if row.type in (int, float):
        return f"{row.default}"
    return f'"{row.default}"'


def _as_json(row: Setting) -> dict[str, object]:
    return {
        "key": row.key,
        "variable": row.variable,
        "type": row.type.__name__.lower(),
        "default": row.default if row.type in (bool, int, float) else str(row.default),
        "unit": row.unit,
        "choices": list(row.choices),
        "help": row.help,
    }

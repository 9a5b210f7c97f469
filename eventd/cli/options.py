"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Directory of the daemon to speak to. [./data]"),
]
EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="URL", help="The daemon to speak to, by its address."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

"""The ``eventd`` command: a client of the API, except for ``serve``."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script; ends the process with one of ``failure``'s exit codes."""
    from eventd.cli.app import run

    sys.exit(run(sys.argv[1:]))

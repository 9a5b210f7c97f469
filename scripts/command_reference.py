"""Print docs/reference/commands.md: the help of every command."""

import os

os.environ["COLUMNS"] = "100"
os.environ["TERMINAL_WIDTH"] = "100"

import contextlib
import io

from eventd.cli.app import COMMAND_NAMES, run


def help_of(*words: str) -> str:
    """What ``eventd WORDS --help`` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        run([*words, "--help"])
    lines = output.getvalue().strip().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def reference() -> str:
    """The whole page."""
    parts = ["# Commands\n\nMade by `make docs`; do not edit.\n"]
    for words in ((), *((name,) for name in COMMAND_NAMES)):
        title = " ".join(("eventd", *words))
        parts.append(f"\n## {title}\n\n```text\n{help_of(*words)}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    print(reference(), end="")

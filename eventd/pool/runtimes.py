"""Which of FC's runtimes an instance can be made for on this machine."""

from __future__ import annotations

from eventd.errors import InvalidArgument

_RUNNING = "python"
"""All of its versions run on this interpreter; a difference is said where the function is made."""


def check_runs(runtime: str) -> None:
    """``InvalidArgument`` if no instance of a function with ``runtime`` can be started here."""
    if not runtime.startswith(_RUNNING):
        raise InvalidArgument(
            f"runtime {runtime} can't run here yet: functions run on python3; the function is "
            "stored and shown, but not called"
        )

"""FC's runtime names: which are known, which run here, and what a caller should be told.

DESIGN.md, "Runtime names": an exact interpreter, else a newer one of a compatible line with a
warning.
"""

from __future__ import annotations

import sys

PYTHON = (
    "python2.7",
    "python3",
    *(f"python3.{minor}" for minor in range(6, 15)),
)
OTHERS = (
    "nodejs4.4",
    "nodejs6",
    "nodejs8",
    "nodejs10",
    "nodejs12",
    "nodejs14",
    "nodejs16",
    "nodejs18",
    "nodejs20",
    "java8",
    "java11",
    "php7.2",
    "dotnetcore2.1",
    "dotnetcore3.1",
    "go1",
    "custom",
    "custom.debian10",
    "custom.debian11",
)
ALLOWED = PYTHON + OTHERS


def check_runtime(name: str) -> str | None:
    """Why ``name`` is refused at create, in FC's words; ``None`` if it is accepted."""
    if name in ALLOWED:
        return None
    refused = (
        f"{{Field}} is set to an invalid value (allowed: {' | '.join(ALLOWED)}, "
        f"actual: '{name[:200]}')"
    )
    if name == "custom-container":
        return f"{refused}; container images do not run here, put a web server into 'custom'"
    return refused


def runtime_warning(name: str) -> str:
    """What differs from the cloud for ``name`` on this machine; empty if nothing does."""
    here = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if name in ("python3", here):
        return ""
    if name in PYTHON:
        return f"runtime {name} runs on {here}"
    return f"runtime {name} is stored, but functions of it cannot run on this machine yet"

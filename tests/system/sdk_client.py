"""The vendor's Python SDK, unmodified, as a program of its user would hold it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fc2
import pytest
from system_node import KEY_ID, SECRET, Node

RUNTIME = "python2.7"
"""The name that the SDK's own users give to most functions; a Python 3 runs them."""


def client(node: Node) -> Any:
    return fc2.Client(endpoint=node.url, accessKeyID=KEY_ID, accessKeySecret=SECRET, Timeout=30)


def refused(status: int, code: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The error of a call that must fail with exactly this."""
    with pytest.raises(fc2.FcError) as caught:
        call(*args, **options)
    error = caught.value
    assert (error.status_code, error.err_code) == (status, code), error
    assert len(error.request_id) == 36
    return error


def package(folder: Path, name: str, **files: str) -> str:
    """A code directory with ``{module}.py`` for each keyword; the SDK zips it."""
    root = folder / name
    root.mkdir()
    for module, source in files.items():
        (root / f"{module}.py").write_text(source)
    return str(root)


def pages(call: Callable[..., Any], key: str, *args: Any, **options: Any) -> list[list[Any]]:
    """Every page of a list, followed by ``nextToken`` alone as the SDK's users do."""
    found = []
    token = None
    while True:
        page = call(*args, **options, **({"nextToken": token} if token else {})).data
        found.append(page[key])
        token = page.get("nextToken")
        if not token:
            return found

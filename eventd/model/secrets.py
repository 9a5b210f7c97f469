"""Values of a JSON object that are never shown: masked on the way out, put back on the way in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

MASK = "***"
"""Stands for a secret in every answer; sent back, it keeps the stored value."""

Path = tuple[str, ...]


def masked(content: Mapping[str, Any], paths: tuple[Path, ...]) -> Mapping[str, Any]:
    """``content`` with ``MASK`` for each value that ``paths`` name, in whatever letter case its
    keys are written; an empty value stays empty."""
    for path in paths:
        content = _at(content, path, lambda value: MASK if value else value)
    return content


def unmasked(
    content: Mapping[str, Any], stored: Mapping[str, Any], paths: tuple[Path, ...]
) -> Mapping[str, Any]:
    """``content`` with the stored secret wherever it has ``MASK``."""
    for path in paths:
        secret = _get(stored, path)
        if secret is not None:
            content = _at(content, path, partial(_kept, secret))
    return content


def _kept(secret: Any, value: Any) -> Any:
    return secret if value == MASK else value


def _get(content: Any, path: Path) -> Any:
    for name in path:
        if not isinstance(content, Mapping):
            return None
        content = next((value for key, value in content.items() if key.lower() == name), None)
    return content


def _at(content: Any, path: Path, change: Callable[[Any], Any]) -> Any:
    """A copy of ``content`` with what is at ``path`` (in lower case) changed."""
    if not path:
        return change(content)
    if not isinstance(content, Mapping):
        return content
    return {
        key: _at(value, path[1:], change) if key.lower() == path[0] else value
        for key, value in content.items()
    }

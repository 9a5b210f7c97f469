"""FC's reading of request keys: letter case is ignored, ``null`` means absent.

Free maps (``environmentVariables``, a trigger's ``functionParameter``) are data, not keys of
ours: they stay as they are. FC 2016-08-15, "JSON details".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

Unknown = Callable[[str], None]
"""Called with the dotted name of each key that the model does not know."""


def fold(
    model: type[BaseModel],
    content: Mapping[str, Any],
    unknown: Unknown | None = None,
    *,
    path: str = "",
) -> dict[str, Any]:
    """``content`` with its keys in the spelling of ``model``, recursively, without ``null`` s.

    Unknown keys are kept; the model decides whether to ignore or to refuse them. An exact
    spelling wins over a key that differs in case.
    """
    names = {
        (field.alias or name).lower(): (field.alias or name, field.annotation)
        for name, field in model.model_fields.items()
    }
    folded: dict[str, Any] = {}
    exact: set[str] = set()
    for key, value in content.items():
        if value is None:
            continue
        name, annotation = names.get(key.lower(), (key, None))
        if name in exact:
            continue
        if key.lower() not in names and unknown is not None:
            unknown(f"{path}{key}")
        if key == name:
            exact.add(name)
        folded[name] = _fold_value(annotation, value, unknown, f"{path}{name}.")
    return folded


def _fold_value(annotation: Any, value: Any, unknown: Unknown | None, path: str) -> Any:
    if isinstance(value, dict):
        for inner in _models(annotation):
            return fold(inner, value, unknown, path=path)
    if isinstance(value, list):
        for inner in _models(annotation):
            return [
                fold(inner, item, unknown, path=path) if isinstance(item, dict) else item
                for item in value
            ]
    return value


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that ``annotation`` names: alone, optional, or as items of a sequence."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    origin = get_origin(annotation)
    if origin in (Union, UnionType, list, tuple) or hasattr(annotation, "__metadata__"):
        for argument in get_args(annotation):
            yield from _models(argument)

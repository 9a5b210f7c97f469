"""Loads trigger types from the entry-point group ``eventd.triggers``, built-in ones and others."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from eventd.plugin import TriggerConfig, TriggerType

GROUP = "eventd.triggers"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokenAdapter:
    """An entry point that gave no trigger type: its name, where it points to, and why."""

    name: str
    target: str
    error: str


@dataclass(frozen=True, slots=True)
class Adapters:
    """What the installed packages bring.

    Attributes:
        types: trigger type by the name that ``triggerType`` carries.
        broken: entry points that could not be used; the others run.
    """

    types: Mapping[str, TriggerType[Any]]
    broken: tuple[BrokenAdapter, ...] = ()


def load_adapters(points: Iterable[EntryPoint] | None = None) -> Adapters:
    """Import every adapter of the group (or of ``points``).

    An adapter that cannot be imported, is no ``TriggerType`` or claims a name already taken is
    logged and listed in ``broken``; it never keeps the others from running.
    """
    if points is None:
        points = entry_points(group=GROUP)
    types: dict[str, TriggerType[Any]] = {}
    broken: list[BrokenAdapter] = []
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        try:
            adapter = _adapter(point)
            if adapter.name in types:
                taken = type(types[adapter.name]).__module__
                raise TypeError(f"the trigger type {adapter.name!r} is already taken by {taken}")
        except Exception as error:  # noqa: BLE001 - a foreign module may raise anything on import
            text = f"{type(error).__name__}: {error}"
            log.error("trigger type %s (%s) is not usable: %s", point.name, point.value, text)
            broken.append(BrokenAdapter(point.name, point.value, text))
        else:
            types[adapter.name] = adapter
    return Adapters(types, tuple(broken))


def _adapter(point: EntryPoint) -> TriggerType[Any]:
    """The instance behind one entry point; raises whatever the foreign code raises."""
    loaded = point.load()
    if not (isinstance(loaded, type) and issubclass(loaded, TriggerType)):
        raise TypeError(f"expected a subclass of eventd.plugin.TriggerType, found {loaded!r}")
    for attribute, kind in (("name", str), ("config", type)):
        if not isinstance(getattr(loaded, attribute, None), kind):
            raise TypeError(f"{loaded.__qualname__}.{attribute} is missing or no {kind.__name__}")
    if not issubclass(loaded.config, TriggerConfig):
        raise TypeError(f"{loaded.__qualname__}.config is no eventd.plugin.TriggerConfig")
    return loaded()

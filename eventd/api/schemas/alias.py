"""Versions and aliases. FC 2016-08-15, "Service versions and aliases"."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from eventd.api.schemas.fields import (
    Description,
    FcObject,
    Name,
    VersionText,
    invalid,
    matching,
    one_of,
    refuse,
)

VERSION_PATTERN = "^[1-9][0-9]*$"


def _weights(value: dict[str, float]) -> dict[str, float]:
    for weight in value.values():
        if not 0.0 <= weight <= 1.0:
            raise invalid("0.0 - 1.0", weight)
    if sum(value.values()) > 1.0 + 1e-9:
        raise refuse(
            "{Field} is set to an invalid value (allowed: a sum of at most 1.0, "
            f"actual: {sum(value.values())})"
        )
    return value


def _not_latest(value: str) -> str:
    if value == "LATEST":
        raise invalid("any name but LATEST", value)
    return value


VersionId = Annotated[VersionText, matching(VERSION_PATTERN, max_length=18)]


class PublishVersion(FcObject):
    description: Description = ""


class UpdateAlias(FcObject):
    """Every key may be absent and is then kept; the weights are replaced as a whole."""

    version_id: VersionId | None = None
    description: Description = ""
    additional_version_weight: Annotated[dict[str, float], AfterValidator(_weights)] | None = None
    resolve_policy: Annotated[str, one_of("Random", "Content", "")] | None = None
    route_policy: dict[str, Any] | None = None


class CreateAlias(UpdateAlias):
    alias_name: Annotated[Name, AfterValidator(_not_latest)]
    version_id: VersionId

"""Field types whose refusals read like FC's own. Texts: FC 2016-08-15, "Error texts"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from eventd.model.argument import argument_error
from eventd.model.fold import Unknown, fold

NAME_PATTERN = "^[_a-zA-Z][-_a-zA-Z0-9]*$"
MAX_DESCRIPTION = 256


class FcObject(BaseModel):
    """An object of FC's JSON: camelCase on the wire, exact types, unknown keys ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, strict=True, frozen=True, extra="ignore"
    )

    def config(self) -> dict[str, Any]:
        """The object in FC's spelling, defaults filled in."""
        return self.model_dump(by_alias=True)

    def given(self) -> dict[str, Any]:
        """The top-level keys that the caller sent; the objects inside with their defaults."""
        full = self.config()
        fields = type(self).model_fields
        return {
            alias: full[alias]
            for name in self.model_fields_set
            if (alias := fields[name].alias or name) in full
        }


ObjectT = TypeVar("ObjectT", bound=BaseModel)


def refuse(text: str) -> PydanticCustomError:
    """A refusal; ``{Field}`` in ``text`` becomes the field's name with a capital initial."""
    return PydanticCustomError("fc", "{text}", {"text": text})


def invalid(allowed: str, actual: object) -> PydanticCustomError:
    return refuse(f"{{Field}} is set to an invalid value (allowed: {allowed}, actual: '{actual}')")


def mismatch(pattern: str, actual: str) -> PydanticCustomError:
    return refuse(
        f"{{Field}} doesn't match expected format (allowed: {pattern}, actual: '{actual}')"
    )


def matching(pattern: str, *, max_length: int = 128) -> AfterValidator:
    """Text that matches ``pattern``, at most ``max_length`` characters."""
    compiled = re.compile(pattern.removesuffix("$") + r"\Z")

    def check(value: str) -> str:
        if not compiled.match(value):
            raise mismatch(pattern, value[:200])
        if len(value) > max_length:
            raise refuse(_too_long(max_length, value))
        return value

    return AfterValidator(check)


def _too_long(limit: int, value: str) -> str:
    return (
        f"{{Field}} is set to an invalid value (allowed: at most {limit} characters, "
        f"actual: {len(value)} characters)"
    )


def text(limit: int, *, least: int = 0) -> AfterValidator:
    """Text of ``least`` to ``limit`` characters."""

    def check(value: str) -> str:
        if len(value) > limit:
            raise refuse(_too_long(limit, value))
        if len(value) < least:
            raise refuse("{Field} is required but not provided")
        return value

    return AfterValidator(check)


def between(low: float, high: float) -> AfterValidator:
    """A number from ``low`` to ``high``, both included."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise invalid(f"{low} - {high}", value)
        return value

    return AfterValidator(check)


def one_of(*allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed:
            raise invalid(" | ".join(allowed), value[:200])
        return value

    return AfterValidator(check)


def at_most(count: int) -> AfterValidator:
    """A list or map with at most ``count`` items."""

    def check(value: Any) -> Any:
        if len(value) > count:
            raise refuse(f"{{Field}} contains too many values (max: {count}, actual: {len(value)})")
        return value

    return AfterValidator(check)


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, matching(NAME_PATTERN)]
Description = Annotated[str, text(MAX_DESCRIPTION)]
VersionText = Annotated[str, BeforeValidator(_number_as_text)]
"""A version id or qualifier; a YAML number that arrives as a JSON number is taken too."""


def parse(
    model: type[ObjectT],
    content: Mapping[str, Any],
    unknown: Unknown | None = None,
    *,
    prefix: str = "",
) -> ObjectT:
    """``content`` as ``model``; ``prefix`` stands before the field names in errors.

    Raises ``InvalidArgument`` for the first field at fault, by name and expectation.
    """
    try:
        return model.model_validate(fold(model, content, unknown))
    except ValidationError as error:
        raise argument_error(error.errors(include_url=False)[0], prefix) from None

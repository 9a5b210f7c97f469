"""What is wrong with an argument, in FC's words. Texts: FC 2016-08-15, "Error texts"."""

from __future__ import annotations

from pydantic_core import ErrorDetails

from eventd.errors import InvalidArgument

_WORDS = {
    "string_type": "string",
    "int_type": "integer",
    "int_from_float": "integer",
    "int_parsing_size": "integer",
    "float_type": "number",
    "finite_number": "number",
    "bool_type": "true | false",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "list_type": "array",
    "tuple_type": "array",
}


def argument_error(details: ErrorDetails, prefix: str = "") -> InvalidArgument:
    """pydantic's word for a bad field as FC would say it; ``field`` is set on the error."""
    path = ".".join([prefix, *map(str, details["loc"])] if prefix else map(str, details["loc"]))
    name = path[:1].upper() + path[1:]
    actual = str(details.get("input"))[:200]
    match details["type"]:
        case "missing":
            message = f"{name} is required but not provided"
        case "fc":
            message = details["msg"].replace("{Field}", name)
        case "extra_forbidden":
            message = f"{name} is not a known field"
        case kind if kind in _WORDS:
            allowed = _WORDS[kind]
            message = f"{name} is set to an invalid value (allowed: {allowed}, actual: '{actual}')"
        case _:
            reason = details["msg"].removeprefix("Value error, ")
            message = f"{name} is set to an invalid value ({reason}, actual: '{actual}')"
    error = InvalidArgument(message)
    error.field = path
    return error

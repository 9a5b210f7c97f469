"""What a handler returned, and what it raised, as the bytes that FC answers (FC 5.3, 4.5)."""

from __future__ import annotations

import datetime
import decimal
import json
import linecache
import os
import traceback
from typing import Any

PLATFORM = os.path.dirname(os.path.abspath(__file__)) + os.sep
MAX_MESSAGE = 16 << 10
"""Characters of an error message that are answered; with its frames it must fit one frame."""
MAX_FRAMES = 50
MAX_LINE = 200


def to_bytes(value: Any) -> bytes:
    """The body for a returned value. ``TypeError``: it has no JSON form."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return json.dumps(value, indent=4, sort_keys=True, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if hasattr(value, "to_json"):
        return value.to_json()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def error_json(message: str, kind: str, stack: list[Any]) -> bytes:
    fields: dict[str, Any] = {
        "errorMessage": message[:MAX_MESSAGE],
        "errorType": kind,
        "stackTrace": stack,
    }
    return json.dumps(fields, indent=4, sort_keys=True).encode()


def exception_json(error: BaseException) -> bytes:
    """The error JSON of an exception of the handler; frames of the platform are left out."""
    try:
        message = str(error)
    except BaseException as second:  # noqa: BLE001 - the function's own __str__ may do anything
        message = f"<{type(second).__name__} in __str__ of {type(error).__name__}>"
    return error_json(message, type(error).__name__, _frames(error))


def _frames(error: BaseException) -> list[list[str]]:
    frames = []
    for frame in _user_frames(error):
        parts = [f'File "{frame.filename}"', f"line {frame.lineno}", f"in {frame.name}"]
        if frame.line:
            parts.append(frame.line[:MAX_LINE])
        frames.append(parts)
    return frames


def _user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    linecache.checkcache()
    found = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((PLATFORM, "<frozen importlib"))
    ]
    return found[-MAX_FRAMES:]


class LoadError(Exception):
    """The handler cannot be used; ``body`` is the answer."""

    def __init__(self, kind: str, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        stack: list[str] = []
        if cause is not None:
            stack.append("Traceback (most recent call last):")
            for frame in _user_frames(cause):
                if "importlib" not in frame.filename:
                    stack.append(f'File "{frame.filename}", line {frame.lineno}, in {frame.name}')
                    stack += [frame.line[:MAX_LINE]] if frame.line else []
            for text in traceback.format_exception_only(type(cause), cause):
                stack += [line[:MAX_MESSAGE] for line in text.rstrip("\n").split("\n")]
        self.body = error_json(message, kind, stack)

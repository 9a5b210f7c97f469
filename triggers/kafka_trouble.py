"""What went wrong with a broker, in words for ``status``."""

from __future__ import annotations

import re

from aiokafka.errors import KafkaConnectionError, NodeNotReadyError


def first_cause(error: BaseException) -> BaseException:
    """The first error inside groups of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def trouble(error: BaseException) -> str:
    """One line: the broker is away, and where it was looked for, or it refuses, and why."""
    if isinstance(error, TimeoutError):
        return "broker away: no answer in time"
    if isinstance(error, OSError | ConnectionError | KafkaConnectionError | NodeNotReadyError):
        tried = re.findall(r"\('([^']+)', (\d+), <", str(error))  # aiokafka shows its tuples
        return f"broker away: {', '.join(map(':'.join, tried)) or error}"
    return f"broker refuses: {error or type(error).__name__}"

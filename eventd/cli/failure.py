"""Why a command ends with an exit code other than 0. One line each, never a traceback.

Exit codes: 1 the function failed · 2 wrong usage or settings · 3 no daemon answers ·
4 the daemon refused (the FC code is shown) · 74 the disk failed · 130 interrupted.
"""

from __future__ import annotations

FUNCTION_FAILED = 1
INTERRUPTED = 130


class Failure(Exception):
    """A command cannot go on; ``exit_code`` becomes the process's."""

    exit_code = 2

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class Unreachable(Failure):
    """Nobody answers at the endpoint, or the connection broke."""

    exit_code = 3

    def __init__(self, endpoint: str, error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        super().__init__(f"no answer from {endpoint}: {reason}")


class Refused(Failure):
    """The daemon answered with an error.

    Attributes:
        status: the HTTP status.
        code: FC's error code.
        message: what the daemon said.
        request_id: to be found in the daemon's log.
    """

    exit_code = 4

    def __init__(self, status: int, code: str, message: str, request_id: str) -> None:
        tail = f" (request {request_id})" if request_id else ""
        super().__init__(f"{code}: {message}{tail}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id

"""Errors a caller may see: one class per FC error code.

``api/errors.py`` turns them into FC's ``{"ErrorCode", "ErrorMessage"}`` in one place. Codes,
statuses and texts: FC 2016-08-15, "Error codes".
"""

from __future__ import annotations

from typing import ClassVar


class EventdError(Exception):
    """Base of the errors a caller may see; subclasses fix ``code`` and ``status``.

    Args:
        message: text for a person; names what was expected.
        field: the request field at fault, in FC's spelling with dots (``logConfig.project``).
    """

    code: ClassVar[str] = "InternalServerError"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class InvalidArgument(EventdError):
    code, status = "InvalidArgument", 400


class MissingRequiredHeader(EventdError):
    code, status = "MissingRequiredHeader", 400


class PathNotSupported(EventdError):
    code, status = "PathNotSupported", 400


class EntityTooLarge(EventdError):
    code, status = "EntityTooLarge", 400


class LimitExceeded(EventdError):
    code, status = "LimitExceededError", 400


class VersionPublishError(EventdError):
    code, status = "VersionPublishError", 400


class AccessDenied(EventdError):
    code, status = "AccessDenied", 403


class SignatureNotMatch(EventdError):
    code, status = "SignatureNotMatch", 403


class InvalidAccessKeyID(EventdError):
    code, status = "InvalidAccessKeyID", 403


class RequestTimeTooSkewed(EventdError):
    code, status = "RequestTimeTooSkewed", 403


class ServiceNotFound(EventdError):
    code, status = "ServiceNotFound", 404


class FunctionNotFound(EventdError):
    code, status = "FunctionNotFound", 404


class TriggerNotFound(EventdError):
    code, status = "TriggerNotFound", 404


class VersionNotFound(EventdError):
    code, status = "VersionNotFound", 404


class AliasNotFound(EventdError):
    code, status = "AliasNotFound", 404


class AsyncConfigNotExists(EventdError):
    code, status = "AsyncConfigNotExists", 404


class ServiceAlreadyExists(EventdError):
    code, status = "ServiceAlreadyExists", 409


class FunctionAlreadyExists(EventdError):
    code, status = "FunctionAlreadyExists", 409


class TriggerAlreadyExists(EventdError):
    code, status = "TriggerAlreadyExists", 409


class AliasAlreadyExists(EventdError):
    code, status = "AliasAlreadyExists", 409


class ServiceNotEmpty(EventdError):
    code, status = "ServiceNotEmpty", 409


class FunctionNotEmpty(EventdError):
    code, status = "FunctionNotEmpty", 409


class TriggerConflict(EventdError):
    """Two triggers may not share what this one asks for (an object rule, a consumer group)."""

    code, status = "EventBridgeTriggerConflict", 409


class ConcurrentUpdateError(EventdError):
    code, status = "ConcurrentUpdateError", 409


class PreconditionFailed(EventdError):
    code, status = "PreconditionFailed", 412

    def __init__(self, message: str = "the resource being modified has been changed") -> None:
        super().__init__(message)


class ResourceExhausted(EventdError):
    code, status = "ResourceExhausted", 429


class RecursionDetected(EventdError):
    code, status = "RecursionDetected", 429


class ClientClosedRequest(EventdError):
    code, status = "ClientClosedRequest", 499


class BadResponse(EventdError):
    code, status = "BadResponse", 502


class ResourceThrottled(EventdError):
    code, status = "ResourceThrottled", 503


class ServiceUnavailable(EventdError):
    code, status = "ServiceUnavailable", 503

"""The ``context`` that a handler gets: FC's names, with the older camelCase ones as aliases."""

from __future__ import annotations

import logging
from typing import Any

from .request import Request


class Credentials:
    __slots__ = ("access_key_id", "access_key_secret", "security_token")

    def __init__(self, fields: dict[str, str]) -> None:
        self.access_key_id = fields.get("id", "")
        self.access_key_secret = fields.get("secret", "")
        self.security_token = fields.get("token", "")

    accessKeyId = property(lambda self: self.access_key_id)
    accessKeySecret = property(lambda self: self.access_key_secret)
    securityToken = property(lambda self: self.security_token)

    def to_json(self) -> dict[str, Any]:
        return {
            "accessKeyId": self.access_key_id,
            "accessKeySecret": self.access_key_secret,
            "securityToken": self.security_token,
        }


class Function:
    """``timeout`` and ``memory`` are integers (seconds, MB)."""

    __slots__ = ("handler", "initialization_timeout", "initializer", "memory", "name", "timeout")

    def __init__(self, settings: dict[str, Any], handler: str | None = None) -> None:
        self.name = settings["function"]
        self.handler = handler or settings["handler"]
        self.memory = settings["memory"]
        self.timeout = settings["timeout"]
        self.initializer = settings["initializer"]
        self.initialization_timeout = settings["initializationTimeout"]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "handler": self.handler,
            "memory": self.memory,
            "timeout": self.timeout,
            "initializer": self.initializer,
            "initializationTimeout": self.initialization_timeout,
        }


class Service:
    __slots__ = ("log_project", "log_store", "name", "qualifier", "version_id")

    def __init__(self, settings: dict[str, Any], qualifier: str) -> None:
        self.name = settings["service"]
        self.log_project = settings["logProject"]
        self.log_store = settings["logStore"]
        self.qualifier = qualifier
        self.version_id = settings["version"]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "logProject": self.log_project,
            "logStore": self.log_store,
            "qualifier": self.qualifier,
            "versionId": self.version_id,
        }


class Tracing:
    __slots__ = ("jaeger_endpoint", "span_baggages", "span_context")

    def __init__(self, span_context: str = "", baggages: dict[str, str] | None = None) -> None:
        self.span_context = span_context
        self.span_baggages = baggages or {}
        self.jaeger_endpoint = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "openTracingSpanContext": self.span_context,
            "openTracingSpanBaggages": self.span_baggages,
            "jaegerEndpoint": self.jaeger_endpoint,
        }


class RequestLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """The root logger bound to one request, wherever it is called from."""

    def process(self, msg: Any, kwargs: Any) -> Any:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs


class Context:
    """What FC tells a handler about itself and this request."""

    __slots__ = (
        "_logger",
        "_request",
        "account_id",
        "credentials",
        "function",
        "region",
        "request_id",
        "retry_count",
        "service",
        "tracing",
    )

    _logger: Any
    _request: Request
    request_id: str
    account_id: str
    region: str
    retry_count: int
    credentials: Credentials
    function: Function
    service: Service
    tracing: Tracing

    requestId = property(lambda self: self.request_id)
    accountId = property(lambda self: self.account_id)
    retryCount = property(lambda self: self.retry_count)

    @property
    def logger(self) -> Any:
        if self._logger is None:
            self._logger = RequestLogger(logging.getLogger(), {"eventd_request": self._request})
        return self._logger

    def to_json(self) -> dict[str, Any]:
        return {
            "requestId": self.request_id,
            "credentials": self.credentials.to_json(),
            "function": self.function.to_json(),
            "service": self.service.to_json(),
            "region": self.region,
            "accountId": self.account_id,
            "retryCount": self.retry_count,
            "tracing": self.tracing.to_json(),
        }


class ContextMaker:
    """Makes contexts from the settings of ``INIT``; the constant parts are shared."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._credentials = Credentials(settings["credentials"])
        self._function = Function(settings)
        self._services: dict[str, Service] = {}
        self._tracing = Tracing()
        self._root = logging.getLogger() if settings["concurrency"] == 1 else None

    def make(self, request: Request, hook: str | None = None) -> Context:
        """The context of ``request``; ``hook`` replaces the handler's name in a lifecycle hook."""
        settings = self._settings
        context = Context()
        context._request = request
        context._logger = self._root
        context.request_id = request.request_id
        context.account_id = settings["accountId"]
        context.region = settings["region"]
        context.credentials = self._credentials
        context.function = Function(settings, hook) if hook else self._function
        service = self._services.get(request.qualifier)
        if service is None:
            service = Service(settings, request.qualifier)
            self._services[request.qualifier] = service
        context.service = service
        more = request.more
        context.retry_count = more.get("retry", 0) if more else 0
        context.tracing = (
            Tracing(more.get("span", ""), more.get("baggages")) if more else (self._tracing)
        )
        return context


def environment(settings: dict[str, Any], code_path: str, version: str) -> dict[str, str]:
    """The variables of FC 5.2 and the user's own."""
    keys = settings["credentials"]
    values = {
        "FC_FUNC_CODE_PATH": code_path.rstrip("/") + "/",
        "FC_FUNCTION_MEMORY_SIZE": str(settings["memory"]),
        "FC_RUNTIME_VERSION": version,
        "FC_RUNTIME": settings["runtime"],
        "FC_ACCOUNT_ID": settings["accountId"],
        "FC_REGION": settings["region"],
        "FC_SERVICE_NAME": settings["service"],
        "FC_FUNCTION_NAME": settings["function"],
        "FC_FUNCTION_HANDLER": settings["handler"],
        "FC_QUALIFIER": settings["qualifier"],
        "FC_INSTANCE_ID": settings["instanceId"],
        "FC_VER_ID": settings["version"],
        "ALIBABA_CLOUD_ACCESS_KEY_ID": keys.get("id", ""),
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": keys.get("secret", ""),
        "ALIBABA_CLOUD_SECURITY_TOKEN": keys.get("token", ""),
        "accessKeyID": keys.get("id", ""),
        "accessKeySecret": keys.get("secret", ""),
        "securityToken": keys.get("token", ""),
    }
    return {**settings["environment"], **values}

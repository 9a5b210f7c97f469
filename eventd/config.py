"""Settings in groups: name, unit, default, help. Precedence: file < environment < flag.

The dataclasses below are the table: ``docs/reference/settings.md`` and ``--help`` are made from
them, ``load`` reads them. A key of ``eventd.toml`` is ``group.name`` (``[pool] max_instances``);
its environment variable is ``EVENTD_GROUP_NAME``; the ``server`` group has no group part
(``EVENTD_LISTEN``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def setting(default: Any, help: str, *, unit: str = "") -> Any:  # noqa: A002 - the field's word
    """A dataclass field that carries its help text and unit."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"help": help, "unit": unit})
    return field(default=default, metadata={"help": help, "unit": unit})


@dataclass(frozen=True, slots=True)
class ServerSettings:
    data: Path = setting(Path("data"), "directory for everything that must survive")
    listen: str = setting("127.0.0.1:9980", "address of the API and the functions, HOST:PORT")
    access_key_id: str = setting("", "access key id; written into DATA/access-key if empty")
    access_key_secret: str = setting("", "access key secret")
    account_id: str = setting("", "account id shown in ARNs and payloads; made up if empty")
    region: str = setting("cn-local", "region name shown in ARNs and payloads")
    insecure_http: bool = setting(False, "allow a listener off loopback without TLS")
    tls_cert: str = setting("", "PEM file with the certificate chain")
    tls_key: str = setting("", "PEM file with the private key")
    log_level: str = setting("info", "debug, info, warning or error")
    log_format: str = setting("auto", "auto, human or json (auto: human on a terminal)")
    drain_s: float = setting(30.0, "how long running requests may end after SIGTERM", unit="s")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    max_header_bytes: int = setting(8192, "all request headers together", unit="bytes")
    max_path_bytes: int = setting(4096, "path with query", unit="bytes")
    max_sync_body_bytes: int = setting(32 << 20, "body of a synchronous call", unit="bytes")
    max_async_body_bytes: int = setting(128 << 10, "body of an asynchronous call", unit="bytes")
    max_api_body_bytes: int = setting(104857600, "body of a control call (code)", unit="bytes")
    header_timeout_s: float = setting(10.0, "time to send all headers", unit="s")
    body_min_rate_bytes_s: int = setting(1024, "slowest accepted body, averaged", unit="bytes/s")
    keepalive_s: float = setting(75.0, "how long an idle connection stays open", unit="s")
    max_connections: int = setting(10000, "open client connections")
    attachment: bool = setting(True, "force Content-Disposition: attachment on function pages")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    max_instances: int = setting(100, "instances in total")
    max_instances_per_function: int = setting(50, "instances of one function")
    queue_timeout_s: float = setting(10.0, "how long a call waits for an instance", unit="s")
    max_waiting: int = setting(10000, "calls that may wait for an instance")
    idle_timeout_s: float = setting(300.0, "an idle instance is stopped after", unit="s")
    freeze_after_ms: int = setting(0, "freeze an instance idle for this long, 0 = never", unit="ms")
    blanks: int = setting(2, "prepared instances that wait for a function")
    isolation: str = setting("auto", "auto, or the weakest accepted level: namespaces, process")
    max_result_bytes: int = setting(32 << 20, "largest result of an event handler", unit="bytes")
    max_unpacked_bytes: int = setting(2 << 30, "largest unpacked package", unit="bytes")
    max_log_bytes_s: int = setting(8 << 20, "log output of one instance", unit="bytes/s")


@dataclass(frozen=True, slots=True)
class QueueSettings:
    concurrency: int = setting(64, "asynchronous invocations that run at once")
    max_waiting_put: int = setting(20000, "invocations on their way to disk")
    max_backlog_per_function: int = setting(1000000, "waiting invocations of one function")
    retry_base_s: float = setting(1.0, "first pause between attempts, doubling", unit="s")


@dataclass(frozen=True, slots=True)
class LogSettings:
    keep_hours: int = setting(168, "how long logs and records are kept", unit="h")
    keep_bytes: int = setting(1 << 30, "how much of them", unit="bytes")


@dataclass(frozen=True, slots=True)
class Settings:
    """All groups. ``buckets`` maps a bucket's name to its directory, ``triggers`` an adapter's name
    to its own options."""

    server: ServerSettings = field(default_factory=ServerSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    logs: LogSettings = field(default_factory=LogSettings)
    buckets: Mapping[str, Path] = field(default_factory=dict)
    triggers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

"""Settings in groups: name, unit, default, help. Precedence: file < environment < flag.

The dataclasses below are the table: ``docs/reference/settings.md`` and ``--help`` are made from
them, ``settings.load`` reads them. A key of ``eventd.toml`` is ``group.name``
(``[pool] max_instances``); its environment variable is ``EVENTD_GROUP_NAME``; the ``server`` group
has no group part (``EVENTD_LISTEN``).
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints


class ConfigError(Exception):
    """A setting that cannot be used. The message names the place, the key and what is expected."""


def setting(
    default: Any,
    help: str,  # noqa: A002 - the field's word
    *,
    unit: str = "",
    at_least: float = 0,
    at_most: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that carries its help text, unit and range (ends included)."""
    metadata = {
        "help": help,
        "unit": unit,
        "at_least": at_least,
        "at_most": at_most,
        "choices": choices,
    }
    return field(default=default, metadata=metadata)


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
    log_level: str = setting(
        "info", "what is logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "auto", "auto: human on a terminal, else json", choices=("auto", "human", "json")
    )
    drain_s: float = setting(30.0, "how long running requests may end after SIGTERM", unit="s")
    loop: str = setting("uvloop", "event loop", choices=("uvloop", "asyncio"))


@dataclass(frozen=True, slots=True)
class HttpSettings:
    max_header_bytes: int = setting(
        8192, "all request headers together", unit="bytes", at_least=1024
    )
    max_path_bytes: int = setting(4096, "path with query", unit="bytes", at_least=256)
    max_sync_body_bytes: int = setting(
        32 << 20, "body of a synchronous call", unit="bytes", at_least=1
    )
    max_async_body_bytes: int = setting(
        128 << 10, "body of an asynchronous call", unit="bytes", at_least=1
    )
    max_api_body_bytes: int = setting(
        104857600, "body of a control call (code)", unit="bytes", at_least=1
    )
    header_timeout_s: float = setting(10.0, "time to send all headers", unit="s", at_least=0.001)
    body_min_rate_bytes_s: int = setting(
        1024, "slowest accepted body, averaged", unit="bytes/s", at_least=1
    )
    keepalive_s: float = setting(
        75.0, "how long an idle connection stays open", unit="s", at_least=0.001
    )
    max_connections: int = setting(10000, "open client connections", at_least=1)
    attachment: bool = setting(True, "force Content-Disposition: attachment on function pages")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    max_instances: int = setting(100, "instances in total", at_least=1)
    max_instances_per_function: int = setting(50, "instances of one function", at_least=1)
    queue_timeout_s: float = setting(
        10.0, "how long a call waits for an instance", unit="s", at_least=0.001
    )
    max_waiting: int = setting(10000, "calls that may wait for an instance", at_least=1)
    idle_timeout_s: float = setting(
        300.0, "an idle instance is stopped after", unit="s", at_least=0.001
    )
    freeze_after_ms: int = setting(0, "freeze an instance idle for this long, 0 = never", unit="ms")
    blanks: int = setting(2, "prepared instances that wait for a function", at_most=64)
    isolation: str = setting(
        "auto", "the weakest accepted level", choices=("auto", "namespaces", "process")
    )
    max_result_bytes: int = setting(
        32 << 20, "largest result of an event handler", unit="bytes", at_least=1
    )
    max_unpacked_bytes: int = setting(2 << 30, "largest unpacked package", unit="bytes", at_least=1)
    max_log_bytes_s: int = setting(
        8 << 20, "log output of one instance", unit="bytes/s", at_least=1
    )
    allow_connect: str = setting(
        "", "loopback addresses that functions may reach, HOST:PORT, comma between them"
    )

    def allowed_addresses(self) -> list[tuple[str, int]]:
        """``allow_connect`` in its parts; raises ``ConfigError``."""
        return [
            listen_address(word.strip(), "pool.allow_connect")
            for word in self.allow_connect.split(",")
            if word.strip()
        ]


@dataclass(frozen=True, slots=True)
class QueueSettings:
    concurrency: int = setting(64, "asynchronous invocations that run at once", at_least=1)
    max_waiting_put: int = setting(20000, "invocations on their way to disk", at_least=1)
    max_backlog_per_function: int = setting(
        1000000, "waiting invocations of one function", at_least=1
    )
    retry_base_s: float = setting(
        1.0, "first pause between attempts, doubling", unit="s", at_least=0.001
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    keep_hours: int = setting(168, "how long logs and records are kept", unit="h", at_least=1)
    keep_bytes: int = setting(1 << 30, "how much of them", unit="bytes", at_least=1)


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


GROUPS: tuple[str, ...] = ("server", "http", "pool", "queue", "logs")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        key: ``group.name``, as in ``eventd.toml``.
        variable: its environment variable.
        type: ``bool``, ``int``, ``float``, ``str`` or ``Path``.
        at_least, at_most: the range of a number.
        choices: the accepted texts; empty = any.
    """

    group: str
    name: str
    type: type
    default: Any
    help: str
    unit: str
    at_least: float
    at_most: float
    choices: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{self.group}.{self.name}"

    @property
    def variable(self) -> str:
        group = "" if self.group == "server" else f"{self.group}_"
        return f"EVENTD_{group}{self.name}".upper()

    @property
    def expected(self) -> str:
        """What a value must be, for messages and the reference (``integer (bytes), 1 or more``)."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
        text = words[self.type] + (f" ({self.unit})" if self.unit else "")
        if self.type not in (int, float):
            return text
        if self.at_most < math.inf:
            return f"{text}, {self.at_least:g} to {self.at_most:g}"
        return f"{text}, {self.at_least:g} or more"


def table() -> Iterator[Setting]:
    """Every setting, in the order of the reference."""
    kinds = get_type_hints(Settings)
    for group in GROUPS:
        hints = get_type_hints(kinds[group])
        for entry in fields(kinds[group]):
            yield Setting(group, entry.name, hints[entry.name], entry.default, **entry.metadata)


def listen_address(listen: str, place: str = "server.listen") -> tuple[str, int]:
    """``HOST:PORT`` or ``[IPV6]:PORT`` in its parts; port 0 lets the system choose one.

    Raises ``ConfigError``.
    """
    host, colon, port = listen.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or (":" in bare and not host.startswith("[")):
        raise ConfigError(f"{place}: expected HOST:PORT, got {listen!r}")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigError(f"{place}: expected a port from 0 to 65535, got {port!r}")
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may resolve to anything

"""What the demonstration consists of, as bodies of the FC API."""

from __future__ import annotations

import base64
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVICE = "demo"
BUCKET = "pictures"
TOPIC = "orders"
LOG_DIRECTORY = "logs-demo"

_ROLE = "acs:ram::{account}:role/eventd-demo"
_ZIP_TIME = (2026, 1, 1, 0, 0, 0)  # constant: the same code gives the same package


@dataclass(frozen=True, slots=True)
class PlannedFunction:
    """A function and its triggers, both as request bodies without ``code``."""

    body: dict[str, Any]
    triggers: tuple[dict[str, Any], ...] = field(default=())

    @property
    def name(self) -> str:
        return str(self.body["functionName"])


def package() -> str:
    """The functions' code as a zip in base64, equal bytes for equal code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((Path(__file__).parent / "code").glob("*.py")):
            entry = zipfile.ZipInfo(path.name, _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return base64.b64encode(buffer.getvalue()).decode()


def functions(
    *, data: Path, region: str, account_id: str, kafka: str
) -> tuple[PlannedFunction, ...]:
    """The functions to create.

    Args:
        data: the daemon's data directory; log files below it are watched.
        region, account_id: of the daemon; the bucket's ARN names them.
        kafka: bootstrap servers; empty = without the function ``orders``.
    """
    planned = [
        _function("hello", "answers HTTP requests", _http(), concurrency=10),
        _function("thumbnail", "sees each new picture", _oss(region, account_id)),
        _function("heartbeat", "runs each minute", _timer()),
        _function("errors", "reads new log lines", _log(data)),
    ]
    if kafka:
        planned.append(_function("orders", "reads a Kafka topic", _kafka(kafka)))
    return tuple(planned)


def _function(
    name: str, description: str, trigger: dict[str, Any], *, concurrency: int = 1
) -> PlannedFunction:
    body = {
        "functionName": name,
        "description": description,
        "runtime": "python3",
        "handler": f"{name}.handler",
        "memorySize": 128,
        "timeout": 10,
        "instanceConcurrency": concurrency,
    }
    return PlannedFunction(body, (trigger,))


def _http() -> dict[str, Any]:
    return {
        "triggerName": "web",
        "triggerType": "http",
        "triggerConfig": {"authType": "anonymous", "methods": ["GET", "POST", "HEAD"]},
    }


def _oss(region: str, account_id: str) -> dict[str, Any]:
    return {
        "triggerName": "new-picture",
        "triggerType": "oss",
        "sourceArn": f"acs:oss:{region}:{account_id}:{BUCKET}",
        "invocationRole": _ROLE.format(account=account_id),
        "triggerConfig": {
            "events": ["oss:ObjectCreated:*"],
            "filter": {"key": {"prefix": "", "suffix": ""}},
        },
    }


def _timer() -> dict[str, Any]:
    return {
        "triggerName": "each-minute",
        "triggerType": "timer",
        "triggerConfig": {"cronExpression": "@every 1m", "enable": True, "payload": ""},
    }


def _log(data: Path) -> dict[str, Any]:
    return {
        "triggerName": "new-lines",
        "triggerType": "log",
        "triggerConfig": {"path": str(data / LOG_DIRECTORY / "*.log")},
    }


def _kafka(servers: str) -> dict[str, Any]:
    return {
        "triggerName": "new-order",
        "triggerType": "kafka",
        "triggerConfig": {
            "bootstrapServers": servers,
            "topic": TOPIC,
            "consumerGroup": "eventd-demo",
            "startingPosition": "earliest",
        },
    }

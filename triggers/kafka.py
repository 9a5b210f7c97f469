"""Kafka trigger: records of a topic, as a consumer group of its own.

{"bootstrapServers": "127.0.0.1:9092", "topic": "orders", "startingPosition": "latest"}
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ssl import SSLContext
from typing import Annotated, Any, ClassVar, Literal

from aiokafka.helpers import create_ssl_context
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from eventd.plugin import (
    InvalidArgument,
    Rule,
    SourceSettings,
    Trigger,
    TriggerConfig,
    TriggerType,
)
from triggers.kafka_consumption import Consumption
from triggers.kafka_lanes import OrderBy
from triggers.kafka_source import KafkaSource

_STRICT = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")
_TOPIC = r"^[a-zA-Z0-9._-]{1,249}$"
_SERVERS = r"^[^\s,:]+:\d{1,5}(\s*,\s*[^\s,:]+:\d{1,5})*$"
REVOKE_GRACE_S = 5.0


class KafkaSecurity(BaseModel):
    """How to speak to the brokers; certificate files are paths on the daemon's machine."""

    model_config = _STRICT

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str = ""
    password: Annotated[str, Field(repr=False)] = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @model_validator(mode="after")
    def _credentials_given(self) -> KafkaSecurity:
        if self.protocol.startswith("SASL") and not (self.username and self.password):
            raise ValueError(f"{self.protocol} needs username and password")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("certFile and keyFile belong together")
        return self

    def client_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        if self.protocol.endswith("SSL"):
            options["tls"] = Tls(self.ca_file, self.cert_file, self.key_file)
        return options


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate files, read when a connection is made."""

    ca_file: str
    cert_file: str
    key_file: str

    def context(self) -> SSLContext:
        """Raises ``OSError`` when a file cannot be read."""
        made: SSLContext = create_ssl_context(
            cafile=self.ca_file or None,
            certfile=self.cert_file or None,
            keyfile=self.key_file or None,
        )
        return made


class KafkaClient(BaseModel):
    """Timing and sizes of the client, in Kafka's own words; not needed as a rule."""

    model_config = _STRICT

    session_timeout_ms: Annotated[int, Field(ge=1000, le=1_800_000)] = 10_000
    heartbeat_interval_ms: Annotated[int, Field(ge=100, le=600_000)] = 3_000
    rebalance_timeout_ms: Annotated[int, Field(ge=1000, le=1_800_000)] = 30_000
    request_timeout_ms: Annotated[int, Field(ge=1000, le=600_000)] = 15_000
    metadata_max_age_ms: Annotated[int, Field(ge=500, le=3_600_000)] = 60_000
    max_partition_fetch_bytes: Annotated[int, Field(ge=1024, le=64 << 20)] = 1 << 20
    fetch_max_bytes: Annotated[int, Field(ge=1024, le=256 << 20)] = 16 << 20

    @model_validator(mode="after")
    def _heartbeat_within_session(self) -> KafkaClient:
        if self.heartbeat_interval_ms * 2 > self.session_timeout_ms:
            raise ValueError("heartbeatIntervalMs may be at most half of sessionTimeoutMs")
        return self


class KafkaConfig(TriggerConfig):
    """``triggerConfig`` of the native type.

    Attributes:
        bootstrap_servers: ``HOST:PORT``, comma-separated; empty: ``bootstrap_servers`` of
            ``[triggers.kafka]`` in ``eventd.toml``.
        consumer_group: empty: ``eventd-SERVICE-FUNCTION-TRIGGER``.
        starting_position: for a group without commits: ``latest``, ``earliest`` or an RFC 3339
            time. Fixed when the trigger is created, so nothing that comes later is skipped.
        batch_size, batch_window_seconds: a call gets up to so many records, and waits for them at
            most so long.
        order_by: records of one ``partition`` or one ``key`` run one after the other, or ``none``.
        concurrency: calls at once.
        on_poison: what follows a record's last attempt: ``skip`` dead-letters it and goes on.
        on_revoke: ``release`` gives running calls 5 s when a partition is taken away, ``wait``
            half the rebalance timeout.
    """

    model_config = ConfigDict(extra="forbid")

    bootstrap_servers: Annotated[str, Field(pattern=_SERVERS)] | Literal[""] = ""
    topic: Annotated[str, Field(pattern=_TOPIC)]
    consumer_group: Annotated[str, Field(max_length=255)] = ""
    starting_position: str = "latest"
    batch_size: Annotated[int, Field(ge=1, le=10_000)] = 1
    batch_window_seconds: Annotated[float, Field(ge=0, le=300)] = 0.0
    order_by: OrderBy = OrderBy.PARTITION
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 64
    on_poison: Literal["skip"] = "skip"
    on_revoke: Literal["release", "wait"] = "release"
    enable: bool = True
    security: KafkaSecurity = KafkaSecurity()
    client: KafkaClient = KafkaClient()

    @field_validator("topic")
    @classmethod
    def _not_a_path(cls, topic: str) -> str:
        if topic in (".", ".."):
            raise ValueError("a topic cannot be named '.' or '..'")
        return topic

    @field_validator("starting_position")
    @classmethod
    def _position(cls, text: str) -> str:
        if text not in ("latest", "earliest"):
            try:
                datetime.fromisoformat(text)
            except ValueError:
                raise ValueError("expected latest, earliest or an RFC 3339 time") from None
        return text

    def position(self) -> str | datetime:
        if self.starting_position in ("latest", "earliest"):
            return self.starting_position
        moment = datetime.fromisoformat(self.starting_position)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def group_of(trigger: Trigger[Any], configured: str) -> str:
    return configured or f"eventd-{trigger.service}-{trigger.function}-{trigger.name}"


def subscription_claims(servers: str, topic: str, group: str) -> dict[str, str]:
    """Within one group two triggers would each see a part of the topic."""
    text = f"consumer group '{group}' already reads topic '{topic}' of this cluster"
    return {f"kafka|{host.strip()}|{topic}|{group}": text for host in servers.split(",")}


class KafkaTrigger(TriggerType[KafkaConfig]):
    name: ClassVar[str] = "kafka"
    config = KafkaConfig
    secrets = (("security", "password"),)

    def source_key(self, trigger: Trigger[KafkaConfig], settings: SourceSettings) -> str | None:
        return f"kafka:{trigger.id}" if trigger.config.enable else None

    def rule(self, trigger: Trigger[KafkaConfig], settings: SourceSettings) -> Rule:
        return Rule(source=f"kafka:{trigger.id}")

    def source(self, trigger: Trigger[KafkaConfig], settings: SourceSettings) -> KafkaSource:
        config = trigger.config
        timing = config.client
        grace_s = REVOKE_GRACE_S
        if config.on_revoke == "wait":
            grace_s = timing.rebalance_timeout_ms / 2000.0
        return KafkaSource(
            Consumption(
                bootstrap_servers=_servers(config, settings),
                topic=config.topic,
                group=group_of(trigger, config.consumer_group),
                instance="eventd",
                account_id=settings.account_id,
                position=config.position(),
                order_by=config.order_by,
                batch_size=config.batch_size,
                batch_window_s=config.batch_window_seconds,
                concurrency=config.concurrency,
                attempts=3,
                revoke_grace_s=min(grace_s, timing.rebalance_timeout_ms / 2000.0),
                client=timing.model_dump() | config.security.client_options(),
            )
        )

    def validate(self, trigger: Trigger[KafkaConfig], settings: SourceSettings) -> None:
        if not _servers(trigger.config, settings):
            raise InvalidArgument(
                "expected HOST:PORT, comma-separated, here or as bootstrap_servers of "
                "[triggers.kafka]",
                field="triggerConfig.bootstrapServers",
            )

    def claims(self, trigger: Trigger[KafkaConfig], settings: SourceSettings) -> dict[str, str]:
        config = trigger.config
        group = group_of(trigger, config.consumer_group)
        return subscription_claims(_servers(config, settings), config.topic, group)


def _servers(config: KafkaConfig, settings: SourceSettings) -> str:
    return config.bootstrap_servers or str(settings.options.get("bootstrap_servers", ""))

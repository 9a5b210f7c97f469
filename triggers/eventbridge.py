"""``eventbridge`` trigger with a Kafka source: FC's own way to name a topic.

It becomes the same consumption and payload as the native ``kafka`` trigger. Where the cluster is
says ``[triggers.eventbridge]`` of ``eventd.toml``: ``instances = {NAME = "HOST:PORT"}`` maps an
``InstanceId``, ``bootstrap_servers`` serves those that are not listed; an ``InstanceId`` of the
form ``HOST:PORT`` is taken as it is. Other source types and filter patterns are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel, to_pascal

from eventd.plugin import (
    InvalidArgument,
    Rule,
    SourceSettings,
    Trigger,
    TriggerConfig,
    TriggerType,
)
from triggers.kafka import REVOKE_GRACE_S, KafkaClient, group_of, subscription_claims
from triggers.kafka_consumption import Consumption
from triggers.kafka_lanes import OrderBy
from triggers.kafka_source import KafkaSource

_CAMEL = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)
_PASCAL = ConfigDict(alias_generator=to_pascal, populate_by_name=True, frozen=True)


class _AnyCase(BaseModel):
    """Keys match whatever their case, unknown ones are ignored, ``null`` is absent (FC 6.9)."""

    model_config = _CAMEL

    @model_validator(mode="before")
    @classmethod
    def _fold_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        known = {(f.alias or name).lower(): name for name, f in cls.model_fields.items()}
        return {
            known[key.lower()]: value
            for key, value in data.items()
            if key.lower() in known and value is not None
        }


class SourceKafkaParameters(_AnyCase):
    model_config = _PASCAL

    instance_id: Annotated[str, Field(min_length=1)]
    topic: Annotated[str, Field(min_length=1, max_length=249)]
    consumer_group: str = ""
    offset_reset: Literal["latest", "earliest"] = "latest"


class EventSourceParameters(_AnyCase):
    source_kafka_parameters: SourceKafkaParameters | None = None


class EventSourceConfig(_AnyCase):
    event_source_type: str
    event_source_parameters: EventSourceParameters = EventSourceParameters()


class DeliveryOption(_AnyCase):
    event_schema: Literal["CloudEvents", "RawData"] = "CloudEvents"
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 64


class EventSinkConfig(_AnyCase):
    delivery_option: DeliveryOption = DeliveryOption()


class RetryStrategy(_AnyCase):
    model_config = _PASCAL

    maximum_retry_attempts: Annotated[int, Field(ge=0)] = 0


class BatchWindow(_AnyCase):
    model_config = _PASCAL

    count_based_window: Annotated[int, Field(ge=1, le=10_000)] = 1
    time_based_window: Annotated[int, Field(ge=0, le=15)] = 0


class RunOptions(_AnyCase):
    mode: Literal["event-driven", "event-streaming"] = "event-streaming"
    errors_tolerance: Literal["NONE", "ALL"] = "NONE"
    retry_strategy: RetryStrategy = RetryStrategy()
    batch_window: BatchWindow = BatchWindow()


class EventBridgeConfig(TriggerConfig):
    trigger_enable: bool = True
    async_invocation_type: bool = False
    event_rule_filter_pattern: str = "{}"
    event_source_config: EventSourceConfig
    event_sink_config: EventSinkConfig = EventSinkConfig()
    run_options: RunOptions = RunOptions()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None}
        return data

    @field_validator("event_rule_filter_pattern")
    @classmethod
    def _pattern(cls, text: str) -> str:
        try:
            pattern = json.loads(text)
        except ValueError:
            raise ValueError("expected a JSON object in a string") from None
        if pattern != {}:
            raise ValueError('a Kafka source takes "{}" (every record) only')
        return text


class EventBridgeTrigger(TriggerType[EventBridgeConfig]):
    name: ClassVar[str] = "eventbridge"
    config = EventBridgeConfig

    def source_key(
        self, trigger: Trigger[EventBridgeConfig], settings: SourceSettings
    ) -> str | None:
        return f"eventbridge:{trigger.id}" if trigger.config.trigger_enable else None

    def rule(self, trigger: Trigger[EventBridgeConfig], settings: SourceSettings) -> Rule:
        return Rule(source=f"eventbridge:{trigger.id}")

    def source(self, trigger: Trigger[EventBridgeConfig], settings: SourceSettings) -> KafkaSource:
        config = trigger.config
        kafka = _kafka(config)
        retries = config.run_options.retry_strategy.maximum_retry_attempts
        return KafkaSource(
            Consumption(
                bootstrap_servers=_servers(kafka, settings),
                topic=kafka.topic,
                group=group_of(trigger, kafka.consumer_group),
                instance=kafka.instance_id,
                account_id=settings.account_id,
                position=kafka.offset_reset,
                order_by=OrderBy.PARTITION,
                batch_size=config.run_options.batch_window.count_based_window,
                batch_window_s=config.run_options.batch_window.time_based_window,
                concurrency=config.event_sink_config.delivery_option.concurrency,
                attempts=retries + 1 if retries else 3,
                revoke_grace_s=REVOKE_GRACE_S,
                client=KafkaClient.model_validate(settings.options.get("client", {})).model_dump(),
                raw_data=config.event_sink_config.delivery_option.event_schema == "RawData",
                queued=config.async_invocation_type,
            )
        )

    def validate(self, trigger: Trigger[EventBridgeConfig], settings: SourceSettings) -> None:
        kafka = _kafka(trigger.config)
        if trigger.config.run_options.mode != "event-streaming":
            raise InvalidArgument(
                "a Kafka source runs in mode event-streaming only",
                field="triggerConfig.runOptions.mode",
            )
        if not _servers(kafka, settings):
            raise InvalidArgument(
                f"'{kafka.instance_id}' is neither HOST:PORT nor named in "
                "[triggers.eventbridge] instances",
                field="triggerConfig.eventSourceConfig.eventSourceParameters"
                ".sourceKafkaParameters.InstanceId",
            )

    def claims(
        self, trigger: Trigger[EventBridgeConfig], settings: SourceSettings
    ) -> dict[str, str]:
        kafka = _kafka(trigger.config)
        group = group_of(trigger, kafka.consumer_group)
        return subscription_claims(_servers(kafka, settings), kafka.topic, group)


def _kafka(config: EventBridgeConfig) -> SourceKafkaParameters:
    """Raises ``InvalidArgument`` for another source type."""
    source = config.event_source_config
    if source.event_source_type != "Kafka":
        raise InvalidArgument(
            f"expected Kafka, actual: '{source.event_source_type}'; other event sources are not "
            "served here",
            field="triggerConfig.eventSourceConfig.eventSourceType",
        )
    found = source.event_source_parameters.source_kafka_parameters
    if found is None:
        raise InvalidArgument(
            "required for eventSourceType Kafka",
            field="triggerConfig.eventSourceConfig.eventSourceParameters.sourceKafkaParameters",
        )
    return found


def _servers(kafka: SourceKafkaParameters, settings: SourceSettings) -> str:
    instances = settings.options.get("instances", {})
    if kafka.instance_id in instances:
        return str(instances[kafka.instance_id])
    if ":" in kafka.instance_id:
        return kafka.instance_id
    return str(settings.options.get("bootstrap_servers", ""))

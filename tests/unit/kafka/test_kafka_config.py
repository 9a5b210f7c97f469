"""What a Kafka trigger's configuration accepts and refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from eventd.model.secrets import MASK, unmasked
from eventd.plugin import InvalidArgument, SourceSettings, Trigger, TriggerConfig
from triggers.eventbridge import EventBridgeConfig, EventBridgeTrigger
from triggers.kafka import KafkaConfig, KafkaTrigger

SETTINGS = SourceSettings(Path("/nonexistent"), "42", "cn-local")


def make(config: TriggerConfig, name: str = "t") -> Trigger[Any]:
    return Trigger(f"id-{name}", "s", "f", name, "LATEST", None, config, {}, "", "")


def kafka(**config: Any) -> KafkaConfig:
    return KafkaConfig.model_validate({"bootstrapServers": "b:9092", "topic": "t", **config})


def bridge(source_type: str = "Kafka", **parameters: Any) -> EventBridgeConfig:
    return EventBridgeConfig.model_validate(
        {
            "eventRuleFilterPattern": "{}",
            "eventSourceConfig": {
                "eventSourceType": source_type,
                "eventSourceParameters": {
                    "sourceKafkaParameters": {
                        "InstanceId": "b:9092",
                        "Topic": "t",
                        "ConsumerGroup": "g",
                        **parameters,
                    }
                },
            },
            "runOptions": {"batchWindow": {"CountBasedWindow": 7, "TimeBasedWindow": 2}},
        }
    )


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"topic": "no/slash"}, "topic"),
        ({"topic": ".."}, "topic"),
        ({"bootstrapServers": "no-port"}, "bootstrapServers"),
        ({"batchSize": 0}, "batchSize"),
        ({"batchWindowSeconds": -1}, "batchWindowSeconds"),
        ({"orderBy": "time"}, "orderBy"),
        ({"onPoison": "park"}, "onPoison"),
        ({"startingPosition": "soon"}, "startingPosition"),
        ({"misspelt": 1}, "misspelt"),
        ({"security": {"protocol": "SASL_SSL"}}, "security"),
        ({"security": {"protocol": "SSL", "certFile": "c"}}, "security"),
        ({"client": {"sessionTimeoutMs": 2000}}, "client"),
        ({"client": {"unknown": 1}}, "client"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kafka(**config)

    assert field in {str(error["loc"][0]) for error in caught.value.errors()}


def test_a_starting_time_without_zone_is_utc() -> None:
    assert kafka(startingPosition="2026-01-02T03:04:05").position() == datetime(
        2026, 1, 2, 3, 4, 5, tzinfo=UTC
    )
    assert kafka().position() == "latest"


def test_one_group_reads_a_topic_once() -> None:
    adapter = KafkaTrigger()
    first = adapter.claims(
        make(kafka(bootstrapServers="a:1, b:2", consumerGroup="g"), "t1"), SETTINGS
    )
    second = adapter.claims(make(kafka(bootstrapServers="b:2", consumerGroup="g"), "t2"), SETTINGS)

    shared = first.keys() & second.keys()
    assert {first[claim] for claim in shared} == {
        "consumer group 'g' already reads topic 't' of this cluster"
    }
    for other in (
        kafka(bootstrapServers="c:1", consumerGroup="g"),
        kafka(bootstrapServers="b:2", consumerGroup="h"),
        kafka(bootstrapServers="b:2", consumerGroup="g", topic="u"),
        kafka(bootstrapServers="b:2"),  # a group of its own by default
    ):
        assert not adapter.claims(make(other, "t2"), SETTINGS).keys() & first.keys()


def test_a_disabled_trigger_has_no_source() -> None:
    assert KafkaTrigger().source_key(make(kafka(enable=False)), SETTINGS) is None
    assert KafkaTrigger().source_key(make(kafka()), SETTINGS) == "kafka:id-t"


def test_a_trigger_without_servers_needs_them_in_the_settings() -> None:
    trigger = make(kafka(bootstrapServers=""))
    configured = SourceSettings(
        Path("/nonexistent"), "42", "cn-local", options={"bootstrap_servers": "b:1"}
    )

    with pytest.raises(InvalidArgument, match=r"triggerConfig\.bootstrapServers"):
        KafkaTrigger().validate(trigger, SETTINGS)
    KafkaTrigger().validate(trigger, configured)


def test_event_bridge_keys_match_in_any_case_and_become_a_consumption() -> None:
    config = EventBridgeConfig.model_validate(
        {
            "eventRuleFilterPattern": "{}",
            "asyncInvocationType": None,
            "eventSourceConfig": {
                "EventSourceType": "Kafka",
                "eventSourceParameters": {
                    "SourceKafkaParameters": {
                        "instanceId": "cluster",
                        "topic": "t",
                        "offsetreset": "earliest",
                        "RegionId": "ignored",
                    }
                },
            },
        }
    )
    named = SourceSettings(
        Path("/nonexistent"), "42", "cn-local", options={"instances": {"cluster": "b:1"}}
    )
    trigger = make(config)

    EventBridgeTrigger().validate(trigger, named)
    plan = EventBridgeTrigger().source(trigger, named)._consumption

    assert (plan.bootstrap_servers, plan.instance, plan.position) == ("b:1", "cluster", "earliest")
    assert plan.group == "eventd-s-f-t"
    with pytest.raises(InvalidArgument, match="'cluster' is neither HOST:PORT nor named"):
        EventBridgeTrigger().validate(trigger, SETTINGS)


def test_event_bridge_windows_become_batches() -> None:
    plan = EventBridgeTrigger().source(make(bridge()), SETTINGS)._consumption

    assert (plan.batch_size, plan.batch_window_s) == (7, 2)


def test_event_bridge_serves_kafka_only_and_says_so() -> None:
    with pytest.raises(InvalidArgument, match="expected Kafka, actual: 'MNS'"):
        EventBridgeTrigger().validate(make(bridge("MNS")), SETTINGS)


@pytest.mark.parametrize("pattern", ["", "[", '{"source":["x"]}', "[]"])
def test_event_bridge_refuses_patterns_that_it_does_not_apply(pattern: str) -> None:
    raw = bridge().model_dump(by_alias=True) | {"eventRuleFilterPattern": pattern}

    with pytest.raises(ValidationError):
        EventBridgeConfig.model_validate(raw)


def test_two_bridges_may_not_share_a_group() -> None:
    def claims(trigger: Trigger[Any]) -> set[str]:
        adapter = KafkaTrigger() if isinstance(trigger.config, KafkaConfig) else bridges
        return set(adapter.claims(trigger, SETTINGS))  # type: ignore[arg-type]

    bridges = EventBridgeTrigger()
    one = bridge(InstanceId="b:2", Topic="t", ConsumerGroup="g")
    native = kafka(bootstrapServers="b:2", topic="t", consumerGroup="g")

    assert claims(make(one, "t1")) & claims(make(one, "t2"))
    assert claims(make(one, "t1")) & claims(make(native, "t2"))
    assert not claims(make(bridge(ConsumerGroup="h"), "t1")) & claims(make(bridge(), "t2"))


def test_a_password_is_masked_and_the_mask_keeps_it() -> None:
    stored = {"topic": "t", "Security": {"PASSWORD": "secret", "username": "u"}}
    shown = KafkaTrigger().response_config(stored)

    assert shown == {"topic": "t", "Security": {"PASSWORD": MASK, "username": "u"}}
    assert stored["Security"]["PASSWORD"] == "secret"  # type: ignore[index]
    assert unmasked(shown, stored, KafkaTrigger.secrets) == stored
    changed = {"security": {"password": "new"}}
    assert unmasked(changed, stored, KafkaTrigger.secrets) == changed
    assert "secret" not in repr(
        kafka(security={"protocol": "SASL_SSL", "username": "u", "password": "secret"})
    )

"""OSS trigger: objects of a bucket. A bucket is a watched directory.

Source: Function Compute 2.0, "OSS trigger overview".
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from eventd.plugin import (
    Event,
    InvalidArgument,
    Rule,
    Source,
    SourceSettings,
    Trigger,
    TriggerConfig,
    TriggerType,
)
from triggers.oss.directory import DirectorySource
from triggers.oss.events import EVENT_NAMES, parse_arn, rule_id, with_rule
from triggers.oss.watch import DirectoryOptions


class _LowerCase(BaseModel):
    """FC's own tools send ``filter.Key.Prefix``."""

    model_config = ConfigDict(frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key).lower(): each for key, each in value.items()}
        return value


class KeyFilter(_LowerCase):
    prefix: str = ""
    suffix: str = ""


class ObjectFilter(_LowerCase):
    key: KeyFilter = Field(default_factory=KeyFilter)


class OssConfig(TriggerConfig):
    """``triggerConfig`` of an OSS trigger: event names, and which keys."""

    model_config = ConfigDict(strict=True)

    events: list[str] = Field(min_length=1)
    filter: ObjectFilter = Field(default_factory=ObjectFilter)

    @field_validator("events")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in EVENT_NAMES:
                known = ", ".join(sorted(EVENT_NAMES))
                raise ValueError(f"{name!r} is no event of OSS; expected one of {known}")
        return names


class OssTrigger(TriggerType[OssConfig]):
    name = "oss"
    config = OssConfig

    def validate(self, trigger: Trigger[OssConfig], settings: SourceSettings) -> None:
        try:
            parse_arn(trigger.source_arn)
        except ValueError as error:
            raise InvalidArgument(str(error), field="sourceArn") from error

    def source_key(self, trigger: Trigger[OssConfig], settings: SourceSettings) -> str | None:
        return f"oss:{parse_arn(trigger.source_arn).arn}"

    def rule(self, trigger: Trigger[OssConfig], settings: SourceSettings) -> Rule:
        key = trigger.config.filter.key
        return Rule(
            source=f"oss:{parse_arn(trigger.source_arn).arn}",
            types=tuple(trigger.config.events),
            prefix=key.prefix,
            suffix=key.suffix,
        )

    def source(self, trigger: Trigger[OssConfig], settings: SourceSettings) -> Source:
        bucket = parse_arn(trigger.source_arn)
        root = settings.buckets.get(bucket.name) or settings.data_dir / "buckets" / bucket.name
        options = DirectoryOptions.model_validate(dict(settings.options))
        return DirectorySource(bucket, root, options)

    def source_version(self, trigger: Trigger[OssConfig]) -> str:
        """A bucket is watched whole, whatever its triggers ask for."""
        return ""

    def conflict(self, trigger: Trigger[OssConfig], other: Trigger[OssConfig]) -> str | None:
        """FC's rule: refused when events, prefix and suffix all overlap."""
        if trigger.id == other.id:
            return None
        bucket = parse_arn(trigger.source_arn).name
        if bucket != parse_arn(other.source_arn).name:
            return None
        mine, its = trigger.config.filter.key, other.config.filter.key
        if (
            _events_overlap(trigger.config.events, other.config.events)
            and _starts(mine.prefix, its.prefix)
            and _ends(mine.suffix, its.suffix)
        ):
            return (
                f"triggerConfig: events, prefix and suffix overlap with those of the trigger "
                f"{other.name!r} of {other.service}/{other.function} on the bucket {bucket}"
            )
        return None

    def payload(self, event: Event, trigger: Trigger[OssConfig], settings: SourceSettings) -> bytes:
        return with_rule(event.data, rule_id(trigger.id))


def _events_overlap(mine: list[str], its: list[str]) -> bool:
    return any(
        a == b
        or (a.endswith(":*") and b.startswith(a[:-1]))
        or (b.endswith(":*") and a.startswith(b[:-1]))
        for a in mine
        for b in its
    )


def _starts(a: str, b: str) -> bool:
    return a.startswith(b) or b.startswith(a)


def _ends(a: str, b: str) -> bool:
    return a.endswith(b) or b.endswith(a)

"""From a stored trigger to the one its adapter sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from eventd.errors import InvalidArgument
from eventd.model.resources import LATEST, TriggerRecord
from eventd.plugin import Trigger, TriggerType


def typed_trigger(record: TriggerRecord, trigger_type: TriggerType[Any]) -> Trigger[Any]:
    """The trigger as its adapter sees it. ``InvalidArgument``: the config does not fit the type;
    the message has the path of the field."""
    try:
        config = trigger_type.config.model_validate(_without_nulls(record.config))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(("triggerConfig", *(str(part) for part in first["loc"])))
        reason = first.get("ctx", {}).get("error")
        raise InvalidArgument(str(reason or first["msg"]), field=path) from error
    return Trigger(
        id=record.trigger_id,
        service=record.service,
        function=record.function,
        name=record.name,
        qualifier=record.qualifier or LATEST,
        source_arn=record.source_arn,
        config=config,
        raw_config=record.config,
        created_time=record.created_time,
        last_modified_time=record.last_modified_time,
    )


def _without_nulls(value: Any) -> Any:
    """FC: a null is an absent key."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value

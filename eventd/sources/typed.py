"""From a stored trigger to the one its adapter sees."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from eventd.model.argument import argument_error
from eventd.model.resources import LATEST, TriggerRecord
from eventd.plugin import Trigger, TriggerType


def typed_trigger(record: TriggerRecord, kind: TriggerType[Any]) -> Trigger[Any]:
    """The trigger as its adapter sees it. Raises ``InvalidArgument`` naming the config's field."""
    try:
        config = kind.config.model_validate(record.config)
    except ValidationError as error:
        raise argument_error(error.errors(include_url=False)[0], "triggerConfig") from error
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

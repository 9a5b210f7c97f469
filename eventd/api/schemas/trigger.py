"""``CreateTrigger`` and ``UpdateTrigger``; ``triggerConfig`` is checked by the trigger's type."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from eventd.api.schemas.fields import Description, FcObject, Name, VersionText, text


class UpdateTrigger(FcObject):
    """Every key may be absent and is then kept; name, type and source ARN are ignored."""

    trigger_config: dict[str, Any] = Field(default_factory=dict)
    invocation_role: Annotated[str, text(300)] = ""
    qualifier: VersionText | None = None
    description: Description = ""


class CreateTrigger(UpdateTrigger):
    trigger_name: Name
    trigger_type: Annotated[str, text(64, least=1)]
    trigger_config: dict[str, Any]
    source_arn: Annotated[str, text(1024)] | None = None

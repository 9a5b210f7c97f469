"""HTTP trigger: which methods and which callers a function's URL takes. It watches nothing.

Source: Function Compute 2.0, "HTTP trigger".
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from eventd.plugin import (
    Rule,
    Source,
    SourceSettings,
    Trigger,
    TriggerConfig,
    TriggerType,
)

Method = Literal["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


class HttpConfig(TriggerConfig):
    """``triggerConfig`` of an HTTP trigger.

    Attributes:
        auth_type: ``function`` asks for a signature, ``anonymous`` for none.
        methods: the others are refused.
        disable_url_internet: the function's default URL answers 403.
    """

    model_config = ConfigDict(strict=True)

    auth_type: Literal["anonymous", "function"] = "function"
    methods: list[Method] = Field(min_length=1)
    disable_url_internet: bool = Field(default=False, alias="disableURLInternet")


class HttpTrigger(TriggerType[HttpConfig]):
    name = "http"
    config = HttpConfig
    has_source_arn: ClassVar[bool] = False

    def source_key(self, trigger: Trigger[HttpConfig], settings: SourceSettings) -> str | None:
        return None

    def rule(self, trigger: Trigger[HttpConfig], settings: SourceSettings) -> Rule:
        """No source ever emits under this key."""
        return Rule(source=f"http:{trigger.id}")

    def source(self, trigger: Trigger[HttpConfig], settings: SourceSettings) -> Source:
        raise NotImplementedError("an http trigger has no source; source_key says so")

    def conflict(self, trigger: Trigger[HttpConfig], other: Trigger[HttpConfig]) -> str | None:
        """One HTTP trigger per version or alias of a function."""
        same = (trigger.service, trigger.function, trigger.qualifier or "LATEST") == (
            other.service,
            other.function,
            other.qualifier or "LATEST",
        )
        if same and trigger.id != other.id:
            return (
                f"the function already has the http trigger {other.name!r} for the qualifier "
                f"{trigger.qualifier or 'LATEST'}"
            )
        return None

"""``PutFunctionAsyncInvokeConfig``. FC 2016-08-15, "AsyncInvokeConfig"."""

from __future__ import annotations

from typing import Annotated, Any

from eventd.api.schemas.fields import FcObject, between, matching

# The resource part is the target's own matter; an empty text is no destination.
_ARN = "^(acs:[a-z]+:[^:]*:[^:]*:.+)?$"


class Destination(FcObject):
    destination: Annotated[str, matching(_ARN, max_length=512)] | None = None


class DestinationConfig(FcObject):
    on_success: Destination | None = None
    on_failure: Destination | None = None


class PutAsyncConfig(FcObject):
    """Replaces what was stored; a value that is not given reads back as ``null``."""

    destination_config: DestinationConfig | None = None
    max_async_event_age_in_seconds: Annotated[int, between(1, 2592000)] | None = None
    max_async_retry_attempts: Annotated[int, between(0, 8)] | None = None
    stateful_invocation: bool = False

    def config(self) -> dict[str, Any]:
        """A member of ``destinationConfig`` that was not sent is not answered."""
        config = super().config()
        if config["destinationConfig"] is not None:
            config["destinationConfig"] = {
                name: target
                for name, target in config["destinationConfig"].items()
                if target is not None
            }
        return config

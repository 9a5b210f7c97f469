"""Account settings. FC 2016-08-15, "Account settings"."""

from __future__ import annotations

from aiohttp import web

from eventd.api.errors import json_response
from eventd.api.state import ControlState
from eventd.errors import InvalidArgument


class Account:
    def __init__(self, state: ControlState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/2016-08-15/account-settings", self.settings, allow_head=False),
            web.get("/2016-08-15/accountConfigs", self.configs, allow_head=False),
        ]

    async def settings(self, request: web.Request) -> web.Response:
        return json_response(
            {
                "availableAZs": list(self._state.available_azs),
                "defaultRole": f"acs:ram::{self._state.settings.account_id}:role/fc-default",
            }
        )

    async def configs(self, request: web.Request) -> web.Response:
        """The asked ``config`` values, as texts; all of them when none is asked for."""
        limits = self._state.limits
        known = {
            "CodeSizeLimit": str(limits.body_bytes),
            "GPUCodeSizeLimit": str(limits.body_bytes),
            "Concurrency": "100",
            "EnhancedCodeSizeLimit": str(limits.object_bytes),
        }
        asked = [name for name in request.query.getall("config", []) if name] or list(known)
        for name in asked:
            if name not in known:
                raise InvalidArgument(
                    "Config is set to an invalid value "
                    f"(allowed: {' | '.join(known)}, actual: '{name[:50]}')"
                )
        return json_response({name: known[name] for name in asked})

"""Triggers: what every type has in common; the rest is its own. FC 2016-08-15, "Triggers"."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from eventd.api.body import read_object
from eventd.api.errors import json_response
from eventd.api.lookup import check_match, editable, find_service, view_of
from eventd.api.pagination import PageQuery, page, with_token
from eventd.api.schemas.fields import parse
from eventd.api.schemas.trigger import CreateTrigger, UpdateTrigger
from eventd.api.state import ControlState
from eventd.api.writing import retrying
from eventd.errors import (
    InvalidArgument,
    LimitExceeded,
    TriggerAlreadyExists,
    TriggerConflict,
    TriggerNotFound,
)
from eventd.model.resources import LATEST, JsonObject, TriggerRecord
from eventd.model.secrets import unmasked
from eventd.plugin import Trigger, TriggerType
from eventd.sources.typed import typed_trigger
from eventd.store.interface import StaleWrite

log = logging.getLogger(__name__)

_CONFLICTS = "*triggers"
"""Held beside the service: conflicts are looked for across services (``*`` is in no name)."""


class Triggers:
    def __init__(self, state: ControlState) -> None:
        self._state = state
        self._metadata = state.metadata
        # type → trigger id → etag and the typed trigger, to look for conflicts
        self._typed: dict[str, dict[str, tuple[str, Trigger[Any]]]] = {}

    def routes(self) -> list[web.RouteDef]:
        many = "/2016-08-15/services/{service}/functions/{function}/triggers"
        one = many + "/{trigger}"
        return [
            web.post(many, self.create),
            web.get(many, self.list_page, allow_head=False),
            web.get(one, self.get, allow_head=False),
            web.put(one, self.update),
            web.delete(one, self.delete),
        ]

    async def create(self, request: web.Request) -> web.Response:
        service, function = self._function(request)
        body = parse(CreateTrigger, await read_object(request), self._state.unknown)
        kind = self._type(body.trigger_type)
        now = self._state.now()
        record = TriggerRecord(
            service=service,
            function=function,
            name=body.trigger_name,
            trigger_id=str(uuid.uuid4()),
            type=body.trigger_type,
            source_arn=body.source_arn if kind.has_source_arn else None,
            invocation_role=body.invocation_role,
            qualifier=body.qualifier,
            description=body.description,
            config=_without_null(body.trigger_config),
            etag=uuid.uuid4().hex,
            created_time=now,
            last_modified_time=now,
        )
        async with self._state.writers.hold(service, _CONFLICTS):
            self._function(request)
            self._check_new(record)
            self._check(record, kind)
            try:
                await self._metadata.save_trigger(record, expect=None)
            except StaleWrite:
                raise _exists(record) from None
        await self._effective(record)
        return self._answer(record)

    async def _effective(self, record: TriggerRecord) -> None:
        """After the answer an event must reach the trigger."""
        await self._state.wait_effective(record.service, record.function, record.name)

    def _function(self, request: web.Request) -> tuple[str, str]:
        """Service and function of the path; both must exist in the working copy."""
        service, function = editable(request), request.match_info["function"]
        view = view_of(self._metadata, find_service(self._metadata, service), LATEST)
        view.function(self._metadata, function)
        return service, function

    def _type(self, name: str) -> TriggerType[Any]:
        found = self._state.trigger_types.get(name)
        if found is None:
            known = " | ".join(sorted(self._state.trigger_types)) or "none is installed"
            error = InvalidArgument(
                f"TriggerType is set to an invalid value (allowed: {known}, actual: '{name[:100]}')"
            )
            error.field = "triggerType"
            raise error
        return found

    def _check_new(self, record: TriggerRecord) -> None:
        if self._metadata.trigger(record.service, record.function, record.name) is not None:
            raise _exists(record)
        most = self._state.limits.triggers
        if sum(1 for _ in self._metadata.triggers(record.service, record.function)) >= most:
            raise LimitExceeded(
                f"function '{record.function}' has {most} triggers, which is the limit"
            )

    def _check(self, record: TriggerRecord, kind: TriggerType[Any]) -> None:
        """Qualifier, config, and the other triggers of its type, of whatever service.

        Raises ``VersionNotFound``, ``AliasNotFound``, ``FunctionNotFound``, ``InvalidArgument``,
        ``TriggerConflict``.
        """
        service = find_service(self._metadata, record.service)
        view = view_of(self._metadata, service, record.qualifier or LATEST)
        view.function(self._metadata, record.function)
        trigger = typed_trigger(record, kind)
        settings = self._state.source_settings(record.type)
        kind.validate(trigger, settings)
        for other in self._others(record, record.type, kind):
            reason = kind.conflict(trigger, other)
            if reason:
                raise _refused(record, reason)
        claims = kind.claims(trigger, settings)
        if claims:
            self._check_claims(record, claims)

    def _check_claims(self, record: TriggerRecord, claims: Mapping[str, str]) -> None:
        """Raises ``TriggerConflict`` if another trigger, of whatever type, holds one of them."""
        for name, kind in self._state.trigger_types.items():
            settings = self._state.source_settings(name)
            for other in self._others(record, name, kind):
                held = kind.claims(other, settings)
                for claim in claims:
                    if claim in held:
                        raise _refused(record, f"{claims[claim]} (trigger '{other.name}')")

    def _others(
        self, record: TriggerRecord, kind_name: str, kind: TriggerType[Any]
    ) -> list[Trigger[Any]]:
        """Every other trigger of a type; each config is read once per change of it."""
        before = self._typed.get(kind_name, {})
        now: dict[str, tuple[str, Trigger[Any]]] = {}
        for other in self._metadata.triggers():
            if other.type != kind_name or other.trigger_id == record.trigger_id:
                continue
            found = before.get(other.trigger_id)
            if found is None or found[0] != other.etag:
                try:
                    found = other.etag, typed_trigger(other, kind)
                except InvalidArgument as error:
                    # Stored under an older version of its adapter; it cannot run either.
                    log.warning("trigger %s is not valid any more: %s", other.name, error)
                    continue
            now[other.trigger_id] = found
        self._typed[kind_name] = now
        return [trigger for _, trigger in now.values()]

    async def get(self, request: web.Request) -> web.Response:
        return self._answer(self._find(request))

    def _find(self, request: web.Request) -> TriggerRecord:
        service, function = self._function(request)
        name = request.match_info["trigger"]
        found = self._metadata.trigger(service, function, name)
        if found is None:
            raise TriggerNotFound(
                f"trigger '{name}' does not exist in service '{service}' and function '{function}'"
            )
        return found

    async def list_page(self, request: web.Request) -> web.Response:
        service, function = self._function(request)
        triggers = self._metadata.triggers(service, function)
        found, token = page(triggers, lambda trigger: trigger.name, PageQuery.of(request.query))
        return json_response(with_token({"triggers": [self._content(t) for t in found]}, token))

    async def update(self, request: web.Request) -> web.Response:
        self._find(request)
        body = parse(UpdateTrigger, await read_object(request), self._state.unknown)
        given = body.given()

        async def attempt() -> TriggerRecord:
            current = self._find(request)
            check_match(request, current.etag)
            kind = self._type(current.type)
            config = merged(current.config, body.trigger_config)
            changed = replace(
                current,
                config=dict(unmasked(config, current.config, kind.secrets)),
                invocation_role=given.get("invocationRole", current.invocation_role),
                qualifier=given.get("qualifier", current.qualifier),
                description=given.get("description", current.description),
                etag=uuid.uuid4().hex,
                last_modified_time=self._state.now(),
            )
            self._check(changed, kind)
            await self._metadata.save_trigger(changed, expect=current.etag)
            return changed

        async with self._state.writers.hold(editable(request), _CONFLICTS):
            record = await retrying(request, attempt)
        await self._effective(record)
        return self._answer(record)

    async def delete(self, request: web.Request) -> web.Response:
        async def attempt() -> None:
            current = self._find(request)
            check_match(request, current.etag)
            await self._metadata.delete_trigger(
                current.service, current.function, current.name, expect=current.etag
            )

        async with self._state.writers.hold(editable(request)):
            await retrying(request, attempt)
        return web.Response(status=204)

    def _content(self, record: TriggerRecord) -> dict[str, Any]:
        kind = self._state.trigger_types.get(record.type)
        config = kind.response_config(record.config) if kind else record.config
        return {
            "triggerName": record.name,
            "triggerId": record.trigger_id,
            "description": record.description,
            "triggerType": record.type,
            "sourceArn": record.source_arn,
            "invocationRole": record.invocation_role,
            "qualifier": record.qualifier,
            "triggerConfig": dict(config),
            "createdTime": record.created_time,
            "lastModifiedTime": record.last_modified_time,
        }

    def _answer(self, record: TriggerRecord) -> web.Response:
        return json_response(self._content(record), etag=record.etag)


def merged(stored: JsonObject, given: Mapping[str, Any]) -> JsonObject:
    """``triggerConfig`` after an update: a given top-level key replaces the stored one whole, in
    whatever letter case either is written; ``null`` keeps."""
    changes = _without_null(given)
    replaced = {key.lower() for key in changes}
    kept = {key: value for key, value in stored.items() if key.lower() not in replaced}
    return {**kept, **changes}


def _without_null(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value is not None}


def _refused(record: TriggerRecord, reason: str) -> TriggerConflict:
    return TriggerConflict(f"trigger '{record.name}' is refused: {reason}")


def _exists(record: TriggerRecord) -> TriggerAlreadyExists:
    return TriggerAlreadyExists(
        f"trigger '{record.name}' already exists in service '{record.service}' "
        f"and function '{record.function}'"
    )

"""Functions. FC 2016-08-15, "Functions"."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from aiohttp import web

from eventd.api.code import CHECKSUM_HEADER, CodeDownloads, Package, store_code
from eventd.api.code_body import CodeBody, read_code_body
from eventd.api.errors import json_response
from eventd.api.lookup import check_match, editable, find_service, find_view, view_of
from eventd.api.pagination import PageQuery, page, with_token
from eventd.api.runtimes import runtime_warning
from eventd.api.schemas.fields import parse
from eventd.api.schemas.function import Code, CreateFunction, UpdateFunction, check_together
from eventd.api.state import ControlState
from eventd.api.writing import retrying
from eventd.errors import (
    FunctionAlreadyExists,
    FunctionNotEmpty,
    InvalidArgument,
    LimitExceeded,
)
from eventd.model.resources import LATEST, Function
from eventd.store.interface import StaleWrite

_CUSTOM_PORT = 9000


class Functions:
    def __init__(self, state: ControlState, downloads: CodeDownloads) -> None:
        self._state = state
        self._metadata = state.metadata
        self._downloads = downloads

    def routes(self) -> list[web.RouteDef]:
        many = "/2016-08-15/services/{service}/functions"
        one = many + "/{function}"
        return [
            web.post(many, self.create),
            web.get(many, self.list_page, allow_head=False),
            web.get(one, self.get, allow_head=False),
            web.get(one + "/code", self.code, allow_head=False),
            web.put(one, self.update),
            web.delete(one, self.delete),
        ]

    async def create(self, request: web.Request) -> web.Response:
        service = editable(request)
        find_service(self._metadata, service)
        received = await read_code_body(request, self._state.limits.body_bytes)
        body = parse(CreateFunction, received.content, self._state.unknown)
        if body.code is None:
            raise InvalidArgument("Code: Either ossBucketName/ossObjectName or zipFile must be set")
        config = _checked(body.config())
        self._check_new(service, body.function_name)
        package = await self._store(request, body.code, received)
        now = self._state.now()
        function = Function(
            service=service,
            name=body.function_name,
            function_id=str(uuid.uuid4()),
            etag=uuid.uuid4().hex,
            created_time=now,
            last_modified_time=now,
            config=config,
            code_digest=package.digest,
            code_checksum=package.checksum,
            code_size=package.size,
        )
        async with self._state.writers.hold(service):
            self._check_new(service, function.name)
            try:
                await self._metadata.save_function(function, expect=None)
            except StaleWrite:
                raise _exists(function.name, service) from None
        return _answer(function, warn=True)

    def _check_new(self, service: str, name: str) -> None:
        find_service(self._metadata, service)
        if self._metadata.function(service, name) is not None:
            raise _exists(name, service)
        most = self._state.limits.functions
        if sum(1 for _ in self._metadata.functions(service)) >= most:
            raise LimitExceeded(f"service '{service}' has {most} functions, which is the limit")

    async def _store(self, request: web.Request, code: Code, received: CodeBody) -> Package:
        checksum = request.headers.get(CHECKSUM_HEADER)
        return await store_code(self._state, code, received, checksum)

    async def get(self, request: web.Request) -> web.Response:
        return _answer(self._find(request))

    async def code(self, request: web.Request) -> web.Response:
        function = self._find(request)
        url = self._downloads.url(request, function)
        return json_response({"url": url, "checksum": function.code_checksum})

    async def list_page(self, request: web.Request) -> web.Response:
        view = find_view(self._metadata, request.match_info["service"])
        functions = view.functions(self._metadata)
        query = PageQuery.of(request.query)
        found, token = page(functions, lambda function: function.name, query)
        return json_response(with_token({"functions": [_content(f) for f in found]}, token))

    async def update(self, request: web.Request) -> web.Response:
        service, name = editable(request), request.match_info["function"]
        self._working_copy(service, name)
        received = await read_code_body(request, self._state.limits.body_bytes)
        body = parse(UpdateFunction, received.content, self._state.unknown)
        changes = body.given()
        check_match(request, self._working_copy(service, name).etag)
        package = await self._store(request, body.code, received) if body.code else None

        async def attempt() -> Function:
            current = self._working_copy(service, name)
            check_match(request, current.etag)
            changed = replace(
                current,
                etag=uuid.uuid4().hex,
                last_modified_time=self._state.now(),
                config=_checked({**current.config, **changes}),
            )
            if package is not None:
                changed = replace(
                    changed,
                    code_digest=package.digest,
                    code_checksum=package.checksum,
                    code_size=package.size,
                )
            await self._metadata.save_function(changed, expect=current.etag)
            return changed

        async with self._state.writers.hold(service):
            function = await retrying(request, attempt)
        return _answer(function, warn=True)

    async def delete(self, request: web.Request) -> web.Response:
        service, name = editable(request), request.match_info["function"]

        async def attempt() -> None:
            current = self._working_copy(service, name)
            check_match(request, current.etag)
            if any(True for _ in self._metadata.triggers(service, name)):
                raise FunctionNotEmpty(f"function '{name}' has active triggers")
            await self._metadata.delete_function(service, name, expect=current.etag)

        async with self._state.writers.hold(service):
            await retrying(request, attempt)
        return web.Response(status=204)

    def _find(self, request: web.Request) -> Function:
        view = find_view(self._metadata, request.match_info["service"])
        return view.function(self._metadata, request.match_info["function"])

    def _working_copy(self, service: str, name: str) -> Function:
        view = view_of(self._metadata, find_service(self._metadata, service), LATEST)
        return view.function(self._metadata, name)


def _exists(name: str, service: str) -> FunctionAlreadyExists:
    return FunctionAlreadyExists(f"function '{name}' already exists in service '{service}'")


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    problem = check_together(config)
    if problem:
        raise InvalidArgument(problem)
    return config


def _content(function: Function) -> dict[str, Any]:
    config = dict(function.config)
    if config.get("instanceSoftConcurrency") is None:
        config["instanceSoftConcurrency"] = config["instanceConcurrency"]
    if config.get("caPort") is None and str(config["runtime"]).startswith("custom"):
        config["caPort"] = _CUSTOM_PORT
    return {
        "functionId": function.function_id,
        "functionName": function.name,
        **config,
        "codeSize": function.code_size,
        "codeChecksum": function.code_checksum,
        "createdTime": function.created_time,
        "lastModifiedTime": function.last_modified_time,
    }


def _answer(function: Function, *, warn: bool = False) -> web.Response:
    warning = runtime_warning(str(function.config["runtime"])) if warn else ""
    return json_response(_content(function), etag=function.etag, warning=warning)

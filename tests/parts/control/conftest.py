"""A control plane over stores in memory, reached through a real socket on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ConfigDict, Field

from eventd.api.app import build_app
from eventd.api.state import ControlState
from eventd.clock import Clock
from eventd.errors import InvalidAccessKeyID, MissingRequiredHeader, SignatureNotMatch
from eventd.model.resources import (
    Alias,
    AsyncConfig,
    Function,
    Service,
    TriggerRecord,
    Version,
)
from eventd.plugin import Rule, Source, SourceSettings, Trigger, TriggerConfig, TriggerType
from eventd.store.interface import Change, StaleWrite

KEY_ID, SECRET = "test-id", "test-secret"
ACCOUNT, REGION = "1234567890123456", "cn-local"


def signature(method: str, path: str, headers: Mapping[str, str]) -> str:
    """FC's header signature, written from the description (fc 1.2)."""
    fc = "".join(f"{k}:{headers[k]}\n" for k in sorted(headers) if k.startswith("x-fc-"))
    text = "\n".join(
        [
            method,
            headers.get("content-md5", ""),
            headers.get("content-type", ""),
            headers["date"],
            fc + unquote(path),
        ]
    )
    digest = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


class HeaderAuthenticator:
    """The little of signature checking that tells a signed call from another."""

    def verify(
        self,
        method: str,
        raw_path: str,
        raw_query: str,
        headers: Mapping[str, str],
        *,
        with_query: bool,
    ) -> None:
        given = headers.get("authorization")
        if given is None:
            raise MissingRequiredHeader("required HTTP header Authorization was not specified")
        key_id, _, sent = given.removeprefix("FC ").partition(":")
        if key_id != KEY_ID:
            raise InvalidAccessKeyID(f"invalid access key ID '{key_id}'")
        if not hmac.compare_digest(sent, signature(method, raw_path, headers)):
            raise SignatureNotMatch("The request signature we calculated does not match")


class MemoryBlobs:
    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.content[digest] = data
        return digest

    async def get(self, digest: str) -> bytes:
        return self.content[digest]

    async def delete(self, digest: str) -> None:
        self.content.pop(digest, None)

    def digests(self) -> set[str]:
        return set(self.content)


class MemoryMetadata:
    """``Metadata`` in dictionaries, with the same compare-and-set.

    ``before_save`` runs before each write: a test can be the other writer.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[tuple[Any, ...], Any]] = {
            kind: {}
            for kind in ("service", "function", "trigger", "version", "alias", "async_config")
        }
        self.before_save: Callable[[str], None] = lambda kind: None
        self.listeners: list[Callable[[Change], None]] = []

    def _list(self, kind: str, *head: str | None) -> list[Any]:
        wanted = [part for part in head if part is not None]
        rows = self.rows[kind]
        return [rows[key] for key in sorted(rows) if list(key[: len(wanted)]) == wanted]

    def _save(self, kind: str, key: tuple[Any, ...], row: Any, expect: str | None) -> None:
        self.before_save(kind)
        self._expect(kind, key, expect)
        self.rows[kind][key] = row

    def _expect(self, kind: str, key: tuple[Any, ...], expect: str | None) -> None:
        current = self.rows[kind].get(key)
        if (current.etag if current else None) != expect:
            raise StaleWrite(f"{kind} {key}")

    def _delete(self, kind: str, key: tuple[Any, ...], expect: str) -> None:
        self.before_save(kind)
        self._expect(kind, key, expect)
        del self.rows[kind][key]

    def service(self, name: str) -> Service | None:
        return self.rows["service"].get((name,))

    def services(self) -> Iterable[Service]:
        return self._list("service")

    def function(self, service: str, name: str) -> Function | None:
        return self.rows["function"].get((service, name))

    def functions(self, service: str) -> Iterable[Function]:
        return self._list("function", service)

    def trigger(self, service: str, function: str, name: str) -> TriggerRecord | None:
        return self.rows["trigger"].get((service, function, name))

    def triggers(
        self, service: str | None = None, function: str | None = None
    ) -> Iterable[TriggerRecord]:
        return self._list("trigger", service, function)

    def version(self, service: str, version_id: int) -> Version | None:
        return self.rows["version"].get((service, version_id))

    def versions(self, service: str) -> Iterable[Version]:
        return self._list("version", service)

    def alias(self, service: str, name: str) -> Alias | None:
        return self.rows["alias"].get((service, name))

    def aliases(self, service: str) -> Iterable[Alias]:
        return self._list("alias", service)

    def async_config(self, service: str, function: str, qualifier: str) -> AsyncConfig | None:
        return self.rows["async_config"].get((service, function, qualifier))

    def async_configs(self, service: str, function: str) -> Iterable[AsyncConfig]:
        return self._list("async_config", service, function)

    async def save_service(self, service: Service, *, expect: str | None) -> None:
        self._save("service", (service.name,), service, expect)

    async def delete_service(self, name: str, *, expect: str) -> None:
        self._delete("service", (name,), expect)

    async def save_function(self, function: Function, *, expect: str | None) -> None:
        self._save("function", (function.service, function.name), function, expect)

    async def delete_function(self, service: str, name: str, *, expect: str) -> None:
        self._delete("function", (service, name), expect)

    async def save_trigger(self, trigger: TriggerRecord, *, expect: str | None) -> None:
        key = (trigger.service, trigger.function, trigger.name)
        self._save("trigger", key, trigger, expect)

    async def delete_trigger(self, service: str, function: str, name: str, *, expect: str) -> None:
        self._delete("trigger", (service, function, name), expect)

    async def publish_version(self, version: Version, *, expect: str) -> Version:
        self.before_save("version")
        self._expect("service", (version.service,), expect)
        service = self.rows["service"][version.service,]
        stored = replace(version, version_id=service.last_version + 1)
        self.rows["service"][service.name,] = replace(service, last_version=stored.version_id)
        self.rows["version"][stored.service, stored.version_id] = stored
        return stored

    async def delete_version(self, service: str, version_id: int) -> None:
        del self.rows["version"][service, version_id]

    async def save_alias(self, alias: Alias, *, expect: str | None) -> None:
        self._save("alias", (alias.service, alias.name), alias, expect)

    async def delete_alias(self, service: str, name: str, *, expect: str) -> None:
        self._delete("alias", (service, name), expect)

    async def save_async_config(self, config: AsyncConfig) -> None:
        self.rows["async_config"][config.service, config.function, config.qualifier] = config

    async def delete_async_config(self, service: str, function: str, qualifier: str) -> None:
        del self.rows["async_config"][service, function, qualifier]

    def code_digests(self) -> set[str]:
        frozen = (f for v in self.rows["version"].values() for f in v.functions.values())
        return {f.code_digest for f in [*self.rows["function"].values(), *frozen]}

    def subscribe(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


class Quiet(TriggerType[Any]):
    """A trigger type that watches nothing."""

    def source_key(self, trigger: Trigger[Any], settings: SourceSettings) -> str | None:
        return None

    def rule(self, trigger: Trigger[Any], settings: SourceSettings) -> Rule:
        return Rule(source=trigger.id)

    def source(self, trigger: Trigger[Any], settings: SourceSettings) -> Source:
        raise AssertionError("nothing is watched here")


class KeyFilter(TriggerConfig):
    prefix: str = ""
    suffix: str = ""


class Filter(TriggerConfig):
    key: KeyFilter = KeyFilter()


class OssConfig(TriggerConfig):
    events: tuple[str, ...]
    filter: Filter = Filter()


class Oss(Quiet):
    name = "oss"
    config = OssConfig

    def conflict(self, trigger: Trigger[Any], other: Trigger[Any]) -> str | None:
        if trigger.source_arn == other.source_arn and trigger.config == other.config:
            return f"it overlaps with trigger '{other.name}'"
        return None


class HttpConfig(TriggerConfig):
    auth_type: str
    methods: list[str]


class Http(Quiet):
    name = "http"
    config = HttpConfig
    has_source_arn = False


class LogConfig(TriggerConfig):
    source_config: dict[str, Any]
    job_config: dict[str, Any] = Field(default_factory=dict)


class Log(Quiet):
    name = "log"
    config = LogConfig


class NativeConfig(TriggerConfig):
    model_config = ConfigDict(extra="forbid")

    topic: str


class Native(Quiet):
    name = "native"
    config = NativeConfig


TYPES = {kind.name: kind() for kind in (Oss, Http, Log, Native)}


def make_zip(files: Mapping[str, str | bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (files or {"index.py": "def handler(event, context): ..."}).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_text(files: Mapping[str, str | bytes] | None = None) -> str:
    return base64.b64encode(make_zip(files)).decode()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    data: Any
    raw: bytes

    @property
    def code(self) -> str:
        return str(self.data["ErrorCode"])

    @property
    def message(self) -> str:
        return str(self.data["ErrorMessage"])


@dataclass
class Plane:
    """The server under test and a client that signs."""

    state: ControlState
    metadata: MemoryMetadata
    blobs: MemoryBlobs
    endpoint: str
    session: aiohttp.ClientSession
    data_dir: Path
    requests: list[str] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        content: object = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        signed: bool = True,
    ) -> Answer:
        """``path`` is below ``/2016-08-15``; ``content`` is sent as JSON, bytes as they are."""
        path = path if path.startswith("/2016") else f"/2016-08-15{path}"
        sent = {"date": formatdate(usegmt=True), "content-type": "application/json"}
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        if signed:
            sent["authorization"] = f"FC {KEY_ID}:{signature(method, path, sent)}"
        raw_content = isinstance(content, bytes | io.BytesIO)
        # A stream: the client warns of large bodies that are given as bytes.
        body = content if raw_content else io.BytesIO(json.dumps(content).encode())
        async with self.session.request(
            method,
            self.endpoint + path,
            params=query,
            headers=sent,
            data=body if content is not None else None,
        ) as response:
            raw = await response.read()
            data = await response.json() if response.content_type == "application/json" else None
            return Answer(response.status, response.headers.copy(), data, raw)

    async def service(self, name: str = "demo", **config: object) -> Answer:
        made = await self.call("POST", "/services", {"serviceName": name, **config})
        assert made.status == 200, made.data
        return made

    async def function(self, name: str = "hello", service: str = "demo", **config: Any) -> Answer:
        body = {
            "functionName": name,
            "runtime": "python3",
            "handler": "index.handler",
            "code": {"zipFile": zip_text()},
        }
        path = f"/services/{service}/functions"
        made = await self.call("POST", path, {**body, **config})
        assert made.status == 200, made.data
        return made

    async def publish(self, description: str = "", service: str = "demo") -> Answer:
        path = f"/services/{service}/versions"
        return await self.call("POST", path, {"description": description})


def make_state(data_dir: Path) -> ControlState:
    return ControlState(
        metadata=MemoryMetadata(),
        blobs=MemoryBlobs(),
        trigger_types=TYPES,
        settings=SourceSettings(data_dir=data_dir, account_id=ACCOUNT, region=REGION),
        authenticator=HeaderAuthenticator(),
        clock=Clock(),
    )


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    async def defect(request: web.Request) -> web.Response:
        raise RuntimeError("a defect with a secret in its text")

    async def public(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    state = make_state(tmp_path)
    app = build_app(
        state,
        signed_routes=[web.get("/2016-08-15/defect", defect)],
        open_routes=[web.get("/healthz", public)],
    )
    async with TestServer(app, host="127.0.0.1") as server, aiohttp.ClientSession() as session:
        assert isinstance(state.metadata, MemoryMetadata)
        assert isinstance(state.blobs, MemoryBlobs)
        endpoint = f"http://127.0.0.1:{server.port}"
        yield Plane(state, state.metadata, state.blobs, endpoint, session, tmp_path)

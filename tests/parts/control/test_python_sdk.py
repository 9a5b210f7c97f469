"""The vendor's Python SDK, unmodified, against the control plane."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fc2
import pytest

from .conftest import KEY_ID, SECRET, Plane

BUCKET = "acs:oss:cn-local:1234567890123456:code"
ROLE = "acs:ram::1234567890123456:role/fc"


class Sdk:
    """The blocking client, called in a thread."""

    def __init__(self, endpoint: str) -> None:
        self._client = fc2.Client(
            endpoint=endpoint, accessKeyID=KEY_ID, accessKeySecret=SECRET, Timeout=20
        )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        async def call(*args: Any, **options: Any) -> Any:
            return await asyncio.to_thread(method, *args, **options)

        return call

    async def error(self, name: str, *args: Any, **options: Any) -> Any:
        with pytest.raises(fc2.FcError) as caught:
            await getattr(self, name)(*args, **options)
        return caught.value


@pytest.fixture
def sdk(plane: Plane) -> Sdk:
    return Sdk(plane.endpoint)


@pytest.fixture
def code(tmp_path: Path) -> str:
    directory = tmp_path / "app"
    (directory / "empty").mkdir(parents=True)
    (directory / "main.py").write_text("def my_handler(event, context): return 'hello'")
    (directory / "link.py").symlink_to("main.py")
    return str(directory)


async def test_services(sdk: Sdk) -> None:
    made = await sdk.create_service("demo", description="测试")
    assert made.headers["etag"]
    assert {"createdTime", "lastModifiedTime", "logConfig", "role", "serviceId"} <= set(made.data)
    trace = {"x-fc-trace-id": str(uuid.uuid4())}
    got = await sdk.get_service("demo", headers=trace)
    assert got.headers["x-fc-request-id"] == trace["x-fc-trace-id"]

    vpc = {"vpcId": "v", "vSwitchIds": ["w"], "securityGroupId": "g"}
    changed = (await sdk.update_service("demo", role=ROLE, vpcConfig=vpc)).data
    assert changed["vpcConfig"] == {**vpc, "role": ""}
    assert changed["internetAccess"] is True
    nas = {"userId": -1, "groupId": -1, "mountPoints": [{"serverAddr": "h:/", "mountDir": "/mnt"}]}
    tracing = {"type": "Jaeger", "params": {"endpoint": "http://jaeger"}}
    changed = await sdk.update_service("demo", nasConfig=nas, tracingConfig=tracing)
    assert (changed.data["nasConfig"], changed.data["tracingConfig"]) == (nas, tracing)
    off = (await sdk.update_service("demo", tracingConfig={}, internetAccess=False)).data
    assert off["tracingConfig"] == {"type": None, "params": None}
    assert off["internetAccess"] is False

    wrong = await sdk.error("delete_service", "demo", headers={"if-match": "invalid etag"})
    assert (wrong.status_code, wrong.err_code) == (412, "PreconditionFailed")
    assert wrong.request_id
    await sdk.delete_service("demo")
    assert (await sdk.error("get_service", "demo")).err_code == "ServiceNotFound"


async def test_functions(sdk: Sdk, code: str) -> None:
    await sdk.create_service("demo")
    made = await sdk.create_function(
        "demo",
        "hello",
        handler="main.my_handler",
        runtime="python2.7",
        codeDir=code,
        initializer="main.init",
        environmentVariables={"key": "value"},
    )
    assert made.headers["etag"]
    assert (made.data["memorySize"], made.data["timeout"]) == (256, 60)
    assert (made.data["instanceType"], made.data["initializationTimeout"]) == ("e1", 30)

    checksum = (await sdk.get_function_code("demo", "hello")).data["checksum"]
    assert checksum == made.data["codeChecksum"]
    changed = await sdk.update_function("demo", "hello", description="d", environmentVariables={})
    assert changed.data["environmentVariables"] == {}
    assert changed.data["initializer"] == "main.init"
    bad = await sdk.error("update_function", "demo", "hello", runtime=10)
    assert bad.err_code == "InvalidArgument"
    assert "Runtime is set to an invalid value" in bad.message
    assert [f["functionName"] for f in (await sdk.list_functions("demo")).data["functions"]] == [
        "hello"
    ]
    await sdk.delete_function("demo", "hello")
    assert (await sdk.error("get_function", "demo", "hello")).err_code == "FunctionNotFound"


async def test_triggers(sdk: Sdk, code: str) -> None:
    await sdk.create_service("demo")
    await sdk.create_function(
        "demo", "hello", handler="main.my_handler", runtime="python3", codeDir=code
    )
    config = {"authType": "anonymous", "methods": ["GET", "POST"]}
    made = await sdk.create_trigger("demo", "hello", "h", "http", config, "dummy_arn", "")
    assert made.data["triggerConfig"] == config
    assert (made.data["sourceArn"], made.data["invocationRole"]) == (None, "")
    key = {"prefix": "p", "suffix": "s"}
    config = {"events": ["oss:ObjectCreated:*"], "filter": {"key": key}}
    await sdk.create_trigger("demo", "hello", "o", "oss", config, BUCKET, ROLE, description="d")
    got = (await sdk.get_trigger("demo", "hello", "o")).data
    assert (got["triggerConfig"], got["sourceArn"], got["description"]) == (config, BUCKET, "d")
    config["filter"] = {"key": {**key, "prefix": "q"}}
    changed = await sdk.update_trigger(
        "demo", "hello", "o", triggerConfig=config, invocationRole=ROLE
    )
    assert changed.data["triggerConfig"] == config
    page = (await sdk.list_triggers("demo", "hello", limit=1)).data
    assert ([t["triggerName"] for t in page["triggers"]], page["nextToken"]) == (["h"], "o")
    await sdk.delete_trigger("demo", "hello", "o")
    assert (await sdk.error("delete_trigger", "demo", "hello", "o")).status_code == 404


async def test_versions_and_aliases(sdk: Sdk, code: str) -> None:
    await sdk.create_service("demo")
    await sdk.create_function(
        "demo", "hello", handler="main.my_handler", runtime="python3", codeDir=code
    )
    assert (await sdk.list_versions("demo")).data["versions"] == []
    assert (await sdk.publish_version("demo", "one")).data["versionId"] == "1"
    assert (await sdk.error("publish_version", "demo", "again")).err_code == "VersionPublishError"
    alias = (
        await sdk.create_alias(
            "demo", "prod", "1", description="a", additionalVersionWeight={"1": 0.9}
        )
    ).data
    assert alias["additionalVersionWeight"] == {"1": 0.9}
    await sdk.update_function("demo", "hello", description="changed")
    assert (await sdk.publish_version("demo", "two")).data["versionId"] == "2"
    moved = await sdk.update_alias("demo", "prod", "2", additionalVersionWeight={"1": 0.3})
    assert (moved.data["versionId"], moved.data["description"]) == ("2", "a")
    service = (await sdk.get_service("demo", qualifier="prod")).data
    assert service["description"] == "two"
    by_alias = (await sdk.list_functions("demo", qualifier="prod")).data
    assert by_alias == (await sdk.list_functions("demo", qualifier="2")).data
    await sdk.delete_version("demo", "1")
    await sdk.delete_alias("demo", "prod")
    assert (await sdk.error("get_alias", "demo", "prod")).err_code == "AliasNotFound"
    assert (await sdk.error("delete_service", "demo")).err_code == "ServiceNotEmpty"


async def test_async_configs_and_account(sdk: Sdk, code: str) -> None:
    await sdk.create_service("demo", role=ROLE)
    await sdk.create_function(
        "demo", "hello", handler="main.my_handler", runtime="python3", codeDir=code
    )
    target = "acs:fc:cn-local:1234567890123456:services/demo.prod/functions/other"
    config = {
        "DestinationConfig": {"OnSuccess": {"Destination": target}},
        "MaxAsyncEventAgeInSeconds": 100,
        "MaxAsyncRetryAttempts": 1,
    }
    put = (await sdk.put_function_async_invoke_config("demo", "LATEST", "hello", config)).data
    assert put["destinationConfig"]["onSuccess"]["destination"] == target
    listed = (await sdk.list_function_async_invoke_configs("demo", "hello")).data
    assert (len(listed["configs"]), listed["nextToken"]) == (1, "")
    await sdk.delete_function_async_invoke_config("demo", "LATEST", "hello")
    account = (await sdk.get_account_settings()).data
    assert account["availableAZs"] == ["cn-hongkong-c"]

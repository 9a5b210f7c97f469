"""Services, functions, triggers and account settings through the official SDK.

What is asserted is what the vendor's own suites assert of the real service.
"""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path
from typing import Any

from sdk_client import RUNTIME, client, package, pages, refused
from system_node import ACCOUNT, ROLE, NodeFactory

HELLO = "def my_handler(event, context):\n    return 'hello world'\n"
TIMES = {"createdTime", "lastModifiedTime"}


async def test_a_service_is_made_changed_and_removed(node: NodeFactory) -> None:
    vpc = {"vpcId": "vpc-1", "vSwitchIds": ["vsw-1"], "securityGroupId": "sg-1", "role": ""}
    nas = {
        "userId": -1,
        "groupId": -1,
        "mountPoints": [{"serverAddr": "nas.example:/", "mountDir": "/mnt/nas"}],
    }
    log = {
        "project": "p",
        "logstore": "l",
        "enableRequestMetrics": True,
        "enableInstanceMetrics": False,
    }

    def story(sdk: Any) -> None:
        made = sdk.create_service("shop", description="这是测试service")
        assert made.headers["etag"]
        assert {"logConfig", "role", "serviceId"} | TIMES <= set(made.data)
        assert made.data["serviceName"] == "shop"
        assert made.data["description"] == "这是测试service"
        assert (made.data["internetAccess"], made.data["role"]) == (True, "")
        assert made.data["logConfig"] is not None
        refused(409, "ServiceAlreadyExists", sdk.create_service, "shop")
        assert sdk.create_service("plain").data["description"] == ""

        latest = sdk.get_service("shop", qualifier="LATEST")
        assert latest.data == sdk.get_service("shop").data

        tag = {"if-match": made.headers["etag"]}
        changed = sdk.update_service("shop", description="new", headers=tag)
        assert changed.data["description"] == "new"
        assert changed.headers["etag"] != made.headers["etag"]
        refused(412, "PreconditionFailed", sdk.update_service, "shop", "late", headers=tag)
        assert sdk.get_service("shop").data["description"] == "new"

        configured = sdk.update_service("shop", role=ROLE, vpcConfig=vpc, logConfig=log).data
        assert (configured["vpcConfig"], configured["logConfig"]) == (vpc, log)
        assert (configured["internetAccess"], configured["description"]) == (True, "new")
        assert sdk.update_service("shop", nasConfig=nas).data["nasConfig"] == nas
        tracing = {"type": "Jaeger", "params": {"endpoint": "http://127.0.0.1:9411"}}
        assert sdk.update_service("shop", tracingConfig=tracing).data["tracingConfig"] == tracing
        off = sdk.update_service("shop", tracingConfig={}, internetAccess=False).data
        assert off["tracingConfig"] == {"type": None, "params": None}
        assert (off["internetAccess"], off["role"], off["vpcConfig"]) == (False, ROLE, vpc)

        refused(412, "PreconditionFailed", sdk.delete_service, "shop", headers=tag)
        now = {"if-match": sdk.get_service("shop").headers["etag"]}
        sdk.delete_service("shop", headers=now)
        refused(404, "ServiceNotFound", sdk.get_service, "shop")
        refused(404, "ServiceNotFound", sdk.delete_service, "shop")
        refused(404, "ServiceNotFound", sdk.update_service, "shop", "x")

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_services_come_in_pages(node: NodeFactory) -> None:
    names = [f"page-{letters}" for letters in ("abc", "abd", "ade", "bcd", "bde", "zzz")]

    def story(sdk: Any) -> None:
        for name in names:
            sdk.create_service(name)

        def listed(**options: Any) -> tuple[list[str], str | None]:
            page = sdk.list_services(**options).data
            return [one["serviceName"] for one in page["services"]], page.get("nextToken")

        found, token = listed(limit=2, startKey="page-b")
        assert found == ["page-bcd", "page-bde"]
        assert listed(limit=1, startKey="page-b", nextToken=token) == (["page-zzz"], None)
        assert listed(limit=1, nextToken=token)[0] == ["page-zzz"]
        assert listed(limit=2, prefix="page-x", nextToken=token) == ([], None)
        assert listed(limit=2, prefix="page-a")[0] == ["page-abc", "page-abd"]
        assert listed(limit=2, prefix="page-ab", startKey="page-abd") == (["page-abd"], None)
        assert [len(page) for page in pages(sdk.list_services, "services", limit=4)] == [4, 2]
        assert [len(page) for page in pages(sdk.list_services, "services", limit=3)] == [3, 3]

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_a_function_is_made_changed_and_removed(node: NodeFactory, tmp_path: Path) -> None:
    def story(sdk: Any) -> None:
        code = package(tmp_path, "hello", main=HELLO)
        common = {"handler": "main.my_handler", "runtime": RUNTIME, "codeDir": code}
        sdk.create_service("s")
        made = sdk.create_function(
            "s", "f", **common, description="这是测试function", environmentVariables={"k0": "v0"}
        )
        assert made.headers["etag"]
        assert {"codeSize", "functionId", "memorySize", "timeout"} | TIMES <= set(made.data)
        assert (made.data["runtime"], made.data["handler"]) == (RUNTIME, "main.my_handler")
        assert (made.data["instanceType"], made.data["environmentVariables"]) == (
            "e1",
            {"k0": "v0"},
        )
        refused(409, "FunctionAlreadyExists", sdk.create_function, "s", "f", **common)
        refused(404, "ServiceNotFound", sdk.create_function, "nowhere", "f", **common)

        stored = sdk.get_function_code("s", "f").data
        assert stored["checksum"] == made.data["codeChecksum"]
        with urllib.request.urlopen(stored["url"], timeout=30) as download:  # without a signature
            assert (download.status, len(download.read())) == (200, made.data["codeSize"])

        tag = {"if-match": made.headers["etag"]}
        with_new_code = package(tmp_path, "new", main=HELLO.replace("hello", "new hello"))
        changed = sdk.update_function(
            "s", "f", codeDir=with_new_code, environmentVariables={"k1": "v1"}, headers=tag
        )
        assert changed.data["codeChecksum"] != made.data["codeChecksum"]
        assert changed.data["environmentVariables"] == {"k1": "v1"}
        assert changed.data["description"] == "这是测试function"
        assert sdk.invoke_function("s", "f").data == b"new hello world"
        refused(
            412, "PreconditionFailed", sdk.update_function, "s", "f", memorySize=512, headers=tag
        )
        refused(412, "PreconditionFailed", sdk.delete_function, "s", "f", headers=tag)
        assert sdk.update_function("s", "f", description="d").data["environmentVariables"] == {
            "k1": "v1"
        }
        assert (
            sdk.update_function("s", "f", environmentVariables={}).data["environmentVariables"]
            == {}
        )

        made = sdk.create_function("s", "counter", **common, initializer="main.init")
        assert (made.data["initializer"], made.data["initializationTimeout"]) == ("main.init", 30)
        many = sdk.create_function(
            "s", "many", "nodejs10", "index.handler", codeDir=code, instanceConcurrency=2
        )
        assert many.data["instanceConcurrency"] == 2
        many = sdk.update_function("s", "many", instanceConcurrency=10)
        assert many.data["instanceConcurrency"] == 10

        for call, options in ((sdk.create_function, common), (sdk.update_function, {})):
            error = refused(400, "InvalidArgument", call, "s", "many", **{**options, "runtime": 10})
            assert "Runtime is set to an invalid value" in error.message
        listed = pages(sdk.list_functions, "functions", "s", limit=2)
        assert [[one["functionName"] for one in page] for page in listed] == [
            ["counter", "f"], ["many"],
        ]  # fmt: skip

        refused(409, "ServiceNotEmpty", sdk.delete_service, "s")
        for name in ("f", "counter", "many"):
            sdk.delete_function("s", name)
        refused(404, "FunctionNotFound", sdk.get_function, "s", "f")
        refused(404, "FunctionNotFound", sdk.delete_function, "s", "f")
        assert sdk.list_functions("s").data["functions"] == []
        sdk.delete_service("s")

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_triggers_echo_what_was_sent(node: NodeFactory, tmp_path: Path) -> None:
    bucket = f"acs:oss:cn-local:{ACCOUNT}:photos"

    def story(sdk: Any) -> None:
        sdk.create_service("s")
        code = package(tmp_path, "hello", main=HELLO)
        sdk.create_function("s", "f", RUNTIME, "main.my_handler", codeDir=code)

        web = {"authType": "anonymous", "methods": ["POST", "GET"]}
        made = sdk.create_trigger("s", "f", "web", "http", web, "dummy_arn", "", description="d")
        assert made.headers["etag"]
        assert set(made.data) >= TIMES
        assert (made.data["triggerConfig"], made.data["description"]) == (web, "d")
        assert (made.data["sourceArn"], made.data["invocationRole"]) == (None, "")
        changed = sdk.update_trigger("s", "f", "web", {"authType": "function", "methods": ["GET"]})
        assert changed.data["triggerConfig"] == {"authType": "function", "methods": ["GET"]}
        sdk.delete_trigger("s", "f", "web")

        def rule(number: int, name: str = "p") -> dict[str, Any]:
            key = {"prefix": f"{name}{number}x", "suffix": f"{number}s"}
            return {"events": ["oss:ObjectCreated:*"], "filter": {"key": key}}

        for number in range(5):
            made = sdk.create_trigger("s", "f", f"o{number}", "oss", rule(number), bucket, ROLE)
            assert made.data["triggerConfig"] == rule(number)
            assert (made.data["sourceArn"], made.data["invocationRole"]) == (bucket, ROLE)
        got = sdk.get_trigger("s", "f", "o4")
        assert got.data == made.data
        changed = sdk.update_trigger("s", "f", "o4", invocationRole=ROLE + "-new").data
        assert (changed["triggerConfig"], changed["invocationRole"]) == (rule(4), ROLE + "-new")
        assert changed["createdTime"] == made.data["createdTime"]
        changed = sdk.update_trigger("s", "f", "o4", rule(4, "q")).data
        assert changed["triggerConfig"] == rule(4, "q")
        listed = pages(sdk.list_triggers, "triggers", "s", "f", limit=2)
        assert [[one["triggerName"] for one in page] for page in listed] == [
            ["o0", "o1"], ["o2", "o3"], ["o4"],
        ]  # fmt: skip

        again = ("s", "f", "o0", "oss", rule(0), bucket, ROLE)
        refused(409, "TriggerAlreadyExists", sdk.create_trigger, *again)
        refused(409, "FunctionNotEmpty", sdk.delete_function, "s", "f")
        refused(404, "FunctionNotFound", sdk.create_trigger, "s", "g", *again[2:])
        refused(404, "ServiceNotFound", sdk.get_trigger, "t", "f", "o0")
        refused(404, "TriggerNotFound", sdk.update_trigger, "s", "f", "nope", rule(0))
        stale = {"if-match": got.headers["etag"]}
        refused(412, "PreconditionFailed", sdk.delete_trigger, "s", "f", "o4", headers=stale)
        for number in range(5):
            sdk.delete_trigger("s", "f", f"o{number}")
        refused(404, "TriggerNotFound", sdk.delete_trigger, "s", "f", "o0")
        sdk.delete_function("s", "f")

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_a_log_and_a_timer_trigger_keep_every_key(node: NodeFactory, tmp_path: Path) -> None:
    watched = tmp_path / "app.log"
    watched.touch()
    log = {
        "sourceConfig": {"logstore": "app"},
        "jobConfig": {"triggerInterval": 60, "maxRetryTime": 0},
        "functionParameter": {},
        "logConfig": {"project": "", "logstore": ""},
        "enable": False,
    }

    def story(sdk: Any) -> None:
        sdk.create_service("s")
        code = package(tmp_path, "hello", main=HELLO)
        sdk.create_function("s", "f", RUNTIME, "main.my_handler", codeDir=code)
        arn = f"acs:log:cn-local:{ACCOUNT}:project/p"
        made = sdk.create_trigger("s", "f", "lines", "log", log, arn, ROLE).data
        assert made["triggerConfig"] == log
        job = {"triggerInterval": 30, "maxRetryTime": 3}
        changed = sdk.update_trigger("s", "f", "lines", {"jobConfig": job}).data
        assert changed["triggerConfig"] == {**log, "jobConfig": job}

        timer = {"cronExpression": "@every 5m", "enable": True, "payload": "p"}
        made = sdk.create_trigger("s", "f", "tick", "timer", timer, None, None).data
        assert (made["triggerConfig"], made["sourceArn"]) == (timer, None)
        got = sdk.get_trigger("s", "f", "tick").data
        assert {key: got[key] for key in TIMES} == {key: made[key] for key in TIMES}
        cron = {"cronExpression": "0 2 * * * *"}
        changed = sdk.update_trigger("s", "f", "tick", cron).data
        assert changed["triggerConfig"] == {**timer, **cron}
        refused(
            400, "InvalidArgument", sdk.create_trigger,
            "s", "f", "pigeon", "pigeon", {}, None, None,
        )  # fmt: skip

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_account_settings_and_asynchronous_configurations(
    node: NodeFactory, tmp_path: Path
) -> None:
    target = f"acs:fc:cn-local:{ACCOUNT}:services/s.prod/functions/other"
    config = {
        "destinationConfig": {"onSuccess": {"destination": target}},
        "maxAsyncEventAgeInSeconds": 100,
        "maxAsyncRetryAttempts": 1,
    }

    def story(sdk: Any) -> None:
        assert sdk.get_account_settings().data["availableAZs"] == ["cn-hongkong-c"]
        sdk.create_service("s", role=ROLE)
        code = package(tmp_path, "hello", main=HELLO)
        sdk.create_function("s", "f", RUNTIME, "main.my_handler", codeDir=code)
        put = sdk.put_function_async_invoke_config("s", "LATEST", "f", config).data
        got = sdk.get_function_async_invoke_config("s", "LATEST", "f").data
        for stored in (put, got):
            assert stored["destinationConfig"]["onSuccess"]["destination"] == target
            assert (stored["maxAsyncEventAgeInSeconds"], stored["maxAsyncRetryAttempts"]) == (
                100,
                1,
            )
            assert (stored["service"], stored["function"]) == ("s", "f")
        assert len(sdk.list_function_async_invoke_configs("s", "f").data["configs"]) == 1
        sdk.delete_function_async_invoke_config("s", "LATEST", "f")
        refused(
            404, "AsyncConfigNotExists", sdk.get_function_async_invoke_config, "s", "LATEST", "f"
        )

    async with node() as one:
        await asyncio.to_thread(story, client(one))

"""Calls through the official SDK: events, initializers, logs, errors, HTTP triggers."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from pathlib import Path
from typing import Any

import fc2
import pytest
from sdk_client import RUNTIME, client, package, refused
from system_node import Node, NodeFactory, until

COUNTER = """
import logging

counter = 0

def initialize(context):
    global counter
    counter += 1
    logging.getLogger().info("initialized %s", counter)

def handler(event, context):
    global counter
    counter += 1
    logging.getLogger().info("counted %s", counter)
    return counter
"""

WEB = """
import json

def handler(environ, start_response):
    length = int(environ["CONTENT_LENGTH"])
    told = {
        "path": environ["PATH_INFO"],
        "method": environ["REQUEST_METHOD"],
        "uri": environ["fc.request_uri"],
        "client": environ["REMOTE_ADDR"],
        "query": environ.get("QUERY_STRING", ""),
        "request": environ["fc.context"].request_id,
        "body": environ["wsgi.input"].read(length).decode(),
    }
    start_response("202 Accepted", [("key1", "value1"), ("key2", "value2")])
    return json.dumps(told).encode()
"""

ERRORS = """
import json, os, sys

def raises(event, context):
    raise ValueError("bad " + event.decode())

def exits(event, context):
    os._exit(3)

def sleeps(event, context):
    import time
    time.sleep(60)

def gives(event, context):
    return {"given": json.loads(event)}
"""


def deploy(sdk: Any, folder: Path, source: str, handler: str, name: str, **options: Any) -> None:
    code = package(folder, name, main=source)
    sdk.create_function("s", name, RUNTIME, f"main.{handler}", codeDir=code, **options)


async def test_the_initializer_runs_once_before_the_first_call(
    node: NodeFactory, tmp_path: Path
) -> None:
    def story(sdk: Any) -> list[str]:
        sdk.create_service("s")
        deploy(sdk, tmp_path, COUNTER, "handler", "counter", initializer="main.initialize")
        logs = []
        for expected in (b"2", b"3"):
            answer = sdk.invoke_function("s", "counter", headers={"X-FC-Log-Type": "Tail"})
            assert answer.data == expected
            assert answer.headers["content-type"] == "application/octet-stream"
            logs.append(base64.b64decode(answer.headers["x-fc-log-result"]).decode())
        assert "x-fc-log-result" not in sdk.invoke_function("s", "counter").headers
        return logs

    async with node() as one:
        cold, warm = await asyncio.to_thread(story, client(one))

    assert "initialized 1" in cold
    assert "counted 2" in cold
    assert "initialized" not in warm
    assert "counted 3" in warm
    for text in (cold, warm):
        assert "FC Invoke Start RequestId: " in text
        assert "FC Invoke End RequestId: " in text
        assert "Duration: " in text


async def test_events_are_bytes_files_text_or_nothing(node: NodeFactory, tmp_path: Path) -> None:
    def story(sdk: Any) -> None:
        sdk.create_service("s")
        deploy(sdk, tmp_path, "def handler(e, c):\n    return e[::-1]\n", "handler", "back")
        every = bytes(range(256)) * 5000
        picture = tmp_path / "picture.bin"
        picture.write_bytes(every)
        assert sdk.invoke_function("s", "back", every).data == every[::-1]
        with picture.open("rb") as file:
            assert sdk.invoke_function("s", "back", payload=file).data == every[::-1]
        assert sdk.invoke_function("s", "back", payload="abc").data == b"cba"
        assert sdk.invoke_function("s", "back").data == b""
        trace = {"x-fc-trace-id": str(uuid.uuid4())}
        answer = sdk.invoke_function("s", "back", headers=trace)
        assert answer.headers["x-fc-request-id"] == trace["x-fc-trace-id"]

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_an_error_of_a_function_is_told_and_harms_no_other_call(
    node: NodeFactory, tmp_path: Path
) -> None:
    def told(sdk: Any, name: str, payload: Any = None) -> dict[str, Any]:
        with pytest.raises(fc2.FcError) as caught:
            sdk.invoke_function("s", name, payload)
        assert caught.value.status_code == 200
        message: dict[str, Any] = json.loads(caught.value.message)
        return message

    def story(sdk: Any) -> None:
        sdk.create_service("s")
        for name in ("raises", "exits", "gives", "absent"):
            deploy(sdk, tmp_path, ERRORS, name, name)
        deploy(sdk, tmp_path, ERRORS, "sleeps", "sleeps", timeout=1)
        deploy(sdk, tmp_path, "def broken(:\n", "handler", "unparsed")

        error = told(sdk, "raises", b"luck")
        assert (error["errorMessage"], error["errorType"]) == ("bad luck", "ValueError")
        assert error["stackTrace"]
        assert len(error["RequestId"]) == 36
        assert "Process exited unexpectedly" in told(sdk, "exits")["errorMessage"]
        assert "timed out after 1 seconds" in told(sdk, "sleeps")["errorMessage"]
        assert "absent" in told(sdk, "absent")["errorMessage"]
        assert "main" in told(sdk, "unparsed")["errorMessage"]
        given = sdk.invoke_function("s", "gives", json.dumps(["a", 1])).data
        assert json.loads(given) == {"given": ["a", 1]}

        error = refused(404, "FunctionNotFound", sdk.invoke_function, "s", "nobody")
        assert {"ErrorCode", "ErrorMessage", "RequestId"} <= set(json.loads(error.message))
        refused(404, "ServiceNotFound", sdk.invoke_function, "nowhere", "f")
        wrong = {"x-fc-log-type": "Head"}
        error = refused(400, "InvalidArgument", sdk.invoke_function, "s", "gives", headers=wrong)
        assert "LogType is set to an invalid value" in error.message

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_a_runtime_that_cannot_run_here_is_stored_and_says_so(
    node: NodeFactory, tmp_path: Path
) -> None:
    def story(sdk: Any) -> None:
        code = package(tmp_path, "code", main=COUNTER)
        sdk.create_service("s")
        made = sdk.create_function("s", "resize", "nodejs4.4", "main.resize", codeDir=code)
        assert made.data["runtime"] == "nodejs4.4"
        error = refused(400, "InvalidArgument", sdk.invoke_function, "s", "resize", b"x")
        assert "has the runtime nodejs4.4, which cannot run on this machine" in error.message

    async with node() as one:
        await asyncio.to_thread(story, client(one))


async def test_an_asynchronous_call_is_accepted_and_run(node: NodeFactory, tmp_path: Path) -> None:
    def accept(sdk: Any) -> list[str]:
        sdk.create_service("s")
        deploy(sdk, tmp_path, "def handler(e, c):\n    print('saw', e)\n", "handler", "later")
        ids = []
        for payload, header in (("one", "x-fc-invocation-type"), (None, "X-Fc-Invocation-Type")):
            answer = sdk.invoke_function("s", "later", payload, headers={header: "Async"})
            assert answer.data == b""
            ids.append(answer.headers["x-fc-request-id"])
        tail = {"x-fc-invocation-type": "Async", "x-fc-log-type": "Tail"}
        refused(400, "InvalidArgument", sdk.invoke_function, "s", "later", headers=tail)
        return ids

    async with node() as one:
        first, second = await asyncio.to_thread(accept, client(one))
        for request_id, text in ((first, "saw b'one'"), (second, "saw b''")):

            async def printed(request_id: str = request_id, text: str = text) -> bool:
                return text in await log_of(one, request_id)

            await until(printed, f"the run of {text}")


async def log_of(one: Node, request_id: str) -> str:
    found = await one.request("GET", f"/eventd/v1/logs?requestId={request_id}")
    return "\n".join(line["text"] for line in found.json()["lines"])


async def test_an_http_trigger_hands_the_request_on(node: NodeFactory, tmp_path: Path) -> None:
    def story(sdk: Any, stranger: Any) -> None:
        sdk.create_service("s")
        deploy(sdk, tmp_path, WEB, "handler", "web")
        methods = ["GET", "POST", "PUT", "DELETE", "HEAD"]
        config = {"authType": "anonymous", "methods": methods}
        sdk.create_trigger("s", "web", "http", "http", config, "dummy_arn", "")
        query = {"key with space": "value with space", "many": ["b", "a"], "empty": ""}

        for caller in (sdk, stranger):
            answer = caller.do_http_request(
                "POST", "s", "web", "/action%20with%20space", {"x-own": "1"}, query, b"body"
            )
            assert (answer.status_code, answer.headers["key1"], answer.headers["key2"]) == (
                202, "value1", "value2",
            )  # fmt: skip
            told = answer.json()
            assert (told["path"], told["method"]) == ("/action with space", "POST")
            assert told["uri"].startswith("/2016-08-15/proxy/s/web/action%20with%20space?")
            assert (told["body"], told["client"]) == ("body", "127.0.0.1")
            assert "many=b&many=a" in told["query"]
            assert told["request"] == answer.headers["x-fc-request-id"]

        for method in ("GET", "PUT", "DELETE"):
            told = sdk.do_http_request(method, "s", "web", "").json()
            assert (told["method"], told["path"], told["body"]) == (method, "/", "")
        assert sdk.do_http_request("HEAD", "s", "web", "/").content == b""
        assert sdk.do_http_request("PATCH", "s", "web", "/").status_code >= 400
        error = refused(400, "InvalidArgument", sdk.invoke_function, "s", "web", b"")
        assert "can only be invoked with http trigger URL" in error.message

        sdk.update_trigger("s", "web", "http", {"authType": "function", "methods": methods})
        assert sdk.do_http_request("GET", "s", "web", "/a%20b", params=query).status_code == 202
        assert stranger.do_http_request("GET", "s", "web", "/").status_code == 403

    async with node() as one:
        stranger = fc2.Client(endpoint=one.url, accessKeyID="other", accessKeySecret="wrong")
        await asyncio.to_thread(story, client(one), stranger)


async def test_an_http_function_that_fails_is_a_bad_gateway(node: NodeFactory) -> None:
    """Not through the SDK: it would try again."""
    source = (
        "import os\n"
        "def exits(environ, start_response):\n    os._exit(1)\n"
        "def raises(environ, start_response):\n    raise KeyError('k')\n"
        "def moves(environ, start_response):\n"
        "    start_response('302 Found', [('Location', '/elsewhere')])\n"
        "    return b''\n"
    )
    path = "/2016-08-15/proxy/svc"
    async with node() as one:
        for name in ("exits", "raises", "moves"):
            await one.deploy(name, source, handler=f"index.{name}")
            await one.trigger(name, "h", "http", {"authType": "anonymous", "methods": ["GET"]})
        crash = await one.request("GET", f"{path}/exits/")
        error = await one.request("GET", f"{path}/raises/")
        async with one.session.get(f"{one.url}{path}/moves/", allow_redirects=False) as moved:
            pass

    assert crash.status == error.status == 502
    assert set(crash.json()) == {"errorMessage"}  # no ErrorCode, as the SDKs expect
    text = "Process exited unexpectedly before completing request"
    assert crash.json()["errorMessage"].startswith(text)
    assert error.headers["x-fc-error-type"] == "UnhandledInvocationError"
    assert error.json()["errorType"] == "KeyError"
    assert (moved.status, moved.headers["location"]) == (302, "/elsewhere")
    assert len(moved.headers["x-fc-request-id"]) == 36


async def test_the_tracing_context_of_a_call_reaches_the_handler(
    node: NodeFactory, tmp_path: Path
) -> None:
    def story(sdk: Any) -> None:
        sdk.create_service("s")
        source = (
            "import json\n"
            "def handler(event, context):\n"
            "    tracing = context.tracing\n"
            "    return json.dumps([tracing.span_context, tracing.span_baggages])\n"
        )
        deploy(sdk, tmp_path, source, "handler", "traced")
        prefix = "x-fc-tracing-opentracing-span-context"
        headers = {prefix: "124ed43254b54966:124ed43254b54966:0:1", f"{prefix}-baggage-key": "val"}
        told = json.loads(sdk.invoke_function("s", "traced", headers=headers).data)
        assert told == [headers[prefix], {"key": "val"}]

    async with node() as one:
        await asyncio.to_thread(story, client(one))

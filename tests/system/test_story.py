"""The life of a service through the official SDK, unmodified."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from pathlib import Path
from typing import Any

import fc2
import pytest

from tests.system.conftest import NodeFactory
from tests.system.node import KEY_ID, SECRET, Node, until

EVENT = "def handler(event, context):\n    print('saw', event)\n    return b'{answer}'\n"


def code(folder: Path, answer: str) -> str:
    """A directory with the function's code; the SDK packs it."""
    path = folder / answer
    path.mkdir()
    (path / "index.py").write_text(EVENT.format(answer=answer))
    return str(path)


def sdk(node: Node) -> Any:
    return fc2.Client(endpoint=node.url, accessKeyID=KEY_ID, accessKeySecret=SECRET, Timeout=30)


async def test_the_sdk_creates_calls_publishes_splits_and_rolls_back(
    node: NodeFactory, tmp_path: Path
) -> None:
    async with node() as one:
        client = sdk(one)

        def story() -> Counter[bytes]:
            client.create_service("shop", description="order pipeline")
            client.create_function(
                "shop", "hello", "python3.10", "index.handler", codeDir=code(tmp_path, "one")
            )
            assert client.invoke_function("shop", "hello", b"x").data == b"one"
            first = client.publish_version("shop", "first")
            assert first.data["versionId"] == "1"
            client.create_alias("shop", "prod", "1")
            client.update_function("shop", "hello", codeDir=code(tmp_path, "two"))
            assert client.publish_version("shop", "second").data["versionId"] == "2"
            assert client.invoke_function("shop", "hello", qualifier="prod").data == b"one"

            client.update_alias("shop", "prod", "1", additionalVersionWeight={"2": 0.5})
            split = Counter(
                client.invoke_function("shop", "hello", qualifier="prod").data for _ in range(60)
            )
            client.update_alias("shop", "prod", "2", additionalVersionWeight={})
            assert client.invoke_function("shop", "hello", qualifier="prod").data == b"two"
            client.update_alias("shop", "prod", "1")
            assert client.invoke_function("shop", "hello", qualifier="prod").data == b"one"
            return split

        split = await asyncio.to_thread(story)

    assert set(split) == {b"one", b"two"}
    assert min(split.values()) >= 10  # 60 throws of a fair coin: below 10 once in ten million


async def test_the_sdk_reads_the_log_tail_and_the_error(node: NodeFactory) -> None:
    async with node() as one:
        await one.deploy("fine", EVENT.format(answer="ok"))
        await one.deploy("bad", "def handler(event, context):\n    raise KeyError('k')\n")
        client = sdk(one)

        def calls() -> tuple[Any, fc2.FcError]:
            tail = client.invoke_function("svc", "fine", b"abc", headers={"x-fc-log-type": "Tail"})
            with pytest.raises(fc2.FcError) as failed:
                client.invoke_function("svc", "bad")
            return tail, failed.value

        tail, error = await asyncio.to_thread(calls)

    log = base64.b64decode(tail.headers["x-fc-log-result"]).decode()
    assert "saw b'abc'" in log
    assert f"FC Invoke End RequestId: {tail.headers['x-fc-request-id']}" in log
    assert "KeyError" in str(error)


async def test_an_http_function_answers_through_its_trigger(node: NodeFactory) -> None:
    source = (
        "def handler(environ, start_response):\n"
        "    start_response('202 Accepted', [('X-Path', environ['PATH_INFO'])])\n"
        "    return environ['wsgi.input'].read(int(environ['CONTENT_LENGTH']))\n"
    )
    async with node() as one:
        await one.deploy("web", source)
        await one.trigger("web", "http", "http", {"authType": "anonymous", "methods": ["POST"]})

        reply = await one.request("POST", "/2016-08-15/proxy/svc/web/a%20b", b"body", signed=False)
        refused = await one.invoke("web")

    assert (reply.status, reply.body, reply.headers["x-path"]) == (202, b"body", "/a b")
    assert reply.headers["content-security-policy"] == "sandbox allow-scripts allow-forms"
    assert refused.status == 400
    assert "can only be invoked with http trigger URL" in refused.json()["ErrorMessage"]


async def test_no_call_sees_a_mix_while_versions_are_published(node: NodeFactory) -> None:
    """Two functions carry the same number; a version must always pair equal numbers."""
    async with node() as one:
        for name in ("left", "right"):
            await one.deploy(name, "def handler(event, context):\n    return b'0'\n")
        await one.api("POST", "/services/svc/versions", {})
        await one.api("POST", "/services/svc/aliases", {"aliasName": "prod", "versionId": "1"})
        seen: set[tuple[bytes, bytes]] = set()
        stop = asyncio.Event()

        async def reader() -> None:
            while not stop.is_set():
                version = (await one.api("GET", "/services/svc/aliases/prod"))["versionId"]
                pair = [
                    (
                        await one.request(
                            "POST",
                            f"/2016-08-15/services/svc.{version}/functions/{name}/invocations",
                        )
                    ).body
                    for name in ("left", "right")
                ]
                seen.add((pair[0], pair[1]))

        readers = [asyncio.create_task(reader()) for _ in range(3)]
        for number in range(1, 8):
            for name in ("left", "right"):
                await one.deploy(name, f"def handler(event, context):\n    return b'{number}'\n")
            version = (await one.api("POST", "/services/svc/versions", {}))["versionId"]
            await one.api("PUT", "/services/svc/aliases/prod", {"versionId": version})
        stop.set()
        await asyncio.gather(*readers)

    assert len(seen) > 1
    assert all(left == right for left, right in seen), seen


async def test_accepted_events_run_without_a_caller(node: NodeFactory) -> None:
    async with node() as one:
        await one.deploy("later", EVENT.format(answer="ok"))
        request_id = await one.invoke_async("later", b"payload")

        async def logged() -> bool:
            found = await one.request("GET", f"/eventd/v1/logs?requestId={request_id}")
            return b"saw b'payload'" in found.body

        await until(logged, "the log of the asynchronous call")

"""Requests that are wrong in form, size, time or signature, against a whole daemon."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import stat
import struct
import time
import zipfile
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import health
import orjson
import pytest
import pytest_asyncio
from system_node import ACCOUNT, ROLE, Node, until, zipped

pytestmark = pytest.mark.asyncio(loop_scope="module")

API = "/2016-08-15"
FUNCTIONS = f"{API}/services/svc/functions"
INVOKE = f"{FUNCTIONS}/echo/invocations"
ECHO = """
import time
def handler(event, context):
    if event.startswith(b"sleep"):
        time.sleep(float(event[5:]))
    return event
"""
LIMIT = 4 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    env = {
        "EVENTD_HTTP_HEADER_TIMEOUT_S": "1",
        "EVENTD_HTTP_MAX_SYNC_BODY_BYTES": "100000",
        "EVENTD_HTTP_MAX_API_BODY_BYTES": "500000",
        "EVENTD_POOL_MAX_UNPACKED_BYTES": str(LIMIT),
        "EVENTD_POOL_IDLE_TIMEOUT_S": "2",
    }
    one = Node(tmp_path_factory.mktemp("requests") / "data", env=env)
    try:
        async with one:
            await one.deploy("echo", ECHO, timeout=20)
            await one.trigger(
                "echo", "tick", "timer", {"cronExpression": "@every 1h", "enable": True}
            )
            assert (await one.invoke("echo", b"warm")).body == b"warm"
            yield one
    finally:
        await one.end()


@pytest_asyncio.fixture(loop_scope="module")
async def untouched(node: Node) -> AsyncIterator[None]:
    """After the test: the daemon serves, and no resource and no file came or went."""
    before = await health.holdings(node)
    yield
    await health.healthy(node)
    assert (await node.invoke("echo", b"after")).body == b"after"
    after = await health.holdings(node)
    assert after.resources == before.resources
    assert after.code == before.code
    assert not after.partial


def function(**changes: Any) -> bytes:
    body: dict[str, Any] = {
        "functionName": "bad",
        "runtime": "python3.10",
        "handler": "index.handler",
        "code": {"zipFile": base64.b64encode(zipped({"index.py": ECHO})).decode()},
    }
    body |= changes
    return orjson.dumps({key: value for key, value in body.items() if value is not ...})


def trigger(kind: str, config: Any, **more: Any) -> bytes:
    return orjson.dumps(
        {"triggerName": "bad", "triggerType": kind, "triggerConfig": config, **more}
    )


SERVICES, TRIGGERS = f"{API}/services", f"{FUNCTIONS}/echo/triggers"
OSS = {"sourceArn": f"acs:oss:cn-local:{ACCOUNT}:bucket", "invocationRole": ROLE}
EVENTS = {"events": ["oss:ObjectCreated:*"], "filter": {"key": {"prefix": "", "suffix": ""}}}
# name: method, path, body, code, what the message names
CONTROL: dict[str, tuple[str, str, bytes, str, str]] = {
    "truncated JSON": ("POST", SERVICES, b'{"serviceName": "x"', "InvalidArgument", "Bad data"),
    "no JSON": ("POST", SERVICES, b"\xff\xfe\x00", "InvalidArgument", "Bad data"),
    "an array": ("POST", SERVICES, b"[]", "InvalidArgument", "JSON object"),
    "deep JSON": ("POST", SERVICES, b'{"a":' * 500 + b"1" + b"}" * 500, "InvalidArgument", "deep"),
    "a number as name": ("POST", SERVICES, b'{"serviceName": 5}', "InvalidArgument", "ServiceName"),
    "no name": ("POST", SERVICES, b"{}", "InvalidArgument", "ServiceName"),
    "an empty name": ("POST", SERVICES, b'{"serviceName": ""}', "InvalidArgument", "ServiceName"),
    "a name with ..": (
        "POST", SERVICES, b'{"serviceName": "../etc"}', "InvalidArgument", "ServiceName"),
    "a name with a digit first": (
        "POST", SERVICES, b'{"serviceName": "1a"}', "InvalidArgument", "ServiceName"),
    "a name with a line break": (
        "POST", SERVICES, b'{"serviceName": "a\\n"}', "InvalidArgument", "ServiceName"),
    "a long name": (
        "POST", SERVICES, orjson.dumps({"serviceName": "a" * 129}), "InvalidArgument",
        "ServiceName"),
    "a long description": (
        "POST", SERVICES, orjson.dumps({"serviceName": "a", "description": "d" * 257}),
        "InvalidArgument", "Description"),
    "internetAccess as text": (
        "POST", SERVICES, b'{"serviceName": "a", "internetAccess": "yes"}', "InvalidArgument",
        "InternetAccess"),
    "a log config without its store": (
        "POST", SERVICES, b'{"serviceName": "a", "logConfig": {"project": "p"}}',
        "InvalidArgument", "LogConfig"),
    "a body over the limit": (
        "POST", FUNCTIONS, function(description="x" * 600_000), "EntityTooLarge", "500000"),
    "function name": (
        "POST", FUNCTIONS, function(functionName="a b"), "InvalidArgument", "FunctionName"),
    "unknown runtime": (
        "POST", FUNCTIONS, function(runtime="cobol"), "InvalidArgument", "Runtime"),
    "no handler": ("POST", FUNCTIONS, function(handler=...), "InvalidArgument", "Handler"),
    "memory 100": ("POST", FUNCTIONS, function(memorySize=100), "InvalidArgument", "MemorySize"),
    "memory as text": (
        "POST", FUNCTIONS, function(memorySize="256"), "InvalidArgument", "MemorySize"),
    "memory true": ("POST", FUNCTIONS, function(memorySize=True), "InvalidArgument", "MemorySize"),
    "huge memory": (
        "POST", FUNCTIONS, function(memorySize=1 << 62), "InvalidArgument", "MemorySize"),
    "timeout 0": ("POST", FUNCTIONS, function(timeout=0), "InvalidArgument", "Timeout"),
    "timeout 86401": ("POST", FUNCTIONS, function(timeout=86401), "InvalidArgument", "Timeout"),
    "timeout 1.5": ("POST", FUNCTIONS, function(timeout=1.5), "InvalidArgument", "Timeout"),
    "concurrency 201": (
        "POST", FUNCTIONS, function(instanceConcurrency=201), "InvalidArgument",
        "InstanceConcurrency"),
    "concurrency -1": (
        "POST", FUNCTIONS, function(instanceConcurrency=-1), "InvalidArgument",
        "InstanceConcurrency"),
    "initialization timeout": (
        "POST", FUNCTIONS, function(initializationTimeout=301), "InvalidArgument",
        "InitializationTimeout"),
    "environment key": (
        "POST", FUNCTIONS, function(environmentVariables={"A=B": "c"}), "InvalidArgument",
        "EnvironmentVariables"),
    "environment size": (
        "POST", FUNCTIONS, function(environmentVariables={"A": "c" * 5000}), "InvalidArgument",
        "EnvironmentVariables"),
    "environment value": (
        "POST", FUNCTIONS, function(environmentVariables={"A": 1}), "InvalidArgument",
        "EnvironmentVariables"),
    "code as text": ("POST", FUNCTIONS, function(code="zip"), "InvalidArgument", "Code"),
    "code not base64": (
        "POST", FUNCTIONS, function(code={"zipFile": "%%%"}), "InvalidArgument", "ode"),
    "code in a bucket that is not there": (
        "POST", FUNCTIONS, function(code={"ossBucketName": "no-such", "ossObjectName": "a.zip"}),
        "InvalidArgument", "ode"),
    "code from above a bucket": (
        "POST", FUNCTIONS,
        function(code={"ossBucketName": "..", "ossObjectName": "../../etc/passwd"}),
        "InvalidArgument", "ode"),
    "a service that is not there": (
        "POST", f"{API}/services/none/functions", function(), "ServiceNotFound", "none"),
    "a duplicate": (
        "POST", FUNCTIONS, function(functionName="echo"), "FunctionAlreadyExists", "echo"),
    "unknown trigger type": (
        "POST", TRIGGERS, trigger("smoke", {}), "InvalidArgument", "TriggerType"),
    "config as text": (
        "POST", TRIGGERS, trigger("timer", "x"), "InvalidArgument", "TriggerConfig"),
    "cron": (
        "POST", TRIGGERS, trigger("timer", {"cronExpression": "0 0 99 * * *", "enable": True}),
        "InvalidArgument", "cronExpression"),
    "cron zone": (
        "POST", TRIGGERS,
        trigger("timer", {"cronExpression": "CRON_TZ=Mars/Base 0 0 1 * * *", "enable": True}),
        "InvalidArgument", "cronExpression"),
    "every 0": (
        "POST", TRIGGERS, trigger("timer", {"cronExpression": "@every 0s", "enable": True}),
        "InvalidArgument", "cronExpression"),
    "oss event": (
        "POST", TRIGGERS, trigger("oss", {**EVENTS, "events": ["oss:Nothing"]}, **OSS),
        "InvalidArgument", "vents"),
    "oss source": (
        "POST", TRIGGERS, trigger("oss", EVENTS, sourceArn="bucket", invocationRole=ROLE),
        "InvalidArgument", "ourceArn"),
    "log path": ("POST", TRIGGERS, trigger("log", {"path": 5}), "InvalidArgument", "path"),
    "kafka servers": (
        "POST", TRIGGERS,
        trigger("kafka", {"bootstrapServers": "no port", "topic": "t", "consumerGroup": "g"}),
        "InvalidArgument", "ootstrapServers"),
    "kafka batch": (
        "POST", TRIGGERS,
        trigger("kafka", {"bootstrapServers": "127.0.0.1:1", "topic": "t", "consumerGroup": "g",
                          "batchSize": 0}),
        "InvalidArgument", "atchSize"),
    "http auth": (
        "POST", TRIGGERS, trigger("http", {"authType": "none", "methods": ["GET"]}),
        "InvalidArgument", "uthType"),
    "http method": (
        "POST", TRIGGERS, trigger("http", {"authType": "anonymous", "methods": ["BREW"]}),
        "InvalidArgument", "ethods"),
    "trigger name": (
        "POST", TRIGGERS,
        orjson.dumps({"triggerName": "a/b", "triggerType": "timer", "triggerConfig": {}}),
        "InvalidArgument", "TriggerName"),
    "limit of a list": ("GET", f"{SERVICES}?limit=abc", b"", "InvalidArgument", "imit"),
    "alias weight": (
        "POST", f"{API}/services/svc/aliases",
        b'{"aliasName": "a", "versionId": "1", "additionalVersionWeight": {"2": 2.0}}',
        "InvalidArgument", "AdditionalVersionWeight"),
    "an update that is wrong in one of two fields": (
        "PUT", f"{FUNCTIONS}/echo", b'{"description": "half", "timeout": -5}', "InvalidArgument",
        "Timeout"),
    "an old ETag": ("PUT", f"{FUNCTIONS}/echo", b'{"description": "x"}', "PreconditionFailed", ""),
    "an operation of the future": (
        "GET", f"{API}/nothing/here", b"", "PathNotSupported", "nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CONTROL))
@pytest.mark.usefixtures("untouched")
async def test_a_bad_control_call_names_its_field_and_changes_nothing(
    node: Node, name: str
) -> None:
    method, path, body, code, named = CONTROL[name]
    headers = {"if-match": "old"} if name == "an old ETag" else {}

    reply = await node.request(method, path, body, headers)

    assert 400 <= reply.status < 500, (reply.status, reply.body)
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json()) == {"ErrorCode", "ErrorMessage"}
    assert reply.json()["ErrorCode"] == code, reply.body
    assert named in reply.json()["ErrorMessage"], reply.body
    assert "Traceback" not in reply.body.decode()
    assert "Value error" not in reply.body.decode()
    assert len(reply.headers["x-fc-request-id"]) == 36


def entry(name: str, mode: int, content: bytes = b"x", **more: Any) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.create_system, info.external_attr = 3, mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return raw.getvalue()


def encrypted() -> bytes:
    raw = bytearray(zipped({"index.py": ECHO}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + offset] |= 1
    return bytes(raw)


def broken_crc() -> bytes:
    raw = bytearray(zipped({"index.py": ECHO}))
    raw[raw.index(b"import time")] ^= 1
    return bytes(raw)


def lying_size() -> bytes:
    """It says 10 bytes and unpacks to 8 MiB."""
    raw = bytearray(entry("index.py", stat.S_IFREG | 0o644, b"\0" * (8 << 20)))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", raw, raw.index(signature) + offset, 10)
    return bytes(raw)


FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
PACKAGES = {
    "no zip": b"no zip at all",
    "half a zip": zipped({"index.py": ECHO})[:60],
    "wrong checksum": broken_crc(),
    "encrypted": encrypted(),
    "absolute": entry("/etc/cron.d/x", FILE),
    "leaves with ..": entry("a/../../x", FILE),
    "backslashes": entry("..\\\\x", FILE),
    "absolute link": entry("x", LINK, b"/etc/passwd"),
    "link that leaves": entry("x", LINK, b"../../etc/passwd"),
    "device": entry("x", stat.S_IFCHR | 0o666),
    "pipe": entry("x", stat.S_IFIFO | 0o666),
    "bomb": entry("x", FILE, b"\0" * (8 << 20)),
    "bomb that lies": lying_size(),
    "a file and a directory of one name": zipped({"a": "x", "a/b": "x"}),
    "a long name": entry("n" * 300, FILE),
}


@pytest.mark.parametrize("name", sorted(PACKAGES))
@pytest.mark.parametrize("update", [False, True])
@pytest.mark.usefixtures("untouched")
async def test_a_bad_package_is_refused_and_leaves_no_file(
    node: Node, name: str, update: bool
) -> None:
    code = {"zipFile": base64.b64encode(PACKAGES[name]).decode()}
    if update:
        body = orjson.dumps({"code": code, "description": "half"})
        reply = await node.request("PUT", f"{FUNCTIONS}/echo", body)
    else:
        reply = await node.request("POST", FUNCTIONS, function(code=code))

    assert (reply.status, reply.json()["ErrorCode"]) == (400, "InvalidArgument"), reply.body
    assert reply.json()["ErrorMessage"].startswith("Code"), reply.body


HANDLERS = {
    "no such module": ({"index.py": ECHO}, "other.handler", "ImportModuleError"),
    "no such function": ({"index.py": ECHO}, "index.other", "HandlerNotFound"),
    "no callable": ({"index.py": "handler = 5"}, "index.handler", "HandlerNotFound"),
    "no dot": ({"index.py": ECHO}, "handler", "InvalidHandleName"),
    "syntax": ({"index.py": "def handler(:"}, "index.handler", "UserCodeSyntaxError"),
    "no such import": ({"index.py": "import nowhere"}, "index.handler", "ImportModuleError"),
    "raises": ({"index.py": "raise ValueError('at import')"}, "index.handler", "UserCodeError"),
    "NUL in the source": ({"index.py": b"a\0b"}, "index.handler", "UserCode"),
    "not UTF-8": ({"index.py": b"x = '\xff'"}, "index.handler", "UserCodeSyntaxError"),
    "a path": ({"index.py": ECHO}, "../../etc/passwd.handler", "UserCodeError"),
    "exits": ({"index.py": "import sys; sys.exit(0)"}, "index.handler", ""),
    "dies": ({"index.py": "import os; os._exit(1)"}, "index.handler", ""),
    "empty": ({"readme": "nothing"}, "index.handler", "ImportModuleError"),
}


@pytest.mark.parametrize("concurrency", [1, 20])
async def test_a_handler_that_cannot_be_loaded_is_the_functions_error(
    node: Node, concurrency: int
) -> None:
    before = await health.holdings(node)
    wrong = {}
    for name, (files, handler, kind) in HANDLERS.items():
        await node.deploy("load", files, handler=handler, instanceConcurrency=concurrency)
        replies = await asyncio.gather(*[node.invoke("load") for _ in range(2)])
        for reply in replies:
            answer = reply.json()
            good = (
                reply.status == 200
                and reply.headers.get("x-fc-error-type") == "UnhandledInvocationError"
                and answer.get("errorType", "").startswith(kind)
                and answer["errorMessage"]
                and "eventd" not in reply.body.decode()
            )
            if not good:
                wrong[name] = (reply.status, reply.body)
        await node.api("DELETE", "/services/svc/functions/load")
    assert not wrong
    await health.healthy(node)
    assert (await health.holdings(node)).resources == before.resources

    async def gone() -> bool:
        return not any(one["function"] == "load" for one in (await node.status())["instances"])

    await until(gone, "no instance of the deleted function is left")


def signed_as(node: Node, **changes: str) -> dict[str, str]:
    return node.sign("POST", INVOKE, {"content-type": "application/json", **changes})


def corrupted(headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "authorization": headers["authorization"][:-4] + "AAA="}


@pytest.mark.parametrize("path", [INVOKE, FUNCTIONS])
@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        ("none", "MissingRequiredHeader", 400),
        ("wrong", "SignatureNotMatch", 403),
        ("other key", "InvalidAccessKeyID", 403),
        ("no date", "MissingRequiredHeader", 400),
        ("old", "RequestTimeTooSkewed", 403),
        ("future", "RequestTimeTooSkewed", 403),
        ("no time at all", "InvalidArgument", 400),
        ("other method", "SignatureNotMatch", 403),
        ("other header", "SignatureNotMatch", 403),
        ("basic", "InvalidArgument", 400),
    ],
)
@pytest.mark.usefixtures("untouched")
async def test_a_bad_signature_is_refused_before_anything(
    node: Node, path: str, kind: str, code: str, status: int
) -> None:
    shift = {"old": -1000, "future": 1000}.get(kind, 0)
    date = formatdate(time.time() + shift, usegmt=True)
    if kind == "no time at all":
        date = "yesterday"
    sent = {"content-type": "application/json", "date": date}
    headers = node.sign("GET" if kind == "other method" else "POST", path, sent)
    if kind == "none":
        del headers["authorization"]
    elif kind == "wrong":
        headers = corrupted(headers)
    elif kind == "other key":
        headers["authorization"] = "FC nobody:" + headers["authorization"].partition(":")[2]
    elif kind == "no date":
        del headers["date"]
    elif kind == "other header":
        headers["x-fc-invocation-type"] = "Async"
    elif kind == "basic":
        headers["authorization"] = "Basic YTpi"

    reply = await node.request("POST", path, function(), headers, signed=False)

    assert (reply.status, reply.json()["ErrorCode"]) == (status, code), reply.body


async def raw(node: Node, data: bytes, *, limit_s: float = 15) -> bytes:
    """What comes back until the daemon closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    try:
        writer.write(data)
        async with asyncio.timeout(limit_s):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def head(*lines: str, path: str = INVOKE) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


RAW = {
    "both framings": (head("Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "two lengths": (head("Content-Length: 3", "Content-Length: 4") + b"abcd", 400),
    "negative length": (head("Content-Length: -1"), 400),
    "chunked twice": (head("Transfer-Encoding: chunked, chunked"), 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "large headers": (head("A: " + "x" * 9000), 400),
    "long path": (head(path=INVOKE + "x" * 5000), 400),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "slow headers": (b"POST " + INVOKE.encode() + b" HTTP/1.1\r\nHo", 408),
    "slow headers of the API": (b"POST " + SERVICES.encode() + b" HTTP/1.1\r\nHost: a\r\nA", 408),
}


@pytest.mark.parametrize("name", sorted(RAW))
@pytest.mark.usefixtures("untouched")
async def test_bad_framing_and_slow_heads_end_their_connection(node: Node, name: str) -> None:
    data, status = RAW[name]

    answer = await raw(node, data + (b"" if status == 408 else head("Content-Length: 0")))

    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:500]
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b'"ErrorCode"' in answer


@pytest.mark.parametrize("path", [INVOKE, FUNCTIONS])
@pytest.mark.usefixtures("untouched")
async def test_a_body_that_comes_too_slowly_ends_its_connection(node: Node, path: str) -> None:
    headers = node.sign("POST", path, {"content-type": "application/json"})
    lines = [f"{name}: {value}" for name, value in headers.items()]

    answer = await raw(node, head(*lines, "Content-Length: 50000", path=path) + b"{")

    assert answer.startswith(b"HTTP/1.1 408 "), answer[:500]
    assert b"RequestTimeout" in answer


@pytest.mark.usefixtures("untouched")
async def test_bodies_over_the_limits_of_calls_are_refused(node: Node) -> None:
    sync = await node.invoke("echo", b"x" * 100_001)
    late = await node.invoke("echo", b"x" * 131_073, headers={"x-fc-invocation-type": "Async"})

    for reply in (sync, late):
        assert (reply.status, reply.json()["ErrorCode"]) == (400, "EntityTooLarge"), reply.body


@pytest.mark.usefixtures("untouched")
async def test_clients_that_leave_in_mid_call_leave_nothing(node: Node) -> None:
    """With a FIN, with a RST, in the body, in the answer, and while they wait for a slot."""
    for kind in ("fin", "rst", "body", "queue"):
        writers = []
        count = 4 if kind == "queue" else 2
        for _ in range(count):
            body = b"sleep15"
            headers = node.sign("POST", INVOKE, {"content-type": "application/json"})
            lines = [f"{name}: {value}" for name, value in headers.items()]
            _, writer = await asyncio.open_connection("127.0.0.1", node.port)
            size = 5000 if kind == "body" else len(body)
            writer.write(head(*lines, f"Content-Length: {size}") + body)
            writers.append(writer)
        if kind != "body":
            await until(lambda count=count: busy(node, count), f"{kind}: the calls run")
        for writer in writers:
            if kind == "rst":
                made = writer.get_extra_info("socket")
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()
        await until(lambda: busy(node, 0, at_most=True), f"{kind}: nothing runs", 10)


async def busy(node: Node, calls: int, *, at_most: bool = False) -> bool:
    count = sum(one["busy"] for one in (await node.status())["instances"])
    return count <= calls if at_most else count >= calls

"""Functions and their code through the API."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import os
import stat
import zipfile
from typing import Any
from urllib.parse import urlsplit

import pytest

from eventd.api import code as code_module
from eventd.api.code import CodeDownloads
from eventd.store.checksum import crc64

from .conftest import Plane, make_zip, zip_text

FUNCTIONS = "/services/demo/functions"


def body(**changes: Any) -> dict[str, Any]:
    return {
        "functionName": "hello",
        "runtime": "python3",
        "handler": "index.handler",
        "code": {"zipFile": zip_text()},
        **changes,
    }


@pytest.fixture(autouse=True)
async def demo(plane: Plane) -> None:
    await plane.service()


async def test_a_created_function_reads_back(plane: Plane) -> None:
    made = await plane.function(environmentVariables={"STAGE": "prod"}, description="d")

    package = make_zip()
    assert made.data["codeSize"] == len(package)
    assert made.data["codeChecksum"] == str(crc64(package))
    assert made.data["environmentVariables"] == {"STAGE": "prod"}
    assert (made.data["memorySize"], made.data["timeout"]) == (128, 3)
    assert (made.data["instanceConcurrency"], made.data["instanceSoftConcurrency"]) == (1, 1)
    assert made.data["caPort"] is None
    assert "code" not in made.data
    got = await plane.call("GET", f"{FUNCTIONS}/hello")
    assert (got.data, got.headers["ETag"]) == (made.data, made.headers["ETag"])


async def test_the_code_can_be_fetched_without_a_signature(plane: Plane) -> None:
    made = await plane.function()

    code = await plane.call("GET", f"{FUNCTIONS}/hello/code")

    assert code.data["checksum"] == made.data["codeChecksum"]
    async with plane.session.get(code.data["url"]) as response:
        assert response.status == 200
        assert await response.read() == make_zip()


async def test_a_large_package_is_fetched_whole(plane: Plane) -> None:
    data = make_zip({"noise.bin": os.urandom(3 << 20)})
    await plane.function(code={"zipFile": base64.b64encode(data).decode()})
    url = (await plane.call("GET", f"{FUNCTIONS}/hello/code")).data["url"]

    async with plane.session.get(url) as response:
        assert await response.read() == data
        assert len(response.headers["X-Fc-Request-Id"]) == 36


async def test_a_client_that_takes_nothing_is_cut_off(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(code_module, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(code_module, "_MIN_RATE_BYTES_S", 1 << 40)
    data = make_zip({"noise.bin": os.urandom(12 << 20)})
    await plane.function(code={"zipFile": base64.b64encode(data).decode()})
    url = urlsplit((await plane.call("GET", f"{FUNCTIONS}/hello/code")).data["url"])
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=1024)
    writer.write(f"GET {url.path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())

    with caplog.at_level(logging.INFO, "eventd.api.code"):
        deadline = plane.state.clock.monotonic() + 10
        while "is cut off" not in caplog.text:
            assert plane.state.clock.monotonic() < deadline
            await asyncio.sleep(0.01)
    taken = 0
    try:
        while part := await asyncio.wait_for(reader.read(1 << 20), 10):
            taken += len(part)
    except ConnectionError:
        pass  # the other way to see the cut

    assert 0 < taken < len(data)
    writer.close()


async def test_the_address_has_a_port_when_the_host_header_has_none(plane: Plane) -> None:
    await plane.function()

    code = await plane.call("GET", f"{FUNCTIONS}/hello/code", headers={"Host": "127.0.0.1"})

    assert code.data["url"].startswith(f"{plane.endpoint}/2016-08-15/code/")


async def test_a_forged_or_old_address_is_refused(plane: Plane) -> None:
    await plane.function()
    url = (await plane.call("GET", f"{FUNCTIONS}/hello/code")).data["url"]
    path, _, token = url.removeprefix(plane.endpoint).rpartition("/")
    prefix, _, expires = path.rpartition("/")
    digest = prefix.rpartition("/")[2]
    old = CodeDownloads(plane.state)._token(digest, "1000")

    for forged in (
        f"{path}/{'0' * 64}",
        f"{prefix}/{int(expires) + 1}/{token}",
        f"{prefix}/{expires}/é",
        f"{prefix}/1000/{old}",
    ):
        answer = await plane.call("GET", forged, signed=False)
        assert (answer.status, answer.code) == (403, "AccessDenied")


async def test_an_update_replaces_the_environment_and_keeps_the_rest(plane: Plane) -> None:
    made = await plane.function(initializer="index.init", environmentVariables={"A": "1"})

    changed = await plane.call(
        "PUT", f"{FUNCTIONS}/hello", {"description": "new", "functionName": "ignored"}
    )
    assert changed.data["initializer"] == "index.init"
    assert changed.data["environmentVariables"] == {"A": "1"}
    assert changed.data["codeChecksum"] == made.data["codeChecksum"]
    assert changed.data["functionName"] == "hello"

    emptied = await plane.call("PUT", f"{FUNCTIONS}/hello", {"environmentVariables": {}})
    assert emptied.data["environmentVariables"] == {}


async def test_new_code_has_another_checksum(plane: Plane) -> None:
    made = await plane.function()

    code = {"zipFile": zip_text({"index.py": "other"})}
    changed = await plane.call("PUT", f"{FUNCTIONS}/hello", {"code": code})

    assert changed.data["codeChecksum"] != made.data["codeChecksum"]


async def test_a_checksum_header_is_verified(plane: Plane) -> None:
    right = str(crc64(make_zip()))

    wrong = await plane.call("POST", FUNCTIONS, body(), headers={"X-Fc-Code-Checksum": "1"})
    assert (wrong.status, wrong.code) == (400, "InvalidArgument")
    assert right in wrong.message
    assert plane.metadata.function("demo", "hello") is None

    made = await plane.call("POST", FUNCTIONS, body(), headers={"X-Fc-Code-Checksum": right})
    assert made.status == 200


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ({"zipFile": "###"}, "Code.zipFile is not valid base64"),
        ({"zipFile": "UEs=UEs="}, "Code.zipFile is not valid base64"),
        ({"zipFile": "\u6d4b"}, "Code.zipFile is not valid base64"),
        ({"zipFile": "bm90IGEgemlw"}, "Code: the package is refused: it is not a readable zip"),
        ({"ossBucketName": "b", "ossObjectName": "o"}, "Code: bucket 'b' does not exist"),
        ({"ossBucketName": "../b", "ossObjectName": "o"}, "Code: bucket '../b' does not exist"),
        ({"ossBucketName": "b"}, "Either ossBucketName/ossObjectName or zipFile must be set"),
        (None, "Either ossBucketName/ossObjectName or zipFile must be set"),
    ],
)
async def test_bad_code_is_refused_and_nothing_is_kept(
    plane: Plane, code: object, text: str
) -> None:
    refused = await plane.call("POST", FUNCTIONS, body(code=code))

    assert (refused.status, refused.code) == (400, "InvalidArgument")
    assert text in refused.message
    assert plane.metadata.function("demo", "hello") is None
    assert plane.blobs.content == {}


async def test_a_package_with_a_link_that_leaves_is_refused_by_name(plane: Plane) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("way-out")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "../../etc")
    code = {"zipFile": base64.b64encode(buffer.getvalue()).decode()}

    refused = await plane.call("POST", FUNCTIONS, body(code=code))

    assert "entry 'way-out' is a link that leaves the package" in refused.message


async def test_code_comes_from_a_bucket_and_never_from_outside_it(plane: Plane) -> None:
    bucket = plane.data_dir / "buckets" / "code"
    (bucket / "v1").mkdir(parents=True)
    (bucket / "v1" / "app.zip").write_bytes(make_zip())
    (plane.data_dir / "secret.zip").write_bytes(make_zip())
    (bucket / "link.zip").symlink_to(plane.data_dir / "secret.zip")
    os.mkfifo(bucket / "pipe.zip")

    made = await plane.function(code={"ossBucketName": "code", "ossObjectName": "v1/app.zip"})
    assert made.data["codeChecksum"] == str(crc64(make_zip()))

    for name in ("../../secret.zip", "link.zip", "pipe.zip", "missing.zip", "v1", "a\x00b"):
        code = {"ossBucketName": "code", "ossObjectName": name}
        refused = await plane.call("POST", FUNCTIONS, body(functionName="other", code=code))
        assert (refused.status, refused.code) == (400, "InvalidArgument"), name
        assert "of bucket 'code' does not exist" in refused.message


async def test_an_object_over_the_limit_is_refused(plane: Plane) -> None:
    bucket = plane.data_dir / "buckets" / "code"
    bucket.mkdir(parents=True)
    with (bucket / "big.zip").open("wb") as file:
        file.truncate(plane.state.limits.object_bytes + 1)

    code = {"ossBucketName": "code", "ossObjectName": "big.zip"}
    refused = await plane.call("POST", FUNCTIONS, body(code=code))

    assert refused.code == "InvalidArgument"
    assert str(plane.state.limits.object_bytes) in refused.message


async def test_a_function_exists_once_and_needs_its_service(plane: Plane) -> None:
    await plane.function()

    again = await plane.call("POST", FUNCTIONS, body())
    assert (again.status, again.code) == (409, "FunctionAlreadyExists")
    assert again.message == "function 'hello' already exists in service 'demo'"

    nowhere = await plane.call("POST", "/services/nowhere/functions", body())
    assert (nowhere.status, nowhere.code) == (404, "ServiceNotFound")
    missing = await plane.call("PUT", f"{FUNCTIONS}/other", {"description": "x"})
    assert (missing.status, missing.code) == (404, "FunctionNotFound")
    assert missing.message == "function 'other' does not exist in service 'demo'"


async def test_a_service_holds_only_so_many_functions(plane: Plane) -> None:
    plane.state.limits = type(plane.state.limits)(functions=1)
    await plane.function("one")

    refused = await plane.call("POST", FUNCTIONS, body(functionName="two"))

    assert (refused.status, refused.code) == (400, "LimitExceededError")


@pytest.mark.parametrize(
    ("runtime", "warned"), [("python3", False), ("python2.7", True), ("nodejs14", True)]
)
async def test_a_runtime_that_differs_here_is_taken_with_a_warning(
    plane: Plane, runtime: str, warned: bool
) -> None:
    made = await plane.function(runtime=runtime)

    assert made.data["runtime"] == runtime
    assert ("X-Eventd-Warning" in made.headers) == warned


async def test_a_custom_runtime_has_the_usual_port(plane: Plane) -> None:
    assert (await plane.function(runtime="custom")).data["caPort"] == 9000


async def test_a_soft_concurrency_above_the_hard_one_is_refused_on_update(plane: Plane) -> None:
    await plane.function(instanceConcurrency=10, instanceSoftConcurrency=8)

    refused = await plane.call("PUT", f"{FUNCTIONS}/hello", {"instanceConcurrency": 5})

    assert refused.code == "InvalidArgument"
    assert "InstanceSoftConcurrency" in refused.message


async def test_a_function_with_triggers_cannot_be_deleted(plane: Plane) -> None:
    await plane.function()
    trigger = {
        "triggerName": "t",
        "triggerType": "http",
        "triggerConfig": {"authType": "anonymous", "methods": ["GET"]},
    }
    assert (await plane.call("POST", f"{FUNCTIONS}/hello/triggers", trigger)).status == 200

    refused = await plane.call("DELETE", f"{FUNCTIONS}/hello")
    assert (refused.status, refused.code) == (409, "FunctionNotEmpty")
    assert refused.message == "function 'hello' has active triggers"

    await plane.call("DELETE", f"{FUNCTIONS}/hello/triggers/t")
    assert (await plane.call("DELETE", f"{FUNCTIONS}/hello")).status == 204
    assert (await plane.call("GET", f"{FUNCTIONS}/hello")).status == 404


async def test_a_published_function_cannot_be_changed(plane: Plane) -> None:
    await plane.function()
    await plane.publish()

    for method, path in (
        ("PUT", "/services/demo.1/functions/hello"),
        ("DELETE", "/services/demo.1/functions/hello"),
        ("POST", "/services/demo.1/functions"),
        ("PUT", "/services/demo.1"),
    ):
        refused = await plane.call(method, path, body())
        assert (refused.status, refused.code) == (400, "PathNotSupported")

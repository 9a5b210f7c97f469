"""One JSON error shape, one request id, whatever goes wrong."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from urllib.parse import urlsplit

import pytest

from eventd.api import body
from eventd.store.interface import StoreFailed

from .conftest import Answer, Plane


def check_shape(answer: Answer) -> None:
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.data) == {"ErrorCode", "ErrorMessage"}
    assert len(answer.headers["X-Fc-Request-Id"]) == 36


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/custom-domains"),
        ("PUT", "/services/s.q/functions/f/provision-config"),
        ("POST", "/tag"),
        ("GET", "/layers"),
        ("PATCH", "/services/s"),
        ("DELETE", "/services"),
        ("GET", "/services/"),
        ("GET", "/2016-08-16/services"),
    ],
)
@pytest.mark.parametrize("signed", [True, False])
async def test_an_operation_that_does_not_exist_is_an_fc_error(
    plane: Plane, method: str, path: str, signed: bool
) -> None:
    answer = await plane.call(method, path, signed=signed)

    check_shape(answer)
    assert (answer.status, answer.code) == (400, "PathNotSupported")
    full = path if path.startswith("/2016") else f"/2016-08-15{path}"
    assert answer.message == f"'{method}' against '{full}' is not supported"


async def test_an_unsigned_or_wrongly_signed_call_is_refused_before_anything(plane: Plane) -> None:
    unsigned = await plane.call("POST", "/services", {"serviceName": "s"}, signed=False)
    forged = await plane.call(
        "POST",
        "/services",
        {"serviceName": "s"},
        headers={"Authorization": "FC test-id:AAAA"},
        signed=False,
    )

    for answer in (unsigned, forged):
        check_shape(answer)
    assert unsigned.code == "MissingRequiredHeader"
    assert (forged.status, forged.code) == (403, "SignatureNotMatch")
    assert list(plane.metadata.services()) == []


async def test_a_route_marked_open_needs_no_signature(plane: Plane) -> None:
    answer = await plane.call("GET", f"{'/2016-08-15'}/../healthz", signed=False)

    assert answer.status == 200
    assert answer.headers["X-Fc-Request-Id"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "Bad data in request body."),
        (b"[]", "expected a JSON object"),
        (b'"text"', "expected a JSON object"),
        (b"\xff\xfe", "Bad data in request body."),
        (b'{"serviceName": NaN}', "Bad data in request body."),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "more than 64 levels deep"),
        (b"[" * 100_000, "Bad data in request body."),
        (b"", "ServiceName is required but not provided"),
    ],
)
async def test_a_body_that_is_no_object_is_refused(plane: Plane, content: bytes, text: str) -> None:
    answer = await plane.call("POST", "/services", content)

    check_shape(answer)
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert text in answer.message


async def test_a_body_over_the_limit_is_refused(plane: Plane) -> None:
    answer = await plane.call("POST", "/services", io.BytesIO(b" " * ((1 << 20) + 1)))

    check_shape(answer)
    assert (answer.status, answer.code) == (400, "EntityTooLarge")
    assert answer.message == "payload size exceeds maximum allowed size (1048576 bytes)"


async def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(plane: Plane) -> None:
    url = urlsplit(plane.endpoint)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    plane.state.authenticator = _Anybody()
    head = "POST /2016-08-15/services HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    writer.write(b"80000\r\n" + b" " * 0x80000 + b"\r\n")
    writer.write(b"80001\r\n" + b" " * 0x80001 + b"\r\n")

    head_and_body = await asyncio.wait_for(reader.readuntil(b"}"), 10)

    assert head_and_body.startswith(b"HTTP/1.1 400 ")
    assert b"EntityTooLarge" in head_and_body
    writer.close()
    await writer.wait_closed()


async def test_a_body_that_comes_too_slowly_is_refused(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_PATIENCE_S", 0.05)
    url = urlsplit(plane.endpoint)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    plane.state.authenticator = _Anybody()
    writer.write(b"POST /2016-08-15/services HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{")

    answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the request body arrives too slowly" in answer
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_left_is_no_defect(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    reached, left = asyncio.Event(), asyncio.Event()

    class Blobs:
        async def get(self, digest: str) -> bytes:
            reached.set()
            await left.wait()
            return b"x" * 100_000

    await plane.service()
    await plane.function()
    url = urlsplit((await plane.call("GET", "/services/demo/functions/hello/code")).data["url"])
    plane.state.blobs = Blobs()  # type: ignore[assignment]
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET {url.path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    await asyncio.wait_for(reached.wait(), 10)
    writer.transport.abort()
    left.set()

    assert (await plane.call("GET", "/services/demo")).status == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_lost_connection_to_something_else_is_a_defect(plane: Plane) -> None:
    def gone(kind: str) -> None:
        raise ConnectionResetError("the broker left")

    plane.metadata.before_save = gone
    answer = await plane.call("POST", "/services", {"serviceName": "s"})

    check_shape(answer)
    assert answer.status == 500


class _Anybody:
    def verify(self, *args: object, **options: object) -> None:
        return None


async def test_the_callers_trace_id_becomes_the_request_id(plane: Plane) -> None:
    for given, taken in (("my-trace-1", True), ("has space", False), ("x" * 129, False)):
        answer = await plane.call("GET", "/services/absent", headers={"X-Fc-Trace-Id": given})
        assert (answer.headers["X-Fc-Request-Id"] == given) == taken


async def test_a_defect_is_logged_with_its_request_and_tells_nothing(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "eventd.api.errors"):
        answer = await plane.call("GET", "/defect")

    check_shape(answer)
    assert (answer.status, answer.code) == (500, "InternalServerError")
    assert answer.message == "an internal error has occurred. Please retry."
    assert answer.headers["X-Fc-Request-Id"] in caplog.text
    assert "a defect with a secret" in caplog.text


async def test_a_failed_store_is_unavailable_not_a_defect(plane: Plane) -> None:
    def broken(kind: str) -> None:
        raise StoreFailed("disk full", full=True)

    plane.metadata.before_save = broken
    answer = await plane.call("POST", "/services", {"serviceName": "s"})

    check_shape(answer)
    assert (answer.status, answer.code) == (503, "ServiceUnavailable")


async def test_an_unknown_key_is_logged_once(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "eventd.api.state"):
        for name in ("a", "b"):
            made = await plane.call("POST", "/services", {"serviceName": name, "codeUri": "x"})
            assert made.status == 200

    assert caplog.text.count("codeUri") == 1


async def test_names_may_be_percent_encoded_in_the_path(plane: Plane) -> None:
    await plane.service("demo_1")

    got = await plane.call("GET", "/services/demo_1")
    strange = await plane.call("GET", "/services/a'b")

    assert got.status == 200
    assert (strange.status, strange.code) == (404, "ServiceNotFound")
    assert json.loads(strange.raw)["ErrorMessage"] == "service 'a'b' does not exist"

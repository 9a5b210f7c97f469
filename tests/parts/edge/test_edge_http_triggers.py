"""FC 4.7, 4.8 through both fronts, on both loops."""

from __future__ import annotations

import base64

import pytest
from edge_world import PROXY, Client, World, signed_request, wait_until


def get(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {PROXY.format(path)} HTTP/1.1", "Host: shop.example", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_the_function_sees_the_request_as_fc_shows_it(client: Client) -> None:
    headers = [
        "X-Own: 1", "x-own: 2", "X-Fc-Secret: s", "Connection: keep-alive", "TE: trailers",
        "Accept-Encoding: gzip", "Proxy-Authorization: p", "Cookie: a=b", "Keep-Alive: 5",
    ]  # fmt: skip
    client.send(get("web/items/a%20b?q=a+b&q=%C3%A4&flag", *headers, method="PUT", body=b"\xff\0"))

    told = client.answer().json()

    assert told == {
        "method": "PUT",
        "path": "/items/a b",
        "uri": PROXY.format("web/items/a%20b?q=a+b&q=%C3%A4&flag"),
        "query": "q=a+b&q=%C3%A4&flag",
        "headers": [
            ["host", "shop.example"], ["x-own", "1"], ["x-own", "2"], ["cookie", "a=b"],
            ["content-length", "2"],
        ],
        "ip": "127.0.0.1",
        "body": "\xff\0",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["web", "web/", "web?a=1"])
def test_an_empty_path_is_the_root(client: Client, path: str) -> None:
    client.send(get(path))

    assert client.answer().json()["path"] == "/"


def test_a_gzipped_body_is_not_touched(client: Client) -> None:
    client.send(get("web/", "Content-Encoding: gzip", method="POST", body=b"\x1f\x8bnot really"))

    assert client.answer().json()["body"] == "\x1f\x8bnot really"


def test_a_page_keeps_its_status_and_headers_but_not_what_belongs_to_the_host(
    client: Client,
) -> None:
    client.send(get("web_page/"))

    answer = client.answer()

    assert (answer.status, answer.body) == (202, b"<html>")
    assert [v for n, v in answer.lines if n == "x-own"] == ["1", "2"]
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["x-text"] == "\u00e4"
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts allow-forms"
    assert [v for n, v in answer.lines if n == "content-disposition"] == ["attachment"]
    assert answer.headers["server"] == "eventd"
    assert answer.headers["content-length"] == "6"
    assert next(v for n, v in answer.lines if n == "date").endswith("GMT")
    assert not {"set-cookie", "x-fc-evil", "connection", "", "transfer-encoding"} & set(
        answer.headers
    )
    assert answer.headers["x-fc-invocation-duration"] == "22"
    assert answer.headers["x-fc-max-memory-usage"] == "41.07"
    assert answer.headers["x-fc-instance-id"] == "c-1"
    assert answer.headers["x-fc-code-checksum"] == "9041537722810366214"
    assert answer.headers["x-fc-invocation-service-version"] == "LATEST"
    assert len(answer.headers["x-fc-request-id"]) == 36


def test_a_body_without_a_type_is_octets_not_json(client: Client) -> None:
    client.send(get("web_plain/"))

    assert client.answer().headers["content-type"] == "application/octet-stream"


def test_204_has_no_body_and_the_connection_goes_on(client: Client) -> None:
    client.send(get("web_none/") + get("web_plain/"))

    first = client.answer()

    assert first.status == 204
    assert "content-length" not in first.headers
    assert client.answer().body == b"bytes"


def test_a_redirect_passes_through(client: Client) -> None:
    client.send(get("web_redirect/"))

    answer = client.answer()

    assert (answer.status, answer.headers["location"]) == (302, "/there")


@pytest.mark.parametrize("path", ["web_plain/", "web_stream/", "web_fail/"])
def test_head_gets_the_headers_only(client: Client, path: str) -> None:
    client.send(get(path, method="HEAD") + get("web_plain/"))

    head = client.answer(head_only=True)

    assert head.status == (502 if "fail" in path else 200)
    assert client.answer().body == b"bytes"


def test_parts_are_streamed_as_they_come(client: Client) -> None:
    client.send(get("web_stream/"))

    answer = client.answer()

    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == b"one,two,three"
    assert "x-fc-invocation-duration" not in answer.headers
    client.send(get("web_plain/"))
    assert client.answer().body == b"bytes"


def test_a_stream_to_http_10_ends_with_the_connection(client: Client) -> None:
    client.send(get("web_stream/").replace(b"HTTP/1.1", b"HTTP/1.0"))

    answer = client.answer()

    assert "transfer-encoding" not in answer.headers
    assert answer.body == b"one,two,three"
    assert client.closed()


def test_an_answer_that_fails_half_way_is_visibly_cut(client: Client) -> None:
    client.send(get("web_cut/"))

    with pytest.raises((EOFError, ConnectionResetError)):
        client.answer()


def test_a_slow_reader_stops_the_function(client: Client, world: World) -> None:
    client.send(get("web_flood/"))
    wait_until(lambda: any(c.writing_paused for c in tuple(world.edge.connections)))

    withheld = world.invoker.links[0].consumed_bytes
    answer = client.answer()

    assert withheld < 12 << 20
    assert len(answer.body) == 16 << 20


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("web_status/", 502, "BadResponse"),
        ("web_split/", 502, "BadResponse"),
        ("web_heads/", 502, "BadResponse"),
        ("web_busy/", 429, "ResourceExhausted"),
        ("echo/", 404, "TriggerNotFound"),
        ("nobody/", 404, "FunctionNotFound"),
        ("closed/", 403, "AccessDenied"),
        ("signed/", 400, "MissingRequiredHeader"),
    ],
)
def test_a_platform_error_is_marked(client: Client, path: str, status: int, code: str) -> None:
    client.send(get(path))

    answer = client.answer()

    assert (answer.status, answer.json()["ErrorCode"]) == (status, code)
    assert answer.headers["x-fc-error-type"] == "FcCommonError"
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["x-fc-request-id"]) == 36


def test_a_function_that_fails_is_502_with_its_error(client: Client) -> None:
    client.send(get("web_fail/"))

    answer = client.answer()

    assert (answer.status, answer.json()) == (502, {"errorMessage": "boom"})
    assert answer.headers["x-fc-error-type"] == "UnhandledInvocationError"


def test_a_method_that_the_trigger_does_not_list_is_403(client: Client) -> None:
    client.send(get("web/", method="DELETE"))

    answer = client.answer()

    assert (answer.status, answer.json()["ErrorCode"]) == (403, "AccessDenied")


def test_an_unknown_service_is_named(client: Client) -> None:
    client.send(b"GET /2016-08-15/proxy/nowhere/f/ HTTP/1.1\r\nHost: a\r\n\r\n")

    assert client.answer().json()["ErrorCode"] == "ServiceNotFound"


def test_a_bad_signature_on_an_anonymous_trigger_is_ignored(client: Client) -> None:
    client.send(get("web/", "Authorization: FC a:b", "Date: never"))

    assert client.answer().status == 200


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("signed/", "signed/\n"),
        ("signed/a%20b?b=2&a=1&a=0", "signed/a b\na=0\na=1\nb=2"),
        ("signed/a%20b?b=2", "signed/a%20b\nb=2"),
        ("signed/?k=a+b&f=&g", "signed/\nf=\ng\nk=a b"),
        ("signed/?f=&g", "signed/\nf\ng"),
        ("signed/%E4%B8%AD?q=%E4%B8%AD", "signed/\u4e2d\nq=\u4e2d"),
    ],
)
def test_a_signed_trigger_accepts_what_the_sdks_sign(
    client: Client, path: str, resource: str
) -> None:
    signed = signed_request(PROXY.format(path), method="GET", resource=PROXY.format(resource))
    client.send(signed)

    assert client.answer().status == 200


def test_a_signed_trigger_refuses_another_query(client: Client) -> None:
    signed = signed_request(
        PROXY.format("signed/?a=2"), method="GET", resource=PROXY.format("signed/\na=1")
    )
    client.send(signed)

    assert client.answer().json()["ErrorCode"] == "SignatureNotMatch"


def test_an_http_function_can_be_called_asynchronously(client: Client, world: World) -> None:
    client.send(get("web/x?y=1", "X-Fc-Invocation-Type: Async", method="POST", body=b"late"))

    answer = client.answer()

    assert (answer.status, answer.body) == (202, b"")
    ((request, _),) = world.invoker.enqueued
    assert request.http is not None
    assert (request.http.path, bytes(request.payload)) == ("/x", b"late")


def test_a_body_over_the_limit_is_an_invalid_argument_here(client: Client) -> None:
    client.send(get("web/", f"Content-Length: {(32 << 20) + 1}", method="POST"))

    answer = client.answer()

    assert (answer.status, answer.json()["ErrorCode"]) == (400, "InvalidArgument")


def test_the_log_tail_also_comes_with_http(client: Client) -> None:
    client.send(get("web_plain/", "X-Fc-Log-Type: Tail"))

    assert base64.b64decode(client.answer().headers["x-fc-log-result"]) == b"tail of the log"


def test_a_websocket_is_refused(client: Client) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    client.send(get("web/", *upgrade))

    assert client.answer().status == 403


def test_an_unknown_upgrade_is_overlooked(client: Client) -> None:
    client.send(get("web/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c") + get("web/"))

    assert client.answer().status == 200


def test_a_client_that_leaves_cancels_its_call(client: Client, world: World) -> None:
    client.send(get("web_wait/", "X-Fc-Trace-Id: gone"))
    wait_until(lambda: world.invoker.waiting)

    client.sock.close()

    wait_until(lambda: "gone" in world.invoker.cancelled)

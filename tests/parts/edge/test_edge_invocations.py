"""FC 4.1-4.6 through both fronts, on both loops."""

from __future__ import annotations

import base64
import re
import threading

import pytest
from edge_world import INVOKE, PROXY, Client, World, connected, signed_request, wait_until

EXPOSED = (
    "Date,x-fc-request-id,x-fc-error-type,x-fc-code-checksum,x-fc-invocation-duration,"
    "x-fc-max-memory-usage,x-fc-log-result,x-fc-invocation-code-version"
)


def call(name: str, body: bytes = b"", **more: object) -> bytes:
    return signed_request(INVOKE.format(name), body, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["echo", "echo_now"])
def test_a_result_comes_back_with_exactly_the_headers_of_fc(client: Client, name: str) -> None:
    client.send(call(name, b"hello"))

    answer = client.answer()

    assert (answer.status, answer.body) == (200, b"hello")
    request_id = answer.headers.pop("x-fc-request-id")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id)
    assert answer.headers.pop("date").endswith(" GMT")
    assert answer.headers == {
        "server": "eventd",
        "content-type": "application/octet-stream",
        "content-length": "5",
        "x-fc-code-checksum": "9041537722810366214",
        "x-fc-invocation-duration": "22",
        "x-fc-max-memory-usage": "41.07",
        "x-fc-invocation-service-version": "LATEST",
        "x-fc-instance-id": "c-1",
        "access-control-expose-headers": EXPOSED,
    }
    assert len(answer.lines) == 11


def test_every_request_gets_its_own_id(client: Client) -> None:
    ids = set()
    for _ in range(3):
        client.send(call("echo"))
        ids.add(client.answer().headers["x-fc-request-id"])

    assert len(ids) == 3


def test_a_call_without_a_body_gives_an_empty_event(client: Client, world: World) -> None:
    client.send(call("echo"))

    assert client.answer().body == b""
    assert world.invoker.payloads == [b""]


def test_a_function_error_is_200_with_json_and_its_type(client: Client) -> None:
    client.send(call("fail"))

    answer = client.answer()

    assert (answer.status, answer.json()) == (200, {"errorMessage": "boom"})
    assert answer.headers["x-fc-error-type"] == "UnhandledInvocationError"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("busy", 429, "ResourceExhausted"),
        ("exited", 412, "CAExited"),
        ("lost", 502, "InstanceLost"),
        ("broken", 500, "InternalServerError"),
        ("nobody", 404, "FunctionNotFound"),
    ],
)
def test_a_platform_failure_is_an_api_error(
    client: Client, name: str, status: int, code: str
) -> None:
    client.send(call(name, b"x"))

    answer = client.answer()

    assert (answer.status, answer.json()["ErrorCode"]) == (status, code)
    assert answer.json()["ErrorMessage"]
    assert len(answer.headers["x-fc-request-id"]) == 36
    assert "x-fc-error-type" not in answer.headers
    client.send(call("echo", b"on"))
    assert client.answer().body == b"on"


def test_the_callers_trace_id_is_the_request_id_also_of_an_error(
    client: Client, world: World
) -> None:
    for name in ("echo", "nobody"):
        client.send(call(name, headers={"X-Fc-Trace-Id": "my-own-id"}))
        assert client.answer().headers["x-fc-request-id"] == "my-own-id"
    client.send(call("echo", headers={"X-Fc-Trace-Id": "my-own-id"}, key_id="stranger"))
    assert client.answer().headers["x-fc-request-id"] == "my-own-id"

    assert [request.request_id for request in world.invoker.requests] == ["my-own-id"]


def test_the_log_tail_comes_only_on_demand_and_only_from_unshared_instances(
    client: Client,
) -> None:
    client.send(call("echo", headers={"X-Fc-Log-Type": "Tail"}))
    tail = client.answer().headers["x-fc-log-result"]
    client.send(call("shared", headers={"X-Fc-Log-Type": "Tail"}))
    shared = client.answer()
    client.send(call("echo", headers={"X-Fc-Log-Type": "None"}))
    silent = client.answer()

    assert base64.b64decode(tail) == b"tail of the log"
    assert "x-fc-log-result" not in shared.headers
    assert "x-fc-log-result" not in silent.headers


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (
            {"X-Fc-Log-Type": "X"},
            "LogType is set to an invalid value (allowed: Tail | None, actual: 'X')",
        ),
        (
            {"X-Fc-Log-Type": "Tail", "X-Fc-Invocation-Type": "Async"},
            "LogType is set to an invalid value (allowed: None, actual: 'Tail')",
        ),
        (
            {"X-Fc-Invocation-Type": "Later"},
            "InvocationType is set to an invalid value (allowed: Sync | Async, actual: 'Later')",
        ),
        (
            {"X-Fc-Invocation-Type": "Async", "X-Fc-Async-Delay": "3601"},
            "AsyncDelay is set to an invalid value (allowed: 0 to 3600 seconds, actual: '3601')",
        ),
        (
            {"X-Fc-Invocation-Type": "Async", "X-Fc-Async-Delay": "-1"},
            "AsyncDelay is set to an invalid value (allowed: 0 to 3600 seconds, actual: '-1')",
        ),
        (
            {"X-Fc-Invocation-Type": "Async", "X-Fc-Stateful-Async-Invocation-Id": "1a"},
            (
                "StatefulAsyncInvocationId doesn't match expected format "
                "(allowed: ^[A-Za-z_][A-Za-z0-9_-]{0,127}$, actual: '1a')"
            ),
        ),
    ],
)
def test_a_bad_option_is_named(client: Client, headers: dict[str, str], text: str) -> None:
    client.send(call("echo", b"some body", headers=headers))

    answer = client.answer()

    assert (answer.status, answer.json()) == (
        400,
        {"ErrorCode": "InvalidArgument", "ErrorMessage": text},
    )
    client.send(call("echo", b"on"))
    assert client.answer().body == b"on"


@pytest.mark.parametrize("name", ["X-Fc-Invocation-Type", "x-fc-invocation-type"])
def test_an_async_call_is_accepted_with_202_and_no_body(
    client: Client, world: World, name: str
) -> None:
    headers = {
        name: "Async",
        "X-Fc-Async-Delay": "7",
        "X-Fc-Stateful-Async-Invocation-Id": "order_1",
    }
    client.send(call("echo", b"event", headers=headers))

    answer = client.answer()

    assert (answer.status, answer.body) == (202, b"")
    assert answer.headers["x-fc-stateful-async-invocation-id"] == "order_1"
    assert "x-fc-invocation-duration" not in answer.headers
    ((request, delay_s),) = world.invoker.enqueued
    assert (bytes(request.payload), delay_s) == (b"event", 7)
    assert request.request_id == answer.headers["x-fc-request-id"]


def test_a_full_backlog_is_told(client: Client) -> None:
    client.send(call("full", b"event", headers={"X-Fc-Invocation-Type": "Async"}))

    answer = client.answer()

    assert (answer.status, answer.json()["ErrorCode"]) == (429, "ResourceExhausted")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused(
    client: Client, world: World, asynchronous: bool, chunked: bool
) -> None:
    limit = (128 << 10) if asynchronous else (32 << 20)
    headers = {"X-Fc-Invocation-Type": "Async"} if asynchronous else {}
    whole = b"x" * (limit + 1)
    if chunked:
        client.send(call("echo", headers=headers, chunks=[whole]))
    else:
        head = call("echo", headers={**headers, "Content-Length": str(len(whole))})
        client.send(head)

    answer = client.answer()

    assert (answer.status, answer.json()["ErrorCode"]) == (400, "EntityTooLarge")
    assert answer.json()["ErrorMessage"] == (
        f"payload size exceeds maximum allowed size ({limit} bytes)"
    )
    assert world.invoker.payloads == []


def test_a_body_of_exactly_the_async_limit_is_taken(client: Client) -> None:
    headers = {"X-Fc-Invocation-Type": "Async"}
    client.send(call("echo", b"x" * (128 << 10), headers=headers))

    assert client.answer().status == 202


@pytest.mark.parametrize("size", [65536, 1 << 20, (1 << 20) + 1, 5_000_000, 32 << 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_reach_the_function_whole(
    client: Client, world: World, size: int, chunked: bool
) -> None:
    body = bytes(range(256)) * (size // 256) + b"y" * (size % 256)
    if chunked:
        pieces = [body[at : at + 70_001] for at in range(0, size, 70_001)]
        client.send(call("size", chunks=pieces))
    else:
        client.send(call("size", body))

    assert client.answer().body == str(size).encode()
    assert world.invoker.payloads[-1] == body


def test_a_chunked_body_is_joined(client: Client) -> None:
    client.send(call("echo", chunks=[b"a", b"bc", b"d" * 300]))

    assert client.answer().body == b"abc" + b"d" * 300


def test_tracing_headers_reach_the_call(client: Client, world: World) -> None:
    span = "x-fc-tracing-opentracing-span-context"
    client.send(call("echo", headers={span: "ctx", f"{span}-baggage-key": "value"}))

    client.answer()

    (request,) = world.invoker.requests
    assert (request.span_context, request.span_baggages) == ("ctx", {"key": "value"})


def test_a_qualifier_is_passed_on(client: Client, world: World) -> None:
    client.send(signed_request("/2016-08-15/services/demo.prod/functions/echo/invocations"))

    client.answer()

    assert world.invoker.requests[0].qualifier == "prod"


def test_an_http_function_is_refused_here(client: Client) -> None:
    client.send(call("web", b"x"))

    answer = client.answer()

    assert (answer.status, answer.json()) == (
        400,
        {
            "ErrorCode": "InvalidArgument",
            "ErrorMessage": (
                "Function with http trigger(name: t) can only be invoked with http trigger URL"
            ),
        },
    )


def test_a_client_that_leaves_cancels_its_call(client: Client, world: World) -> None:
    client.send(call("wait", headers={"X-Fc-Trace-Id": "left"}))
    wait_until(lambda: world.invoker.waiting)

    client.sock.close()

    wait_until(lambda: world.invoker.cancelled == ["left"])
    assert world.invoker.waiting == []


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    requests = [call("echo", b"%d" % n) for n in range(40)]
    requests[5:5] = [call("nap", b"")]
    requests[9:9] = [signed_request(PROXY.format("web_stream/"), method="GET")]

    client.send(b"".join(requests))

    bodies = [client.answer().body for _ in requests]
    numbers = [body for body in bodies if body.isdigit()]
    assert numbers == [b"%d" % n for n in range(40)]
    assert (bodies[5], bodies[9]) == (b"rested", b"one,two,three")


def test_pipelined_requests_larger_than_every_buffer_all_arrive(client: Client) -> None:
    """A slow first request: the rest has to wait in the kernel, and is still served."""
    body = b"z" * 50_000
    client.sock.settimeout(30)
    requests = b"".join([call("nap"), *[call("size", body)] * 30])

    sender = threading.Thread(target=client.send, args=(requests,))
    sender.start()
    first = client.answer().body
    others = [client.answer().body for _ in range(30)]
    sender.join(10)

    assert first == b"rested"
    assert others == [b"50000"] * 30


def test_a_request_may_arrive_byte_by_byte(client: Client) -> None:
    for byte in call("echo", b"slowly"):
        client.send(bytes([byte]))

    assert client.answer().body == b"slowly"


def test_expect_continue_is_answered_before_the_body(client: Client) -> None:
    request = call("echo", b"asked", unsigned={"Expect": "100-continue"})
    head, body = request.split(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")

    assert client.answer().status == 100
    client.send(body)
    assert client.answer().body == b"asked"


def test_expect_continue_is_not_answered_when_the_call_is_refused(
    client: Client, edge_front: str
) -> None:
    request = call("echo", b"asked", unsigned={"Expect": "100-continue"}, secret="wrong")
    client.send(request.split(b"\r\n\r\n")[0] + b"\r\n\r\n")

    first = client.answer()
    if edge_front == "aiohttp" and first.status == 100:  # aiohttp agrees before the handler runs
        client.send(b"asked")
        first = client.answer()

    assert (first.status, first.json()["ErrorCode"]) == (403, "SignatureNotMatch")


@pytest.mark.parametrize("keep", [True, False])
def test_http_10_closes_unless_asked_to_keep_the_connection(client: Client, keep: bool) -> None:
    more = {"Connection": "keep-alive"} if keep else {}
    client.send(call("echo", b"old", version="HTTP/1.0", unsigned=more))

    answer = client.answer()

    assert answer.body == b"old"
    if keep:
        assert answer.headers["connection"].lower() == "keep-alive"
        client.send(call("echo", b"again"))
        assert client.answer().body == b"again"
    else:
        assert client.closed()


def test_connection_close_is_honoured(client: Client) -> None:
    client.send(call("echo", b"last", unsigned={"Connection": "close"}))

    answer = client.answer()

    assert (answer.body, answer.headers["connection"]) == (b"last", "close")
    assert client.closed()


def test_empty_lines_between_requests_are_overlooked(client: Client) -> None:
    client.send(call("echo", b"a") + b"\r\n" + call("echo", b"b"))

    assert [client.answer().body, client.answer().body] == [b"a", b"b"]


def test_a_repeated_head_grows_old(client: Client, world: World) -> None:
    request = call("echo", b"same")
    client.send(request)
    assert client.answer().status == 200
    world.clock.offset_s = 901.0
    try:
        client.send(request)
        answer = client.answer()
    finally:
        world.clock.offset_s = 0.0

    assert (answer.status, answer.json()["ErrorCode"]) == (403, "RequestTimeTooSkewed")


def test_a_repeated_head_is_checked_again_when_a_trigger_appears(world: World) -> None:
    request = call("echo", b"same")
    with connected(world, "fast") as client:
        client.send(request)
        assert client.answer().status == 200
        world.loop.call_soon_threadsafe(
            lambda: world.metadata.add("echo", auth="anonymous", methods=["GET"])
        )
        wait_until(lambda: len(world.metadata.triggers("demo", "echo")) == 1)
        client.send(request)
        refused = client.answer().status
        world.loop.call_soon_threadsafe(world.metadata.drop_last)
        wait_until(lambda: not world.metadata.triggers("demo", "echo"))

    assert refused == 400

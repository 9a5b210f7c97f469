"""The official Python SDK against the edge."""

from __future__ import annotations

from typing import Any

import fc2
import pytest
from edge_world import KEY_ID, SECRET, World


@pytest.fixture
def sdk(world: World) -> Any:
    return fc2.Client(
        endpoint=world.listening.url, accessKeyID=KEY_ID, accessKeySecret=SECRET, Timeout=15
    )


def test_a_sync_call_gives_the_bytes_and_the_headers(sdk: Any) -> None:
    answer = sdk.invoke_function(
        "demo", "echo", payload=b"hello", headers={"x-fc-log-type": "Tail"}
    )

    assert answer.data == b"hello"
    assert len(answer.headers["x-fc-request-id"]) == 36
    assert answer.headers["x-fc-log-result"]


def test_an_async_call_is_accepted(sdk: Any, world: World) -> None:
    answer = sdk.invoke_function(
        "demo", "echo", payload="later", headers={"x-fc-invocation-type": "Async"}
    )

    assert answer.data == b""
    assert world.invoker.enqueued[0][0].request_id == answer.headers["x-fc-request-id"]


def test_a_function_error_is_raised_with_status_200(sdk: Any) -> None:
    with pytest.raises(fc2.fc_exceptions.FcError) as raised:
        sdk.invoke_function("demo", "fail")

    assert raised.value.status_code == 200
    assert "boom" in str(raised.value)


@pytest.mark.parametrize(
    ("service", "function", "status", "code"),
    [
        ("nowhere", "echo", 404, "ServiceNotFound"),
        ("demo", "nobody", 404, "FunctionNotFound"),
        ("demo", "busy", 429, "ResourceExhausted"),
    ],
)
def test_an_api_error_is_read(
    sdk: Any, service: str, function: str, status: int, code: str
) -> None:
    with pytest.raises(fc2.fc_exceptions.FcError) as raised:
        sdk.invoke_function(service, function)

    assert (raised.value.status_code, raised.value.err_code) == (status, code)
    assert len(raised.value.request_id) == 36


def test_a_wrong_secret_and_a_wrong_id_are_told_in_the_words_that_the_sdk_tests(
    world: World,
) -> None:
    for key_id, secret, code in (
        (KEY_ID, "wrong", "SignatureNotMatch"),
        ("wrong", SECRET, "InvalidAccessKeyID"),
    ):
        client = fc2.Client(
            endpoint=world.listening.url, accessKeyID=key_id, accessKeySecret=secret
        )
        with pytest.raises(fc2.fc_exceptions.FcError) as raised:
            client.invoke_function("demo", "echo")
        assert (raised.value.status_code, raised.value.err_code) == (403, code)


def test_a_signed_trigger_is_called_with_blanks_in_path_and_query(sdk: Any) -> None:
    answer = sdk.do_http_request(
        "POST", "demo", "signed", "/action%20x", headers={"x-own": "1"},
        params={"key with space": "value with space", "many": ["b", "a"], "empty": ""},
        body=b"body",
    )  # fmt: skip

    assert answer.status_code == 200
    told = answer.json()
    assert (told["path"], told["body"]) == ("/action x", "body")

"""What a handler sees and what comes back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pool_bench import Bench, wait_until

from eventd.model.invocation import ErrorType
from eventd.pool.call import HttpHead


def get(path: str = "/", **changes: Any) -> HttpHead:
    fields: dict[str, Any] = {
        "method": "GET",
        "path": path,
        "uri": f"/2016-08-15/proxy/demo/echo{path}",
        "query": "",
        "headers": [],
        "client_ip": "127.0.0.9",
    }
    return HttpHead(**{**fields, **changes})


async def test_an_event_handler_gets_bytes_and_its_result_comes_back(bench: Bench) -> None:
    function = bench.function(
        """
        def handler(event, context):
            assert type(event) is bytes
            return event[::-1]
        """
    )

    first = await bench.run(function, b"abc")
    second = await bench.run(function, b"")

    assert (first.succeeded, first.payload) == (True, b"cba")
    assert second.payload == b""
    assert first.instance_id == second.instance_id
    assert first.instance_id.startswith("c-")


@pytest.mark.parametrize("concurrency", [1, 10])
@pytest.mark.parametrize("size", [65536, 65537, 3_000_000])
@pytest.mark.parametrize("form", ["def", "async def"])
async def test_large_payloads_go_in_and_out_whole(
    bench: Bench, form: str, size: int, concurrency: int
) -> None:
    function = bench.function(
        f"""
        {form} handler(event, context):
            return event[1:] + event[:1]
        """,
        instance_concurrency=concurrency,
    )
    payload = bytes(range(256)) * (size // 256) + b"!" * (size % 256)

    outcomes = await asyncio.gather(*[bench.run(function, payload) for _ in range(3)])

    assert all(outcome.payload == payload[1:] + payload[:1] for outcome in outcomes)


async def test_the_context_has_every_field_of_fc(bench: Bench) -> None:
    function = bench.function(
        """
        def handler(event, context):
            assert context.requestId == context.request_id
            assert context.accountId == context.account_id
            assert context.credentials.accessKeyId == context.credentials.access_key_id
            assert context.logger is not None
            return context
        """,
        log_project="p",
        log_store="s",
        version=7,
    )

    outcome = await bench.run(
        function,
        request_id="abc",
        retry_count=2,
        span_context="span",
        span_baggages={"k": "v"},
    )

    assert json.loads(outcome.payload) == {
        "requestId": "abc",
        "credentials": {"accessKeyId": "", "accessKeySecret": "", "securityToken": ""},
        "function": {
            "name": "echo",
            "handler": "index.handler",
            "memory": 128,
            "timeout": 15,
            "initializer": "",
            "initializationTimeout": 5,
        },
        "service": {
            "name": "demo",
            "logProject": "p",
            "logStore": "s",
            "qualifier": "LATEST",
            "versionId": "7",
        },
        "region": "cn-local",
        "accountId": "1234567890",
        "retryCount": 2,
        "tracing": {
            "openTracingSpanContext": "span",
            "openTracingSpanBaggages": {"k": "v"},
            "jaegerEndpoint": "",
        },
    }


async def test_the_environment_has_fc_and_user_variables(bench: Bench) -> None:
    function = bench.function(
        """
        import os
        def handler(event, context):
            return dict(os.environ)
        """,
        environment={"COLOUR": "blue"},
    )

    outcome = await bench.run(function)

    environment = json.loads(outcome.payload)
    assert environment["COLOUR"] == "blue"
    assert environment["FC_FUNCTION_NAME"] == "echo"
    assert environment["FC_FUNC_CODE_PATH"] == function.code_digest + "/"
    assert environment["FC_INSTANCE_ID"] == outcome.instance_id
    assert environment["accessKeyID"] == ""


async def test_module_state_stays_and_the_initializer_runs_once(bench: Bench) -> None:
    function = bench.function(
        """
        counter = 0
        def initializer(context):
            global counter
            counter += 1
        def handler(event, context):
            global counter
            counter += 1
            return counter
        """,
        initializer="index.initializer",
    )

    values = [(await bench.run(function)).payload for _ in range(3)]

    assert values == [b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("source", "handler", "kind", "message"),
    [
        ("", "index", "InvalidHandleName", "Invalid handler 'index'"),
        ("", "other.handler", "ImportModuleError", "Unable to import module 'other'"),
        ("import nothing_here", "index.handler", "ImportModuleError", "Unable to import module"),
        ("def handler(:", "index.handler", "UserCodeSyntaxError", "Syntax error in module 'index'"),
        ("1 / 0", "index.handler", "UserCodeError", "Module initialization error: 'division by"),
        ("x = 1", "index.handler", "HandlerNotFound", "Handler 'handler' is missing on module"),
        ("x = 1", "queue.handler", "ImportModuleError", "Unable to import module 'queue'"),
    ],
)
async def test_a_handler_that_cannot_be_loaded_is_an_error_of_the_call(
    bench: Bench, source: str, handler: str, kind: str, message: str
) -> None:
    function = bench.function(source, handler=handler)

    outcome = await bench.run(function)

    error = json.loads(outcome.payload)
    assert outcome.error_type == ErrorType.UNHANDLED
    assert error["errorType"] == kind
    assert error["errorMessage"].startswith(message)
    assert all(isinstance(line, str) for line in error["stackTrace"])


async def test_an_exception_is_answered_with_user_frames_only(bench: Bench) -> None:
    function = bench.function(
        """
        def handler(event, context):
            return helper()
        def helper():
            raise KeyError('k')
        """
    )

    outcome = await bench.run(function)

    error = json.loads(outcome.payload)
    file = f'File "{function.code_digest}/index.py"'
    assert error == {
        "errorMessage": "'k'",
        "errorType": "KeyError",
        "stackTrace": [
            [file, "line 3", "in handler", "return helper()"],
            [file, "line 5", "in helper", "raise KeyError('k')"],
        ],
    }
    assert outcome.payload == json.dumps(error, indent=4, sort_keys=True).encode()
    assert any("[ERROR]" in line for _, line in bench.lines.lines)


async def test_a_result_without_a_json_form_is_a_type_error(bench: Bench) -> None:
    function = bench.function("def handler(event, context): return {1: object()}")

    outcome = await bench.run(function)

    assert json.loads(outcome.payload)["errorType"] == "TypeError"


async def test_a_wsgi_handler_sees_the_request(bench: Bench) -> None:
    function = bench.function(
        """
        import json
        def handler(environ, start_response):
            names = [n for n in environ if n.isupper() or n.startswith(("wsgi.", "fc."))]
            seen = {n: environ[n] for n in names if isinstance(environ[n], (str, bool))}
            seen["body"] = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()
            seen["request"] = environ["fc.context"].request_id
            start_response("202 Accepted", [("X-A", "1"), ("X-A", "2")])
            return json.dumps(seen).encode()
        """
    )
    head = get(
        "/items/7\0x",
        uri="/2016-08-15/proxy/demo/echo/items/7%00x",
        method="POST",
        query="q=a&q=b",
        headers=[("x-two", "1"), ("x-two", "2"), ("content-type", "text/plain")],
    )

    heard = bench.start(function, b"body", http=head, request_id="r1")
    outcome = await heard.outcome()

    seen = json.loads(bytes(heard.body))
    assert outcome.succeeded
    assert outcome.payload == b""
    assert (heard.status, heard.headers) == (202, [(b"X-A", b"1"), (b"X-A", b"2")])
    expected = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/items/7\0x",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "q=a&q=b",
        "fc.request_uri": head.uri,
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "4",
        "REMOTE_ADDR": "127.0.0.9",
        "SERVER_NAME": "FCRUNTIME",
        "SERVER_PORT": "9000",
        "HTTP": "on",
        "HTTP_X_TWO": "1,2",
        "wsgi.multithread": False,
        "body": "body",
        "request": "r1",
    }
    assert expected.items() <= seen.items()


@pytest.mark.parametrize("concurrency", [1, 5])
async def test_a_generator_streams_its_chunks_while_it_runs(bench: Bench, concurrency: int) -> None:
    function = bench.function(
        """
        import os
        def handler(environ, start_response):
            write = start_response("200 OK", [])
            write(b"0,")
            return parts(environ["PATH_INFO"])
        def parts(path):
            yield "1,"
            while not os.path.exists(path):
                pass
            yield b"2"
        """,
        instance_concurrency=concurrency,
    )
    gate = bench.directory / "gate"

    heard = bench.start(function, http=get(str(gate)))
    await wait_until(lambda: heard.body == b"0,1,")
    assert not heard.done.done()
    gate.touch()
    await heard.outcome()

    assert heard.body == b"0,1,2"


@pytest.mark.parametrize("concurrency", [1, 5])
async def test_a_slow_reader_holds_back_only_its_own_answer(bench: Bench, concurrency: int) -> None:
    function = bench.function(
        """
        def handler(environ, start_response):
            start_response("200 OK", [])
            return (b"x" * 1000 for _ in range(int(environ["PATH_INFO"][1:])))
        """,
        instance_concurrency=concurrency,
    )

    slow = bench.start(function, http=get("/5000"), hold=True)
    await wait_until(lambda: len(slow.body) > 200_000)
    others = [bench.start(function, http=get("/1")) for _ in range(20)]
    for other in others:
        assert (await other.outcome()).succeeded
    held = len(slow.body)
    slow.hold = False
    assert slow.call is not None
    slow.call.consumed(held)
    outcome = await slow.outcome()

    assert held <= 256 << 10
    assert outcome.succeeded
    assert len(slow.body) == 5_000_000


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return 5", "invalid response type"),
        ("start_response('200 OK', []); return 5", "invalid response type"),
        ("start_response('200 OK', []); return [5]", "invalid response type"),
        ("return [b'x']", "start_response was not called before the body"),
        ("start_response('OK', []); return []", "the status 'OK' does not begin"),
        ("start_response('200 OK', [('A', 'b\\r\\nC: d')]); return []", "a line break or NUL"),
    ],
)
async def test_a_wsgi_handler_that_breaks_the_rules_is_an_error(
    bench: Bench, body: str, text: str
) -> None:
    function = bench.function(f"def handler(environ, start_response):\n    {body}\n")

    heard = bench.start(function, http=get())
    outcome = await heard.outcome()

    assert text in json.loads(outcome.payload)["errorMessage"]
    assert heard.status == 0


async def test_coroutines_of_one_instance_run_at_once(bench: Bench) -> None:
    function = bench.function(
        """
        import asyncio
        here, all_here = 0, asyncio.Event()
        async def handler(event, context):
            global here
            here += 1
            if here == 20:
                all_here.set()
            await all_here.wait()
            return context.request_id
        """,
        instance_concurrency=20,
    )

    outcomes = await asyncio.gather(
        *[bench.run(function, request_id=f"r{number}") for number in range(20)]
    )

    assert [outcome.payload.decode() for outcome in outcomes] == [f"r{n}" for n in range(20)]
    assert len({outcome.instance_id for outcome in outcomes}) == 1


async def test_threads_of_one_instance_run_at_once(bench: Bench) -> None:
    function = bench.function(
        """
        import threading
        barrier = threading.Barrier(20)
        def handler(event, context):
            barrier.wait(10)
            return context.request_id
        """,
        instance_concurrency=20,
    )

    outcomes = await asyncio.gather(
        *[bench.run(function, request_id=f"r{number}") for number in range(20)]
    )

    assert [outcome.payload.decode() for outcome in outcomes] == [f"r{n}" for n in range(20)]
    assert len({outcome.instance_id for outcome in outcomes}) == 1


async def test_a_cold_call_tells_what_its_start_cost(bench: Bench) -> None:
    function = bench.function("import time\ntime.sleep(0.05)\ndef handler(event, context): pass")

    cold, warm = bench.start(function), None
    await cold.outcome()
    warm = bench.start(function)
    await warm.outcome()

    assert cold.call is not None
    assert warm.call is not None
    assert (cold.call.cold, warm.call.cold) == (True, False)
    assert cold.call.spawn_ms > 0
    assert cold.call.import_ms >= 50
    assert warm.call.import_ms == 0

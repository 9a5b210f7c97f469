"""``eventd invoke``: call a function."""

from __future__ import annotations

import base64
import binascii
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from eventd.cli.client import API, Answer, Client, connect, function_path
from eventd.cli.failure import FUNCTION_FAILED, Failure, Refused
from eventd.cli.options import DataOption, EndpointOption, JsonOption


def invoke(
    name: Annotated[str, typer.Argument(metavar="SERVICE/FUNCTION")],
    qualifier: Annotated[
        str, typer.Option("--qualifier", "-q", metavar="Q", help="Version or alias. [LATEST]")
    ] = "",
    event: Annotated[
        str, typer.Option("--event", "-e", metavar="FILE|-|TEXT", help="The event. [empty]")
    ] = "",
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Return once it is accepted, on disk.")
    ] = False,
    log: Annotated[
        bool, typer.Option("--log", help="Show the end of the call's log on stderr.")
    ] = False,
    as_json: JsonOption = False,
    endpoint: EndpointOption = None,
    data: DataOption = None,
) -> None:
    """Call a function.

    Its result goes to stdout, everything else to stderr.

    The event is the content of FILE if there is such a file, stdin for "-", else the text itself.
    The exit code is 1 when the function failed; its error is then on stdout, too.

    Examples:

      eventd invoke demo/thumbnail --event event.json --log

      echo '{"orderId": 7}' | eventd invoke shop/orders -q prod --event -

      eventd invoke demo/heartbeat --async
    """
    service, slash, function = name.partition("/")
    if not slash or not service or not function or "/" in function:
        raise Failure(f"expected SERVICE/FUNCTION, got {name!r}")
    headers = {"x-fc-invocation-type": "Async" if asynchronous else "Sync"}
    if not asynchronous:
        headers["x-fc-log-type"] = "Tail" if log or as_json else "None"
    client = connect(endpoint, data)
    began = time.monotonic()
    try:
        answer = client.call(
            "POST",
            f"{function_path(service, function, qualifier)}/invocations",
            body=_event(event),
            headers=headers,
        )
    except Refused as error:
        whose = f"{service}.{qualifier}" if qualifier else service
        raise _with_url(error, client, whose, function) from None
    took_ms = (time.monotonic() - began) * 1000
    failed = answer.headers.get("x-fc-error-type", "")
    if as_json:
        print(json.dumps(_as_json(answer, failed, took_ms)))
    else:
        _show(answer, failed, took_ms, asynchronous=asynchronous, log=log)
    if failed:
        raise typer.Exit(FUNCTION_FAILED)


def _with_url(error: Refused, client: Client, service: str, function: str) -> Failure:
    """A function with an HTTP trigger takes requests and no events: say where."""
    if "http trigger" not in str(error):
        return error
    url = f"{client.endpoint}{API}/proxy/{quote(service)}/{quote(function)}/"
    return Failure(
        f"{service}/{function} has an HTTP trigger and is called by its URL: curl '{url}'",
        exit_code=error.exit_code,
    )


def _event(given: str) -> bytes:
    if given == "-":
        return sys.stdin.buffer.read()
    try:
        path = Path(given)
        if given and path.is_file():
            return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise Failure(f"--event: {given}: {error.strerror}") from None
        # else not a path at all (too long, a null byte): then it is the event
    return given.encode(errors="surrogateescape")


def _log_tail(answer: Answer) -> str:
    try:
        raw = base64.b64decode(answer.headers.get("x-fc-log-result", ""))
    except binascii.Error:
        return ""
    return raw.decode(errors="replace")


def _show(answer: Answer, failed: str, took_ms: float, *, asynchronous: bool, log: bool) -> None:
    request_id = answer.headers.get("x-fc-request-id", "")
    if log and (tail := _log_tail(answer)):
        print(tail.rstrip("\n"), file=sys.stderr)
    if asynchronous:
        print(request_id)
        print(f"accepted; eventd logs --request-id {request_id}", file=sys.stderr)
        return
    sys.stdout.buffer.write(answer.body)
    if sys.stdout.isatty() and not answer.body.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.flush()
    word = failed or "ok"
    if failed or sys.stderr.isatty():
        print(f"{word}, {took_ms:.1f} ms, request {request_id}", file=sys.stderr)


def _as_json(answer: Answer, failed: str, took_ms: float) -> dict[str, Any]:
    """``result`` is the parsed JSON, else the text; ``durationMs`` is what the caller waited."""
    result: Any
    try:
        result = answer.json()
    except ValueError:
        result = answer.body.decode(errors="replace")
    return {
        "requestId": answer.headers.get("x-fc-request-id", ""),
        "status": answer.status,
        "version": answer.headers.get("x-fc-invocation-service-version", ""),
        "errorType": failed,
        "durationMs": round(took_ms, 2),
        "result": result,
        "log": _log_tail(answer),
    }

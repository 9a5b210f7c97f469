"""Requests that two readers could understand differently are refused by both fronts alike."""

from __future__ import annotations

import random
import re

import pytest
from edge_world import INVOKE, PROXY, Client, World, connected, signed_request

TARGET = PROXY.format("web/").encode()


def head(*lines: bytes, first: bytes = b"POST " + TARGET + b" HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines]) + b"\r\n\r\n"


HOST = b"Host: a"
HEADS = {
    "both framings": head(HOST, b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "both, reversed": head(HOST, b"Transfer-Encoding: chunked", b"Content-Length: 5")
    + b"0\r\n\r\n",
    "two lengths": head(HOST, b"Content-Length: 3", b"Content-Length: 3") + b"abc",
    "two lengths differ": head(HOST, b"Content-Length: 3", b"Content-Length: 4") + b"abcd",
    "a list of lengths": head(HOST, b"Content-Length: 3, 3") + b"abc",
    "signed length": head(HOST, b"Content-Length: +3") + b"abc",
    "negative length": head(HOST, b"Content-Length: -3") + b"abc",
    "hex length": head(HOST, b"Content-Length: 0x3") + b"abc",
    "length with a blank": head(HOST, b"Content-Length: 3 3") + b"abc",
    "length with an underscore": head(HOST, b"Content-Length: 1_0") + b"abc",
    "empty length": head(HOST, b"Content-Length: ") + b"abc",
    "endless length": head(HOST, b"Content-Length: " + b"9" * 30),
    "folded line": head(HOST, b"A: b", b" c"),
    "folded with tab": head(HOST, b"A: b", b"\tc"),
    "blank first": head(b" A: b", HOST),
    "bare LF in the head": head(HOST, b"A: b\nC: d"),
    "only bare LF": b"GET " + TARGET + b" HTTP/1.1\nHost: a\n\n",
    "bare CR": head(HOST, b"A: b\rC: d"),
    "blank before the colon": head(HOST, b"A : b"),
    "blank before the length's colon": head(HOST, b"Content-Length : 3") + b"abc",
    "no name": head(HOST, b": b"),
    "no colon": head(HOST, b"abc"),
    "NUL in a value": head(HOST, b"A: b\0c"),
    "NUL in a name": head(HOST, b"A\0: b"),
    "control in a value": head(HOST, b"A: b\x01c"),
    "no host": head(),
    "two hosts": head(HOST, b"Host: b"),
    "host with a blank": head(b"Host: a b"),
    "host with a path": head(b"Host: a/b"),
    "host with a user": head(b"Host: u@a"),
    "other coding": head(HOST, b"Transfer-Encoding: gzip"),
    "two codings": head(HOST, b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "chunked not last": head(HOST, b"Transfer-Encoding: chunked, gzip"),
    "identity": head(HOST, b"Transfer-Encoding: identity"),
    "almost chunked": head(HOST, b"Transfer-Encoding: xchunked"),
    "chunked twice": head(HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "chunked in 1.0": head(
        HOST, b"Transfer-Encoding: chunked", first=b"POST " + TARGET + b" HTTP/1.0"
    ),
    "version 2.0": head(HOST, first=b"POST " + TARGET + b" HTTP/2.0"),
    "version 1.2": head(HOST, first=b"POST " + TARGET + b" HTTP/1.2"),
    "no version": head(HOST, first=b"GET " + TARGET),
    "two blanks": head(HOST, first=b"GET  " + TARGET + b" HTTP/1.1"),
    "blank in the target": head(HOST, first=b"GET " + TARGET + b"a b HTTP/1.1"),
    "fragment": head(HOST, first=b"GET " + TARGET + b"#a HTTP/1.1"),
    "bytes in the target": head(HOST, first=b"GET " + TARGET + b"\xff HTTP/1.1"),
    "unknown method": head(HOST, first=b"FOO " + TARGET + b" HTTP/1.1"),
    "small method": head(HOST, first=b"get " + TARGET + b" HTTP/1.1"),
    "connect": head(HOST, first=b"CONNECT a:80 HTTP/1.1"),
    "other protocol": head(HOST, first=b"GET " + TARGET + b" RTSP/1.0"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "two authorizations": head(HOST, b"Authorization: a", b"Authorization: b"),
    "two of ours": head(HOST, b"X-Fc-Log-Type: None", b"X-Fc-Log-Type: Tail"),
    "other expectation": head(HOST, b"Expect: tea", b"Content-Length: 1"),
    "large headers": head(HOST, b"A: " + b"x" * 8200),
    "many headers": head(HOST, *[b"A%d: b" % n for n in range(1200)]),
    "long path": head(HOST, first=b"GET " + TARGET + b"x" * 4096 + b" HTTP/1.1"),
    "endless line": b"GET " + b"/" * 20000,
}


@pytest.mark.parametrize("name", sorted(HEADS))
def test_an_ambiguous_head_is_refused_and_the_connection_ends(
    client: Client, world: World, name: str
) -> None:
    smuggled = signed_request(INVOKE.format("echo"), b"smuggled")

    client.send(HEADS[name] + smuggled)

    answer = client.answer(head_only=name.startswith("HEAD"))
    assert (answer.status, answer.json()["ErrorCode"]) == (400, "InvalidArgument")
    assert answer.json()["ErrorMessage"]
    assert answer.headers["connection"] == "close"
    assert len(answer.headers["x-fc-request-id"]) == 36
    assert client.closed()
    assert world.invoker.payloads == []


CHUNKED = head(HOST, b"Transfer-Encoding: chunked")
BODIES = {
    "no size": b"\r\n0\r\n\r\n",
    "letters": b"xyz\r\n",
    "prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n" + b"a" * 16 + b"\r\n0\r\n\r\n",
    "blank before": b" 3\r\nabc\r\n0\r\n\r\n",
    "blank behind": b"3 \r\nabc\r\n0\r\n\r\n",
    "endless size": b"fffffffffffffffff\r\n",
    "bare LF": b"3\nabc\r\n0\r\n\r\n",
    "longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "LF behind a chunk": b"3\r\nabc\n0\r\n\r\n",
    "extension with LF": b"3;a\nabc\r\n0\r\n\r\n",
    "extension with CR": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "extension with NUL": b"3;a\0\r\nabc\r\n0\r\n\r\n",
    "empty extension": b"3;\r\nabc\r\n0\r\n\r\n",
    "endless extension": b"3;a=" + b"b" * 400,
    "bad trailer": b"0\r\nA : b\r\n\r\n",
    "folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "endless trailer": b"0\r\nA: " + b"b" * 5000,
}


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_malformed_chunk_is_refused_and_the_connection_ends(
    client: Client, world: World, name: str
) -> None:
    client.send(CHUNKED + BODIES[name])

    answer = client.answer()

    assert (answer.status, answer.json()["ErrorCode"]) == (400, "InvalidArgument")
    assert client.closed()
    assert world.invoker.payloads == []


def test_valid_extensions_and_trailers_are_overlooked(client: Client, world: World) -> None:
    body = b'3;a=b;c="d e"\r\nabc\r\n0;last\r\nX-Trailer: 1\r\n\r\n'

    client.send(CHUNKED + body + head(HOST, b"Content-Length: 2") + b"de")

    assert [client.answer().json()["body"] for _ in range(2)] == ["abc", "de"]


FRAGMENTS = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b",", b";", b"%", b"%zz", b"[", b"//", b"?",
    b"\xff", b"\xc3\xa4", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"http://x:99999/", b"0",
    b"HTTP/1.1",
]  # fmt: skip
ORIGINALS = [
    head(HOST, b"X-A: b", b"Accept: text/html", b"Content-Length: 3") + b"abc",
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    head(b"Host: [::1]", b"Cookie: a=b", first=b"GET " + TARGET + b"x?y=z HTTP/1.1"),
]


def test_both_fronts_understand_damaged_requests_alike(
    edge_loop: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Damage of a fixed random choice; behind each request stands another, which must be read by
    both fronts or by none."""
    choose = random.Random(20261124)
    second = head(HOST, b"Connection: close", first=b"GET " + TARGET + b"second HTTP/1.1")
    differing = []
    with World(edge_loop, tmp_path_factory.mktemp("spool"), header_timeout_s=0.3) as world:
        for _ in range(150):
            request = bytearray(choose.choice(ORIGINALS))
            for _ in range(choose.choice([1, 1, 2])):
                at = choose.randrange(len(request))
                request[at : at + choose.choice([0, 0, 1])] = choose.choice([*FRAGMENTS, b""])
            heard = []
            for front in ("fast", "aiohttp"):
                with connected(world, front) as client:
                    client.send(bytes(request) + second)
                    answer = client.rest()
                assert b"<html" not in answer
                assert b"text/plain" not in answer
                statuses = re.findall(rb"HTTP/1\.1 ([2-5]..)", answer)
                seen = re.findall(rb'"(?:body|path|query)": "[^"]*"', answer)
                heard.append((statuses, seen))
            if heard[0] != heard[1]:
                differing.append((bytes(request), heard))

    assert differing == []


def test_hundreds_of_small_headers_within_the_limit_are_taken(client: Client) -> None:
    client.send(head(HOST, *[b"A%d: b" % n for n in range(400)]))

    assert len(client.answer().json()["headers"]) == 401


def test_what_was_asked_before_the_malformed_request_is_answered_first(client: Client) -> None:
    good = signed_request(INVOKE.format("nap"))

    client.send(good + HEADS["both framings"])

    assert client.answer().body == b"rested"
    assert client.answer().status == 400
    assert client.closed()


def test_a_refused_control_request_gets_the_same_answer(world: World) -> None:
    with connected(world, "aiohttp") as client:
        client.send(b"POST /control HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd")
        assert client.answer().json() == {"bytes": 4}
        client.send(b"POST /control HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd")
        refused = client.answer()
        assert (refused.status, refused.json()["ErrorCode"]) == (400, "InvalidArgument")
        assert client.closed()
    with connected(world, "aiohttp") as client:
        client.send(b"POST /control HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n")
        assert client.answer().status == 400
        assert client.closed()


def test_the_path_of_refusals_says_nothing_to_strangers(world: World) -> None:
    with connected(world, "aiohttp") as client:
        client.send(b"GET /.eventd/refused HTTP/1.1\r\nHost: a\r\n\r\n")

        assert client.answer().json()["ErrorCode"] == "PathNotSupported"


def test_bytes_behind_a_refused_upgrade_are_not_read_as_a_request(world: World) -> None:
    with connected(world, "fast") as client:
        client.send(
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
            b"GET /healthz HTTP/1.1\r\nHost: a\r\nBad : header\r\n\r\n"
        )

        assert client.answer().status == 200
        assert client.closed()


def test_a_later_request_on_the_same_connection_goes_over_to_aiohttp(world: World) -> None:
    with connected(world, "fast") as client:
        invoke = signed_request(INVOKE.format("echo"), b"mine")
        health = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        client.send(invoke + health + invoke + health)

        bodies = [client.answer().body for _ in range(4)]

    assert bodies == [b"mine", b'{"status": "ok"}'] * 2


def test_another_method_on_the_invocation_path_is_left_to_the_api(client: Client) -> None:
    client.send(signed_request(INVOKE.format("echo"), method="GET"))

    assert client.answer().status in (400, 405)

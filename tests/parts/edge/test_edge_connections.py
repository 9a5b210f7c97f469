"""Time limits, bounds, drain and exposure of the listener."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from edge_world import (
    INVOKE,
    LOOPS,
    PROXY,
    Client,
    World,
    connected,
    signed_request,
    wait_until,
    with_payload,
)

from eventd.api.server import serving
from eventd.config import ServerSettings
from eventd.errors import InvalidArgument

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
QUICK = {"header_timeout_s": 0.3, "keepalive_s": 0.6}


@pytest.fixture(params=sorted(LOOPS))
def loop_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_headers_that_come_too_slowly_end_the_connection(
    loop_name: str, tmp_path: Path, edge_front: str
) -> None:
    quick = {"header_timeout_s": 0.3}
    with World(loop_name, tmp_path, **quick) as world, connected(world, edge_front) as client:
        client.send(b"GET /x HTTP/1.1\r\nHo")

        answer = client.answer()

        assert (answer.status, answer.json()["ErrorCode"]) == (408, "RequestTimeout")
        assert client.closed()


def test_a_connection_that_says_nothing_is_closed(loop_name: str, tmp_path: Path) -> None:
    with World(loop_name, tmp_path, **QUICK) as world, connected(world, "fast") as client:
        assert client.closed()


def test_an_idle_connection_is_closed(loop_name: str, tmp_path: Path, edge_front: str) -> None:
    with World(loop_name, tmp_path, **QUICK) as world, connected(world, edge_front) as client:
        client.send(signed_request(INVOKE.format("echo"), b"x"))
        assert client.answer().body == b"x"

        assert client.closed()


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_body_that_comes_too_slowly_ends_the_connection(
    loop_name: str, tmp_path: Path, edge_front: str, framing: str
) -> None:
    with World(loop_name, tmp_path, **QUICK) as world, connected(world, edge_front) as client:
        head = f"POST {PROXY.format('web/')} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"
        client.send(head.encode() + b"5\r\nabc")

        answer = client.answer()

        assert (answer.status, answer.json()["ErrorCode"]) == (408, "RequestTimeout")
        assert client.closed()
        assert world.invoker.payloads == []


def test_a_reader_that_never_reads_is_cut_and_its_call_cancelled(
    loop_name: str, tmp_path: Path, edge_front: str
) -> None:
    with World(loop_name, tmp_path, **QUICK) as world, connected(world, edge_front) as client:
        client.send(f"GET {PROXY.format('web_flood/')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

        wait_until(lambda: world.invoker.cancelled)

        assert not world.edge.connections


def test_a_connection_beyond_the_bound_is_told_and_closed(loop_name: str, tmp_path: Path) -> None:
    with World(loop_name, tmp_path, max_connections=2) as world:
        with connected(world, "fast"), connected(world, "aiohttp"):
            wait_until(lambda: len(world.edge.connections) == 2)
            with connected(world, "fast") as third:
                answer = third.answer()
                assert (answer.status, answer.json()["ErrorCode"]) == (503, "ServiceUnavailable")
                assert third.closed()
        wait_until(lambda: not world.edge.connections)
        with connected(world, "aiohttp"):
            pass


def test_a_drain_closes_idle_connections_and_lets_running_requests_end(
    loop_name: str, tmp_path: Path, edge_front: str
) -> None:
    with World(loop_name, tmp_path) as world:
        with connected(world, edge_front) as idle, connected(world, edge_front) as busy:
            busy.send(signed_request(INVOKE.format("wait")))
            wait_until(lambda: world.invoker.waiting)
            world.stop()

            assert idle.closed()
            (call, receiver) = world.invoker.waiting.pop()
            world.loop.call_soon_threadsafe(receiver.on_end, with_payload(b"done"))
            answer = busy.answer()

            assert call.function.function == "wait"
            assert answer.body == b"done"
            assert busy.closed()
        world.wait_stopped()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((world.listening.host, world.listening.port), 5)
    assert world.invoker.cancelled == []


def test_a_drain_waits_for_a_body_that_is_still_being_sent(
    loop_name: str, tmp_path: Path, edge_front: str
) -> None:
    with World(loop_name, tmp_path) as world, connected(world, edge_front) as client:
        request = signed_request(INVOKE.format("size"), b"x" * 300_000)
        client.send(request[:100_000])
        wait_until(lambda: world.edge.connections)
        world.stop()
        wait_until(lambda: world.edge.draining)
        client.send(request[100_000:])

        assert client.answer().body == b"300000"
        assert client.closed()


def test_a_drain_cuts_what_does_not_end_in_time(
    loop_name: str, tmp_path: Path, edge_front: str
) -> None:
    with World(loop_name, tmp_path, drain_s=0.3) as world, connected(world, edge_front) as busy:
        busy.send(signed_request(INVOKE.format("wait"), headers={"X-Fc-Trace-Id": "stuck"}))
        wait_until(lambda: world.invoker.waiting)
        started = time.monotonic()
        world.stop()

        assert busy.closed()

        world.wait_stopped()
        assert time.monotonic() - started < 10
        assert world.invoker.cancelled == ["stuck"]


def test_many_connections_at_once_are_served_without_mixing(
    loop_name: str, tmp_path: Path, edge_front: str
) -> None:
    wrong: list[bytes] = []

    def work(world: World, number: int) -> None:
        with connected(world, edge_front) as client:
            for turn in range(20):
                expected = b"%d-%d" % (number, turn)
                client.send(signed_request(INVOKE.format("echo"), expected))
                if (found := client.answer().body) != expected:
                    wrong.append(found)

    with World(loop_name, tmp_path) as world:
        threads = [threading.Thread(target=work, args=(world, n)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        wait_until(lambda: not world.edge.connections)

    assert wrong == []
    assert world.metrics.http_requests["200"] == 320


def test_nothing_is_left_of_a_spooled_body(loop_name: str, tmp_path: Path, edge_front: str) -> None:
    spool = tmp_path / "spool"
    with World(loop_name, spool) as world, connected(world, edge_front) as client:
        head = f"POST {PROXY.format('web/')} HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n"
        client.send(head.encode() + b"x" * 5_000_000)
        wait_until(spool.exists)
        client.sock.close()
        wait_until(lambda: not world.edge.connections)

        assert list(spool.iterdir()) == []
        assert world.invoker.payloads == []


def test_a_spool_that_can_not_be_written_is_told(
    loop_name: str, tmp_path: Path, edge_front: str
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with World(loop_name, blocked) as world, connected(world, edge_front) as client:
        client.send(signed_request(INVOKE.format("size"), b"x" * 1_500_000))

        answer = client.answer()

        assert (answer.status, answer.json()["ErrorCode"]) == (503, "ServiceUnavailable")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return str(cert), str(key)


def test_both_fronts_speak_tls(
    loop_name: str, tmp_path: Path, certificate: tuple[str, str]
) -> None:
    cert, key = certificate
    context = ssl.create_default_context(cafile=cert)
    with World(loop_name, tmp_path, tls_cert=cert, tls_key=key) as world:
        assert world.listening.url.startswith("https://")
        raw = socket.create_connection((world.listening.host, world.listening.port), 10)
        with context.wrap_socket(raw, server_hostname="localhost") as sock:
            client = Client(sock)
            for _ in range(2):
                client.send(signed_request(INVOKE.format("size"), b"x" * 1_500_000))
                assert client.answer().body == b"1500000"
                client.send(HEALTH)
                assert client.answer().json() == {"status": "ok"}


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
async def test_a_listener_off_loopback_needs_tls_or_a_word(listen: str) -> None:
    edge = cast(Any, None)
    with pytest.raises(InvalidArgument, match=r"can be reached from other machines.*insecure_http"):
        async with serving(web.Application(), edge, ServerSettings(listen=listen), drain_s=float):
            raise AssertionError("it listens")


async def test_half_of_a_tls_pair_is_refused() -> None:
    edge = cast(Any, None)
    settings = ServerSettings(listen="127.0.0.1:0", tls_cert="x.pem")
    with pytest.raises(InvalidArgument, match="belong together"):
        async with serving(web.Application(), edge, settings, drain_s=float):
            raise AssertionError("it listens")


async def test_an_address_in_use_is_an_error_of_the_system(tmp_path: Path) -> None:
    with World("asyncio", tmp_path) as world:
        settings = ServerSettings(listen=f"127.0.0.1:{world.listening.port}")
        with pytest.raises(OSError, match="in use"):
            async with serving(web.Application(), world.edge, settings, drain_s=float):
                raise AssertionError("it listens")
        await asyncio.sleep(0)

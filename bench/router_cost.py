"""CPU time of the router for one warm call, without the kernel: everything from the bytes of the
request to the bytes of the answer is real, both sockets are fakes in memory.

    python bench/router_cost.py [CALLS=20000] [ROUNDS=7]

Prints the least and the median of the rounds, in microseconds of this thread, for 64 connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "parts" / "edge"))

from edge_world import KEY_ID, SECRET, FakeMetadata, signed_request

from eventd.api.auth import Authenticator, Credentials
from eventd.api.edge import Edge
from eventd.api.front import Front
from eventd.api.http import HttpTriggers
from eventd.clock import Clock
from eventd.config import HttpSettings, PoolSettings
from eventd.metrics import Metrics
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool import frames
from eventd.pool.instance import Instance
from eventd.pool.pool import Pool
from eventd.pool.state import State
from eventd.pool.surroundings import Account
from eventd.router.invoke import Invoker

CONNECTIONS = 64
HEAD = frames.U16.pack(200) + b"Content-Type\0text/plain"


class FakeTransport:
    """Counts what is written; ``heard`` sees it."""

    def __init__(self, heard: Any = None) -> None:
        self.writes = 0
        self.heard = heard

    def write(self, data: bytes) -> None:
        self.writes += 1
        if self.heard is not None:
            self.heard(data)

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 4711) if name == "peername" else None

    def set_write_buffer_limits(self, high: int = 0) -> None: ...
    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Child:
    """Answers every OPEN, in the same tick, with one write."""

    def __init__(self, instance: Instance, *, line: bool) -> None:
        self.channel = instance._channel
        self.decoder = frames.Decoder()
        self.line = line
        self.channel.connection_made(FakeTransport(self.heard))  # type: ignore[arg-type]

    def heard(self, data: bytes) -> None:
        out = []
        for kind, stream, body in self.decoder.feed(bytes(data)):
            if kind == frames.OPEN:
                if body[0] & frames.OPEN_HTTP:
                    out.append(frames.encode(frames.HEAD, stream, HEAD))
                if self.line:
                    out.append(frames.encode(frames.LOG, stream, b"\0one line"))
                out.append(frames.encode(frames.END, stream, frames.U32.pack(20) + b"hello"))
        if out:
            asyncio.get_running_loop().call_soon(self.channel.data_received, b"".join(out))


class Sink:
    """Where records and lines end: the memory of the store's buffers."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def add(self, record: Any) -> None:
        self.kept.append(record)

    def write(self, *line: Any) -> None:
        self.kept.append(line)


def snapshot(name: str) -> FunctionSnapshot:
    return FunctionSnapshot(
        service="demo", function=name, incarnation="i", version=0, runtime="python3",
        handler="index.handler", initializer="", memory_mb=128, timeout_s=30,
        initialization_timeout_s=3, instance_concurrency=100, environment={},
        code_digest="d", code_checksum="9041537722810366214",
    )  # fmt: skip


class Resolver:
    """The warm answer of the real one: two look-ups."""

    def __init__(self) -> None:
        self.found = {
            "demo": {("LATEST", name): snapshot(name) for name in ("web", "event", "line")}
        }

    def resolve(self, service: str, qualifier: str, function: str, key: str = "") -> Any:
        return self.found[service][qualifier, function]


class World:
    def __init__(self, pool: Pool, sink: Sink) -> None:
        self.pool = pool
        self.sink = sink
        self.resolver = Resolver()
        metrics, clock = Metrics(), Clock()
        metadata: Any = FakeMetadata()
        metadata.add("web", auth="anonymous", methods=["GET"])
        nowhere: Any = None
        resolver: Any = self.resolver
        self.edge = Edge(
            invoker=Invoker(resolver, pool, sink, nowhere, metrics, clock),
            authenticator=Authenticator(Credentials(KEY_ID, SECRET), clock),
            triggers=HttpTriggers(metadata),
            settings=HttpSettings(),
            metrics=metrics,
            clock=clock,
            spool_dir=Path(tempfile.gettempdir()),
        )
        for function in self.resolver.found["demo"].values():
            self._stand_in(function)

    def _stand_in(self, function: FunctionSnapshot) -> None:
        """A ready instance without a process."""
        from eventd.pool.group import Group

        pool = self.pool
        group = pool._groups[function.key] = Group(function)
        instance = Instance(function, pool._shared, pool)
        pool._instances[instance.id] = instance
        pool._group_of[instance] = group
        group.live.add(instance)
        group.starting = group.warming = 1
        Child(instance, line=function.function == "line")
        instance._move(State.READY)
        pool.ready(instance)
        instance.warm = True
        instance._memory_due = float("inf")


async def measure(world: World, request: bytes, calls: int) -> float:
    fronts: list[Any] = []
    for _ in range(CONNECTIONS):
        front = Front(world.edge, lambda: None)  # type: ignore[arg-type,return-value]
        front.connection_made(FakeTransport())  # type: ignore[arg-type]
        fronts.append(front)
    began = time.thread_time()
    for _ in range(calls // CONNECTIONS):
        for front in fronts:
            front.data_received(request)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    took = time.thread_time() - began
    rounds = calls // CONNECTIONS
    for front in fronts:
        assert front._transport.writes == rounds, (front._transport.writes, rounds)
        world.edge.connections.discard(front)
    world.sink.kept.clear()
    return took / (rounds * CONNECTIONS) * 1e6


async def main(calls: int, rounds: int) -> None:
    sink = Sink()
    nothing: Any = None
    pool = Pool(
        nothing, nothing, PoolSettings(), Metrics(), Clock(), sink,
        account=Account("1", "cn-local"), drain_s=lambda: 0.0,
    )  # fmt: skip
    pool._loop = asyncio.get_running_loop()
    world = World(pool, sink)
    invoke = "/2016-08-15/services/demo/functions/{}/invocations"
    web = b"GET /2016-08-15/proxy/demo/web/x HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n\r\n"
    kinds = {
        "anonymous, WSGI": web,
        "signed, event": signed_request(invoke.format("event"), b""),
        "signed, event, one line": signed_request(invoke.format("line"), b""),
    }
    for name, request in kinds.items():
        figures = sorted([await measure(world, request, calls) for _ in range(rounds)])
        print(f"{name:26} least {figures[0]:5.1f} us, median {figures[rounds // 2]:5.1f} us")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main(*(arguments + [20000, 7][len(arguments) :])))

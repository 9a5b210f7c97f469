"""Parts around a pool on real processes: plain children of the test run the real bootstrap."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eventd.metrics import Metrics
from eventd.model.invocation import Outcome
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.call import Call, CallKind, HttpHead
from eventd.pool.pool import Pool
from eventd.pool.zygote import ExitStatus, Process, SpawnSpec

BOOTSTRAP = Path(__file__).parents[3] / "eventd" / "runtimes" / "python" / "bootstrap.py"
WAIT_S = 20.0
LAUNCH = """
import importlib.util, socket, sys
spec = importlib.util.spec_from_file_location("bootstrap", sys.argv[1])
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)
bootstrap.serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3])
"""


class PlainProcess(Process):
    """``held``: set it to let the process seem gone only later."""

    held: asyncio.Event | None = None

    def __init__(self, instance_id: str, code_path: str, child: asyncio.subprocess.Process) -> None:
        self.instance_id = instance_id
        self.code_path = code_path
        self.child = child

    async def wait(self) -> ExitStatus:
        code = await self.child.wait()
        if self.held is not None:
            await self.held.wait()
        return ExitStatus(code, False, 20.0)

    def kill(self) -> None:
        if self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child.pid, signal.SIGKILL)  # Popen's own way would reap it

    def memory_mb(self) -> float:
        return 20.0


class PlainZygote:
    """Starts each instance as a plain interpreter; the real one is faster and isolates."""

    def __init__(self, python: str = sys.executable) -> None:
        self.python = python
        self.processes: list[PlainProcess] = []
        self.error: Exception | None = None

    async def spawn(self, spec: SpawnSpec, sock: socket.socket) -> Process:
        if self.error is not None:
            raise self.error
        child = await asyncio.create_subprocess_exec(
            self.python,
            "-I",
            "-S",
            "-c",
            LAUNCH,
            str(BOOTSTRAP),
            str(sock.fileno()),
            spec.code_dir,
            pass_fds=[sock.fileno()],
            cwd=spec.code_dir,
            stdin=asyncio.subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"},
        )
        sock.close()
        process = PlainProcess(spec.instance_id, spec.code_dir, child)
        self.processes.append(process)
        return process


def _existing(digest: str) -> Path:
    if not Path(digest).is_dir():
        raise KeyError(digest)
    return Path(digest)


class Directories:
    """Packages that are directories; the digest is the path."""

    async def unpacked(self, digest: str) -> Path:
        return await asyncio.to_thread(_existing, digest)


class Lines:
    """A log sink that keeps (request id, line)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.bytes = 0

    def write(
        self,
        function: FunctionSnapshot,
        instance_id: str,
        request_id: str,
        time_ms: int,
        text: str,
    ) -> None:
        self.bytes += len(text)
        if len(self.lines) < 100_000:
            self.lines += [(request_id, line) for line in text.split("\n")]

    def of(self, request_id: str) -> list[str]:
        return [line for owner, line in self.lines if owner == request_id]


class Heard:
    """A receiver that keeps everything; consumes at once unless ``hold`` is set."""

    def __init__(self, *, hold: bool = False) -> None:
        self.done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.hold = hold
        self.call: Call | None = None
        self.parts = 0

    def on_head(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        assert self.status == 0
        self.status, self.headers = status, list(headers)

    def on_data(self, data: bytes) -> None:
        self.body += data
        self.parts += 1
        if not self.hold and self.call is not None:
            self.call.consumed(len(data))

    def on_end(self, outcome: Outcome) -> None:
        self.done.set_result(outcome)

    async def outcome(self) -> Outcome:
        return await asyncio.wait_for(asyncio.shield(self.done), WAIT_S)


@dataclasses.dataclass
class Bench:
    """The pool and what stands around it, with short ways to use them."""

    pool: Pool
    zygote: PlainZygote
    lines: Lines
    metrics: Metrics
    directory: Path
    serial: int = 0

    def function(self, source: str, name: str = "echo", **changes: Any) -> FunctionSnapshot:
        code = self.directory / f"{name}-{self.serial}"
        self.serial += 1
        code.mkdir()
        (code / "index.py").write_text(textwrap.dedent(source))
        fields: dict[str, Any] = {
            "service": "demo",
            "function": name,
            "incarnation": "1",
            "version": 0,
            "runtime": "python3.10",
            "handler": "index.handler",
            "initializer": "",
            "memory_mb": 128,
            "timeout_s": 15,
            "initialization_timeout_s": 5,
            "instance_concurrency": 1,
            "environment": {},
            "code_digest": str(code),
            "code_checksum": "1",
        }
        return FunctionSnapshot(**{**fields, **changes})

    def start(
        self,
        function: FunctionSnapshot,
        payload: bytes = b"",
        *,
        hold: bool = False,
        http: HttpHead | None = None,
        **changes: Any,
    ) -> Heard:
        self.serial += 1
        heard = Heard(hold=hold)
        call = Call(
            kind=CallKind.EVENT if http is None else CallKind.HTTP,
            request_id=changes.pop("request_id", f"request-{self.serial}"),
            function=function,
            qualifier="LATEST",
            payload=payload,
            receiver=heard,
            http=http,
            **changes,
        )
        heard.call = call
        self.pool.submit(call)
        return heard

    async def run(self, function: FunctionSnapshot, payload: bytes = b"", **more: Any) -> Outcome:
        return await self.start(function, payload, **more).outcome()


async def wait_until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Wait for ``condition``; an assertion error after ``timeout_s``."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)

"""Drive one real daemon process: start, deploy, call, kill."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import json
import os
import signal
import socket
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import aiohttp
import orjson

KEY_ID, SECRET, ACCOUNT = "AKTEST", "secret-of-the-tests", "1234567890123456"
ROLE = f"acs:ram::{ACCOUNT}:role/test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return raw.getvalue()


async def until(condition: Callable[[], Any], what: str, limit_s: float = 30.0) -> Any:
    """The first true value of ``condition`` (plain or async), looked at every 10 ms."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"did not come true in {limit_s} s: {what}"
        await asyncio.sleep(0.01)


class Reply:
    """An answer, read whole."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        return json.loads(self.body)


class Node:
    """One daemon. ``async with`` waits until it is ready; leaving sends SIGTERM and expects 0."""

    def __init__(
        self,
        data: Path,
        *,
        flags: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        """``prefix``: a command that runs the daemon's command, such as ``setpriv``."""
        self.data = data
        self.port = free_port()
        self.flags = flags
        self.env = dict(env or {})
        self.prefix = prefix
        self.process: asyncio.subprocess.Process | None = None
        self.output = b""
        self._reader: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "the node was not started"
        return self._session

    async def launch(self) -> asyncio.subprocess.Process:
        """Start the process without waiting for readiness."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("EVENTD_")}
        environ |= {
            "EVENTD_ACCESS_KEY_ID": KEY_ID,
            "EVENTD_ACCESS_KEY_SECRET": SECRET,
            "EVENTD_ACCOUNT_ID": ACCOUNT,
            **self.env,
        }
        self.process = await asyncio.create_subprocess_exec(
            *self.prefix,
            sys.executable,
            "-m",
            "eventd",
            "serve",
            "--data",
            str(self.data),
            "--listen",
            f"127.0.0.1:{self.port}",
            *self.flags,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._reader = asyncio.create_task(self._read(self.process))
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
        return self.process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while chunk := await process.stdout.read(65536):
            self.output += chunk

    async def __aenter__(self) -> Self:
        await self.launch()
        await until(self._ready, f"readiness; so far it printed {self.output!r}", 30)
        return self

    async def _ready(self) -> bool:
        assert self.process is not None
        if self.process.returncode is not None:
            await asyncio.sleep(0.1)
            raise AssertionError(f"the daemon ended: {self.output.decode(errors='replace')}")
        try:
            async with self.session.get(self.url + "/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.process.returncode is None:
            code = await self.stop()
            if kind is None:
                assert code == 0, self.output.decode(errors="replace")
        if kind is not None:
            sys.stderr.write(self.output.decode(errors="replace")[-5000:])

    async def stop(self, limit_s: float = 60.0) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(limit_s):
            code = await self.process.wait()
        await self.end()
        return code

    async def kill(self) -> None:
        """SIGKILL of the daemon alone; its instances must go by themselves."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()
        await self.end()

    async def end(self) -> None:
        """Whatever happened: no process, task or session is left."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        if self._reader is not None:
            await self._reader
            self._reader = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    def sign(self, method: str, path: str, headers: Mapping[str, str]) -> dict[str, str]:
        """``headers`` with date and signature (FC 2016-08-15, 1.2), written apart from the
        daemon's own code."""
        signed = {name.lower(): value for name, value in headers.items()}
        signed.setdefault("date", formatdate(usegmt=True))
        bare, _, query = path.partition("?")
        resource = unquote(bare)
        if bare.startswith("/2016-08-15/proxy/"):
            resource += "\n" + "\n".join(sorted(unquote(item) for item in query.split("&") if item))
        special = "".join(
            f"{name}:{signed[name]}\n" for name in sorted(signed) if name.startswith("x-fc-")
        )
        text = "\n".join(
            [
                method,
                signed.get("content-md5", ""),
                signed.get("content-type", ""),
                signed["date"],
                special + resource,
            ]
        )
        mac = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest()
        signed["authorization"] = f"FC {KEY_ID}:{base64.b64encode(mac).decode()}"
        return signed

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        signed: bool = True,
    ) -> Reply:
        sent = {"content-type": "application/json", **(headers or {})}
        if signed:
            sent = self.sign(method, path, sent)
        async with self.session.request(
            method, self.url + path, data=body, headers=sent, skip_auto_headers=("User-Agent",)
        ) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """A control call; asserts success and gives the decoded JSON."""
        raw = orjson.dumps(body) if body is not None else b""
        reply = await self.request(method, "/2016-08-15" + path, raw)
        assert reply.status < 300, (method, path, reply.status, reply.body)
        return reply.json() if reply.body else None

    async def service(self, name: str = "svc", **config: Any) -> None:
        reply = await self.request(
            "POST", "/2016-08-15/services", orjson.dumps({"serviceName": name, **config})
        )
        assert reply.status in (200, 409), reply.body

    async def deploy(
        self,
        function: str,
        source: str | Mapping[str, str | bytes],
        *,
        service: str = "svc",
        **config: Any,
    ) -> None:
        """Create or update a Python function; ``source`` is ``index.py`` or all files."""
        await self.service(service)
        files = {"index.py": source} if isinstance(source, str) else source
        body = {
            "functionName": function,
            "runtime": "python3.10",
            "handler": "index.handler",
            "memorySize": 256,
            "timeout": 10,
            "code": {"zipFile": base64.b64encode(zipped(files)).decode()},
            **config,
        }
        path = f"/2016-08-15/services/{service}/functions"
        reply = await self.request("POST", path, orjson.dumps(body))
        if reply.status == 409:
            reply = await self.request("PUT", f"{path}/{function}", orjson.dumps(body))
        assert reply.status == 200, reply.body

    async def trigger(
        self, function: str, name: str, kind: str, config: Any, *, service: str = "svc", **more: Any
    ) -> Any:
        body = {"triggerName": name, "triggerType": kind, "triggerConfig": config, **more}
        return await self.api("POST", f"/services/{service}/functions/{function}/triggers", body)

    async def invoke(
        self,
        function: str,
        event: bytes = b"",
        *,
        service: str = "svc",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        path = f"/2016-08-15/services/{service}/functions/{function}/invocations"
        return await self.request("POST", path, event, headers)

    async def invoke_async(self, function: str, event: bytes, **options: Any) -> str:
        """The request id; the event is on disk when this returns."""
        reply = await self.invoke(
            function, event, headers={"x-fc-invocation-type": "Async"}, **options
        )
        assert (reply.status, reply.body) == (202, b""), (reply.status, reply.body)
        return reply.headers["x-fc-request-id"]

    async def status(self) -> Any:
        reply = await self.request("GET", "/eventd/v1/status")
        assert reply.status == 200, reply.body
        return reply.json()


NodeFactory = Callable[..., Node]

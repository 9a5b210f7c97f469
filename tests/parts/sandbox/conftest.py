"""A zygote in a directory of its own, and a client that runs Python text inside its instances."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from eventd.config import PoolSettings
from eventd.pool.sandbox import order
from eventd.pool.zygote import ExitStatus, Process, SpawnSpec, Zygote

BOOTSTRAP = Path(__file__).with_name("echo_bootstrap.py")


class Guest:
    """One instance and our end of its socket."""

    def __init__(self, process: Process, sock: socket.socket) -> None:
        self.process = process
        self.sock = sock

    async def run(self, text: str, *, limit_s: float = 20.0) -> str:
        """Run ``text`` inside; the ``repr`` of its ``result``, or the exception's words."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(limit_s):
            await loop.sock_sendall(self.sock, text.encode())
            answer = await loop.sock_recv(self.sock, 1 << 16)
        if not answer:
            raise ConnectionError("the instance is gone")
        return answer.decode()

    async def ended(self, *, limit_s: float = 20.0) -> ExitStatus:
        async with asyncio.timeout(limit_s):
            return await self.process.wait()

    async def kill(self) -> ExitStatus:
        self.process.kill()
        return await self.ended()

    def close(self) -> None:
        self.sock.close()


class House:
    """An open zygote with its code directory and its guests."""

    def __init__(self, zygote: Zygote, code: Path) -> None:
        self.zygote = zygote
        self.code = code
        self.guests: list[Guest] = []

    async def guest(
        self,
        *,
        memory_mb: int = 128,
        disk_mb: int = 512,
        internet: bool = True,
        processes: int = 1024,
        code: Path | None = None,
    ) -> Guest:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        spec = SpawnSpec("c-1", str(code or self.code), memory_mb, disk_mb, internet, processes)
        try:
            process = await self.zygote.spawn(spec, theirs)
        except BaseException:
            ours.close()
            raise
        made = Guest(process, ours)
        self.guests.append(made)
        return made


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(tmp_path: Path) -> OpenHouse:
    """``async with open_house(at_most=…, blanks=…) as house``."""
    tmp_path.chmod(0o711)  # so that other uids get through to what they may read
    tmp_path.parent.chmod(0o711)
    tmp_path.parent.parent.chmod(0o711)
    code = tmp_path / "code"
    code.mkdir(mode=0o755)
    (code / "answer.py").write_text("VALUE = 42\n")

    @asynccontextmanager
    async def opened(
        *, at_most: int = order.NAMESPACES, blanks: int = 1, state: str = "state", **options: object
    ) -> AsyncIterator[House]:
        zygote = Zygote(
            state_dir=tmp_path / state,
            bootstrap=BOOTSTRAP,
            settings=PoolSettings(blanks=blanks),
            at_most=at_most,
            **options,  # type: ignore[arg-type]
        )
        async with zygote:
            house = House(zygote, code)
            try:
                yield house
            finally:
                for guest in house.guests:
                    guest.close()

    return opened

"""The daemon's end of one launcher process: messages out, notices in, its life and its stderr."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from eventd.pool.sandbox import wire
from eventd.pool.sandbox.order import Order

_log = logging.getLogger("eventd.zygote")

_READY_S = 20.0
_END_S = 15.0
_MAX_UNSENT = 4096

OnExit = Callable[[wire.Exited], None]


class LauncherFailed(Exception):
    """The launcher ended, or did not get ready."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What the launcher said when it was ready; see ``Launcher.announce``."""

    peak_file: str
    limits_memory: bool
    limits_pids: bool
    lacks: tuple[str, ...]


class Link:
    """One launcher process. ``start`` makes it, ``gone`` is set when it ended, ``close`` ends it.

    Whoever started it has to call ``close`` in any case.
    """

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, list[socket.socket]]] = deque()
        self._starting: dict[int, asyncio.Future[tuple[wire.Started, int]]] = {}
        self._running: dict[int, OnExit] = {}
        self._ready: asyncio.Future[str] = self._loop.create_future()

    async def start(self, python: str, order: Order) -> Ready:
        """Start the process and wait until it can make instances.

        Raises ``LauncherFailed``, or ``OSError`` if the machine refuses a process.
        """
        program = str(Path(__file__).with_name("launcher.py"))
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)
        with theirs:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    python,
                    "-I",
                    "-S",
                    program,
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except BaseException:
                self._sock.close()
                raise
        self._talk = asyncio.create_task(self._read_errors(), name="zygote-stderr")
        self._loop.add_reader(self._sock, self._on_readable)
        try:
            self._send(order.encode(), [])
            async with asyncio.timeout(_READY_S):
                content = json.loads(await self._ready)
        except TimeoutError:
            await self.close()
            raise LauncherFailed(f"the launcher was not ready within {_READY_S} s") from None
        except BaseException:
            await self.close()
            raise
        content["lacks"] = tuple(content["lacks"])
        return Ready(**content)

    @property
    def instances(self) -> int:
        """How many run, as far as is known here."""
        return len(self._running)

    async def close(self) -> None:
        """End the launcher, and all instances with it; waits until the process is reaped."""
        self._lost()
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            _log.error("the launcher did not end within %s s and is killed", _END_S)
        finally:
            if self._process.returncode is None:
                self.abort()
                await self._process.wait()
            await self._talk

    def abort(self) -> None:
        """SIGKILL to the launcher; ``gone`` follows."""
        with suppress(ProcessLookupError):  # it ended by itself
            self._process.kill()

    async def spawn(
        self, message: wire.Spawn, sock: socket.socket, on_exit: OnExit
    ) -> tuple[wire.Started, int]:
        """Ask for an instance; gives its start and its pid as this process sees it.

        ``on_exit`` is called once, in any case after this returned or raised ``LauncherFailed``
        only if it returned. Raises ``OSError`` with the launcher's words if it could not.
        Cancelling kills what was started. The caller closes ``sock``.
        """
        if self.gone.is_set():
            raise LauncherFailed("the launcher is gone")
        number = message.number
        future: asyncio.Future[tuple[wire.Started, int]] = self._loop.create_future()
        self._starting[number] = future
        self._running[number] = on_exit
        try:
            self._send(message.encode(), [sock])
            return await future
        except asyncio.CancelledError:
            self.tell(wire.Kind.KILL, number)
            raise
        except BaseException:
            self._running.pop(number, None)
            raise
        finally:
            self._starting.pop(number, None)

    def tell(self, kind: wire.Kind, number: int) -> None:
        """``KILL``, ``FREEZE`` or ``THAW`` an instance; nothing happens if it is gone."""
        if not self.gone.is_set():
            self._send(wire.encode(kind, number), [])

    # -- sending

    def _send(self, message: bytes, sockets: list[socket.socket]) -> None:
        if self._unsent or not self._sent(message, sockets):
            if len(self._unsent) >= _MAX_UNSENT:
                raise OSError(11, "the launcher takes no more messages")
            copies = [sock.dup() for sock in sockets]  # the caller closes its own soon
            self._unsent.append((message, copies))
            self._loop.add_writer(self._sock, self._on_writable)

    def _sent(self, message: bytes, sockets: list[socket.socket]) -> bool:
        try:
            wire.send(self._sock, message, [sock.fileno() for sock in sockets])
        except BlockingIOError:
            return False
        except ConnectionError:
            self._lost()
            raise LauncherFailed("the launcher is gone") from None
        return True

    def _on_writable(self) -> None:
        try:
            while self._unsent:
                message, sockets = self._unsent[0]
                if not self._sent(message, sockets):
                    return
                self._unsent.popleft()
                for sock in sockets:
                    sock.close()
        except LauncherFailed:
            return  # _lost told everybody
        self._loop.remove_writer(self._sock)

    # -- receiving

    def _on_readable(self) -> None:
        for _ in range(64):  # then other readers have their turn
            try:
                message, descriptors = wire.receive(self._sock)
            except BlockingIOError:
                return
            if not message:
                self._lost()
                return
            self._heard(message, descriptors)
            if self.gone.is_set():
                return

    def _heard(self, message: bytes, descriptors: list[int]) -> None:
        kind = message[0]
        if kind == wire.Kind.EXITED:
            exited = wire.Exited.decode(message)
            on_exit = self._running.pop(exited.number, None)
            if on_exit is not None:
                on_exit(exited)
        elif kind == wire.Kind.STARTED:
            started = wire.Started.decode(message)
            pid = wire.pid_of(descriptors[0]) if descriptors else started.pid
            starting = self._starting.get(started.number)
            if starting is not None and not starting.done():
                starting.set_result((started, pid))
        elif kind == wire.Kind.REFUSED:
            _, number, reason = wire.decode(message)
            self._running.pop(number, None)
            starting = self._starting.get(number)
            if starting is not None and not starting.done():
                starting.set_exception(OSError(reason))
        elif not self._ready.done():
            self._ready.set_result(wire.decode(message)[2])

    def _lost(self) -> None:
        """The socket is closed: whoever waits for an answer hears it. Instances are not told
        here: they may still live until the fence has passed."""
        if self.gone.is_set():
            return
        self.gone.set()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, sockets in self._unsent:
            for sock in sockets:
                sock.close()
        self._unsent.clear()
        for future in self._starting.values():
            if not future.done():
                future.set_exception(LauncherFailed("the launcher ended"))
        if not self._ready.done():
            self._ready.set_exception(LauncherFailed("the launcher ended"))
        if not self._ready.cancelled():
            self._ready.exception()  # perhaps nobody waits for it any more

    def bury(self) -> None:
        """After the fence: all instances of this launcher are gone, and those who wait hear it."""
        running, self._running = self._running, {}
        for number, on_exit in running.items():
            on_exit(wire.Exited(number, -9, False, 0))

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while text := await self._process.stderr.read(16384):
            _log.warning("launcher: %s", text.decode(errors="replace").rstrip())

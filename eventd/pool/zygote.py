"""Fork server: one zygote process per runtime and sandbox profile."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from eventd.config import PoolSettings
from eventd.errors import ResourceThrottled
from eventd.pool.sandbox import census, cgroups, order, wire
from eventd.pool.sandbox.fence import Fence, FenceError
from eventd.pool.sandbox.link import LauncherFailed, Link, Ready
from eventd.pool.sandbox.probe import Report, probe

_log = logging.getLogger("eventd.zygote")

_SPAWN_S = 10.0
_MAX_PAUSE_S = 10.0
_FIRST_UID, _UIDS = 70000, 10000
_PAGE = os.sysconf("SC_PAGE_SIZE")
_WEAKEST = {"auto": order.BARE, "namespaces": order.USER_NAMESPACES, "process": order.PROCESS}


class IsolationTooWeak(Exception):
    """This machine does not give the isolation that ``pool.isolation`` demands."""


@dataclass(frozen=True, slots=True)
class SpawnSpec:
    """What a new instance needs before any function code is read.

    Attributes:
        instance_id: ``c-...``, names its cgroup and its lines in the log.
        code_dir: unpacked package on this machine; becomes ``/code``, read-only. Its files must
            be readable for everybody: instances run under other uids.
        memory_mb: the function's ``memorySize``.
        disk_mb: size of its private ``/tmp``, which counts as its memory.
        internet: ``internetAccess`` of the service.
        processes: how many processes and threads it may have.
    """

    instance_id: str
    code_dir: str
    memory_mb: int
    disk_mb: int = 512
    internet: bool = True
    processes: int = 1024


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How an instance's process ended.

    Attributes:
        code: exit code, or ``-signal``.
        oom: it was killed for its memory.
        peak_mb: highest memory seen.
    """

    code: int
    oom: bool
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """What ``status`` shows.

    Attributes:
        instances: running, and those that are being started or cancelled.
        restarts: how often the launcher had to be replaced.
        lacks: what the launcher could not set up, in words.
    """

    level: str
    instances: int
    restarts: int
    lacks: tuple[str, ...]


class Process:
    """A running instance's process tree, as its zygote knows it."""

    __slots__ = (
        "_exited",
        "_frozen",
        "_link",
        "_memory_file",
        "_memory_path",
        "_number",
        "_peak_mb",
        "code_path",
        "instance_id",
        "pid",
    )

    code_path: str
    """Where the instance sees its code: ``/code``, or a host path at the process level."""
    pid: int
    """Its first process, as this process sees it."""

    def __init__(self, instance_id: str, code_path: str, number: int, link: Link) -> None:
        self.instance_id = instance_id
        self.code_path = code_path
        self.pid = -1
        self._number = number
        self._link = link
        self._exited: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self._memory_path = ""
        self._memory_file = -1
        self._peak_mb = 0.0
        self._frozen = False

    async def wait(self) -> ExitStatus:
        """Until the process ended and was reaped. Cancelling stops waiting, nothing else."""
        return await asyncio.shield(self._exited)

    @property
    def running(self) -> bool:
        return not self._exited.done()

    def kill(self) -> None:
        """SIGKILL to the whole tree; ``wait`` tells when it is gone. Safe to repeat."""
        if not self._exited.done():
            self._link.tell(wire.Kind.KILL, self._number)

    def freeze(self) -> None:
        """Stop all its processes, shortly after this returns. Safe to repeat."""
        if not self._frozen and not self._exited.done():
            self._frozen = True
            self._link.tell(wire.Kind.FREEZE, self._number)

    def thaw(self) -> None:
        """Continue; what is sent to the instance meanwhile waits in its socket."""
        if self._frozen and not self._exited.done():
            self._frozen = False
            self._link.tell(wire.Kind.THAW, self._number)

    def memory_mb(self) -> float:
        """Peak memory so far, cheap enough to ask after every call (3 µs)."""
        if self._exited.done():
            return self._peak_mb
        try:
            if self._memory_file < 0:
                self._memory_file = os.open(self._memory_path, os.O_RDONLY | os.O_CLOEXEC)
            words = os.pread(self._memory_file, 100, 0).split()
        except OSError:
            return self._peak_mb  # it ends at this moment
        if len(words) == 1:
            used = int(words[0])
        elif len(words) > 2:  # statm: resident without shared pages, now; the peak is kept here
            used = (int(words[1]) - int(words[2])) * _PAGE
        else:
            return self._peak_mb
        self._peak_mb = max(self._peak_mb, used / (1 << 20))
        return self._peak_mb

    def _started(self, pid: int, memory_path: str) -> None:
        self.pid = pid
        self._memory_path = memory_path or f"/proc/{pid}/statm"

    def _on_exit(self, exited: wire.Exited) -> None:
        self._peak_mb = max(self._peak_mb, exited.peak_bytes / (1 << 20))
        if self._memory_file >= 0:
            os.close(self._memory_file)
            self._memory_file = -1
        if not self._exited.done():
            self._exited.set_result(ExitStatus(exited.code, exited.oom, self._peak_mb))


async def _first(*events: asyncio.Event, limit_s: float | None = None) -> None:
    """Wait until one of ``events`` is set, or for ``limit_s``."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


class Zygote:
    """A fork server; open it with ``async with``.

    Entering kills and awaits everything that an earlier epoch left in ``state_dir``. A launcher
    that dies is replaced, with growing pauses; its instances count as ended once they are gone.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        bootstrap: Path,
        settings: PoolSettings | None = None,
        python: str = sys.executable,
        report: Report | None = None,
        at_most: int = order.NAMESPACES,
        allowed: Sequence[tuple[str, int]] = (),
    ) -> None:
        """
        Args:
            state_dir: a directory of this zygote's own.
            bootstrap: the file whose ``serve(sock, code_path)`` runs in every instance.
            report: of an earlier ``probe``; else entering makes one.
            at_most: use no stronger level than this (``sandbox.order``); for tests.
            allowed: loopback addresses with ports that instances with internet may reach.
        """
        self._settings = settings or PoolSettings()
        self._fence = Fence(state_dir)
        self._bootstrap = str(bootstrap.resolve())
        self._python = python
        self._report = report
        self._at_most = at_most
        self._allowed = tuple(allowed)
        self._number = 0
        self._link: Link | None = None
        self._ready: Ready | None = None
        self._available = asyncio.Event()
        self._closing = asyncio.Event()
        self._restarts = 0

    @property
    def report(self) -> Report:
        """What isolation there is; known once the zygote is open."""
        if self._report is None:
            raise RuntimeError("the zygote is not open")
        return self._report

    def statistics(self) -> Statistics:
        return Statistics(
            level=self.report.name,
            instances=self._link.instances if self._link else 0,
            restarts=self._restarts,
            lacks=self._ready.lacks if self._ready else (),
        )

    async def __aenter__(self) -> Zygote:
        """Raises ``IsolationTooWeak``, ``FenceError`` or ``LauncherFailed``."""
        if self._report is None:
            self._report = await probe(python=self._python, at_most=self._at_most)
        self._judge_level(self._report)
        await asyncio.to_thread(self._fence.lock)
        try:
            link = await self._launch()
        except BaseException:
            self._fence.unlock()
            raise
        self._owner = asyncio.create_task(self._supervise(link), name="zygote")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends all instances; they are gone when this returns."""
        self._closing.set()
        try:
            await self._owner
        finally:
            self._fence.unlock()

    def _judge_level(self, report: Report) -> None:
        weakest = _WEAKEST.get(self._settings.isolation)
        if weakest is None:
            raise IsolationTooWeak(
                f"pool.isolation: must be one of {', '.join(_WEAKEST)}, not "
                f"{self._settings.isolation!r}"
            )
        if report.level > weakest:
            raise IsolationTooWeak(
                f"pool.isolation demands {self._settings.isolation}, this machine gives "
                f"{report.name}: {'; '.join(report.advice)}"
            )
        if not report.safe:
            _log.error(
                "functions are NOT isolated here (level %s): run only code that you trust. %s",
                report.name,
                "; ".join(report.advice),
            )

    # -- the launcher's life

    async def _launch(self) -> Link:
        report, link = self.report, Link()
        wanted = await asyncio.to_thread(self._order, report, cgroups.places(self._fence.name))
        self._ready = await link.start(self._python, wanted)
        if self._ready.lacks:
            _log.warning("isolation lacks: %s", "; ".join(self._ready.lacks))
        self._link = link
        self._available.set()
        return link

    def _order(self, report: Report, places: cgroups.Places) -> order.Order:
        """Pass the fence, and write down what the next one has to look for."""
        self._fence.clear()
        marks = census.new_marks()
        run_dir = self._fence.raise_epoch(marks, places.directories())
        other_uids = report.has("another uid") and report.level != order.USER_NAMESPACES
        return order.Order(
            level=report.level,
            bootstrap=self._bootstrap,
            run_dir=str(run_dir.resolve()),
            blanks=self._settings.blanks,
            uids=(_FIRST_UID, _UIDS) if other_uids else (0, 0),
            mark=marks,
            groups=places,
            family=(os.getpid(),),
            guard=report.level != order.USER_NAMESPACES and report.has("connect guard"),
            allowed=self._allowed,
        )

    async def _supervise(self, link: Link) -> None:
        """Own the launcher and replace it when it dies, until ``__aexit__``."""
        pause = 0.05
        while True:
            began = asyncio.get_running_loop().time()
            await _first(link.gone, self._closing)
            await self._retire(link)
            if asyncio.get_running_loop().time() - began > 60:
                pause = 0.05
            while not self._closing.is_set():
                _log.error("the launcher ended; a new one starts in %.2f s", pause)
                await _first(self._closing, limit_s=pause)
                pause = min(pause * 2, _MAX_PAUSE_S)
                if self._closing.is_set():
                    break
                self._restarts += 1
                try:
                    link = await self._launch()
                    break
                except (OSError, LauncherFailed, FenceError) as error:
                    _log.error("the launcher does not start: %s", error)
            if self._closing.is_set() and link.gone.is_set():
                return

    async def _retire(self, link: Link) -> None:
        """The launcher and all its instances are gone when this returns."""
        self._available.clear()
        self._link = None
        await link.close()
        while True:
            try:
                await asyncio.to_thread(self._fence.clear)
                break
            except (OSError, FenceError) as error:
                _log.error("instances of a lost launcher are not gone yet: %s", error)
                if self._closing.is_set():
                    break  # whoever starts next on this directory meets the fence
                await _first(self._closing, limit_s=1.0)
        link.bury()

    # -- instances

    async def spawn(self, spec: SpawnSpec, sock: socket.socket) -> Process:
        """Start an instance whose end of the protocol socket is ``sock`` (closed here after).

        Raises ``ResourceThrottled`` when the machine refuses a process. Cancelling kills what was
        started.
        """
        with sock:
            try:
                async with asyncio.timeout(_SPAWN_S):
                    return await self._spawn(spec, sock)
            except TimeoutError:
                if self._link is not None and self._link.silent_s() >= _SPAWN_S:
                    _log.error("the launcher is stuck and is killed")
                    self._link.abort()
                raise ResourceThrottled(
                    f"no instance could be started within {_SPAWN_S:.0f} s"
                ) from None
            except (OSError, LauncherFailed) as error:
                raise ResourceThrottled(f"no instance could be started: {error}") from error

    async def _spawn(self, spec: SpawnSpec, sock: socket.socket) -> Process:
        while True:
            await self._available.wait()
            link, ready = self._link, self._ready
            if link is not None and ready is not None and not link.gone.is_set():
                break
            self._available.clear()  # until the next launcher is ready
        self._number += 1
        walled = self.report.level <= order.USER_NAMESPACES
        process = Process(
            spec.instance_id, "/code" if walled else spec.code_dir, self._number, link
        )
        message = wire.Spawn(
            self._number, spec.memory_mb, spec.disk_mb, spec.processes, spec.internet, spec.code_dir
        )
        started, pid = await link.spawn(message, sock, process._on_exit)
        process._started(pid, ready.peak_file.replace("/i0/", f"/i{started.serial}/"))
        return process

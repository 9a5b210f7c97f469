"""The launcher's stock of prepared cells: seats and blanks, and how a request takes one.

A *seat* is a forked child that already sits in its control groups, which may take 10 ms, and waits
for a plan. A *blank* is a seat that has built all its walls and waits for code only. A request
takes a blank if there is one, else a seat, else it forks.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from eventd.pool.sandbox import census, cgroups, kernel, order, root, wire
from eventd.pool.sandbox.cell import Plan, Walls, run

SEATS = 2
_DISK_MB = 512  # of a blank's /tmp; another size is set when it is taken
_PROCESSES = 4096  # RLIMIT_NPROC of a blank, where a control group sets the function's own limit
_USUAL_PROCESSES = 1024  # elsewhere: what nearly every function gets, for to change it later takes
# CAP_SYS_RESOURCE, which containers often lack
_REFILL_AFTER_S = 0.005  # of silence: preparing must not slow a cold start down
_MAX_PAUSE_S = 10.0


class Stage(IntEnum):
    """What a cell is."""

    SEATING = 0
    SEATED = 1
    BUILDING = 2
    BLANK = 3
    RUNNING = 4


@dataclass(slots=True, eq=False)
class Cell:
    """A child of the launcher.

    Attributes:
        serial: names its control group.
        waiting: our end of the socket that it waits on; ``None`` when it runs.
        mounts: descriptor of a blank's mount namespace.
        number: the daemon's number of the running instance.
    """

    pid: int
    serial: int
    group: cgroups.Group | None
    waiting: socket.socket | None
    stage: Stage = Stage.SEATING
    internet: bool = True
    mounts: int = -1
    number: int = 0
    memory_bytes: int = 0
    peak_bytes: int = 0
    oom: bool = False
    mark: int = 0
    tmp: str = ""


class Stock:
    """Forks cells and keeps some ready."""

    def __init__(
        self,
        wanted: order.Order,
        walls: Walls,
        tree: cgroups.Tree,
        poll: select.poll,
        in_child: Callable[[], None],
    ) -> None:
        """
        Args:
            in_child: called first in every forked child.
        """
        self._order = wanted
        self._walls = walls
        self._tree = tree
        self._poll = poll
        self._in_child = in_child
        self._namespaces = walls.template >= 0
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._waiting: dict[int, Cell] = {}
        self._kinds = [True]  # networks that blanks are kept for; True: the host's
        self._serial = 0
        self._failures = 0
        self.by_pid: dict[int, Cell] = {}
        self.abandoned: list[cgroups.Group] = []
        self.refill_at = 0.0

    # -- a request

    def take(self, spawn: wire.Spawn, sock: int) -> Cell:
        """A running cell for ``spawn``. ``OSError`` if the machine refuses one."""
        if spawn.internet not in self._kinds:
            self._kinds.append(spawn.internet)
        self.refill_at = time.monotonic() + _REFILL_AFTER_S
        tree = kernel.read_only_tree(spawn.code_dir) if self._namespaces else -1
        try:
            blank = self._find(Stage.BLANK, spawn.internet)
            if blank is not None and self._furnish(blank, spawn, sock, tree):
                return self._running(blank, spawn)
            cell = self._find(Stage.SEATED) or self._find(Stage.SEATING) or self._fork()
            self._commission(cell, spawn, sock, tree)
            return self._running(cell, spawn)
        finally:
            if tree >= 0:
                os.close(tree)

    def _find(self, stage: Stage, internet: bool = True) -> Cell | None:
        for cell in self._waiting.values():
            if cell.stage == stage and cell.internet == internet:
                return cell
        return None

    def _running(self, cell: Cell, spawn: wire.Spawn) -> Cell:
        self._stop_waiting(cell)
        cell.stage = Stage.RUNNING
        cell.number = spawn.number
        cell.memory_bytes = spawn.memory_mb << 20
        return cell

    def _furnish(self, blank: Cell, spawn: wire.Spawn, sock: int, tree: int) -> bool:
        """Limits, code and socket for a blank; ``False`` if it died just now."""
        assert blank.waiting is not None
        try:
            self._limit(blank, spawn)
            kernel.setns(blank.mounts, kernel.NEWNS)
            try:
                kernel.attach(tree, "/code")
                if spawn.disk_mb != _DISK_MB:
                    root.resize_tmp(spawn.disk_mb)
            finally:
                kernel.setns(self._own_mounts, kernel.NEWNS)
            wire.send(blank.waiting, b"go", [sock])
        except (ConnectionError, ProcessLookupError):
            self._stop_waiting(blank)
            return False
        except OSError:
            self._discard(blank)  # half prepared: nobody else may get it
            raise
        return True

    def _limit(self, cell: Cell, spawn: wire.Spawn) -> None:
        if cell.group is not None:
            cell.group.limit(spawn.memory_mb, spawn.processes)
        by_rlimit = not self._tree.limits_pids and cell.stage == Stage.BLANK
        if by_rlimit and spawn.processes != _USUAL_PROCESSES:
            limit = (spawn.processes, spawn.processes)
            resource.prlimit(cell.pid, resource.RLIMIT_NPROC, limit)

    def _commission(self, seat: Cell, spawn: wire.Spawn, sock: int, tree: int) -> None:
        """Let a seat become the instance at once."""
        assert seat.waiting is not None
        try:
            self._limit(seat, spawn)
            plan = self._plan(seat, spawn)
            wire.send(seat.waiting, plan.encode(), [sock] if tree < 0 else [sock, tree])
        except OSError:
            self._discard(seat)
            raise

    def _discard(self, cell: Cell) -> None:
        self._stop_waiting(cell)
        os.kill(cell.pid, signal.SIGKILL)

    # -- what a cell is to become

    def _plan(self, cell: Cell, spawn: wire.Spawn) -> Plan:
        uid = self._uid(cell, spawn.code_dir)
        if self._namespaces:
            return Plan(False, uid, spawn.internet, spawn.disk_mb, spawn.processes)
        cell.mark = self._order.mark + cell.serial % (census.MARKS - 1)
        cell.tmp = os.path.join(self._order.run_dir, f"tmp{cell.serial}")
        os.mkdir(cell.tmp, 0o700)
        if uid:
            os.chown(cell.tmp, uid, uid)
        return Plan(
            False,
            uid,
            spawn.internet,
            spawn.disk_mb,
            spawn.processes,
            spawn.code_dir,
            cell.tmp,
            cell.mark,
        )

    def _uid(self, cell: Cell, code_dir: str) -> int:
        """The cell's own uid; 0 where it could not read its files under another."""
        first, count = self._order.uids
        if not count:
            return 0
        if not self._namespaces:
            needed = (*self._walls.prefixes, self._order.run_dir, code_dir)
            if not all(open_to_others(path) for path in needed):
                return 0
        return first + (self._order.mark // census.MARKS + cell.serial) % count

    # -- forking

    def _fork(self) -> Cell:
        self._serial += 1
        group = self._tree.group(self._serial) if self._tree.places.directories() else None
        doors: list[int] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            if group is not None:
                doors = group.doors()
            pid = self._fork_child(theirs, doors)
        except OSError:
            ours.close()
            if group is not None:
                self.abandoned.append(group)
            raise
        finally:
            theirs.close()
            for door in doors:
                os.close(door)
        cell = Cell(pid, self._serial, group, ours)
        self.by_pid[pid] = cell
        self._waiting[ours.fileno()] = cell
        self._poll.register(ours, select.POLLIN)
        return cell

    def _fork_child(self, waiting: socket.socket, doors: list[int]) -> int:
        launcher = os.getpid()
        if self._namespaces:
            kernel.unshare(kernel.NEWPID)  # for the next child, which becomes process 1 of it
        try:
            child = os.fork()
            if child == 0:
                self._in_child()
                run(self._walls, waiting, doors, launcher)
        finally:
            if self._namespaces:
                kernel.setns(self._own_pids, kernel.NEWPID)  # else the next unshare is refused
        return child

    # -- keeping ready

    def missing(self) -> bool:
        return self._missing_seats() > 0 or self._missing_blank() is not None

    def _missing_seats(self) -> int:
        return SEATS - sum(cell.stage <= Stage.SEATED for cell in self._waiting.values())

    def _missing_blank(self) -> bool | None:
        """A kind of network that wants another blank."""
        if not self._namespaces:
            return None
        for kind in self._kinds:
            made = sum(
                cell.stage in (Stage.BUILDING, Stage.BLANK) and cell.internet == kind
                for cell in self._waiting.values()
            )
            if made < self._order.blanks:
                return kind
        return None

    def refill(self, now: float) -> None:
        """One step towards a full stock."""
        try:
            kind = self._missing_blank()
            seat = self._find(Stage.SEATED)
            if kind is not None and seat is not None:
                self._build(seat, kind)
            elif self._missing_seats() > 0:
                self._fork()
            else:
                self.refill_at = now + _REFILL_AFTER_S  # seats are on their way
        except OSError as error:
            self._failed(now, str(error))

    def _build(self, seat: Cell, internet: bool) -> None:
        assert seat.waiting is not None
        processes = _PROCESSES if self._tree.limits_pids else _USUAL_PROCESSES
        plan = Plan(True, self._uid(seat, "/"), internet, _DISK_MB, processes)
        seat.internet = internet
        seat.stage = Stage.BUILDING
        wire.send(seat.waiting, plan.encode(), [])

    def _failed(self, now: float, reason: str) -> None:
        self._failures += 1
        self.refill_at = now + min(_MAX_PAUSE_S, 0.05 * 2**self._failures)
        sys.stderr.write(f"no cell could be prepared: {reason}\n")
        sys.stderr.flush()

    def heard(self, descriptor: int) -> None:
        """A cell in stock said something, or ended."""
        cell = self._waiting.get(descriptor)
        if cell is None or cell.waiting is None:
            return
        message, _ = wire.receive(cell.waiting)
        if message == b"seated" and cell.stage == Stage.SEATING:
            cell.stage = Stage.SEATED
        elif message == b"ready" and cell.stage == Stage.BUILDING:
            cell.mounts = os.open(f"/proc/{cell.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            cell.stage = Stage.BLANK
            self._failures = 0
        elif not message:
            self._stop_waiting(cell)
            self._failed(time.monotonic(), "it ended before it was used")

    def _stop_waiting(self, cell: Cell) -> None:
        if cell.waiting is not None:
            del self._waiting[cell.waiting.fileno()]
            self._poll.unregister(cell.waiting)
            cell.waiting.close()
            cell.waiting = None
        if cell.mounts >= 0:
            os.close(cell.mounts)
            cell.mounts = -1


def open_to_others(path: str) -> bool:
    """Whether any user may enter the directory ``path``."""
    while True:
        try:
            if not os.stat(path).st_mode & 0o001:
                return False
        except OSError:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)

"""What a forked child of the launcher does to become an instance: walls up, privileges down, serve.

Two kinds. In a *namespace* cell the function is process 1 of its own pid namespace, with an own
root, network (or the host's, behind the guard), uid and cgroup. In a *process* cell there are no
namespaces: Landlock, the system call filter, limits, and another uid where that is possible.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from eventd.pool.sandbox import census, kernel, landlock, root, seccomp, wire

Serve = Callable[[socket.socket, str], NoReturn]

_INSIDE_UID = 1000  # the uid that a function sees where only one uid of the host is at hand
_PLAN = struct.Struct("<??xxIIIQ")
_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x49
_kept: list[object] = []  # what is hidden from function code: freeing it would unshare its pages
FAILED = 120
"""Exit code of a cell that could not be built; the reason is on the launcher's stderr."""


@dataclass(frozen=True, slots=True)
class Walls:
    """What all cells of a launcher have in common.

    Attributes:
        template: descriptor of the template mount namespace, -1 at the process level.
        user_namespace: the launcher is root of its own user namespace only.
        landlock: ABI, 0 without.
        filters: the system call filters without and with internet; empty where impossible.
        serve: the bootstrap's entry.
        prefixes: directories of the host that the interpreter needs.
        hidden: loaded modules that function code must not find; looking for them in every cell
            would touch, and so copy, memory that all cells share.
    """

    template: int
    user_namespace: bool
    landlock: int
    filters: tuple[bytes, bytes]
    serve: Serve
    prefixes: tuple[str, ...]
    hidden: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seat is to become; it comes as a message, with descriptors.

    Attributes:
        blank: build everything, then wait for the instance's socket and the code.
        uid: 0 to stay what the launcher is.
        code_path: where the function sees its code.
        tmp: where it may write.
        mark: tells this cell's processes from others' at the process level, 0 above it.
    """

    blank: bool
    uid: int
    internet: bool
    disk_mb: int
    processes: int
    code_path: str = "/code"
    tmp: str = "/tmp"
    mark: int = 0

    def encode(self) -> bytes:
        head = _PLAN.pack(
            self.blank, self.internet, self.uid, self.disk_mb, self.processes, self.mark
        )
        return head + f"{self.code_path}\0{self.tmp}".encode()

    @staticmethod
    def decode(message: bytes) -> Plan:
        blank, internet, uid, disk_mb, processes, mark = _PLAN.unpack_from(message)
        code_path, _, tmp = message[_PLAN.size :].decode().partition("\0")
        return Plan(blank, uid, internet, disk_mb, processes, code_path, tmp, mark)


def run(walls: Walls, waiting: socket.socket, doors: list[int], launcher: int) -> NoReturn:
    """In the forked child: sit down in the control groups, wait for a plan, become the cell.

    Never returns into the launcher's code.

    Args:
        waiting: the cell's end; it says ``seated`` and, if it becomes a blank, ``ready``.
        doors: ``cgroup.procs`` descriptors to write to. It may take 10 ms, which is why it is done
            before there is a plan.
    """
    try:
        _reset_signals()
        kernel.die_with_parent(launcher)
        kernel.close_all_but([waiting.fileno(), walls.template, *doors])
        for door in doors:
            os.write(door, b"0")
            os.close(door)
        plan, descriptors = _sit(waiting)
        if walls.template >= 0:
            _namespaces(walls, plan, descriptors[1:])
        _drop(walls, plan)
        sock = _wait(waiting) if plan.blank else descriptors[0]
        kernel.close_all_but([sock])
        _serve(walls, plan, socket.socket(fileno=sock))
    except BaseException:  # noqa: BLE001 - a forked child must never go on in its parent's code
        traceback.print_exc()
    finally:
        os._exit(FAILED)


def _sit(waiting: socket.socket) -> tuple[Plan, list[int]]:
    """Wait for the plan; its descriptors are the instance's socket and the code's mount."""
    try:
        waiting.send(b"seated")
    except BrokenPipeError:
        pass  # the plan did not wait for us: it is in the socket already
    message, descriptors = wire.receive(waiting)
    if not message:
        # The launcher hung up without having read our word: the kernel tells that first.
        message, descriptors = wire.receive(waiting)
    if not message:
        os._exit(0)  # the launcher is gone
    return Plan.decode(message), descriptors


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)


def _namespaces(walls: Walls, plan: Plan, code: list[int]) -> None:
    kernel.setns(walls.template, kernel.NEWNS)
    wanted = kernel.NEWNS | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWCGROUP
    kernel.unshare(wanted if plan.internet else wanted | kernel.NEWNET)
    if not plan.internet:
        loopback_up()
    root.own_mounts(plan.disk_mb)
    if code:
        kernel.attach(code[0], "/code")
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")  # on a machine out of memory an instance goes before the daemon


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", _UP_AND_RUNNING)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


def _drop(walls: Walls, plan: Plan) -> None:
    """From here on nothing of the launcher's privilege is left."""
    os.setsid()
    own = walls.template >= 0
    if own and walls.user_namespace:
        nested_user()
    elif plan.uid:
        os.setgroups([])
        os.setresgid(plan.uid, plan.uid, plan.uid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
    if walls.filters[0]:
        kernel.drop_capabilities()
    resource.setrlimit(resource.RLIMIT_NPROC, (plan.processes, plan.processes))
    if plan.mark:
        census.set_mark(plan.mark)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if own:
        landlock.scope(walls.landlock)
    elif walls.landlock:
        _confine(walls, plan)
    if walls.filters[0]:
        seccomp.apply(walls.filters[plan.internet or own])


def nested_user() -> None:
    """A user namespace of the instance's own: it counts its processes apart from all others'."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.NEWUSER)
    map_user(_INSIDE_UID, uid, gid)


def map_user(inside: int, uid: int, gid: int) -> None:
    """Map the one uid and gid that an ordinary user may map, from within."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {uid} 1"),
        ("gid_map", f"{inside} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _confine(walls: Walls, plan: Plan) -> None:
    landlock.confine(
        walls.landlock,
        readable=[
            plan.code_path, "/proc/self", "/etc/ssl", "/etc/pki", "/etc/passwd", "/etc/group",
            "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime",
            "/dev/zero", "/dev/random", "/dev/urandom",
        ],
        executable=["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache",
                    "/etc/alternatives", *walls.prefixes, plan.code_path],
        writable=[plan.tmp, "/dev/null"],
        internet=plan.internet,
    )  # fmt: skip


def _silence() -> None:
    sys.stderr.flush()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)


def _wait(waiting: socket.socket) -> int:
    """Say that the blank is ready, and sleep until it is given a socket."""
    waiting.send(b"ready")
    message, descriptors = wire.receive(waiting)
    if not message or not descriptors:
        os._exit(0)  # the launcher is gone
    return descriptors[0]


def _serve(walls: Walls, plan: Plan, sock: socket.socket) -> NoReturn:
    """Tidy the interpreter so that function code finds a plain one, and hand over."""
    os.chdir(plan.code_path)
    if plan.tmp != "/tmp":
        os.environ.update(HOME=plan.tmp, TMPDIR=plan.tmp)
    _kept.extend(sys.modules.pop(name) for name in walls.hidden)
    sys.modules["__main__"] = type(sys)("__main__")
    gc.enable()
    _silence()  # until here an error reached the launcher's stderr; function code must not
    walls.serve(sock, plan.code_path)
    os._exit(0)  # a bootstrap that returns has nothing more to do

"""The launcher: a single-threaded privileged process that makes instances and reaps them.

Started by ``Zygote`` as ``python -I -S launcher.py CONTROL_FD``; it holds the standard library and
the bootstrap, never function code, and every instance is a fork of it. It ends, and takes all
instances along, when the control socket is closed.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # the one path by which it finds its own modules; gone before any fork
    _HOME = __file__.rsplit("/", 4)[0]
    sys.path.insert(0, _HOME)

import gc
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from typing import NoReturn

from eventd.pool.sandbox import (
    census,
    cgroups,
    guard,
    kernel,
    landlock,
    order,
    root,
    seccomp,
    wire,
)
from eventd.pool.sandbox.cell import Plan, Serve, Walls, map_user, run

_DISK_MB = 512  # of a blank's /tmp; another size is set when it is taken
_PROCESSES = 4096  # RLIMIT_NPROC of a blank until it is taken
_REFILL_AFTER_S = 0.005  # of silence: making a blank must not slow a cold start down
_WATCH_S = 0.1
_OPEN_FILES = 1024


@dataclass(slots=True, eq=False)
class Instance:
    """A blank while ``number`` is 0, then the instance of that number."""

    pid: int
    serial: int
    internet: bool
    group: cgroups.Group | None
    number: int = 0
    waiting: socket.socket | None = None
    mounts: int = -1
    ready: bool = False
    memory_bytes: int = 0
    peak_bytes: int = 0
    oom: bool = False
    mark: int = 0
    tmp: str = ""

    def forget_blank(self) -> None:
        """Close what only a blank needs."""
        if self.waiting is not None:
            self.waiting.close()
            self.waiting = None
        if self.mounts >= 0:
            os.close(self.mounts)
            self.mounts = -1


class Launcher:
    """Owns all instances; one loop, no thread."""

    def __init__(self, control: socket.socket, wanted: order.Order, serve: Serve) -> None:
        self._control = control
        self._order = wanted
        self._by_pid: dict[int, Instance] = {}
        self._by_number: dict[int, Instance] = {}
        self._blanks: list[Instance] = []
        self._kinds: set[bool] = set()  # networks that blanks are kept for
        self._serial = 0
        self._removals: list[cgroups.Group] = []
        self._refill_at = 0.0
        self._failures = 0
        self._watch_at = 0.0
        self._poll = select.poll()
        self._namespaces = wanted.level <= order.USER_NAMESPACES
        self._tree = cgroups.Tree(wanted.groups, family={*wanted.family, os.getpid()})
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._lacks = list(self._tree.lacks)
        self._put_up_guard()
        self._walls = self._make_walls(serve)

    # -- making ready

    def _put_up_guard(self) -> None:
        unified = self._tree.places.unified
        if not self._order.guard or not unified:
            return
        allowed = [*self._order.allowed, *guard.resolvers()]
        try:
            guard.put_up(unified + "/open", allowed)
        except OSError as error:
            self._lacks.append(f"connect guard: {error.strerror}")

    def _make_walls(self, serve: Serve) -> Walls:
        python = os.path.realpath(sys.executable)
        prefixes = tuple(dict.fromkeys(os.path.realpath(p) for p in (sys.base_prefix, sys.prefix)))
        user = self._order.level == order.USER_NAMESPACES
        template = -1
        if self._namespaces:
            new = os.path.join(self._order.run_dir, "root")
            os.makedirs(new, exist_ok=True)

            def build() -> None:
                kernel.unshare(kernel.NEWNS)
                root.build(new, prefixes=prefixes, proc=user)

            template = root.namespace_of(build, "mnt")
        filters = (
            (seccomp.program(internet=False), seccomp.program()) if kernel.CALLS else (b"", b"")
        )
        version = landlock.abi() if self._order.level < order.BARE else 0
        return Walls(template, user, version, filters, serve, python, prefixes)

    def announce(self) -> None:
        """Tell the daemon what there is; from now on it may ask for instances."""
        self._prepare_self()
        self._kinds.add(True)
        self._send(
            wire.encode(
                wire.Kind.READY,
                os.getpid(),
                json.dumps(
                    {
                        "peak_open": self._tree.peak_file(0, guarded=True),
                        "peak_closed": self._tree.peak_file(0, guarded=False),
                        "limits_memory": self._tree.limits_memory,
                        "limits_pids": self._tree.limits_pids,
                        "lacks": self._lacks,
                    }
                ),
            )
        )

    def _prepare_self(self) -> None:
        """What children inherit is set once, here."""
        if kernel.threads() != 1:
            raise RuntimeError("the bootstrap started a thread; namespaces hold for one only")
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.drop_bounding_set()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        census.set_mark(self._order.mark + census.MARKS - 1)
        self._files = (files, files)
        if not self._namespaces:
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        kernel.set_name("eventd-zygote")
        self._wake, wake_writer = socket.socketpair()
        self._wake.setblocking(False)
        wake_writer.setblocking(False)
        self._wake_writer = wake_writer
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        gc.collect()
        gc.disable()
        gc.freeze()

    # -- the loop

    def run(self) -> NoReturn:
        """Serve until the daemon is gone, then end with everything."""
        control, wake = self._control.fileno(), self._wake.fileno()
        while True:
            for descriptor, _ in self._poll.poll(self._pause_ms()):
                if descriptor == wake:
                    self._wake.recv(4096)
                    self._reap()
                elif descriptor == control:
                    message, descriptors = wire.receive(self._control)
                    if not message:
                        self.end()
                    self._handle(message, descriptors)
                else:
                    self._blank_spoke(descriptor)
            now = time.monotonic()
            if now >= self._refill_at:
                self._refill(now)
            if self._watching() and now >= self._watch_at:
                self._watch_at = now + _WATCH_S
                self._watch()
            if self._removals:
                self._removals = [group for group in self._removals if not group.remove()]

    def _pause_ms(self) -> int:
        due = []
        if self._missing() is not None:
            due.append(self._refill_at)
        if self._watching():
            due.append(self._watch_at)
        if self._removals:
            due.append(time.monotonic() + 0.05)
        if not due:
            return -1
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1)

    def _handle(self, message: bytes, descriptors: list[int]) -> None:
        kind = message[0]
        if kind == wire.Kind.SPAWN:
            try:
                self._start(wire.Spawn.decode(message), descriptors[0])
            finally:
                os.close(descriptors[0])
            self._refill_at = time.monotonic() + _REFILL_AFTER_S
            return
        _, number, _ = wire.decode(message)
        instance = self._by_number.get(number)
        if instance is None:
            return  # it ended; the daemon hears or heard of it
        if kind == wire.Kind.KILL:
            self._kill(instance)
        else:
            self._freeze(instance, kind == wire.Kind.FREEZE)

    def _send(self, message: bytes) -> None:
        try:
            self._control.send(message)
        except ConnectionError:
            self.end()

    # -- starting

    def _start(self, spawn: wire.Spawn, sock: int) -> None:
        self._kinds.add(spawn.internet)
        try:
            instance = self._take(spawn, sock) or self._make(spawn, sock)
        except OSError as error:
            self._send(wire.encode(wire.Kind.REFUSED, spawn.number, str(error)))
            return
        instance.number = spawn.number
        instance.memory_bytes = spawn.memory_mb << 20
        self._by_number[spawn.number] = instance
        started = wire.Started(spawn.number, instance.pid, instance.serial).encode()
        if os.getpid() != 1:
            self._send(started)
            return
        seen = os.pidfd_open(instance.pid)  # our pids mean nothing outside of our pid namespace
        try:
            wire.send(self._control, started, [seen])
        finally:
            os.close(seen)

    def _take(self, spawn: wire.Spawn, sock: int) -> Instance | None:
        """A blank that gets the code and the socket; ``None`` if there is none."""
        for blank in self._blanks:
            if blank.ready and blank.internet == spawn.internet and blank.waiting is not None:
                break
        else:
            return None
        tree = kernel.read_only_tree(spawn.code_dir)
        self._blanks.remove(blank)
        self._poll.unregister(blank.waiting)
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
        except ConnectionError:
            return None  # it died just now; it is reaped like any other
        except OSError:
            os.kill(blank.pid, signal.SIGKILL)  # half prepared: nobody else may get it
            raise
        finally:
            os.close(tree)
            blank.forget_blank()
        return blank

    def _limit(self, instance: Instance, spawn: wire.Spawn) -> None:
        if instance.group is not None:
            instance.group.limit(spawn.memory_mb, spawn.processes)
        if not self._tree.limits_pids:
            limit = (spawn.processes, spawn.processes)
            resource.prlimit(instance.pid, resource.RLIMIT_NPROC, limit)

    def _make(self, spawn: wire.Spawn, sock: int) -> Instance:
        """No blank is left: the same isolation, made now."""
        tree = kernel.read_only_tree(spawn.code_dir) if self._namespaces else -1
        try:
            return self._fork(spawn.internet, spawn=spawn, sock=sock, code=tree)
        finally:
            if tree >= 0:
                os.close(tree)

    def _fork(
        self, internet: bool, *, spawn: wire.Spawn | None = None, sock: int = -1, code: int = -1
    ) -> Instance:
        self._serial += 1
        serial = self._serial
        group = self._group(serial, internet)
        doors: list[int] = []
        ours = theirs = None
        try:
            if group is not None:
                if spawn is not None:
                    group.limit(spawn.memory_mb, spawn.processes)
                doors = group.doors()
            if spawn is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            instance = Instance(0, serial, internet, group, waiting=ours)
            plan = self._plan(instance, spawn, tuple(doors), theirs, sock, code)
            instance.pid = self._fork_plan(plan)
        except OSError:
            if ours is not None:
                ours.close()
            if group is not None:
                self._removals.append(group)
            raise
        finally:
            for door in doors:
                os.close(door)
            if theirs is not None:
                theirs.close()
        self._by_pid[instance.pid] = instance
        return instance

    def _group(self, serial: int, internet: bool) -> cgroups.Group | None:
        if not self._tree.places.directories():
            return None
        return self._tree.group(serial, guarded=internet)

    def _plan(
        self,
        instance: Instance,
        spawn: wire.Spawn | None,
        doors: tuple[int, ...],
        waiting: socket.socket | None,
        sock: int,
        code: int,
    ) -> Plan:
        uid = self._uid(instance.serial, spawn)
        code_path, tmp = "/code", "/tmp"
        if not self._namespaces and spawn is not None:
            instance.mark = self._order.mark + instance.serial % (census.MARKS - 1)
            instance.tmp = tmp = os.path.join(self._order.run_dir, f"tmp{instance.serial}")
            os.mkdir(tmp, 0o700)
            if uid:
                os.chown(tmp, uid, uid)
            code_path = spawn.code_dir
        return Plan(
            uid=uid,
            internet=instance.internet,
            disk_mb=spawn.disk_mb if spawn else _DISK_MB,
            processes=spawn.processes if spawn else _PROCESSES,
            doors=doors,
            code=code,
            waiting=waiting,
            sock=sock,
            code_path=code_path,
            tmp=tmp,
            mark=instance.mark,
        )

    def _uid(self, serial: int, spawn: wire.Spawn | None) -> int:
        """The instance's own uid; 0 where it could not read its files under another."""
        first, count = self._order.uids
        if not count:
            return 0
        if not self._namespaces and spawn is not None:
            needed = (*self._walls.prefixes, self._order.run_dir, spawn.code_dir)
            if not all(open_to_others(path) for path in needed):
                return 0
        return first + (self._order.mark // census.MARKS + serial) % count

    def _fork_plan(self, plan: Plan) -> int:
        launcher = os.getpid()
        if self._namespaces:
            kernel.unshare(kernel.NEWPID)  # for the next child, which becomes process 1 of it
        try:
            child = os.fork()
            if child == 0:
                resource.setrlimit(resource.RLIMIT_NOFILE, self._files)
                run(self._walls, plan, launcher)
        finally:
            if self._namespaces:
                kernel.setns(self._own_pids, kernel.NEWPID)  # else the next unshare is refused
        return child

    # -- blanks

    def _missing(self) -> bool | None:
        """A kind of network that wants another blank."""
        if not self._namespaces:
            return None
        for kind in self._kinds:
            if sum(blank.internet == kind for blank in self._blanks) < self._order.blanks:
                return kind
        return None

    def _refill(self, now: float) -> None:
        kind = self._missing()
        if kind is None:
            return
        try:
            blank = self._fork(kind)
        except OSError as error:
            self._blank_failed(now, str(error))
            return
        self._blanks.append(blank)
        self._poll.register(blank.waiting or -1, select.POLLIN)

    def _blank_failed(self, now: float, reason: str) -> None:
        self._failures += 1
        self._refill_at = now + min(10.0, 0.05 * 2**self._failures)
        sys.stderr.write(f"a blank could not be made: {reason}\n")
        sys.stderr.flush()

    def _blank_spoke(self, descriptor: int) -> None:
        for blank in self._blanks:
            if blank.waiting is not None and blank.waiting.fileno() == descriptor:
                break
        else:
            return
        message, _ = wire.receive(blank.waiting)
        if message:
            blank.mounts = os.open(f"/proc/{blank.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            blank.ready = True
            self._failures = 0
            return
        self._poll.unregister(descriptor)
        self._blanks.remove(blank)
        blank.forget_blank()
        self._blank_failed(time.monotonic(), "it ended while it was made")

    # -- ending

    def _kill(self, instance: Instance) -> None:
        """SIGKILL; in a pid namespace process 1 takes the others along."""
        if instance.mark:
            census.kill_marked(instance.mark, limit_s=0.2)
        os.kill(instance.pid, signal.SIGKILL)

    def _freeze(self, instance: Instance, frozen: bool) -> None:
        if instance.group is not None and instance.group.freeze(frozen):
            return
        number = signal.SIGSTOP if frozen else signal.SIGCONT
        for pid in census.below([instance.pid])[instance.pid]:
            os.kill(pid, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            instance = self._by_pid.pop(pid, None)
            if instance is not None:  # else an orphan of a process-level instance
                self._ended(instance, os.waitstatus_to_exitcode(status), used.ru_maxrss)

    def _ended(self, instance: Instance, code: int, rss_kb: int) -> None:
        if instance.mark and not census.kill_marked(instance.mark):
            sys.stderr.write(f"processes of instance {instance.number} resist SIGKILL\n")
        if instance.tmp:
            shutil.rmtree(instance.tmp, ignore_errors=True)
        group = instance.group
        if group is not None:
            instance.oom |= code == -signal.SIGKILL and group.out_of_memory()
            instance.peak_bytes = max(instance.peak_bytes, group.peak_bytes())
            if not group.remove():
                self._removals.append(group)
        if not instance.number:
            return  # a blank; its socket tells
        del self._by_number[instance.number]
        peak = instance.peak_bytes or rss_kb << 10
        self._send(wire.Exited(instance.number, code, instance.oom, peak).encode())

    # -- memory, where no control group counts it

    def _watching(self) -> bool:
        return bool(self._by_number) and not self._tree.limits_memory

    def _watch(self) -> None:
        running = {instance.pid: instance for instance in self._by_number.values()}
        for pid, family in census.below(list(running)).items():
            instance = running[pid]
            used = sum(census.private_bytes(member) for member in family)
            instance.peak_bytes = max(instance.peak_bytes, used)
            if used > instance.memory_bytes and not instance.oom:
                instance.oom = True
                self._kill(instance)

    def end(self) -> NoReturn:
        """The daemon is gone: leave nothing behind."""
        for pid in self._by_pid:
            os.kill(pid, signal.SIGKILL)
        for pid, instance in self._by_pid.items():
            os.waitpid(pid, 0)
            if instance.group is not None:
                instance.group.remove()
        if not self._namespaces:  # also what daemonised itself
            census.kill_marked(self._order.mark, census.MARKS - 1)
        for directory in self._tree.places.directories():
            cgroups.clear(directory, limit_s=5.0)
        shutil.rmtree(self._order.run_dir, ignore_errors=True)
        os._exit(0)


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


def _enter_user_namespace() -> None:
    """Become process 1 of a pid namespace that an own user namespace owns.

    This process stays behind as a door-keeper: it ends with the launcher, the launcher with it.
    """
    uid, gid, parent = os.getuid(), os.getgid(), os.getpid()
    kernel.unshare(kernel.NEWUSER | kernel.NEWPID | kernel.NEWNS)
    map_user(0, uid, gid)
    child = os.fork()
    if child:
        os.closerange(3, 64)
        _, status = os.waitpid(child, 0)
        os._exit(max(0, os.waitstatus_to_exitcode(status)))
    kernel.die_with_parent(parent)
    kernel.mount("none", "/", None, kernel.REC | kernel.SLAVE)
    kernel.mount("proc", "/proc", "proc", kernel.NOSUID | kernel.NODEV | kernel.NOEXEC)


def _bootstrap(path: str) -> Serve:
    """Load the bootstrap here, so that no instance has to."""
    spec = importlib.util.spec_from_file_location("bootstrap", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = module
    spec.loader.exec_module(module)
    serve: Serve = module.serve
    return serve


def main() -> NoReturn:
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    message, _ = wire.receive(control)
    if not message:
        os._exit(0)
    wanted = order.Order.decode(message)
    serve = _bootstrap(wanted.bootstrap)
    sys.path.remove(_HOME)
    if wanted.level == order.USER_NAMESPACES:
        _enter_user_namespace()
    launcher = Launcher(control, wanted, serve)
    launcher.announce()
    launcher.run()


if __name__ == "__main__":
    main()

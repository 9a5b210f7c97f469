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

import errno
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import socket
import time
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
    shared_memory,
    wire,
)
from eventd.pool.sandbox.cell import Serve, Walls, map_user
from eventd.pool.sandbox.stock import Cell, Stock

_WATCH_S = 0.1
_OPEN_FILES = 1024
_BOOTSTRAP = "_eventd_bootstrap"  # no name that a function's module might have


class Launcher:
    """Owns all instances; one loop, no thread."""

    def __init__(self, control: socket.socket, wanted: order.Order, serve: Serve) -> None:
        self._control = control
        self._order = wanted
        self._by_number: dict[int, Cell] = {}
        self._watch_at = 0.0
        self._poll = select.poll()
        self._namespaces = wanted.level <= order.USER_NAMESPACES
        self._tree = cgroups.Tree(wanted.groups, family={*wanted.family, os.getpid()})
        self._lacks = list(self._tree.lacks)
        self._put_up_guard()
        walls = self._make_walls(serve)
        self._stock = Stock(wanted, walls, self._tree, self._poll, self._limit_files)

    # -- making ready

    def _put_up_guard(self) -> None:
        unified = self._tree.places.unified
        if not self._order.guard or not unified:
            return
        allowed = [*self._order.allowed, *guard.resolvers()]
        try:
            guard.put_up(unified, allowed)
        except OSError as error:
            self._lacks.append(f"connect guard: {error.strerror}")

    def _make_walls(self, serve: Serve) -> Walls:
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
        hidden = ("__main__", *(name for name in sys.modules if name.partition(".")[0] == "eventd"))
        return Walls(template, user, version, filters, serve, prefixes, hidden)

    def announce(self) -> None:
        """Tell the daemon what there is; from now on it may ask for instances."""
        self._prepare_self()
        content = {
            "peak_file": self._tree.peak_file(0),
            "limits_memory": self._tree.limits_memory,
            "limits_pids": self._tree.limits_pids,
            "lacks": self._lacks,
        }
        self._send(wire.encode(wire.Kind.READY, os.getpid(), json.dumps(content)))

    def _prepare_self(self) -> None:
        """What children inherit is set once, here: each would copy the memory that it touches."""
        rehearse = getattr(sys.modules[_BOOTSTRAP], "rehearse", None)
        if rehearse is not None:
            place = os.path.join(self._order.run_dir, "rehearsal")
            os.mkdir(place)
            rehearse(place)
            os.rmdir(place)
        sys.argv = [""]
        sys.dont_write_bytecode = True  # the code is read-only for everybody
        sys.executable = os.path.realpath(sys.executable)  # instances don't see the link to it
        os.environ.clear()
        os.environ.update(
            HOME="/tmp",
            TMPDIR="/tmp",
            LANG="C.UTF-8",
            PATH=f"/usr/local/bin:/usr/bin:/bin:{os.path.dirname(sys.executable)}",
        )
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
        shared_memory.settle()

    def _limit_files(self) -> None:
        """In a forked child; the launcher itself may need more."""
        resource.setrlimit(resource.RLIMIT_NOFILE, self._files)

    # -- the loop

    def run(self) -> NoReturn:
        """Serve until the daemon is gone, then end with everything."""
        control, wake, stock = self._control.fileno(), self._wake.fileno(), self._stock
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
                    stock.heard(descriptor)
            now = time.monotonic()
            if now >= stock.refill_at and stock.missing():
                stock.refill(now)
            if self._watching() and now >= self._watch_at:
                self._watch_at = now + _WATCH_S
                self._watch()
            if stock.abandoned:
                stock.abandoned = [group for group in stock.abandoned if not group.remove()]

    def _pause_ms(self) -> int:
        due = []
        if self._stock.missing():
            due.append(self._stock.refill_at)
        if self._watching():
            due.append(self._watch_at)
        if self._stock.abandoned:
            due.append(time.monotonic() + 0.05)
        if not due:
            return -1
        return max(0, int((min(due) - time.monotonic()) * 1000) + 1)

    def _handle(self, message: bytes, descriptors: list[int]) -> None:
        kind = message[0]
        if kind == wire.Kind.SPAWN:
            self._start(wire.Spawn.decode(message), descriptors)
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

    def _start(self, spawn: wire.Spawn, descriptors: list[int]) -> None:
        try:
            if not descriptors:  # no free one was left when the message arrived
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            instance = self._stock.take(spawn, descriptors[0])
        except OSError as error:
            self._send(wire.encode(wire.Kind.REFUSED, spawn.number, str(error)))
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
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

    # -- ending

    def _kill(self, instance: Cell) -> None:
        """SIGKILL; in a pid namespace process 1 takes the others along."""
        if instance.mark:
            census.kill_marked(instance.mark, limit_s=0.2)
        os.kill(instance.pid, signal.SIGKILL)

    def _freeze(self, instance: Cell, frozen: bool) -> None:
        if instance.group is not None and instance.group.freeze(frozen):
            return
        number = signal.SIGSTOP if frozen else signal.SIGCONT
        for pid in census.below([instance.pid])[instance.pid]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # it ended meanwhile

    def _reap(self) -> None:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            instance = self._stock.by_pid.pop(pid, None)
            if instance is not None:  # else an orphan of a process-level instance
                self._ended(instance, os.waitstatus_to_exitcode(status), used.ru_maxrss)

    def _ended(self, instance: Cell, code: int, rss_kb: int) -> None:
        if instance.mark and not census.kill_marked(instance.mark):
            sys.stderr.write(f"processes of instance {instance.number} resist SIGKILL\n")
        if instance.tmp:
            shutil.rmtree(instance.tmp, ignore_errors=True)
        group = instance.group
        if group is not None:
            instance.oom |= code == -signal.SIGKILL and group.out_of_memory()
            instance.peak_bytes = max(instance.peak_bytes, group.peak_bytes())
            if not group.remove():
                self._stock.abandoned.append(group)
        if not instance.number:
            return  # it was in stock; its socket tells
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
        for pid in self._stock.by_pid:
            os.kill(pid, signal.SIGKILL)
        for pid, instance in self._stock.by_pid.items():
            os.waitpid(pid, 0)
            if instance.group is not None:
                instance.group.remove()
        if not self._namespaces:  # also what daemonised itself
            census.kill_marked(self._order.mark, census.MARKS - 1)
        for directory in self._tree.places.directories():
            cgroups.clear(directory, limit_s=5.0)
        shutil.rmtree(self._order.run_dir, ignore_errors=True)
        os._exit(0)


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
    spec = importlib.util.spec_from_file_location(_BOOTSTRAP, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_BOOTSTRAP] = module
    spec.loader.exec_module(module)
    serve: Serve = module.serve
    return serve


def main() -> NoReturn:
    # A service manager may signal the whole group: the daemon drains first, then hangs up on us.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
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

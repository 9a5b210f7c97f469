"""The file system that function code sees: a small read-only root made of bind mounts.

It is built once, in a *template* mount namespace; every instance gets a copy of that namespace and
adds what is its own: ``/tmp``, ``/dev/shm``, ``/proc`` and ``/code``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

from eventd.pool.sandbox import kernel

_SYSTEM = ("usr", "lib", "lib32", "lib64", "bin", "sbin")
# Host files that programs look for; the host's accounts are not among them.
_ETC = (
    "ssl", "pki", "ca-certificates", "ld.so.cache", "nsswitch.conf", "resolv.conf", "hosts",
    "localtime", "mime.types", "alternatives", "java-17-openjdk",
)  # fmt: skip
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_PASSWD = "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"
_PLAIN = kernel.NOSUID | kernel.NODEV


def build(new: str, *, prefixes: Sequence[str], proc: bool) -> None:
    """In a fresh mount namespace: build a root at the directory ``new`` and make it ``/``.

    Args:
        prefixes: directories of the host that must be there too, such as the interpreter's.
        proc: mount a whole ``/proc`` of this process's pid namespace. A user namespace may mount
            its own later only where a whole one is already visible.
    """
    kernel.mount("none", "/", None, kernel.REC | kernel.SLAVE)
    kernel.mount("root", new, "tmpfs", _PLAIN, "size=1m,mode=755")
    os.chdir(new)
    for name in ("etc", "code", "tmp", "proc", "dev", "run"):
        os.mkdir(name)
    _system(prefixes)
    _etc()
    _devices()
    if proc:
        kernel.mount("proc", "proc", "proc", _PLAIN | kernel.NOEXEC)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    kernel.mount(None, "/", None, kernel.REMOUNT | kernel.RDONLY | _PLAIN, "size=1m,mode=755")


def _bind(source: str, target: str) -> None:
    tree = kernel.read_only_tree(source)
    try:
        kernel.attach(tree, target)
    finally:
        os.close(tree)


def _system(prefixes: Sequence[str]) -> None:
    for name in _SYSTEM:
        if os.path.islink("/" + name):
            os.symlink(os.readlink("/" + name), name)
        elif os.path.isdir("/" + name):
            os.mkdir(name)
            _bind("/" + name, name)
    for prefix in prefixes:
        if not prefix.startswith("/usr/"):
            os.makedirs(prefix[1:], exist_ok=True)
            _bind(prefix, prefix[1:])


def _etc() -> None:
    for name in _ETC:
        source = "/etc/" + name
        if os.path.isdir(source):
            os.mkdir("etc/" + name)
        elif os.path.isfile(source):
            _write("etc/" + name, "")
        else:
            continue
        _bind(source, "etc/" + name)
    _write("etc/passwd", _PASSWD)
    _write("etc/group", _GROUP)


def _devices() -> None:
    for name in _DEVICES:
        _write("dev/" + name, "")
        kernel.mount("/dev/" + name, "dev/" + name, None, kernel.BIND)
    for name, target in _LINKS.items():
        os.symlink(target, "dev/" + name)
    os.mkdir("dev/shm")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def own_mounts(disk_mb: int) -> None:
    """In an instance's copy of the template: its private ``/tmp``, ``/dev/shm`` and ``/proc``."""
    kernel.mount("tmp", "/tmp", "tmpfs", _PLAIN, tmp_options(disk_mb))
    kernel.mount("shm", "/dev/shm", "tmpfs", _PLAIN, "size=64m,nr_inodes=1k,mode=1777")
    flags = _PLAIN | kernel.NOEXEC
    kernel.mount("proc", "/proc", "proc", flags, "subset=pid")


def tmp_options(disk_mb: int) -> str:
    """Options of a ``/tmp`` of ``disk_mb``: at least 4 KiB for each file."""
    return f"size={disk_mb}m,nr_inodes={max(1024, disk_mb * 256)},mode=1777"


def resize_tmp(disk_mb: int) -> None:
    """Another size for the ``/tmp`` of the mount namespace that this process is in."""
    flags = _PLAIN | kernel.REMOUNT
    kernel.mount(None, "/tmp", None, flags, tmp_options(disk_mb))


def namespace_of(setup: Callable[[], None], kind: str, *, limit_s: int = 10) -> int:
    """A descriptor of the ``kind`` (``mnt``, ``net``) namespace that ``setup`` enters in a child.

    The child is gone when this returns. ``OSError`` with the child's words if ``setup`` failed or
    took longer than ``limit_s``.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit_s)
        try:
            setup()
            os.write(writing, b"ready")
            signal.pause()
        except BaseException as error:  # noqa: BLE001 - a forked child must never go on in its parent's code
            os.write(writing, str(error).encode()[:400])
        finally:
            os._exit(1)
    os.close(writing)
    try:
        answer = os.read(reading, 400)
        if answer != b"ready":
            raise OSError(answer.decode(errors="replace") or "the child ended")
        return os.open(f"/proc/{child}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

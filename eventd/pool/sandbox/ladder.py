"""The ladder of isolation means: each one tried in a forked child, the result as JSON on stdout.

Run by ``probe`` as ``python -I -S ladder.py``. A probe goes as far as an instance would: some
kernels let ``unshare`` pass and refuse the mount after it.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.insert(0, __file__.rsplit("/", 4)[0])

import json
import os
import signal
import tempfile
from collections.abc import Callable

from eventd.pool.sandbox import cell, cgroups, guard, kernel, landlock, root, seccomp

_LIMIT_S = 5
_PROBE_UID = 70001


def attempt(means: Callable[[], str]) -> str:
    """What ``means`` says in a child of its own, or ``no: `` and why not. Bounded in time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(_LIMIT_S)
        try:
            os.write(writing, means().encode())
        except BaseException as error:  # noqa: BLE001 - a forked child must never go on in its parent's code
            os.write(writing, f"no: {error}".encode()[:300])
        finally:
            os._exit(0)
    os.close(writing)
    answer = b""
    while part := os.read(reading, 400):
        answer += part
    os.close(reading)
    os.waitpid(child, 0)
    return answer.decode(errors="replace") or f"no: nothing within {_LIMIT_S} s"


def _in_child(step: Callable[[], None]) -> None:
    """``step`` in a child; its failure is raised here."""

    def words() -> str:
        step()
        return "yes"

    answer = attempt(words)
    if answer != "yes":
        raise OSError(answer.removeprefix("no: "))


def _whole_instance(new: str, *, user: bool) -> None:
    def build() -> None:
        kernel.unshare(kernel.NEWNS)
        prefixes = (os.path.realpath(sys.base_prefix),)
        root.build(new, prefixes=prefixes, proc=user)

    template = root.namespace_of(build, "mnt", limit_s=_LIMIT_S)

    def live() -> None:
        kernel.setns(template, kernel.NEWNS)
        kernel.unshare(kernel.NEWNS | kernel.NEWIPC | kernel.NEWUTS | kernel.NEWCGROUP)
        kernel.unshare(kernel.NEWNET)
        cell.loopback_up()
        root.own_mounts(16)
        tree = kernel.read_only_tree("/usr")
        kernel.attach(tree, "/code")
        if user:
            cell.nested_user()
        else:
            os.setresuid(_PROBE_UID, _PROBE_UID, _PROBE_UID)

    kernel.unshare(kernel.NEWPID)
    _in_child(live)


def _namespaces(new: str) -> str:
    _whole_instance(new, user=False)
    return "yes"


def _user_namespaces(new: str) -> str:
    uid, gid = os.getuid(), os.getgid()
    kernel.unshare(kernel.NEWUSER | kernel.NEWPID | kernel.NEWNS)
    cell.map_user(0, uid, gid)

    def first() -> None:
        kernel.mount("none", "/", None, kernel.REC | kernel.SLAVE)
        flags = kernel.NOSUID | kernel.NODEV | kernel.NOEXEC
        kernel.mount("proc", "/proc", "proc", flags)
        _whole_instance(new, user=True)

    _in_child(first)
    return "yes"


def _another_uid() -> str:
    os.setgroups([])
    os.setresuid(_PROBE_UID, _PROBE_UID, _PROBE_UID)
    return "yes"


def _landlock() -> str:
    version = landlock.abi()
    if not version:
        raise OSError("not in this kernel, or not switched on at boot")
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    landlock.confine(version, readable=["/usr"], executable=[], writable=[], internet=False)
    return f"ABI {version}"


def _seccomp() -> str:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.apply(seccomp.program())
    return "yes"


def _groups(wanted: cgroups.Places) -> dict[str, str]:
    tree = cgroups.Tree(wanted, family={os.getpid(), os.getppid()})
    found = {
        "memory limit": "yes" if tree.limits_memory else "no: no writable memory cgroup",
        "process limit": "yes" if tree.limits_pids else "no: no writable pids cgroup",
        "freeze and kill": "yes" if tree.places.unified else "no: no writable cgroup2",
        "connect guard": "no: no writable cgroup2",
    }
    if tree.places.unified:

        def guarded() -> str:
            guard.put_up(tree.places.unified, ())
            return "yes"

        found["connect guard"] = attempt(guarded)
    for directory in tree.places.directories():
        cgroups.clear(directory, limit_s=2.0)
    return found


def main() -> None:
    new = tempfile.mkdtemp(prefix="eventd-ladder-")
    os.chmod(new, 0o755)
    try:
        found = {
            "namespaces": attempt(lambda: _namespaces(new)),
            "user namespaces": attempt(lambda: _user_namespaces(new)),
            "another uid": attempt(_another_uid),
            "landlock": attempt(_landlock),
            "seccomp": attempt(_seccomp),
            **_groups(cgroups.places(f"eventd-probe-{os.getpid()}")),
        }
    finally:
        os.rmdir(new)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()

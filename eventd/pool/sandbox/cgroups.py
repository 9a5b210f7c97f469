"""Control groups: limits, peak memory, freeze and kill of one instance.

A fresh directory per instance, never reused: a cgroup2 that ever saw ``cgroup.kill`` kills what is
later born in it. Moving a process waits up to 10 ms for the kernel, so that an instance moves
itself while it is still a blank. Works with cgroup v2, with v1, and with the mix of both in which
v2 has no controller and only kills, freezes and carries the connect guard.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass

_LEAF = "eventd-node"


@dataclass(frozen=True, slots=True)
class Places:
    """Directories of one data directory's groups; empty where the hierarchy is missing.

    Attributes:
        memory, pids: v1 directories.
        unified: v2 directory.
        controllers: v2 controls memory and pids there.
    """

    memory: str = ""
    pids: str = ""
    unified: str = ""
    controllers: bool = False

    def directories(self) -> list[str]:
        return [path for path in (self.memory, self.pids, self.unified) if path]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def places(name: str) -> Places:
    """Where groups called ``name`` would be, below this process's own; makes nothing."""
    mounts = _mounts()
    own = {}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path
    found = {}
    for controller in ("memory", "pids", ""):
        if controller in mounts and controller in own:
            root, point = mounts[controller]
            inside = own[controller]
            if root != "/" and inside.startswith(root):
                inside = inside[len(root) :]
            found[controller] = point + inside.rstrip("/")
    unified = found.get("", "")
    if unified.endswith("/" + _LEAF):
        unified = os.path.dirname(unified)
    offered = set(_read(unified + "/cgroup.controllers").split()) if unified else set()
    return Places(
        memory=f"{found['memory']}/{name}" if "memory" in found else "",
        pids=f"{found['pids']}/{name}" if "pids" in found else "",
        unified=f"{unified}/{name}" if unified else "",
        controllers={"memory", "pids"} <= offered,
    )


def _mounts() -> dict[str, tuple[str, str]]:
    """Controller ("" for v2) to (root of the mount, mount point)."""
    found = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, point = left.split()[3:5]
        if kind == "cgroup2":
            found[""] = (root, point)
        elif kind == "cgroup":
            for controller in options.split(","):
                found.setdefault(controller, (root, point))
    return found


class Tree:
    """The groups of one launcher.

    Attributes:
        lacks: what could not be made, in words.
    """

    def __init__(self, wanted: Places, *, family: set[int]) -> None:
        """Make the directories of ``wanted``; those that the kernel refuses are left out.

        Args:
            family: processes that may be moved into a leaf of their own: v2 gives no controller
                to children of a group that holds processes.
        """
        self.lacks: list[str] = []
        controllers = wanted.controllers and self._delegate(wanted.unified, family)
        made = {name: self._make(name, getattr(wanted, name)) for name in ("memory", "pids")}
        unified = self._make("unified", wanted.unified)
        if unified and controllers:
            _write(unified + "/cgroup.subtree_control", "+memory +pids")
        self.places = Places(made["memory"], made["pids"], unified, bool(unified) and controllers)

    def _make(self, name: str, path: str) -> str:
        if not path:
            return ""
        try:
            os.makedirs(path, exist_ok=True)
            os.close(os.open(path + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            self.lacks.append(f"cgroup {name}: {error.strerror}")
            return ""
        return path

    def _delegate(self, path: str, family: set[int]) -> bool:
        parent = os.path.dirname(path)
        control = parent + "/cgroup.subtree_control"
        try:
            if {"memory", "pids"} <= set(_read(control).split()):
                return True
            try:
                _write(control, "+memory +pids")
            except OSError:
                inside = {int(pid) for pid in _read(parent + "/cgroup.procs").split()}
                if not inside or not inside <= family:
                    raise
                os.makedirs(f"{parent}/{_LEAF}", exist_ok=True)
                for pid in inside:
                    _write(f"{parent}/{_LEAF}/cgroup.procs", str(pid))
                _write(control, "+memory +pids")
        except OSError as error:
            self.lacks.append(f"cgroup2 controllers: {error.strerror}")
            return False
        return True

    @property
    def limits_memory(self) -> bool:
        return bool(self.places.memory) or self.places.controllers

    @property
    def limits_pids(self) -> bool:
        return bool(self.places.pids) or self.places.controllers

    def group(self, serial: int) -> Group:
        """A fresh group."""
        at = self.places
        group = Group(
            memory=f"{at.memory}/i{serial}" if at.memory else "",
            pids=f"{at.pids}/i{serial}" if at.pids else "",
            unified=f"{at.unified}/i{serial}" if at.unified else "",
            controllers=at.controllers,
        )
        for path in group.directories():
            os.mkdir(path)
        return group

    def peak_file(self, serial: int) -> str:
        """The file with the highest memory use of a group, in bytes; empty without one."""
        at = self.places
        if at.controllers:
            return f"{at.unified}/i{serial}/memory.peak"
        return f"{at.memory}/i{serial}/memory.max_usage_in_bytes" if at.memory else ""


@dataclass(frozen=True, slots=True)
class Group:
    """One instance's directories; empty where the hierarchy is missing."""

    memory: str
    pids: str
    unified: str
    controllers: bool

    def directories(self) -> list[str]:
        return [path for path in (self.memory, self.pids, self.unified) if path]

    def doors(self) -> list[int]:
        """Descriptors; a process that writes ``0`` to each is in the group."""
        return [
            os.open(path + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            for path in self.directories()
        ]

    def limit(self, memory_mb: int, processes: int) -> None:
        """The memory limit counts swap where the kernel can. Costs 0.05 ms."""
        size = str(memory_mb << 20)
        if self.controllers:
            _write(self.unified + "/memory.max", size)
            _write(self.unified + "/memory.oom.group", "1")
            _write_if_there(self.unified + "/memory.swap.max", "0")
            _write(self.unified + "/pids.max", str(processes))
        if self.memory and not self.controllers:
            _write(self.memory + "/memory.limit_in_bytes", size)
            _write_if_there(self.memory + "/memory.memsw.limit_in_bytes", size)
        if self.pids and not self.controllers:
            _write(self.pids + "/pids.max", str(processes))

    def peak_bytes(self) -> int:
        """0 where nothing counts."""
        if self.controllers:
            return int(_read(self.unified + "/memory.peak") or 0)
        return int(_read(self.memory + "/memory.max_usage_in_bytes") or 0) if self.memory else 0

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something in it for its memory."""
        if self.controllers:
            text = _read(self.unified + "/memory.events")
        else:
            text = _read(self.memory + "/memory.oom_control") if self.memory else ""
        return any(
            line.startswith("oom_kill ") and not line.endswith(" 0") for line in text.splitlines()
        )

    def freeze(self, frozen: bool) -> bool:
        """Stop or continue all its processes; ``False`` where the kernel cannot."""
        if not self.unified:
            return False
        _write(self.unified + "/cgroup.freeze", "1" if frozen else "0")
        return True

    def remove(self) -> bool:
        """Remove the directories; ``False`` while a process is still in one of them."""
        done = True
        for path in self.directories():
            try:
                os.rmdir(path)
            except FileNotFoundError:
                pass  # removed by an earlier attempt
            except OSError:
                done = False
        return done


def clear(directory: str, *, limit_s: float) -> bool:
    """Kill all that is in ``directory`` and below, wait until it is gone, remove the directories.

    Also what is frozen, ignores signals or daemonised itself. Blocks up to ``limit_s``; ``False``
    if something is still there then.
    """
    deadline = time.monotonic() + limit_s
    while os.path.isdir(directory):
        below = [path for path, _, _ in os.walk(directory, topdown=False)]
        for path in below:
            _kill_all(path)
        for path in below:
            try:
                os.rmdir(path)
            except OSError:
                break  # not empty yet
        else:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _kill_all(path: str) -> None:
    try:
        if os.path.exists(path + "/cgroup.kill"):
            _write(path + "/cgroup.kill", "1")
        for pid in _read(path + "/cgroup.procs").split():
            if pid != "0":  # a process that is not in our pid namespace; 0 would mean ourselves
                os.kill(int(pid), 9)
        _write_if_there(path + "/freezer.state", "THAWED")  # a frozen v1 group dies thawed only
    except (FileNotFoundError, ProcessLookupError):
        pass  # gone meanwhile: what was wanted


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: str, text: str) -> None:
    try:
        _write(path, text)
    except FileNotFoundError:
        pass  # the kernel was built without it

"""Which isolation this machine gives, in words for a person and as a level for the launcher."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eventd.pool.sandbox import order

_LIMIT_S = 30.0

_ADVICE = {
    "user namespaces": "run as root, or allow user namespaces "
    "(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; "
    "in a container: --cap-add SYS_ADMIN --security-opt seccomp=unconfined "
    "--security-opt systempaths=unconfined)",
    "landlock": "boot a kernel from 5.13 on with landlock in lsm=",
    "seccomp": "run on x86_64 or aarch64, with seccomp in the kernel",
    "memory limit": "run as root, or under systemd with Delegate=yes; until then memory is "
    "watched every 0.1 s",
    "process limit": "run as root, or under systemd with Delegate=yes; until then the limit is "
    "counted by uid",
    "freeze and kill": "mount cgroup2 writable",
    "connect guard": "run as root with cgroup2; until then functions with internetAccess reach "
    "this machine's loopback ports",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What ``eventd doctor`` shows.

    Attributes:
        level: 1 (strongest) to 4, see ``order``.
        name: the level's name.
        means: each means of isolation, with ``yes``, a version, or ``no: `` and the reason.
        lacks: the means that are missing at this level.
        advice: what to do about them.
    """

    level: int
    name: str
    means: Mapping[str, str]
    lacks: tuple[str, ...]
    advice: tuple[str, ...]

    def has(self, means: str) -> bool:
        return not self.means[means].startswith("no: ")

    @property
    def safe(self) -> bool:
        """Whether functions of people who don't trust each other may run side by side."""
        return self.level < order.BARE and self.has("seccomp")


def judge(means: Mapping[str, str], *, at_most: int = order.NAMESPACES) -> Report:
    """The level that ``means`` allow, not stronger than ``at_most``. Pure."""
    missing = {name for name, answer in means.items() if answer.startswith("no: ")}
    able = [order.BARE]
    if "landlock" not in missing:
        able.append(order.PROCESS)
    if "seccomp" not in missing:
        if "user namespaces" not in missing:
            able.append(order.USER_NAMESPACES)
        if not missing & {"namespaces", "another uid"}:
            able.append(order.NAMESPACES)
    level = min((one for one in able if one >= at_most), default=order.BARE)
    wanted = ["landlock", "seccomp", "memory limit", "process limit", "freeze and kill"]
    if level == order.USER_NAMESPACES:  # BPF asks for privilege outside of it
        missing.add("connect guard")
    wanted.append("connect guard")
    if level > order.USER_NAMESPACES:
        wanted.insert(0, "user namespaces")
    lacks = tuple(name for name in wanted if name in missing)
    advice = tuple(_ADVICE[name] for name in lacks)
    return Report(level, order.LEVEL_NAMES[level], dict(means), lacks, advice)


async def probe(*, python: str = sys.executable, at_most: int = order.NAMESPACES) -> Report:
    """Try every means in processes of their own; about 0.1 s.

    Raises ``TimeoutError`` after 30 s, ``OSError`` if the program did not answer. Cancelling ends
    it.
    """
    program = str(Path(__file__).with_name("ladder.py"))
    process = await asyncio.create_subprocess_exec(
        python,
        "-I",
        "-S",
        program,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"},
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise OSError(f"the isolation probe failed: {errors.decode(errors='replace')[-500:]}")
    return judge(json.loads(output), at_most=at_most)

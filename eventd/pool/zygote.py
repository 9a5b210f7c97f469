"""Fork server: one zygote process per runtime and sandbox profile.

Stub of the interface; see the class docstrings.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpawnSpec:
    """What a new instance needs before any function code is read.

    Attributes:
        instance_id: ``c-...``, names its cgroup and its lines in the log.
        code_dir: unpacked package on this machine; becomes ``/code``, read-only.
        memory_mb: the function's ``memorySize``.
        disk_mb: size of its private ``/tmp``.
        internet: ``internetAccess`` of the service.
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


class Process:
    """A running instance's process tree, as its zygote knows it."""

    instance_id: str
    code_path: str
    """Where the instance sees its code: ``/code``, or a host path at the process level."""

    async def wait(self) -> ExitStatus:
        """Until the process ended and was reaped. Cancelling stops waiting, nothing else."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL to the whole tree; ``wait`` tells when it is gone. Safe to repeat."""
        raise NotImplementedError

    def memory_mb(self) -> float:
        """Peak memory so far, cheap enough to ask after every call."""
        raise NotImplementedError


class Zygote:
    """A fork server; open it with ``async with``."""

    async def spawn(self, spec: SpawnSpec, sock: socket.socket) -> Process:
        """Start an instance whose end of the protocol socket is ``sock`` (closed here after).

        Raises ``ResourceThrottled`` when the machine refuses a process. Cancelling kills what was
        started.
        """
        raise NotImplementedError

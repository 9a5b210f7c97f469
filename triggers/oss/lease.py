"""Whether somebody still writes to a file, asked from the kernel.

A read lease is given only while nobody has the file open for writing (fcntl(2), ``F_SETLEASE``).
"""

from __future__ import annotations

import fcntl
import os
import signal
from enum import Enum
from pathlib import Path

_FOREIGN = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "gluster", "virtiofs", "lustre", "afs")
"""File systems whose writers may sit on another machine, where no lease of ours is seen."""


class Writer(Enum):
    NONE = "nobody has it open for writing"
    SOMEBODY = "somebody has it open for writing"
    UNKNOWN = "the kernel cannot tell here"


def leases_tell(root: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether leases see every writer below ``root``: it lies on a local file system."""
    try:
        device = os.stat(root).st_dev
        text = mountinfo.read_text(errors="replace")
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in text.splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == number and source.startswith(_FOREIGN):
            return False
    return True


def look(path: str) -> tuple[os.stat_result, Writer]:
    """The state of a regular file, and whether it has a writer at this moment.

    While the lease is held nobody can write, so both belong together. ``OSError``: as ``open``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # A writer that comes while the lease is held makes the kernel send a signal. The default
        # one would end the process; this one is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            writer = Writer.SOMEBODY
        except OSError:
            writer = Writer.UNKNOWN  # not the owner, or no leases on this file system
        else:
            writer = Writer.NONE
        return os.fstat(descriptor), writer
    finally:
        os.close(descriptor)  # gives the lease back

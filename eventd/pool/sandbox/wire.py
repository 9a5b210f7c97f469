"""Messages between the daemon and its launcher: fixed heads over a ``SOCK_SEQPACKET`` pair.

The first message to the launcher is its ``Order`` as JSON, the first answer ``READY`` with JSON.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

MAX_MESSAGE = 16384
_HEAD = struct.Struct("<BxxxI")
_SPAWN = struct.Struct("<BBxxIIII")
_STARTED = struct.Struct("<BxxxIII")
_EXITED = struct.Struct("<BBxxIiQ")


class Kind(IntEnum):
    """First byte of every message."""

    # to the launcher
    SPAWN = 1
    KILL = 2
    FREEZE = 3
    THAW = 4
    # from the launcher
    READY = 16
    STARTED = 17
    REFUSED = 18
    EXITED = 19


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start instance ``number``; its socket comes along as a descriptor."""

    number: int
    memory_mb: int
    disk_mb: int
    processes: int
    internet: bool
    code_dir: str

    def encode(self) -> bytes:
        head = _SPAWN.pack(
            Kind.SPAWN, self.internet, self.number, self.memory_mb, self.disk_mb, self.processes
        )
        return head + self.code_dir.encode()

    @staticmethod
    def decode(message: bytes) -> Spawn:
        _, internet, number, memory_mb, disk_mb, processes = _SPAWN.unpack_from(message)
        code_dir = message[_SPAWN.size :].decode()
        return Spawn(number, memory_mb, disk_mb, processes, bool(internet), code_dir)


@dataclass(frozen=True, slots=True)
class Started:
    """Instance ``number`` runs as ``pid`` (as the launcher sees it) in group ``serial``."""

    number: int
    pid: int
    serial: int

    def encode(self) -> bytes:
        return _STARTED.pack(Kind.STARTED, self.number, self.pid, self.serial)

    @staticmethod
    def decode(message: bytes) -> Started:
        _, number, pid, serial = _STARTED.unpack(message)
        return Started(number, pid, serial)


@dataclass(frozen=True, slots=True)
class Exited:
    """Instance ``number`` is gone, with all its processes. ``code``: exit code or ``-signal``."""

    number: int
    code: int
    oom: bool
    peak_bytes: int

    def encode(self) -> bytes:
        return _EXITED.pack(Kind.EXITED, self.oom, self.number, self.code, self.peak_bytes)

    @staticmethod
    def decode(message: bytes) -> Exited:
        _, oom, number, code, peak_bytes = _EXITED.unpack(message)
        return Exited(number, code, bool(oom), peak_bytes)


def encode(kind: Kind, number: int, text: str = "") -> bytes:
    """A message of a head and perhaps a text: ``KILL``, ``FREEZE``, ``THAW``, ``REFUSED``…"""
    return _HEAD.pack(kind, number) + text.encode()[: MAX_MESSAGE - _HEAD.size]


def decode(message: bytes) -> tuple[Kind, int, str]:
    kind, number = _HEAD.unpack_from(message)
    return Kind(kind), number, message[_HEAD.size :].decode(errors="replace")


def send(sock: socket.socket, message: bytes, descriptors: list[int]) -> None:
    """One message with descriptors. ``BlockingIOError`` if the socket is full."""
    if descriptors:
        rights = array.array("i", descriptors)
        sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    else:
        sock.send(message)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came along; an empty one when the peer is gone."""
    found = array.array("i")
    try:
        message, ancillary, _, _ = sock.recvmsg(
            MAX_MESSAGE, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionError:
        return b"", []
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return message, list(found)


def pid_of(descriptor: int) -> int:
    """The pid, as this process sees it, behind a pidfd, which is closed; -1 if it ended."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
            for line in file:
                if line.startswith("Pid:"):
                    return int(line.split()[1])
    finally:
        os.close(descriptor)
    return -1

"""The connect guard: instances in the host's network reach no loopback and no link-local address.

Six small BPF programs on one parent cgroup2 hold for every instance below it; connecting costs
0.1 µs more. They refuse 127/8, 0/8, 169.254/16 (cloud metadata), ``::``/96, mapped forms of these,
``fe80::/10`` and ``fd00:ec2::/32``, and binding to a chosen port. Sockets of another network
namespace pass: an instance without internet has a loopback of its own.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Sequence

from eventd.pool.sandbox import kernel

Address = tuple[str, int]

_LOAD, _MOVE, _AND, _OR, _SET, _EXIT = 0x61, 0xBF, 0x57, 0x4F, 0xB7, 0x95
_GOTO, _IF_EQUAL, _IF_NOT = 0x05, 0x16, 0x56  # the comparisons look at 32 bits
_CALL, _SET_WIDE, _IF_OTHER = 0x85, 0x18, 0x5D
_GET_NETNS_COOKIE, _SO_NETNS_COOKIE = 122, 71
_PORT, _IP4, _IP6 = 24, 4, 8  # offsets in struct bpf_sock_addr
_BPF_PROG_LOAD, _BPF_PROG_ATTACH, _CGROUP_SOCK_ADDR = 5, 8, 18
_BIND4, _BIND6, _CONNECT4, _CONNECT6, _SENDMSG4, _SENDMSG6 = 8, 9, 10, 11, 14, 15


class _Program:
    """Instructions with named jump targets that lie ahead."""

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, int, str | None, int]] = []
        self._labels: dict[str, int] = {}

    def add(self, op: int, dst: int = 0, src: int = 0, imm: int = 0, to: str | None = None) -> None:
        signed = imm - (1 << 32) if imm >= 1 << 31 else imm
        self._steps.append((op, dst, src, to, signed))

    def load(self, register: int, offset: int) -> None:
        self._steps.append((_LOAD, register, 1, None, offset << 32))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._steps)

    def guard_only(self, cookie: int) -> None:
        """Let sockets pass that are not in the network namespace ``cookie``."""
        self.add(_MOVE, 6, 1)
        self.add(_CALL, imm=_GET_NETNS_COOKIE)
        self.add(_SET_WIDE, 2, imm=cookie & 0xFFFFFFFF)
        self.add(0, imm=cookie >> 32)
        self.add(_IF_OTHER, 0, 2, to="allow")
        self.add(_MOVE, 1, 6)

    def answers(self) -> None:
        """The two ends of every program."""
        self.label("allow")
        self.add(_SET, 0, imm=1)
        self.add(_EXIT)
        self.label("deny")
        self.add(_SET, 0, imm=0)
        self.add(_EXIT)

    def code(self) -> bytes:
        made = []
        for place, (op, dst, src, to, imm) in enumerate(self._steps):
            offset = self._labels[to] - place - 1 if to else 0
            if op == _LOAD:
                offset, imm = imm >> 32, 0
            made.append(struct.pack("<BBhi", op, dst | src << 4, offset, imm))
        return b"".join(made)


def _network_order(value: int) -> int:
    return int.from_bytes(value.to_bytes(2, "big"), "little")


def _judge_ip4(program: _Program, allowed: Sequence[Address]) -> None:
    """Register 9 holds the address, 7 the port; both in network order."""
    for number, (address, port) in enumerate(allowed):
        ip = ipaddress.ip_address(address)
        if ip.version == 4:
            program.add(_IF_NOT, 9, imm=int.from_bytes(ip.packed, "little"), to=f"next{number}")
            program.add(_IF_EQUAL, 7, imm=_network_order(port), to="allow")
            program.label(f"next{number}")
    program.add(_MOVE, 0, 9)
    program.add(_AND, 0, imm=0xFF)
    program.add(_IF_EQUAL, 0, imm=127, to="deny")
    program.add(_IF_EQUAL, 0, imm=0, to="deny")
    program.add(_AND, 9, imm=0xFFFF)
    program.add(_IF_EQUAL, 9, imm=0xFEA9, to="deny")  # 169.254


def _to_ip4(allowed: Sequence[Address], cookie: int) -> bytes:
    program = _Program()
    program.guard_only(cookie)
    program.load(9, _IP4)
    program.load(7, _PORT)
    _judge_ip4(program, allowed)
    program.answers()
    return program.code()


def _to_ip6(allowed: Sequence[Address], cookie: int) -> bytes:
    program = _Program()
    program.guard_only(cookie)
    for number, register in enumerate((2, 3, 8, 9)):
        program.load(register, _IP6 + 4 * number)
    program.load(7, _PORT)
    program.add(_MOVE, 0, 2)
    program.add(_AND, 0, imm=0xC0FF)
    program.add(_IF_EQUAL, 0, imm=0x80FE, to="deny")  # fe80::/10
    program.add(_IF_EQUAL, 2, imm=0xC20E00FD, to="deny")  # fd00:ec2::/32
    program.add(_OR, 2, 3)
    program.add(_IF_NOT, 2, imm=0, to="allow")
    program.add(_IF_EQUAL, 8, imm=0, to="low")
    program.add(_IF_NOT, 8, imm=0xFFFF0000, to="allow")
    _judge_ip4(program, allowed)  # ::ffff:a.b.c.d
    program.add(_GOTO, to="allow")
    program.label("low")
    program.add(_IF_NOT, 9, imm=int.from_bytes(b"\0\0\0\1", "little"), to="deny")
    for address, port in allowed:
        if address == "::1":
            program.add(_IF_EQUAL, 7, imm=_network_order(port), to="allow")
    program.add(_GOTO, to="deny")
    program.answers()
    return program.code()


def _to_any_port(cookie: int) -> bytes:
    program = _Program()
    program.guard_only(cookie)
    program.load(7, _PORT)
    program.add(_IF_NOT, 7, imm=0, to="deny")
    program.answers()
    return program.code()


def _load(code: bytes, attach_type: int) -> int:
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(16384)
    head = struct.pack(
        "<IIQQIIQII16sII",
        _CGROUP_SOCK_ADDR,
        len(code) // 8,
        ctypes.addressof(text),
        ctypes.addressof(licence),
        1,
        len(log),
        ctypes.addressof(log),
        0,
        0,
        b"eventd_guard",
        0,
        attach_type,
    )
    found = kernel.call("bpf", _BPF_PROG_LOAD, head.ljust(128, b"\0"), len(head))
    reason = log.value.decode(errors="replace")[-300:]
    return kernel.checked(found, f"bpf load {reason}")


def put_up(cgroup: str, allowed: Sequence[Address]) -> None:
    """Attach the guard to ``cgroup`` (a cgroup2 directory); it goes with the directory.

    Args:
        allowed: loopback or link-local addresses with ports that may be reached nevertheless.
    Raises ``OSError`` where BPF is not permitted.
    """
    directory = os.open(cgroup, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        cookie = int.from_bytes(answer, sys.byteorder)
        ip4, ip6 = _to_ip4(allowed, cookie), _to_ip6(allowed, cookie)
        port = _to_any_port(cookie)
        for attach_type, code in (
            (_CONNECT4, ip4),
            (_SENDMSG4, ip4),
            (_CONNECT6, ip6),
            (_SENDMSG6, ip6),
            (_BIND4, port),
            (_BIND6, port),
        ):
            loaded = _load(code, attach_type)
            try:
                wanted = struct.pack("<IIII", directory, loaded, attach_type, 0).ljust(64, b"\0")
                kernel.checked(kernel.call("bpf", _BPF_PROG_ATTACH, wanted, 16), "bpf attach")
            finally:
                os.close(loaded)
    finally:
        os.close(directory)


def resolvers() -> list[Address]:
    """Loopback name servers of this machine: instances with internet must reach them."""
    try:
        with open("/etc/resolv.conf", encoding="ascii", errors="replace") as file:
            words = [line.split() for line in file if line.startswith("nameserver")]
    except OSError:
        return []
    found = []
    for line in words:
        try:
            ip = ipaddress.ip_address(line[1] if len(line) > 1 else "")
        except ValueError:
            continue
        if ip.is_loopback:
            found.append((str(ip), 53))
    return found

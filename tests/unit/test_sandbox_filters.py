"""The kernel's programs, run by a small machine here and judged by a slow oracle."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.pool.sandbox import guard, kernel, seccomp
from eventd.pool.sandbox.probe import judge

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EAFNOSUPPORT = 0x50001, 0x50026, 0x50061


def _filter(program: bytes, number: int, arch: int, first: int = 0, second: int = 0) -> int:
    """What classic BPF answers for a call."""
    data = struct.pack("<iIQQQ", number, arch, 0, first, second).ljust(64, b"\0")
    steps = list(struct.iter_unpack("HBBI", program))
    at, value = 0, 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        if code == 0x20:
            value = struct.unpack_from("<I", data, k)[0]
        elif code == 0x06:
            return int(k)
        else:
            held = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            at += yes if held else no


def _expected(number: int, first: int, second: int, internet: bool) -> int:
    calls = kernel.CALLS
    assert calls is not None
    if number >= 0x40000000 and kernel.MACHINE == "x86_64":
        return KILL
    if number == calls["clone3"]:
        return ENOSYS
    if number == calls["clone"]:
        return EPERM if first & 0x7E020080 else ALLOW
    if number == calls["socket"]:
        return ALLOW if first in ({1, 2, 10, 16} if internet else {1, 16}) else EAFNOSUPPORT
    if number == calls["ioctl"]:
        return EPERM if second in (0x5412, 0x541C, 0x541D) else ALLOW
    return EPERM if number in {calls[n] for n in seccomp.DENIED if n in calls} else ALLOW


arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[kernel.MACHINE]
words = st.one_of(
    st.integers(0, 20),
    st.sampled_from([0x5412, 0x541C, 0x541D, 0x10000000, 0x20000, 0x3D0F00]),
    st.integers(0, 0xFFFFFFFF),
)


@given(st.one_of(st.integers(0, 500), st.integers(0, 0x7FFFFFFF)), words, words, st.booleans())
def test_the_filter_answers_as_its_rules_say(
    number: int, first: int, second: int, internet: bool
) -> None:
    program = seccomp.program(internet=internet)

    answer = _filter(program, number, arch, first, second)

    assert answer == _expected(number, first, second, internet)


@given(st.integers(0, 500), st.integers(0, 0xFFFFFFFF).filter(lambda one: one != arch))
def test_a_foreign_architecture_is_killed(number: int, other: int) -> None:
    assert _filter(seccomp.program(), number, other) == KILL


COOKIE = 0x1_2345_6789


def _guard(program: bytes, *, ip4: int = 0, ip6: bytes = b"", port: int = 0, cookie: int) -> int:
    """What the BPF machine answers: 1 lets the socket pass."""
    context = struct.pack("<II", 0, ip4) + ip6.ljust(16, b"\0") + struct.pack("<I", port)
    steps = list(struct.iter_unpack("<BBhi", program))
    registers: dict[int, int] = {1: -1}
    at = 0
    while True:
        op, pair, offset, imm = steps[at]
        at += 1
        dst, src = pair & 15, pair >> 4
        low = registers.get(dst, 0) & 0xFFFFFFFF
        if op == 0x61:
            assert registers[src] == -1, "loads from the context only"
            registers[dst] = struct.unpack_from("<I", context, offset)[0]
        elif op == 0xBF:
            registers[dst] = registers[src]
        elif op == 0x57:
            registers[dst] &= imm & 0xFFFFFFFFFFFFFFFF
        elif op == 0x4F:
            registers[dst] |= registers[src]
        elif op == 0xB7:
            registers[dst] = imm
        elif op == 0x85:
            registers = {0: cookie, **{n: v for n, v in registers.items() if n > 5}}
        elif op == 0x18:
            registers[dst] = (imm & 0xFFFFFFFF) | (steps[at][3] & 0xFFFFFFFF) << 32
            at += 1
        elif op == 0x5D:
            at += offset if registers[dst] != registers[src] else 0
        elif op == 0x05:
            at += offset
        elif op == 0x16:
            at += offset if low == imm & 0xFFFFFFFF else 0
        elif op == 0x56:
            at += offset if low != imm & 0xFFFFFFFF else 0
        else:
            assert op == 0x95
            return registers[0]


def _refused4(ip: ipaddress.IPv4Address) -> bool:
    networks = ("127.0.0.0/8", "0.0.0.0/8", "169.254.0.0/16")
    return any(ip in ipaddress.ip_network(one) for one in networks)


def _refused6(ip: ipaddress.IPv6Address) -> bool:
    if ip.ipv4_mapped is not None:
        return _refused4(ip.ipv4_mapped)
    networks = ("::/96", "fe80::/10", "fd00:ec2::/32")
    return any(ip in ipaddress.ip_network(one) for one in networks)


near4 = st.sampled_from(
    [
        "127.0.0.1",
        "127.255.1.2",
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.253.1.1",
        "128.0.0.1",
        "126.9.9.9",
        "10.0.0.127",
        "1.1.169.254",
    ]
).map(ipaddress.IPv4Address)
near6 = st.sampled_from(
    [
        "::1",
        "::",
        "::7f00:1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "fd00:ec2::254",
        "fd00:ec3::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:169.254.1.1",
        "2001:db8::1",
        "1::127.0.0.1",
    ]
).map(ipaddress.IPv6Address)
mapped = st.ip_addresses(v=4).map(lambda one: ipaddress.IPv6Address(f"::ffff:{one}"))
ports = st.sampled_from([0, 53, 80, 9980, 65535])
ALLOWED = [("127.0.0.1", 9980), ("127.0.0.53", 53), ("::1", 9980)]


def _wire(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


@given(st.one_of(near4, st.ip_addresses(v=4)), ports, st.booleans())
def test_the_guard_judges_ip4_like_the_oracle(
    ip: ipaddress.IPv4Address, port: int, ours: bool
) -> None:
    program = guard._to_ip4(ALLOWED, COOKIE)
    number = int.from_bytes(ip.packed, "little")

    answer = _guard(program, ip4=number, port=_wire(port), cookie=COOKIE if ours else 7)

    passes = not ours or (str(ip), port) in ALLOWED or not _refused4(ip)
    assert answer == passes


@given(st.one_of(near6, mapped, st.ip_addresses(v=6)), ports, st.booleans())
def test_the_guard_judges_ip6_like_the_oracle(
    ip: ipaddress.IPv6Address, port: int, ours: bool
) -> None:
    program = guard._to_ip6(ALLOWED, COOKIE)

    answer = _guard(program, ip6=ip.packed, port=_wire(port), cookie=COOKIE if ours else 7)

    name = str(ip.ipv4_mapped or ip)
    passes = not ours or (name, port) in ALLOWED or not _refused6(ip)
    assert answer == passes


MEANS = {
    "namespaces": "yes", "user namespaces": "yes", "another uid": "yes", "landlock": "ABI 7",
    "seccomp": "yes", "memory limit": "yes", "process limit": "yes", "freeze and kill": "yes",
    "connect guard": "yes",
}  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "level"),
    [
        ((), 1),
        (("connect guard",), 1),
        (("namespaces",), 2),
        (("another uid",), 2),
        (("namespaces", "memory limit"), 2),
        (("namespaces", "user namespaces"), 3),
        (("seccomp",), 3),
        (("namespaces", "user namespaces", "landlock"), 4),
        (("landlock",), 1),
    ],
)
def test_the_level_follows_from_what_works(missing: tuple[str, ...], level: int) -> None:
    report = judge({**MEANS, **dict.fromkeys(missing, "no: not here")})

    assert report.level == level
    assert len(report.advice) == len(report.lacks)
    assert report.safe == (level < 4 and "seccomp" not in missing)


@pytest.mark.parametrize("at_most", [1, 2, 3, 4])
def test_a_weaker_level_can_be_asked_for(at_most: int) -> None:
    assert judge(MEANS, at_most=at_most).level == at_most

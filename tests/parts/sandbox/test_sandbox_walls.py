"""What a hostile function tries, and what it gets."""

from __future__ import annotations

import socket

import pytest
from conftest import OpenHouse

from eventd.pool.sandbox import order

pytestmark = pytest.mark.root

CALL = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    done = libc.syscall(ctypes.c_long(number), *words)
    return "done" if done >= 0 else errno.errorcode[ctypes.get_errno()]
"""
CONNECT = """
import socket
def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as one:
        one.settimeout(5)
        one.connect(address)
    return "connected"
"""
FILL = """
import errno
def fill(path, limit_mb):
    written = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while written < limit_mb:
                file.write(bytes(1 << 20))
                written += 1
    except OSError as error:
        return errno.errorcode[error.errno], written
    finally:
        os.unlink(path)
    return "no limit", written
"""

# text, what the answer must contain
REFUSED = {
    "the host's accounts": ("open('/etc/shadow')", "No such file"),
    "the host's home": ("os.listdir('/root/.ssh')", "No such file"),
    "writing to /usr": ("open('/usr/lib/x', 'w')", "Read-only"),
    "writing to /code": ("open('/code/x', 'w')", "Read-only"),
    "writing to the root": ("open('/x', 'w')", "Read-only"),
    "changing accounts": ("open('/etc/passwd', 'a')", "Read-only"),
    "a block device": ("os.mknod('/tmp/d', 0o60600, os.makedev(254, 0))", "not permitted"),
    "the kernel's settings": ("open('/proc/sys/kernel/core_pattern', 'w')", "No such file"),
    "the magic key": ("open('/proc/sysrq-trigger', 'w')", "No such file"),
    "becoming root": ("os.setresuid(0, 0, 0)", "not permitted"),
    "killing all": ("os.kill(-1, 9)", "No such process"),
    "raising a limit": (
        "__import__('resource').setrlimit(6, (100000, 100000))",
        "not allowed to raise",
    ),
    "real-time priority": (
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))",
        "not permitted",
    ),
    "a lower OOM score": ("open('/proc/self/oom_score_adj', 'w').write('-900')", "ermi"),
    "a raw socket": ("socket.socket(2, socket.SOCK_RAW, 1)", "not permitted"),
    "a packet socket": ("socket.socket(17, socket.SOCK_RAW)", "not supported"),
    "the kernel's ciphers": ("socket.socket(38, socket.SOCK_SEQPACKET)", "not supported"),
    "a hypervisor socket": ("socket.socket(40, socket.SOCK_STREAM)", "not supported"),
    "another host name": ("socket.sethostname('x')", "not permitted"),
    "the clock": ("__import__('time').clock_settime(0, 0)", "not permitted"),
    "a port of the host": (
        "socket.create_server(('127.0.0.1', 8000))",
        "not permitted",
    ),
}
REFUSED_CALLS = {  # x86_64
    "remounting": ("call(165, 0, ctypes.c_char_p(b'/code'), 0, 4128, 0)", "EPERM"),
    "unmounting": ("call(166, ctypes.c_char_p(b'/code'), 2)", "EPERM"),
    "a user namespace": ("call(272, 0x10000000)", "EPERM"),
    "clone3": ("call(435, ctypes.c_char_p(bytes(64)), 64)", "ENOSYS"),
    "BPF": ("call(321, 5, 0, 0)", "EPERM"),
    "perf": ("call(298, 0, 0, -1, -1, 0)", "EPERM"),
    "io_uring": ("call(425, 8, ctypes.c_char_p(bytes(120)))", "EPERM"),
    "the keyring": ("call(250, 0, -3, 1)", "EPERM"),
    "userfaultfd": ("call(323, 0)", "EPERM"),
    "open_tree": ("call(428, -100, ctypes.c_char_p(b'/'), 1)", "EPERM"),
    "pidfd_getfd": ("call(438, 0, 0, 0)", "EPERM"),
    "typing for a terminal": ("call(16, 0, 0x5412, ctypes.c_char_p(b'x'))", "EPERM"),
    "a kernel module": ("call(175, 0, 0, 0)", "EPERM"),
    "ptrace": ("call(101, 16, 1, 0, 0)", "EPERM"),
    "file handles": ("call(304, -100, ctypes.c_char_p(bytes(64)), 0)", "EPERM"),
}


async def test_a_function_gets_none_of_what_only_the_host_may_have(open_house: OpenHouse) -> None:
    async with open_house() as house:
        guest = await house.guest()
        await guest.run(CALL)

        got = {}
        for name, (text, expected) in (REFUSED | REFUSED_CALLS).items():
            answer = await guest.run(f"result = {text}")
            if expected not in answer:
                got[name] = answer

        assert got == {}


async def test_a_function_sees_itself_only(open_house: OpenHouse) -> None:
    async with open_house() as house:
        other = await house.guest()
        await other.run("open('/tmp/mine', 'w').close()")
        guest = await house.guest()

        root = await guest.run("result = sorted(os.listdir('/'))")
        pids = await guest.run("result = [p for p in os.listdir('/proc') if p.isdigit()]")
        tmp = await guest.run("result = os.listdir('/tmp')")
        environment = await guest.run("result = sorted(os.environ)")
        loaded = await guest.run("result = [name for name in sys.modules if 'eventd' in name]")
        path = await guest.run("result = [p for p in sys.path if 'site-packages' in p]")
        uids = [await one.run("result = os.getuid()") for one in (other, guest)]

        assert set(eval(root)) >= {"code", "dev", "etc", "proc", "tmp", "usr"}
        assert not set(eval(root)) & {"work", "home", "var", "sys", "mnt", "boot"}
        assert pids == "['1']"
        assert tmp == "[]"
        assert environment == "['HOME', 'LANG', 'PATH', 'TMPDIR']"
        assert loaded == "[]"
        assert path == "[]"
        assert len(set(uids)) == 2
        assert all(70000 <= int(uid) < 80000 for uid in uids)


@pytest.mark.parametrize("at_most", [1, 2, 3, 4])
async def test_function_code_holds_one_socket_and_no_privilege(
    open_house: OpenHouse, at_most: int
) -> None:
    async with open_house(at_most=at_most) as house:
        guest = await house.guest()

        assert await guest.run("import answer; result = answer.VALUE") == "42"
        files = await guest.run(
            "result = {n: os.readlink('/proc/self/fd/' + n) for n in ('0', '1', '2')}, "
            "[n for n in range(3, 1024) if os.path.exists(f'/proc/self/fd/{n}') "
            "and n != sock.fileno()]"
        )
        assert files == "({'0': '/dev/null', '1': '/dev/null', '2': '/dev/null'}, [])"
        status = await guest.run(
            "result = [l.split()[1] for l in open('/proc/self/status') "
            "if l.startswith(('CapPrm', 'CapEff', 'NoNewPrivs', 'Seccomp:'))]"
        )
        assert status == "['0000000000000000', '0000000000000000', '1', '2']"
        assert await guest.run("os.chdir('/'); result = os.listdir('.')") != "[]"
        assert (
            await guest.run(
                "import subprocess, sys; result = subprocess.run([sys.executable, '-c', 'exit(3)'])"
                ".returncode"
            )
            == "3"
        )


async def test_foreign_system_call_tables_are_deadly(open_house: OpenHouse) -> None:
    machine = (
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=7)\n"
        "page.write(bytes.fromhex({0!r}))\n"
        "start = ctypes.CFUNCTYPE(ctypes.c_long)"
        "(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "child = os.fork()\n"
        "if child == 0: start(); os._exit(0)\n"
        "result = os.waitpid(child, 0)[1] & 127"
    )
    async with open_house() as house:
        guest = await house.guest()

        assert await guest.run(machine.format("b814000000cd80c3")) == "31"  # int 0x80
        assert await guest.run(machine.format("b8270000400f05c3")) == "31"  # an x32 number


async def test_without_internet_nothing_of_the_host_is_reachable(open_house: OpenHouse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with open_house() as house:
            guest = await house.guest(internet=False)
            await guest.run(CONNECT)

            assert "refused" in await guest.run(f"result = connect(2, ('127.0.0.1', {port}))")
            assert "unreachable" in await guest.run("result = connect(2, ('10.1.2.3', 80))")
            inside = await guest.run(
                "server = socket.create_server(('127.0.0.1', 0))\n"
                "result = connect(2, server.getsockname())"
            )
            assert inside == "'connected'"  # its own loopback works


async def test_with_internet_the_guard_keeps_loopback_and_link_local_away(
    open_house: OpenHouse,
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_server(("127.0.0.1", 0)) as friend,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind("\0eventd-test-" + str(server.getsockname()[1]))
        abstract.listen()
        name = abstract.getsockname()
        port, open_port = server.getsockname()[1], friend.getsockname()[1]
        async with open_house(allowed=[("127.0.0.1", open_port)]) as house:
            guest = await house.guest(internet=True)
            await guest.run(CONNECT)
            for family, address in (
                (2, ("127.0.0.1", port)),
                (2, ("127.9.9.9", port)),
                (2, ("0.0.0.0", port)),
                (2, ("169.254.169.254", 80)),
                (10, ("::1", port)),
                (10, ("::", port)),
                (10, ("::ffff:127.0.0.1", port)),
                (10, ("::ffff:169.254.169.254", 80)),
                (10, ("fe80::1", 80)),
            ):
                answer = await guest.run(f"result = connect({family}, {address!r})")
                assert "Operation not permitted" in answer, (address, answer)
            datagram = await guest.run(
                f"result = socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {port}))"
            )
            assert "Operation not permitted" in datagram
            assert "ermi" in await guest.run(f"result = connect(1, {name!r})")
            allowed = await guest.run(f"result = connect(2, ('127.0.0.1', {open_port}))")
            assert allowed == "'connected'"


async def test_tenants_do_not_meet_on_abstract_sockets(open_house: OpenHouse) -> None:
    async with open_house() as house:
        first, second = [await house.guest(internet=True) for _ in range(2)]
        await first.run(
            "meet = socket.socket(socket.AF_UNIX); meet.bind('\\0meeting'); meet.listen()"
        )
        await second.run(CONNECT)

        assert "ermi" in await second.run("result = connect(1, '\\0meeting')")


@pytest.mark.parametrize("at_most", [order.NAMESPACES, order.USER_NAMESPACES])
async def test_a_full_tmp_is_enospc(open_house: OpenHouse, at_most: int) -> None:
    async with open_house(at_most=at_most) as house:
        guest = await house.guest(disk_mb=16, memory_mb=256)
        await guest.run(FILL)

        assert await guest.run("result = fill('/tmp/x', 64)") == "('ENOSPC', 16)"
        assert await guest.run("result = fill('/dev/shm/x', 128)") == "('ENOSPC', 64)"


async def test_the_process_level_shows_neither_files_nor_network(open_house: OpenHouse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        async with open_house(at_most=order.PROCESS) as house:
            other = await house.guest()
            guest = await house.guest(internet=False)
            await guest.run(CONNECT)
            state = house.code.parent / "state" / "epoch.json"

            for text in (
                "open('/etc/shadow')",
                f"open({str(state)!r})",
                "os.listdir('/')",
                "os.listdir('/root')",
                "open('/usr/lib/x', 'w')",
                "open('x', 'w')",
                f"os.kill({other.process.pid}, 9)",
                f"open('/proc/{other.process.pid}/environ')",
                f"connect(2, ('127.0.0.1', {port}))",
            ):
                answer = await guest.run(f"result = {text}")
                assert "ermi" in answer or "not supported" in answer, (text, answer)
            assert await guest.run("result = open(os.environ['TMPDIR'] + '/x', 'w').write('x')")
            assert await other.run("result = 1") == "1"

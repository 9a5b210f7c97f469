"""Handlers that attack their own process, their neighbours and the daemon."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import health
import pytest
import pytest_asyncio
from system_node import Node, Reply, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMORY_MB = 256
HANDLER = """
import ctypes, gc, json, os, resource, signal, socket, subprocess, sys, threading, time

def server():
    runtime = sys.modules["_eventd_runtime.serving"]
    return next(each for each in gc.get_objects() if isinstance(each, runtime.Server))

class Strange:
    pass

def endless_output():
    while True:
        print("x" * 1000)

def fork_storm():
    kept = []
    try:
        while True:
            child = os.fork()
            if not child:
                time.sleep(600)
                os._exit(0)
            kept.append(child)
    except OSError as error:
        for child in kept:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return {"forked": len(kept), "errno": error.errno}

def thread_bomb():
    gate, made = threading.Event(), 0
    try:
        while made < 5000:
            threading.Thread(target=gate.wait, daemon=True).start()
            made += 1
    except RuntimeError:
        return {"threads": made}
    finally:
        gate.set()
    return {"threads": made}

def files():
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return {"opened": len(held), "errno": error.errno}
    finally:
        for each in held:
            os.close(each)

def memory():
    held = []
    while True:
        held.append(bytearray(16 << 20))

def delete_code():
    failed = []
    for name in ("/code/index.py", "/code", "/usr/bin/env", "/etc/passwd"):
        try:
            os.remove(name) if not os.path.isdir(name) else os.rmdir(name)
        except OSError as error:
            failed.append(name)
    return failed

def close_all():
    os.closerange(0, 200)
    return "closed"

def fork_and_both_answer():
    os.fork()
    return {"pid": os.getpid()}

def daemonise():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.wait()
    return "left a child"

def disk():
    with open("/tmp/full", "wb") as out:
        for _ in range(1024):
            out.write(b"x" * (1 << 20))

PROBES = {
    "raise": lambda: 1 / 0,
    "raise_base": lambda: (_ for _ in ()).throw(BaseException("base")),
    "recursion": lambda: (lambda f: f(f))(lambda f: f(f)),
    "segfault": lambda: ctypes.string_at(0),
    "abort": lambda: os.abort(),
    "sys_exit": lambda: sys.exit(3),
    "os_exit": lambda: os._exit(3),
    "self_kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "kill_all": lambda: os.kill(-1, signal.SIGKILL),
    "subprocess": lambda: subprocess.run(["sh", "-c", "echo out; exit 7"]).returncode,
    "subprocess_killed": lambda: subprocess.run(["sh", "-c", "kill -9 $$"]).returncode,
    "system": lambda: os.waitstatus_to_exitcode(os.system("exit 5")),
    "fork": fork_and_both_answer,
    "daemonise": daemonise,
    "fork_storm": fork_storm,
    "threads": thread_bomb,
    "files": files,
    "memory": memory,
    "disk": disk,
    "delete": delete_code,
    "close_socket": lambda: os.close(server().wire.fileno()),
    "close_all": close_all,
    "garbage": lambda: os.write(server().wire.fileno(), b"\\xff" * 100),
    "huge_frame": lambda: os.write(server().wire.fileno(), b"\\xff\\xff\\xff\\x7f" * 4),
    "foreign_end": lambda: os.write(
        server().wire.fileno(), server().wire and __import__("_eventd_runtime.wire").wire.encode(
            __import__("_eventd_runtime.wire").wire.END, 999, b"\\0\\0\\0\\0stolen")),
    "huge_result": lambda: b"x" * (40 << 20),
    "large_result": lambda: b"x" * (20 << 20),
    "no_json": lambda: Strange(),
    "set": lambda: {1, 2},
    "loop": lambda: (lambda own: own.append(own) or own)([]),
    "nan": lambda: float("nan"),
    "surrogate": lambda: "\\ud800",
    "endless_output": endless_output,
    "sleep": lambda: time.sleep(600),
    "spin": lambda: any(False for _ in iter(int, 1)),
    "stop_self": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "block_signals": lambda: (
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)), time.sleep(600)),
    "long_line": lambda: print("y" * (5 << 20)),
    "binary_output": lambda: os.write(1, bytes(range(256)) * 100),
    "close_stdout": lambda: (os.close(1), os.close(2)),
    "huge_error": lambda: (_ for _ in ()).throw(ValueError("z" * (3 << 20))),
    "evil_error": lambda: (_ for _ in ()).throw(type("Evil", (Exception,), {
        "__str__": lambda self: (_ for _ in ()).throw(SystemExit(1))})()),
}

def handler(event, context):
    name = json.loads(event)
    if isinstance(name, float):
        time.sleep(name)
        return {"pid": os.getpid()}
    return PROBES[name]()
"""

EXITED = r"Process exited unexpectedly before completing request"
UNHANDLED = "UnhandledInvocationError"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    data = tmp_path_factory.mktemp("handlers") / "data"
    one = Node(data, env={"EVENTD_POOL_IDLE_TIMEOUT_S": "3"})
    try:
        async with one:
            for concurrency in (1, 20):
                await one.deploy(
                    f"at{concurrency}",
                    HANDLER,
                    instanceConcurrency=concurrency,
                    timeout=1,
                    memorySize=MEMORY_MB,
                )
            await one.deploy("neighbour", HANDLER, timeout=10, instanceConcurrency=5)
            yield one
    finally:
        await one.end()


def failed(message: str) -> Callable[[Reply], bool]:
    """FC's answer for a function's own error: 200, the type, the text."""

    def check(reply: Reply) -> bool:
        return (
            reply.status == 200
            and reply.headers.get("x-fc-error-type") == UNHANDLED
            and re.match(message, reply.json()["errorMessage"]) is not None
        )

    return check


def gave(expected: Any) -> Callable[[Reply], bool]:
    def check(reply: Reply) -> bool:
        if reply.status != 200 or "x-fc-error-type" in reply.headers:
            return False
        value = reply.json()
        return bool(expected(value) if callable(expected) else value == expected)

    return check


TIMEOUT = failed(r"Function timed out after 1 seconds \(maxMemoryUsage: \d+\.\d\dMB\)")
GONE = failed(EXITED)
PROBES: dict[str, Callable[[Reply], bool]] = {
    "raise": failed("division by zero"),
    "raise_base": failed("base"),
    "recursion": failed("maximum recursion depth exceeded"),
    "segfault": GONE,
    "abort": GONE,
    "sys_exit": GONE,
    "os_exit": GONE,
    # As process 1 of its namespace it cannot signal itself; at the process level it can.
    "self_kill": lambda reply: GONE(reply) or gave(None)(reply),
    "kill_all": lambda reply: GONE(reply) or failed(r"\[Errno 3\]")(reply),
    "subprocess": gave(7),
    "subprocess_killed": gave(-9),
    "system": gave(5),
    "fork": gave(lambda value: value["pid"] > 0),
    "daemonise": lambda reply: reply.body == b"left a child",
    # Memory, time or the number of processes runs out first, as the machine is.
    "fork_storm": lambda reply: (
        gave(lambda value: value["errno"] == 11)(reply) or TIMEOUT(reply) or GONE(reply)
    ),
    "threads": gave(lambda value: 100 < value["threads"] < 2000),
    "files": gave(lambda value: value["errno"] == 24),
    "memory": failed(rf"{EXITED}.*out of memory, the limit is {MEMORY_MB}MB"),
    "disk": lambda reply: failed(r"\[Errno 28\]|" + EXITED)(reply) and reply.status == 200,
    "delete": gave(["/code/index.py", "/code", "/usr/bin/env", "/etc/passwd"]),
    # A thread that waits for the socket keeps it alive: then only time ends the call.
    "close_socket": lambda reply: GONE(reply) or TIMEOUT(reply),
    "close_all": lambda reply: GONE(reply) or TIMEOUT(reply),
    "garbage": GONE,
    "huge_frame": GONE,
    "foreign_end": GONE,
    "huge_result": failed("the function's result is larger than 33554432 bytes"),
    "large_result": lambda reply: (reply.status, len(reply.body)) == (200, 20 << 20),
    "no_json": failed("Object of type Strange is not JSON serializable"),
    "set": failed("Object of type set is not JSON serializable"),
    "loop": failed("Circular reference detected"),
    "nan": lambda reply: reply.body == b"NaN",
    "surrogate": lambda reply: reply.body == "\ud800".encode("utf-8", "surrogatepass"),
    "endless_output": TIMEOUT,
    "sleep": TIMEOUT,
    "spin": TIMEOUT,
    "stop_self": lambda reply: TIMEOUT(reply) or gave(None)(reply),
    "block_signals": TIMEOUT,
    "long_line": gave(None),
    "binary_output": gave(25600),
    "close_stdout": gave([None, None]),
    "huge_error": failed("z{1000}"),
    "evil_error": failed(f"<SystemExit in __str__ of Evil>|{EXITED}"),
}


@pytest.mark.parametrize("concurrency", [1, 20])
@pytest.mark.parametrize("probe", sorted(PROBES))
async def test_a_hostile_handler_harms_its_own_call_alone(
    node: Node, probe: str, concurrency: int
) -> None:
    beside = asyncio.create_task(node.invoke("neighbour", b"0.2"))

    reply = await node.invoke(f"at{concurrency}", json.dumps(probe).encode())

    assert PROBES[probe](reply), (reply.status, dict(reply.headers), reply.body[:1000])
    assert gave(lambda value: value["pid"] > 0)(await beside)
    after = await node.invoke(f"at{concurrency}", b"0.0")
    assert gave(lambda value: value["pid"] > 0)(after), (after.status, after.body[:1000])
    await health.healthy(node)


SURVIVABLE = [
    "raise", "raise_base", "recursion", "subprocess", "fork", "daemonise", "files", "delete",
    "huge_result", "no_json", "loop", "long_line", "binary_output", "huge_error", "evil_error",
    "sys_exit", "sleep",
]  # fmt: skip


@pytest.mark.parametrize("probe", SURVIVABLE)
async def test_a_neighbour_in_the_same_instance_is_unharmed(node: Node, probe: str) -> None:
    warm = await node.invoke("at20", b"0.0")
    beside = [asyncio.create_task(node.invoke("at20", b"0.3")) for _ in range(5)]
    await until(lambda: health_busy(node, "at20", 5), "five neighbours at work")

    reply = await node.invoke("at20", json.dumps(probe).encode())

    assert PROBES[probe](reply), (reply.status, reply.body[:1000])
    for neighbour in await asyncio.gather(*beside):
        assert gave(lambda value: value["pid"] > 0)(neighbour), neighbour.body[:1000]
        assert warm.status == 200


async def health_busy(node: Node, function: str, calls: int) -> bool:
    status = await node.status()
    return sum(one["busy"] for one in status["instances"] if one["function"] == function) >= calls


@pytest.mark.parametrize("probe", ["segfault", "os_exit", "memory", "garbage", "close_all"])
async def test_neighbours_hear_at_once_when_their_process_dies(node: Node, probe: str) -> None:
    beside = [asyncio.create_task(node.invoke("at20", b"0.7")) for _ in range(5)]
    await until(lambda: health_busy(node, "at20", 5), "five neighbours at work")

    reply = await node.invoke("at20", json.dumps(probe).encode())

    assert PROBES[probe](reply), (reply.status, reply.body[:1000])
    for neighbour in await asyncio.gather(*beside):
        served = gave(lambda value: value["pid"] > 0)(neighbour)  # it was in another instance
        ended = GONE(neighbour) or TIMEOUT(neighbour)
        assert served or ended, (neighbour.status, neighbour.body[:1000])
    await health.healthy(node)


async def test_nothing_is_left_of_two_hundred_crashes(node: Node) -> None:
    """Descriptors, mounts, control groups and processes are what they were before."""
    await until(lambda: nothing_lives(node), "idle instances end")
    launcher = health.launcher_of(node)
    before = await until(lambda: settled(node), "the stock of blanks is full")

    crashes = ["segfault", "os_exit", "daemonise", "sys_exit", "raise", "files", "garbage"]
    seed = random.randrange(1 << 30)
    choice = random.Random(seed)

    async def attack() -> None:
        for _ in range(25):
            probe = json.dumps(choice.choice(crashes)).encode()
            reply = await node.invoke(choice.choice(["at1", "at20"]), probe)
            assert reply.status in (200, 429, 503), (seed, reply.status, reply.body)

    await asyncio.gather(*[attack() for _ in range(8)])
    await until(lambda: nothing_lives(node), "idle instances end")

    assert health.launcher_of(node) == launcher
    end: list[Any] = []

    async def as_before() -> bool:
        end[:] = [await settled(node)]
        return bool(end[0]) and end[0] == before

    try:
        await until(as_before, "all is as before", 15)
    except AssertionError:
        raise AssertionError(f"seed {seed}: before {before}, after {end[0]}") from None


async def nothing_lives(node: Node) -> bool:
    return not (await node.status())["instances"]


async def settled(node: Node) -> Any:
    """What daemon and zygote hold, once as many blanks wait as shall."""
    assert node.process is not None
    daemon, launcher = node.process.pid, health.launcher_of(node)
    below = health.children(daemon)
    zombies = [pid for pid in below if health.stat_fields(pid)[:1] == ["Z"]]
    if zombies:
        return None
    held = health.descriptors(daemon)
    held.pop("socket")  # this test's own connections among them
    mounts = [Path(f"/proc/{pid}/mountinfo").read_text() for pid in (daemon, launcher)]
    return {
        "daemon": held,
        "launcher": health.descriptors(launcher),
        "mounts": [text.count("\n") for text in mounts],
        "groups": len(health.control_groups(node)),
        "processes": len(below),
    }

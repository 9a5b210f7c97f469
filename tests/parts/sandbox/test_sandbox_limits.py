"""Memory, processes, freezing, and how an instance's end is reported."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from conftest import OpenHouse

from eventd.errors import ResourceThrottled
from eventd.pool.sandbox import census, order

pytestmark = pytest.mark.root

BOMB = """
import os, time
children = []
try:
    while len(children) < 2000:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
    result = "no limit"
except OSError as error:
    result = error.strerror
for child in children:
    os.kill(child, 9)
    os.waitpid(child, 0)
result = (result, len(children))
"""
DAEMONIZE = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize("at_most", [order.NAMESPACES, order.USER_NAMESPACES, order.PROCESS])
async def test_too_much_memory_ends_the_instance_and_the_peak_is_told(
    open_house: OpenHouse, at_most: int
) -> None:
    async with open_house(at_most=at_most) as house:
        guest = await house.guest(memory_mb=64)
        neighbour = await house.guest(memory_mb=64)
        await guest.run("held = bytearray(30 << 20)")
        assert 30 <= guest.process.memory_mb() < 64

        with pytest.raises(ConnectionError):
            await guest.run("held += bytearray(300 << 20)")

        status = await guest.ended()
        assert (status.code, status.oom) == (-9, True)
        assert 60 <= status.peak_mb <= 66
        assert await neighbour.run("result = 1") == "1"
        assert not (await neighbour.kill()).oom


@pytest.mark.parametrize("at_most", [order.NAMESPACES, order.USER_NAMESPACES])
async def test_a_fork_bomb_stops_at_the_limit(open_house: OpenHouse, at_most: int) -> None:
    async with open_house(at_most=at_most) as house:
        guest, neighbour = [await house.guest(processes=40) for _ in range(2)]

        said, children = eval(await guest.run(BOMB))

        assert said == os.strerror(11)
        assert 30 <= children < 40
        assert await neighbour.run("import os; result = os.system('true')") == "0"


@pytest.mark.parametrize("at_most", [1, 2, 3])
async def test_killing_takes_daemonised_processes_along(
    open_house: OpenHouse, at_most: int
) -> None:
    async with open_house(at_most=at_most, blanks=0) as house:
        guest = await house.guest()
        mark = json.loads((house.code.parent / "state" / "epoch.json").read_text())["mark"]
        await guest.run(DAEMONIZE)
        own = await guest.run("result = os.readlink('/proc/self/ns/pid')")
        hidden = [pid for pid in census.marked(mark, census.MARKS) if _hides(pid, eval(own))]
        hidden = [pid for pid in hidden if pid != guest.process.pid]
        assert len(hidden) == 1

        assert (await guest.kill()).code == -9

        assert [pid for pid in hidden if census.start_time(pid)] == []


def _hides(pid: int, pid_namespace: str) -> bool:
    """Whether ``pid`` sleeps for long in the guest's pid namespace (level 3: the host's)."""
    try:
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
        ignored = next(
            line.split()[1]
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if line.startswith("SigIgn")
        )
    except OSError:
        return False
    return namespace == pid_namespace and bool(int(ignored, 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.parametrize("at_most", [1, 2, 3])
async def test_exit_codes_and_signals_are_told(open_house: OpenHouse, at_most: int) -> None:
    async with open_house(at_most=at_most) as house:
        for text, code in (
            ("os._exit(7)", 7),
            ("os._exit(0)", 0),
            ("import ctypes; ctypes.string_at(0)", -11),
        ):
            guest = await house.guest()
            with pytest.raises(ConnectionError):
                await guest.run(text)
            status = await guest.ended()
            assert (status.code, status.oom) == (code, False)
            assert 0 < status.peak_mb < 64
            guest.process.kill()  # safe, it is gone


@pytest.mark.parametrize("at_most", [1, 2, 3])
async def test_a_frozen_instance_uses_no_time_and_answers_after_thawing(
    open_house: OpenHouse, at_most: int
) -> None:
    async with open_house(at_most=at_most) as house:
        guest = await house.guest()
        await guest.run(
            "import threading, itertools\n"
            "beats = itertools.count()\n"
            "def beat():\n"
            "    import time\n"
            "    while True: next(beats); time.sleep(0.001)\n"
            "threading.Thread(target=beat, daemon=True).start()"
        )
        guest.process.freeze()
        await _still(guest.process.pid)

        asked = asyncio.create_task(guest.run("result = 'awake'"))
        before = _ticks(guest.process.pid)
        await asyncio.sleep(0.2)
        assert _ticks(guest.process.pid) == before
        assert not asked.done()

        guest.process.thaw()
        assert await asked == "'awake'"
        guest.process.freeze()
        assert (await guest.kill()).code == -9  # a frozen one dies too


def _ticks(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]


def _switches(pid: int) -> list[str]:
    found = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
        found += [line for line in (task / "status").read_text().splitlines() if "ctxt" in line]
    return found


async def _still(pid: int) -> None:
    """Until no thread of ``pid`` was scheduled for 20 ms."""
    async with asyncio.timeout(10):
        while True:
            before = _switches(pid)
            await asyncio.sleep(0.02)
            if _switches(pid) == before:
                return


async def test_code_that_is_not_there_is_refused_and_nothing_is_left(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        with pytest.raises(ResourceThrottled, match="No such file"):
            await house.guest(code=house.code / "missing")

        guest = await house.guest()
        assert await guest.run("import answer; result = answer.VALUE") == "42"

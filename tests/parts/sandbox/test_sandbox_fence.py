"""Kill -9 of the daemon or of the launcher leaves no old instance beside a new one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from conftest import OpenHouse

from eventd.config import PoolSettings
from eventd.pool.sandbox import census, cgroups, order
from eventd.pool.sandbox.fence import Fence, FenceError
from eventd.pool.zygote import IsolationTooWeak, Process, Zygote

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
LEVELS = [order.NAMESPACES, order.USER_NAMESPACES, order.PROCESS]


async def _doomed(tmp_path: Path, at_most: int) -> asyncio.subprocess.Process:
    root = HERE.parents[2]
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "doomed_daemon.py"),
        str(tmp_path / "state"),
        str(tmp_path / "code"),
        str(at_most),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert daemon.stdout is not None
    async with asyncio.timeout(30):
        line = (await daemon.stdout.readline()).decode()
    level, pid, answer = line.split(maxsplit=2)
    assert (int(level), answer.strip()) == (at_most, "'hidden'")
    assert int(pid) > 0
    return daemon


def _mark(tmp_path: Path) -> int:
    return int(json.loads((tmp_path / "state" / "epoch.json").read_text())["mark"])


async def _kill(daemon: asyncio.subprocess.Process) -> None:
    daemon.kill()
    await daemon.wait()
    assert daemon.stdout is not None
    while await daemon.stdout.read(4096):
        pass


@pytest.mark.parametrize("at_most", LEVELS)
async def test_instances_die_with_a_daemon_that_is_killed(
    open_house: OpenHouse, tmp_path: Path, at_most: int
) -> None:
    daemon = await _doomed(tmp_path, at_most)
    mark = _mark(tmp_path)
    assert len(census.marked(mark, census.MARKS)) >= 3

    await _kill(daemon)

    async with asyncio.timeout(20):
        while census.marked(mark, census.MARKS):  # noqa: ASYNC110 - the kernel tells no event
            await asyncio.sleep(0.01)
    async with open_house(at_most=at_most) as house:
        guest = await house.guest()
        assert await guest.run("result = 1") == "1"


@pytest.mark.parametrize("at_most", LEVELS)
async def test_the_fence_ends_what_a_stuck_launcher_left(
    open_house: OpenHouse, tmp_path: Path, at_most: int
) -> None:
    daemon = await _doomed(tmp_path, at_most)
    mark = _mark(tmp_path)
    for launcher in census.marked(mark + census.MARKS - 1):
        os.kill(launcher, signal.SIGSTOP)  # so that it cannot clean up behind its daemon
    await _kill(daemon)
    assert census.marked(mark, census.MARKS)

    async with open_house(at_most=at_most) as house:
        assert census.marked(mark, census.MARKS) == []
        assert _mark(tmp_path) != mark
        guest = await house.guest()
        assert await guest.run("result = 1") == "1"


@pytest.mark.parametrize("at_most", LEVELS)
async def test_a_launcher_that_dies_is_replaced_and_its_instances_count_as_ended(
    open_house: OpenHouse, tmp_path: Path, at_most: int
) -> None:
    async with open_house(at_most=at_most) as house:
        guest = await house.guest()
        await guest.run("import threading")
        mark = _mark(tmp_path)
        launchers = set(census.marked(mark + census.MARKS - 1))
        first = min(launchers - {guest.process.pid})

        os.kill(first, signal.SIGKILL)

        status = await guest.ended()
        assert status.code == -9
        assert not census.start_time(guest.process.pid)
        again = await house.guest()
        assert await again.run("import answer; result = answer.VALUE") == "42"
        assert house.zygote.statistics().restarts == 1
        assert census.marked(mark, census.MARKS) == []


async def test_leaving_the_zygote_ends_its_instances_and_leaves_no_group(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    async with open_house() as house:
        guest = await house.guest()
        places = cgroups.places(Fence(tmp_path / "state").name).directories()
        assert all(os.path.isdir(place) for place in places)

    assert not guest.process.running
    assert not any(os.path.exists(place) for place in places)
    assert census.marked(_mark(tmp_path), census.MARKS) == []


async def test_a_state_directory_belongs_to_one_daemon(open_house: OpenHouse) -> None:
    async with open_house() as house:
        guest = await house.guest()
        with pytest.raises(FenceError, match="another running eventd"):
            async with open_house():
                pass
        assert await guest.run("result = 1") == "1"


async def test_too_weak_a_level_is_refused(tmp_path: Path) -> None:
    zygote = Zygote(
        state_dir=tmp_path,
        bootstrap=HERE / "echo_bootstrap.py",
        settings=PoolSettings(isolation="namespaces"),
        at_most=order.PROCESS,
    )
    with pytest.raises(IsolationTooWeak, match="namespaces"):
        async with zygote:
            pass


async def test_a_bootstrap_that_fails_is_told_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no way')\n")
    zygote = Zygote(state_dir=tmp_path / "state", bootstrap=broken)
    with pytest.raises(Exception, match="launcher ended"):
        async with zygote:
            pass
    assert "no way" in caplog.text


async def test_cancelling_a_start_leaves_no_instance(open_house: OpenHouse) -> None:
    async with open_house() as house:
        started: list[Process] = []
        cancelled = 0
        for turns in range(1, 30):
            start = asyncio.create_task(house.guest())
            for _ in range(turns):
                await asyncio.sleep(0)
            start.cancel()
            try:
                started.append((await start).process)
            except asyncio.CancelledError:
                cancelled += 1
        assert cancelled > 0
        for process in started:
            process.kill()
        async with asyncio.timeout(20):
            for process in started:
                await process.wait()
            while house.zygote.statistics().instances:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.005)
        guest = await house.guest()
        assert await guest.run("result = 1") == "1"
        assert house.zygote.statistics().instances == 1

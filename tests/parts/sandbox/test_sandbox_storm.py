"""Many starts, one after another and at once: no zombie, no descriptor, no group left."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from conftest import House, OpenHouse

from eventd.pool.sandbox import census, cgroups, order
from eventd.pool.sandbox.fence import Fence
from eventd.pool.sandbox.stock import SEATS

pytestmark = pytest.mark.root


async def _once(house: House) -> None:
    guest = await house.guest()
    assert await guest.run("import answer; result = answer.VALUE") == "42"
    assert (await guest.kill()).code == -9
    guest.close()


def _descriptors(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _states(launcher: int) -> list[str]:
    found = []
    for pid in census.pids():
        fields = census._stat(pid)
        if len(fields) > 1 and fields[1] == str(launcher):
            found.append(fields[0])
    return found


async def _quiet(launcher: int, children: int) -> None:
    async with asyncio.timeout(20):
        while True:
            states = _states(launcher)
            if len(states) == children and "Z" not in states:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("at_most", [order.NAMESPACES, order.PROCESS])
async def test_a_storm_of_starts_leaks_nothing(
    open_house: OpenHouse, tmp_path: Path, at_most: int
) -> None:
    async with open_house(at_most=at_most, blanks=2) as house:
        await _once(house)
        stock = SEATS + (2 if at_most == order.NAMESPACES else 0)
        launcher = _launcher()
        await _quiet(launcher, stock)
        before = _descriptors("self"), _descriptors(launcher)

        for _ in range(200):
            await _once(house)
        await asyncio.gather(*(_once(house) for _ in range(20)))

        await _quiet(launcher, stock)
        assert (_descriptors("self"), _descriptors(launcher)) == before
        groups = _groups(tmp_path / "state")
        per_instance = len(cgroups.places("x").directories())
        assert len(groups) == stock * per_instance
        assert house.zygote.statistics().restarts == 0


def _groups(state: Path) -> list[Path]:
    """Instances' control groups."""
    places = cgroups.places(Fence(state).name).directories()
    return [path for place in places for path in Path(place).rglob("i*/cgroup.procs")]


def _launcher() -> int:
    mine = os.getpid()
    for pid in census.pids():
        fields = census._stat(pid)
        if len(fields) > 1 and fields[1] == str(mine):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"launcher.py" in command:
                return pid
    raise AssertionError("no launcher")

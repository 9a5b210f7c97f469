"""A pool on real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from pool_bench import Bench, Directories, Lines, PlainZygote

from eventd.clock import Clock
from eventd.config import PoolSettings
from eventd.metrics import Metrics
from eventd.pool.pool import Pool
from eventd.pool.surroundings import Account


@pytest.fixture
def drain_s() -> float:
    return 15.0


@pytest.fixture
def settings() -> PoolSettings:
    return PoolSettings(idle_timeout_s=60.0)


@pytest.fixture
async def bench(tmp_path: Path, settings: PoolSettings, drain_s: float) -> AsyncIterator[Bench]:
    zygote, lines, metrics = PlainZygote(), Lines(), Metrics()
    pool = Pool(
        zygote,
        Directories(),
        settings,
        metrics,
        Clock(),
        lines,
        account=Account("1234567890", "cn-local"),
        drain_s=lambda: drain_s,
    )
    async with pool:
        yield Bench(pool, zygote, lines, metrics, tmp_path)
    assert pool.statistics().instances == 0
    for process in zygote.processes:
        assert process.child.returncode is not None


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test here runs on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

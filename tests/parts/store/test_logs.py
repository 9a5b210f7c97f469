"""Log lines and records on real files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from store_support import LONG_S, Opener

import eventd.logs.segments as segments_module
import eventd.logs.store as store_module
import eventd.store.sqlite.blocks as blocks_module
import eventd.store.sqlite.history as history_module
from eventd.clock import Clock
from eventd.config import LogSettings
from eventd.logs.store import LogStore, open_logs
from eventd.metrics import Metrics
from eventd.model.invocation import InvocationRecord
from eventd.model.snapshot import FunctionSnapshot
from eventd.store.interface import LogLine
from eventd.store.opened import Store


def snapshot(function: str = "f") -> FunctionSnapshot:
    return FunctionSnapshot(
        service="s",
        function=function,
        incarnation="n",
        version=2,
        runtime="python3",
        handler="h",
        initializer="",
        memory_mb=128,
        timeout_s=3,
        initialization_timeout_s=3,
        instance_concurrency=1,
        environment={},
        code_digest="",
        code_checksum="",
    )


def record(request_id: str, started_ms: int = 1000, **given: Any) -> InvocationRecord:
    fields: dict[str, Any] = {
        "invocation_id": "i",
        "request_id": request_id,
        "service": "s",
        "function": "f",
        "incarnation": "n",
        "qualifier": "LATEST",
        "version": 2,
        "instance_id": "c-1",
        "started_ms": started_ms,
        "duration_ms": 5.5,
        "memory_mb": 30.0,
        "memory_size_mb": 128,
        "error_type": "",
        "error": "",
        **given,
    }
    return InvocationRecord(**fields)


class Both:
    """The store and its logs."""

    def __init__(self, store: Store, logs: LogStore) -> None:
        self.store = store
        self.logs = logs

    def write(self, text: str, request_id: str = "r", time_ms: int = 1002, **given: Any) -> None:
        self.logs.write(snapshot(**given), "c-1", request_id, time_ms, text)

    async def texts(self, **query: Any) -> list[str]:
        return [line.text for line in await self.logs.query(**query)]


@pytest.fixture
def opened(opener: Opener, metrics: Metrics) -> Any:
    @asynccontextmanager
    async def open_both(settings: LogSettings | None = None) -> AsyncIterator[Both]:
        async with (
            opener() as store,
            open_logs(store, settings or LogSettings(), metrics, Clock()) as logs,
        ):
            yield Both(store, logs)

    return open_both


async def test_lines_are_found_again_after_a_restart(opened: Any, metrics: Metrics) -> None:
    async with opened() as both:
        both.write("one\ntwo")
        both.write("other", function="g", request_id="q")
    assert metrics.log_lines == 3
    async with opened() as both:
        assert await both.texts(function="f") == ["one", "two"]
        assert await both.texts(service="s") == ["one", "two", "other"]
        assert await both.texts(request_id="q") == ["other"]
        assert await both.texts(service="none") == []
        (line,) = await both.logs.query(request_id="q")
        assert line == LogLine(1002, "s", "g", 2, "q", "c-1", "other", seq=3)


async def test_times_and_limits_choose_the_newest(opened: Any) -> None:
    async with opened() as both:
        for number in range(20):
            both.write(str(number), time_ms=1000 + number)
        assert await both.texts(limit=3) == ["17", "18", "19"]
        assert await both.texts(since_ms=1005, until_ms=1007) == ["5", "6", "7"]


async def test_a_part_of_a_line_is_found_in_any_case_packed_or_not(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "ENTRIES_PER_BLOCK", 10)
    async with opened() as both:
        for number in range(95):
            both.write(f'line {number} says "Grüße" and {"needle" if number % 30 == 7 else "hay"}')
            if number % 4 == 0:
                await both.logs.flush()
        expected = [f'line {number} says "Grüße" and needle' for number in (7, 37, 67)]
        for part in ("needle", "NEEDLE", "eedl", "ee", '"Grüße" and needle'):
            assert await both.texts(text=part) == expected
        assert len(await both.texts(text="GRÜSSE".replace("SS", "ß"))) == 95
        assert await both.texts(text="nowhere") == []
        assert await both.texts(text="needle", limit=1) == expected[-1:]
    async with opened() as both:
        assert await both.texts(text="needle") == expected


async def test_records_frame_the_lines(opened: Any) -> None:
    async with opened() as both:
        both.write("printed")
        both.store.history.add(record("r"))
        both.store.history.add(record("silent", started_ms=2000, error_type="Unhandled"))
        texts = await both.texts()
    assert texts == [
        "FC Invoke Start RequestId: r",
        "printed",
        "FC Invoke End RequestId: r",
        "",
        "Duration: 5.50 ms, Billed Duration: 6 ms, Memory Size: 128 MB, Max Memory Used: 30.00 MB",
        "FC Invoke Start RequestId: silent",
        "FC Invoke End RequestId: silent, Error: Unhandled function error",
        "",
        "Duration: 5.50 ms, Billed Duration: 6 ms, Memory Size: 128 MB, Max Memory Used: 30.00 MB",
    ]


async def test_records_are_found_newest_first_also_when_packed(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "ENTRIES_PER_BLOCK", 10)
    given = [record(f"r{number}", started_ms=1000 + number) for number in range(57)]
    async with opener() as store:
        for number, one in enumerate(given):
            store.history.add(one)
            if number % 3 == 0:
                await store.history.flush()
        found = [one async for one in store.history.find(limit=1000)]
        assert found == given[::-1]
    async with opener() as store:
        assert [one async for one in store.history.find(request_id="r9")] == [given[9]]
        since = [one async for one in store.history.find(since_ms=1050, limit=3)]
        assert since == given[:53:-1]
        assert [one async for one in store.history.find(function="none")] == []


async def test_too_many_unsaved_records_drop_the_oldest(
    opener: Opener, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "MAX_UNSAVED", 10)
    async with opener() as store:
        for number in range(13):
            store.history.add(record(str(number)))
        assert metrics.records_dropped == 3
        found = [one.request_id async for one in store.history.find()]
    assert found == [str(number) for number in range(12, 2, -1)]


async def test_lines_that_come_faster_than_the_disk_are_dropped_and_counted(
    opened: Any, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_BUFFER_CHARACTERS", 10)
    async with opened() as both:
        both.write("12345")
        both.write("a\nb\nc\nd")
        both.write("12345")
        assert await both.texts() == ["12345", "12345"]
    assert metrics.log_lines_dropped == 4


async def test_long_and_broken_lines_are_kept_within_bounds(opened: Any) -> None:
    async with opened() as both:
        both.write("ü" * 40_000)
        both.write("lone \ud800 surrogate")
        long, broken = await both.texts()
    assert long == "ü" * (16 << 10)
    assert broken == "lone ? surrogate"


async def test_following_shows_each_line_once_framed(opened: Any) -> None:
    async with opened() as both:
        both.write("before")
        await both.logs.flush()
        lines = both.logs.follow(function="f")
        shown: list[str] = []

        async def read(count: int) -> None:
            while len(shown) < count:
                shown.append((await anext(lines)).text)

        reading = asyncio.create_task(read(7))
        async with asyncio.timeout(LONG_S):
            while not both.store.history._listeners:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        for number in range(3):
            both.write(f"live {number}")
            both.write("hidden", function="g")
            await asyncio.sleep(0.05)  # lines come over some flushes
        both.store.history.add(record("r"))
        await asyncio.wait_for(reading, LONG_S)
        await lines.aclose()
    assert shown[:5] == [
        "FC Invoke Start RequestId: r",
        "live 0",
        "live 1",
        "live 2",
        "FC Invoke End RequestId: r",
    ]


async def test_following_from_the_past_misses_nothing(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FOLLOW_LIMIT", 7)
    async with opened() as both:
        for number in range(50):
            both.write(f"old {number}", request_id="")
        lines = both.logs.follow(since_ms=1)
        texts = []
        async with asyncio.timeout(LONG_S):
            for number in range(60):
                if number == 50:
                    for extra in range(10):
                        both.write(f"new {extra}", request_id="")
                texts.append((await anext(lines)).text)
        await lines.aclose()
    assert texts == [f"old {n}" for n in range(50)] + [f"new {n}" for n in range(10)]


async def test_old_segments_go_and_the_others_stay_searchable(
    opened: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "MIN_SEGMENT_BYTES", 1)
    settings = LogSettings(keep_bytes=400_000)
    async with opened(settings) as both:
        for number in range(20):
            both.write(f"segment {number}")
            await both.logs.flush()
        assert len(list((data / "logs").glob("*.db"))) > 5
        assert (await both.texts(limit=100))[-1] == "segment 19"
        await both.logs._segments.prune()
        left = await both.texts(limit=100)
        assert 0 < len(left) < 20
        assert left == [f"segment {number}" for number in range(20 - len(left), 20)]
    async with opened(settings) as both:
        both.write("after")
        assert await both.texts(limit=100) == [*left, "after"]

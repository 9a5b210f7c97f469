"""EIO, a full disk, flipped bits."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import apsw
import pytest
from failing_vfs import failing_vfs
from store_support import BALLAST_BYTES, LONG_S, Maker, Opener

import eventd.store.sqlite.disk as disk_module
from eventd.store.interface import StoreFailed


async def test_after_a_failed_sync_everything_is_refused_and_nothing_synced_again(
    opener: Opener, make: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    told: list[StoreFailed] = []
    kept, lost = make(), make()
    with failing_vfs("queue.db-wal") as vfs:
        async with opener(vfs=vfs.name, on_failure=told.append) as store:
            await store.queue.put([kept])
            waiting = asyncio.create_task(store.queue.claim())
            assert await waiting == kept
            waiting = asyncio.create_task(store.queue.claim())
            await asyncio.sleep(0)
            vfs.sync_error = apsw.IOError
            with pytest.raises(StoreFailed) as failure:
                await store.queue.put([lost])
            assert not failure.value.full
            with pytest.raises(StoreFailed):
                await asyncio.wait_for(waiting, LONG_S)
            assert [error.full for error in told] == [False]
            vfs.sync_error = None
            syncs = vfs.syncs
            for refused in (
                store.queue.put([make()]),
                store.queue.claim(),
                store.queue.finish(kept.id),
                store.queue.dead_letters(),
            ):
                with pytest.raises(StoreFailed):
                    await refused
            assert store.disk.failed is not None
        assert vfs.syncs == syncs == 1
    async with opener() as store:
        assert await store.queue.claim() == kept


async def test_a_full_disk_refuses_new_ones_and_records_outcomes(
    opener: Opener,
    make: Maker,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(disk_module, "RECOVERY_POLL_S", 0.05)
    told: list[StoreFailed] = []
    first, second = make(), make()
    ballast = data / "ballast"
    space = {"bytes": 0}

    with failing_vfs("queue.db-wal") as vfs:
        async with opener(vfs=vfs.name, on_failure=told.append) as store:
            monkeypatch.setattr(
                disk_module.os,
                "statvfs",
                lambda path: type("Space", (), {"f_bavail": space["bytes"], "f_frsize": 1}),
            )
            await store.queue.put([first, second])
            await store.queue.claim()
            assert ballast.stat().st_size == BALLAST_BYTES
            vfs.write_error = apsw.FullError
            original = store.disk._free_ballast

            def free() -> None:
                original()
                vfs.write_error = None  # the ballast's space is there now

            store.disk._free_ballast = free  # type: ignore[method-assign]
            refused = asyncio.create_task(store.queue.put([make()]))
            finished = asyncio.create_task(store.queue.finish(first.id))
            await asyncio.wait({refused, finished}, timeout=LONG_S)
            assert isinstance(refused.exception(), StoreFailed)
            assert refused.exception().full  # type: ignore[union-attr]
            assert finished.exception() is None
            assert not ballast.exists()
            assert [error.full for error in told] == [True]
            with pytest.raises(StoreFailed):
                await store.queue.put([make()])
            assert await store.queue.claim() == second  # outcomes go on

            space["bytes"] = 10 * BALLAST_BYTES
            async with asyncio.timeout(LONG_S):
                while store.disk.full is not None:  # noqa: ASYNC110 - the disk tells no end
                    await asyncio.sleep(0.01)
            assert ballast.stat().st_size == BALLAST_BYTES
            await store.queue.put([make()])
    async with opener() as store:
        assert store.queue.statistics().waiting == 2


async def test_a_damaged_row_is_put_aside_and_the_others_are_served(
    opener: Opener, make: Maker, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    before, bad, after = make(), make(payload=b"AAAA-to-be-damaged"), make()
    async with opener() as store:
        await store.queue.put([before, bad, after])
    content = (data / "queue.db").read_bytes()
    at = content.index(b"AAAA-to-be-damaged")
    flipped = bytearray(content)
    flipped[at] ^= 1
    (data / "queue.db").write_bytes(flipped)

    async with opener() as store:
        assert await asyncio.wait_for(store.queue.claim(), LONG_S) == before
        assert await asyncio.wait_for(store.queue.claim(), LONG_S) == after
        (letter,) = await store.queue.dead_letters()
        assert letter.reason == "Corrupt"
        assert letter.invocation.id == bad.id
        assert letter.invocation.payload == b"@AAA-to-be-damaged"
        assert store.queue.statistics().waiting == 0
    async with opener() as store:
        assert store.queue.statistics().dead_letters == 1


async def test_a_damaged_description_is_put_aside(
    opener: Opener, make: Maker, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    bad, after = make(ordering_key="k"), make(ordering_key="k")
    async with opener() as store:
        await store.queue.put([bad, after])
    content = (data / "queue.db").read_bytes()
    at = content.index(b'["' + bad.id.encode())
    flipped = bytearray(content)
    flipped[at] ^= 1
    (data / "queue.db").write_bytes(flipped)

    async with opener() as store:
        assert await asyncio.wait_for(store.queue.claim(), LONG_S) == after
        (letter,) = await store.queue.dead_letters()
        assert letter.reason == "Corrupt"


async def test_a_payload_file_that_is_gone_is_noticed(
    opener: Opener, make: Maker, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    bad, after = make(payload=b"x" * 100_000), make()
    async with opener() as store:
        await store.queue.put([bad, after])
        for path in (data / "payloads").iterdir():
            path.unlink()
    async with opener() as store:
        assert await asyncio.wait_for(store.queue.claim(), LONG_S) == after
        assert [letter.reason for letter in await store.queue.dead_letters()] == ["Corrupt"]

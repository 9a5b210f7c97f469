"""Owning a data directory, blobs, schema versions."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import apsw
import pytest
from store_support import Opener

from eventd.store.blobs import DirectoryBlobs
from eventd.store.datadir import DataDirectoryInUse
from eventd.store.interface import StoreFailed
from eventd.store.sqlite.connection import SchemaTooNew, check_library, migrations


def tree(root: Path) -> list[Path]:
    return [root, *root.rglob("*")]


async def test_a_second_daemon_is_refused_and_told_the_process(opener: Opener) -> None:
    async with opener():
        with pytest.raises(DataDirectoryInUse, match=str(os.getpid())):
            async with opener():
                raise AssertionError("two owners")
    async with opener():
        pass


async def test_each_start_raises_the_epoch(opener: Opener) -> None:
    epochs = []
    for _ in range(3):
        async with opener() as store:
            epochs.append(store.epoch)
    assert epochs == [1, 2, 3]


async def test_only_the_owner_may_read(opener: Opener, data: Path) -> None:
    async with opener() as store:
        await store.blobs.put(b"x")
        await store.queue.put([], None)
        open_to_others = [path for path in tree(data) if path.stat().st_mode & 0o077]
    assert open_to_others == []


async def test_a_newer_data_directory_is_refused_unchanged(opener: Opener, data: Path) -> None:
    async with opener():
        pass
    connection = apsw.Connection(str(data / "queue.db"))
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(SchemaTooNew, match="schema 99"):
        async with opener():
            raise AssertionError("opened")
    connection = apsw.Connection(str(data / "queue.db"))
    assert connection.pragma("user_version") == 99
    connection.close()


async def test_a_file_that_is_no_database_is_named(opener: Opener, data: Path) -> None:
    async with opener():
        pass
    (data / "meta.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreFailed, match=r"meta\.db"):
        async with opener():
            raise AssertionError("opened")


async def test_a_data_directory_that_cannot_be_made_is_named(
    tmp_path: Path, opener: Opener
) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreFailed, match="data"):
        async with opener():
            raise AssertionError("opened")


def test_an_old_library_is_refused() -> None:
    check_library("3.51.3")
    check_library("3.100.0")
    for version in ("3.40.1", "3.51.2"):
        with pytest.raises(StoreFailed, match=version):
            check_library(version)


def test_each_kind_of_file_has_its_steps() -> None:
    for family in ("meta", "queue", "history", "logs"):
        assert len(migrations(family)) >= 1


async def test_a_blob_is_found_by_its_hash(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    digest = await blobs.put(b"content")
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert await blobs.put(b"content") == digest
    assert await blobs.get(digest) == b"content"
    assert blobs.digests() == {digest}
    assert blobs.path(digest).stat().st_mode & 0o777 == 0o600
    await blobs.delete(digest)
    await blobs.delete(digest)
    for unknown in (digest, "../../etc/passwd", ""):
        with pytest.raises(KeyError):
            await blobs.get(unknown)
    assert blobs.digests() == set()


async def test_a_damaged_blob_is_noticed_and_can_be_put_again(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    digest = await blobs.put(b"content")
    blobs.path(digest).write_bytes(b"Content")
    with pytest.raises(ValueError, match=digest):
        await blobs.get(digest)
    await blobs.put(b"content")
    assert await blobs.get(digest) == b"content"


async def test_the_same_blob_put_at_once_is_whole(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    digests = await asyncio.gather(*(blobs.put(b"x" * 100_000) for _ in range(8)))
    assert len(set(digests)) == 1
    assert await blobs.get(digests[0]) == b"x" * 100_000
    assert [path.name for path in tree(tmp_path) if path.is_file()] == [digests[0]]

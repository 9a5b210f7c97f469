"""Packages on disk."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from eventd.errors import InvalidArgument
from eventd.store import packages as module
from eventd.store.packages import Packages, extract

from .conftest import MemoryBlobs, make_zip

WAIT_S = 20


def tree(root: Path) -> dict[str, str]:
    """Relative path to what is there: mode and content, or target of a link."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        mode = path.lstat().st_mode
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_dir():
            found[name] = f"{stat.S_IMODE(mode):o}/"
        else:
            found[name] = f"{stat.S_IMODE(mode):o} {path.read_text()}"
    return found


def package(entries: Mapping[str, tuple[int, str]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, (mode, content) in entries.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def leftovers(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith(".partial")]


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
async def packages(tmp_path: Path, blobs: MemoryBlobs) -> Packages:
    return await Packages.open(tmp_path / "code", blobs, max_unpacked_bytes=1 << 20)


async def test_everything_in_a_package_is_unpacked_with_its_mode(
    packages: Packages, blobs: MemoryBlobs
) -> None:
    data = package(
        {
            "deep/er/index.py": (stat.S_IFREG | 0o600, "code"),
            "bootstrap": (stat.S_IFREG | 0o4755, "#!"),
            "empty/": (stat.S_IFDIR | 0o700, ""),
            "current": (stat.S_IFLNK | 0o777, "deep/er"),
        }
    )
    old = os.umask(0o077)
    try:
        path = await packages.unpacked(await blobs.put(data))
    finally:
        os.umask(old)

    assert tree(path) == {
        "bootstrap": "755 #!",
        "current": "-> deep/er",
        "deep": "755/",
        "deep/er": "755/",
        "deep/er/index.py": "644 code",
        "empty": "755/",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert leftovers(path.parent) == []


async def test_a_package_is_unpacked_once_for_all_who_wait(
    packages: Packages, blobs: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = module.extract

    def counted(*args: object, **options: object) -> None:
        calls.append(args)
        real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "extract", counted)
    digest = await blobs.put(make_zip())

    paths = await asyncio.gather(*(packages.unpacked(digest) for _ in range(20)))

    assert len(set(paths)) == 1
    assert len(calls) == 1


async def test_a_package_that_went_missing_is_unpacked_again(
    packages: Packages, blobs: MemoryBlobs
) -> None:
    digest = await blobs.put(make_zip())
    path = await packages.unpacked(digest)

    await packages.forget(digest)
    assert not path.exists()

    assert (await packages.unpacked(digest) / "index.py").exists()


async def test_only_unreferenced_packages_are_collected(
    packages: Packages, blobs: MemoryBlobs
) -> None:
    kept = await blobs.put(make_zip({"a": "1"}))
    gone = await blobs.put(make_zip({"a": "2"}))
    kept_path, gone_path = await packages.unpacked(kept), await packages.unpacked(gone)

    assert await packages.collect({kept}) == [gone]

    assert kept_path.is_dir()
    assert not gone_path.exists()


async def test_an_unknown_package_is_a_key_error(packages: Packages) -> None:
    with pytest.raises(KeyError):
        await packages.unpacked("0" * 64)


@pytest.mark.parametrize(
    "data",
    [
        make_zip({"big": b"\x00" * (2 << 20)}),
        make_zip({"index.py": "some code that is stored"}).replace(b"index.py", b"../ex.py"),
        b"junk",
    ],
)
async def test_a_bad_package_leaves_nothing(
    packages: Packages, blobs: MemoryBlobs, tmp_path: Path, data: bytes
) -> None:
    digest = await blobs.put(data)

    with pytest.raises(InvalidArgument):
        await packages.unpacked(digest)

    assert [n for n in os.listdir(tmp_path / "code") if n != ".boot"] == []


async def test_a_failing_disk_leaves_nothing(
    packages: Packages, blobs: MemoryBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_file", full)

    with pytest.raises(OSError, match="No space left"):
        await packages.unpacked(await blobs.put(make_zip()))

    assert leftovers(tmp_path / "code") == []


async def test_a_cancelled_waiter_does_not_harm_the_next(
    packages: Packages, blobs: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, go_on = threading.Event(), threading.Event()
    real = module.extract

    def slow(*args: object, **options: object) -> None:
        started.set()
        assert go_on.wait(WAIT_S)
        real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "extract", slow)
    digest = await blobs.put(make_zip())
    first = asyncio.create_task(packages.unpacked(digest))
    assert await asyncio.to_thread(started.wait, WAIT_S)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()

    path = await packages.unpacked(digest)

    assert (path / "index.py").exists()


async def test_leftovers_of_a_kill_are_swept_and_whole_ones_stay(
    tmp_path: Path, blobs: MemoryBlobs
) -> None:
    directory = tmp_path / "code"
    digest = await blobs.put(make_zip())
    packages = await Packages.open(directory, blobs)
    path = await packages.unpacked(digest)
    (directory / ".partial-x" / "deep").mkdir(parents=True)

    await Packages.open(directory, blobs)

    assert leftovers(directory) == []
    assert path.is_dir()


async def test_after_a_reboot_everything_is_unpacked_anew(
    tmp_path: Path, blobs: MemoryBlobs
) -> None:
    directory = tmp_path / "code"
    packages = await Packages.open(directory, blobs)
    path = await packages.unpacked(await blobs.put(make_zip()))
    (directory / ".boot").write_text("another boot")

    await Packages.open(directory, blobs)

    assert not path.exists()


def test_a_kill_while_unpacking_leaves_no_half_package(tmp_path: Path, blobs: MemoryBlobs) -> None:
    directory = tmp_path / "code"
    directory.mkdir()
    data = make_zip({f"f{number}": "x" * 100 for number in range(600)})
    (tmp_path / "package.zip").write_bytes(data)
    script = (
        "import sys; from pathlib import Path\n"
        "from eventd.store.packages import extract\n"
        "root = Path(sys.argv[1]); print('ready', flush=True)\n"
        "for turn in range(1000):\n"
        "    extract((root / 'package.zip').read_bytes(), root / 'code' / f'd{turn}',\n"
        "            max_unpacked_bytes=1 << 30)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        deadline = time.monotonic() + WAIT_S
        while not (directory / "d1").is_dir() or not leftovers(directory):
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(WAIT_S)
        assert child.stdout is not None
        child.stdout.close()

    whole = [path for path in directory.iterdir() if not path.name.startswith(".")]
    assert whole
    for path in whole:
        assert len(os.listdir(path)) == 600
    asyncio.run(Packages.open(directory, blobs))
    assert leftovers(directory) == []


def test_a_package_that_another_one_finished_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "digest"
    path.mkdir()
    (path / "mine").write_text("first")

    extract(make_zip(), path, max_unpacked_bytes=1 << 20)

    assert os.listdir(path) == ["mine"]
    assert leftovers(tmp_path) == []


def test_links_never_lead_out_of_the_unpacked_tree(tmp_path: Path) -> None:
    link = stat.S_IFLNK | 0o777
    data = package(
        {
            "a/b/file": (stat.S_IFREG | 0o644, "x"),
            "up": (link, "a/b/.."),
            "around": (link, "up/b/../b/file"),
            "loop": (link, "loop"),
            "dangling": (link, "a/nowhere"),
        }
    )

    extract(data, tmp_path / "d", max_unpacked_bytes=1 << 20)

    root = os.path.realpath(tmp_path / "d")
    for name in ("up", "around", "dangling"):
        assert os.path.realpath(tmp_path / "d" / name).startswith(root + "/")
    assert (tmp_path / "d" / "around").read_text() == "x"

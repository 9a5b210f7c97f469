"""Directory buckets on the real file system and the real kernel."""

# Test code may block its own loop for a moment.
# ruff: noqa: ASYNC221, ASYNC230

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from trigger_context import Context, running
from watchfiles._rust_notify import RustNotify

from eventd.plugin import SourceSettings
from triggers.notices import FileChange, Notices, unwatched
from triggers.oss.directory import COMPLETE, DirectorySource
from triggers.oss.events import parse_arn
from triggers.oss.watch import DirectoryOptions

ARN = "acs:oss:cn-local:1200340056007800:photos"
SETTLE_S = 0.05


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "buckets" / "photos"
    path.mkdir(parents=True)
    return path


@pytest.fixture
async def context(tmp_path: Path) -> Context:
    return Context(SourceSettings(tmp_path, "1200340056007800", "cn-local"))


def source(root: Path, **options: float) -> DirectorySource:
    return DirectorySource(parse_arn(ARN), root, DirectoryOptions.model_validate(options))


async def wait_watching(context: Context) -> None:
    await context.wait(lambda: (context.cursor or "").startswith(COMPLETE))


async def settle(context: Context, marker: Path) -> None:
    """Wait until everything before now has been told: a file that comes later has."""
    count = sum(1 for event in context.events if event.subject == marker.name)
    marker.write_bytes(os.urandom(8))
    await context.wait(
        lambda: sum(1 for event in context.events if event.subject == marker.name) > count
    )


def told(context: Context) -> list[tuple[str, str]]:
    return [each for each in context.told() if each[1] != "marker"]


async def test_a_new_file_is_told_once_and_existing_ones_are_not(
    root: Path, context: Context
) -> None:
    (root / "old.txt").write_text("old")
    age(root / "old.txt")
    async with running(source(root), context):
        await wait_watching(context)
        (root / "new.txt").write_text("new!")
        await settle(context, root / "marker")

    assert told(context) == [("PutObject", "new.txt")]
    assert set(context.state) == {"old.txt", "new.txt", "marker"}


def age(path: Path) -> None:
    """Make sure that the coarse clock of the file system has moved past ``path``."""
    changed = path.stat().st_ctime_ns
    while time.clock_gettime_ns(5) <= changed:
        os.sched_yield()


async def test_a_file_made_right_after_the_source_started_is_told(
    root: Path, context: Context
) -> None:
    (root / "old.txt").write_text("old")
    age(root / "old.txt")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(source(root).run(context))
        await asyncio.sleep(0)  # its first step: from here on everything is news
        (root / "early.txt").write_text("early")
        await context.wait_events(1)
        task.cancel()

    assert told(context) == [("PutObject", "early.txt")]


async def test_overwriting_tells_the_difference_of_size(root: Path, context: Context) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        (root / "a.txt").write_bytes(b"x" * 100)
        await context.wait_events(1)
        (root / "a.txt").write_bytes(b"x" * 30)
        await context.wait_events(2)

    objects = [body["events"][0]["oss"]["object"] for body in context.bodies()]
    assert [(each["size"], each["deltaSize"]) for each in objects] == [(100, 100), (30, -70)]


async def test_an_atomic_rename_within_the_settle_time_tells_only_the_final_name(
    root: Path, context: Context
) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        for number in range(20):
            (root / ".tmp").write_text(f"{number}")
            (root / ".tmp").rename(root / f"{number}.txt")
        await context.wait_events(20)
        await settle(context, root / "marker")

    assert sorted(told(context)) == sorted(("PutObject", f"{n}.txt") for n in range(20))


async def test_a_rename_is_a_removal_and_a_creation(root: Path, context: Context) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        (root / "a.txt").write_text("four")
        await context.wait_events(1)
        (root / "a.txt").rename(root / "b.txt")
        await context.wait_events(3)

    assert told(context)[1:] == [("DeleteObject", "a.txt"), ("PutObject", "b.txt")]
    removed = context.bodies()[1]["events"][0]["oss"]["object"]
    assert (removed["size"], removed["deltaSize"]) == (0, -4)


async def test_a_renamed_directory_removes_and_creates_all_its_objects(
    root: Path, context: Context
) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        (root / "x" / "y").mkdir(parents=True)
        (root / "x" / "y" / "1").write_text("1")
        (root / "x" / "2").write_text("2")
        await context.wait_events(2)
        (root / "x").rename(root / "z")
        await context.wait_events(6)
        (root / "z" / "y" / "3").write_text("3")
        await context.wait_events(7)

    assert sorted(told(context)[2:]) == [
        ("DeleteObject", "x/2"),
        ("DeleteObject", "x/y/1"),
        ("PutObject", "z/2"),
        ("PutObject", "z/y/1"),
        ("PutObject", "z/y/3"),
    ]


async def test_a_directory_that_takes_the_place_of_a_removed_one_is_watched(
    root: Path, context: Context
) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        for number in range(30):
            (root / "d").mkdir()
            held = os.open(root / "d", os.O_RDONLY)  # its inode outlives its name
            (root / "d" / f"{number}").write_text("x")
            await context.wait_events(2 * number + 1)
            shutil.rmtree(root / "d")
            await context.wait_events(2 * number + 2)
            os.close(held)

    assert [name for name, _ in told(context)] == ["PutObject", "DeleteObject"] * 30


async def test_a_writer_that_pauses_tells_one_event_when_it_closes(
    root: Path, context: Context
) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        with (root / "slow.bin").open("wb", buffering=0) as file:
            file.write(b"first")
            started = time.monotonic()
            while time.monotonic() - started < 3:
                await settle(context, root / "marker")  # the source is awake and sees others
            file.write(b"second")
            assert told(context) == []
        closed = time.monotonic()
        await context.wait(lambda: told(context) != [])
        await settle(context, root / "marker")

    assert told(context) == [("PutObject", "slow.bin")]
    index = context.told().index(("PutObject", "slow.bin"))
    assert context.bodies()[index]["events"][0]["oss"]["object"]["size"] == 11
    assert context.times[index] - closed < 0.5


async def test_without_leases_a_file_is_told_when_it_stays_the_same(
    root: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggers.oss.directory.leases_tell", lambda root: False)
    async with running(source(root, stable_ms=300), context):
        await wait_watching(context)
        with (root / "slow.bin").open("wb", buffering=0) as file:
            for _ in range(20):
                file.write(b"x")
                await asyncio.sleep(0.05)
            assert context.events == []
        await context.wait_events(1)

    assert context.bodies()[0]["events"][0]["oss"]["object"]["size"] == 20


async def test_what_changed_while_nobody_looked_is_told_at_the_start(
    root: Path, context: Context
) -> None:
    for name in ("same", "changed", "removed"):
        (root / name).write_text(name)
        age(root / name)
    (root / "deep").mkdir()
    (root / "deep" / "removed").write_text("x")
    age(root / "deep" / "removed")
    async with running(source(root), context):
        await wait_watching(context)
    assert context.events == []

    (root / "changed").write_text("otherwise")
    (root / "removed").unlink()
    shutil.rmtree(root / "deep")
    (root / "new").write_text("new")
    async with running(source(root), context):
        await context.wait_events(4)
        await settle(context, root / "marker")

    assert sorted(told(context)) == [
        ("DeleteObject", "deep/removed"),
        ("DeleteObject", "removed"),
        ("PutObject", "changed"),
        ("PutObject", "new"),
    ]


async def test_a_bucket_made_while_running_is_new_from_its_first_object(
    tmp_path: Path, context: Context
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "first").write_text("1")
    root = tmp_path / "buckets" / "later"
    async with running(source(root), context):
        await context.wait(lambda: any(not report.healthy for report in context.reports))
        root.parent.mkdir()
        (tmp_path / "elsewhere").rename(root)
        await context.wait_events(1)
        (root / "second").write_text("2")
        await context.wait_events(2)

    assert told(context) == [("PutObject", "first"), ("PutObject", "second")]
    assert context.reports[-1].healthy


async def test_a_bucket_that_goes_away_and_comes_back_tells_nothing_again(
    root: Path, tmp_path: Path, context: Context
) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        (root / "a").write_text("a")
        await context.wait_events(1)
        root.rename(tmp_path / "away")
        await context.wait(lambda: not context.reports[-1].healthy)
        (tmp_path / "away" / "b").write_text("b")
        (tmp_path / "away").rename(root)
        await context.wait_events(2)
        await settle(context, root / "marker")

    assert told(context) == [("PutObject", "a"), ("PutObject", "b")]


async def test_a_deleted_bucket_is_reported_and_removes_nothing_until_it_is_back(
    root: Path, context: Context
) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        (root / "a").write_text("a")
        await context.wait_events(1)
        shutil.rmtree(root)
        await context.wait(lambda: "no such directory" in context.reports[-1].text)
        assert not context.reports[-1].healthy
        assert told(context) == [("PutObject", "a")]
        root.mkdir()
        await context.wait_events(2)

    assert told(context)[1:] == [("DeleteObject", "a")]


async def test_odd_names_neither_crash_nor_collide(root: Path, context: Context) -> None:
    raw = os.fsencode(root)
    names = [b"caf\xe9", b"caf\xe8", b"caf%E9", "café".encode(), b"new\nline", b'quo"te\\', b" "]
    async with running(source(root), context):
        await wait_watching(context)
        for name in names:
            with open(raw + b"/" + name, "wb") as file:
                file.write(name)
        await context.wait_events(len(names))
        os.unlink(raw + b"/caf\xe9")
        await context.wait_events(len(names) + 1)

    keys = [body["events"][0]["oss"]["object"]["key"] for body in context.bodies()]
    assert sorted(keys[:-1]) == sorted(
        ["caf%E9", "caf%E8", "caf%E9", "café", "new\nline", 'quo"te\\', " "]
    )
    assert keys[-1] == "caf%E9"
    assert len(context.state) == len(names) - 1


async def test_links_are_no_objects_and_lead_nowhere(
    root: Path, tmp_path: Path, context: Context
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with running(source(root), context):
        await wait_watching(context)
        (root / "directory").symlink_to(outside)
        (root / "file").symlink_to(outside / "secret")
        (root / "loop").symlink_to(root)
        os.mkfifo(root / "pipe")
        (outside / "secret").write_text("secret")
        await settle(context, root / "marker")
        await settle(context, root / "marker")

    assert told(context) == []


async def test_the_slow_comparison_finds_what_the_kernel_did_not_tell(
    root: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggers.notices.Notices.tell", lambda self, changes, lost=False: None)
    async with running(source(root, compare_s=0.2), context):
        await wait_watching(context)
        (root / "d").mkdir()
        (root / "d" / "a").write_text("a")
        await context.wait_events(1)
        (root / "d" / "a").unlink()
        await context.wait_events(2)

    assert told(context) == [("PutObject", "d/a"), ("DeleteObject", "d/a")]


async def test_lost_notices_cause_a_comparison(
    root: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        with monkeypatch.context() as patch:
            patch.setattr("triggers.notices.MAX_PENDING", 0)
            (root / "a").write_text("a")
            await context.wait_events(1)
        (root / "b").write_text("b")
        await context.wait_events(2)

    assert told(context) == [("PutObject", "a"), ("PutObject", "b")]


async def test_a_notice_that_is_lost_among_others_is_made_up_for_soon(
    root: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Notices.tell

    def lossy(self: Notices, changes: Iterable[FileChange], *, lost: bool = False) -> None:
        tell(self, [each for each in changes if not each[1].endswith("/lost")], lost=lost)

    monkeypatch.setattr("triggers.notices.Notices.tell", lossy)
    async with running(source(root, compare_s=3600), context):
        await wait_watching(context)
        (root / "lost").write_text("a")
        (root / "heard").write_text("b")
        await context.wait_events(2)

    assert sorted(told(context)) == [("PutObject", "heard"), ("PutObject", "lost")]


async def test_while_watchfiles_cannot_watch_the_bucket_is_compared_often_and_says_so(
    root: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async with running(source(root, blind_compare_s=0.1), context):
        with monkeypatch.context() as patch:
            patch.setattr("triggers.notices.RustNotify", refuse)
            await wait_watching(context)
            (root / "a").write_text("a")
            await context.wait_events(1)
            assert "not watched (Too many open files" in context.reports[-1].text
            assert "looking every 0.1 s" in context.reports[-1].text
        await context.wait(lambda: "not watched" not in context.reports[-1].text)
        (root / "b").write_text("b")
        await context.wait_events(2)


async def test_directories_that_the_kernel_does_not_watch_are_counted_and_compared_often(
    root: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Root:
        """As if the watches had run out after the root."""

        def __init__(self, paths: list[str], *rest: bool) -> None:
            self.real = RustNotify(paths, False, False, 0, False, True)
            self.watch = self.real.watch
            self.close = self.real.close

    (root / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr("triggers.notices.RustNotify", Root)
    async with running(source(root, blind_compare_s=0.1, compare_s=3600), context):
        await context.wait(
            lambda: any("not watched (2 directories" in each.text for each in context.reports)
        )
        (root / "a" / "b" / "c").write_text("c")
        await context.wait_events(1)


async def test_a_bucket_with_links_to_directories_watches_nothing_outside(
    root: Path, tmp_path: Path, context: Context
) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (root / "here").mkdir()
    (root / "link").symlink_to(outside)
    async with running(source(root), context):
        await wait_watching(context)
        (outside / "deep" / "secret").write_text("secret")
        (root / "here" / "1").write_text("1")
        await context.wait_events(1)
        (root / "new").mkdir()
        (root / "new" / "2").write_text("2")
        await context.wait_events(2)
        await context.wait(lambda: not unwatched([(root / "new").stat().st_ino]))
        inodes = {outside.stat().st_ino, (outside / "deep").stat().st_ino}
        assert unwatched(inodes) == inodes
        await settle(context, root / "marker")

    assert told(context) == [("PutObject", "here/1"), ("PutObject", "new/2")]


async def test_a_link_that_is_moved_in_is_not_followed(
    root: Path, tmp_path: Path, context: Context
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(outside)
    (tmp_path / "tree" / "1").write_text("1")
    async with running(source(root), context):
        await wait_watching(context)
        (tmp_path / "tree").rename(root / "tree")
        (outside / "secret").write_text("secret")
        await context.wait_events(1)
        await context.wait(lambda: unwatched([outside.stat().st_ino]) != set())
        await settle(context, root / "marker")

    assert told(context) == [("PutObject", "tree/1")]


async def test_buckets_share_one_thread_and_the_last_takes_it_along(
    tmp_path: Path, context: Context
) -> None:
    def watchers() -> int:
        return sum(each.name == "watchfiles" for each in threading.enumerate())

    roots = [tmp_path / "buckets" / str(number) for number in range(3)]
    contexts = [Context(context.settings) for _ in roots]
    async with AsyncExitStack() as stack:
        for path, each in zip(roots, contexts, strict=True):
            path.mkdir(parents=True)
            await stack.enter_async_context(running(source(path, compare_s=3600), each))
            await wait_watching(each)
        assert watchers() == 1
        for path, each in zip(roots, contexts, strict=True):
            (path / f"in-{path.name}").write_text("x")
            await each.wait_events(1)
    assert watchers() == 0
    assert [each.told() for each in contexts] == [
        [("PutObject", f"in-{path.name}")] for path in roots
    ]


async def test_a_file_system_that_is_not_mounted_removes_nothing(
    tmp_path: Path, context: Context
) -> None:
    """The bucket is a link here, so that another file system can take its place."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as bare:
        disk = tmp_path / "disk"
        disk.mkdir()
        assert disk.stat().st_dev != os.stat(bare).st_dev
        root = tmp_path / "bucket"
        root.symlink_to(disk)
        async with running(source(root, compare_s=0.1), context):
            await wait_watching(context)
            (disk / "a").write_text("a")
            await context.wait_events(1)
            root.unlink()
            root.symlink_to(bare)
            await context.wait(lambda: "another file system" in context.reports[-1].text)
        async with running(source(root, compare_s=0.1), context):  # the same after a restart
            await context.wait(lambda: "another file system" in context.reports[-1].text)
            assert not context.reports[-1].healthy
            root.unlink()
            root.symlink_to(disk)
            await context.wait(lambda: context.reports[-1].healthy)
            await settle(context, root / "marker")
        assert told(context) == [("PutObject", "a")]

        (Path(bare) / "a").write_text("moved to a new disk")
        root.unlink()
        root.symlink_to(bare)
        async with running(source(root, compare_s=0.1), context):
            await context.wait(lambda: len(told(context)) >= 2)
        assert told(context)[1:2] == [("PutObject", "a")]


WRITER = """
import os, sys
root, directories, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(directories):
    path = f"{root}/{number % 40}/{number}"
    os.makedirs(path)
    for index in range(files):
        with open(f"{path}/{index}", "w") as file:
            file.write("x" * index)
"""


async def test_of_10000_files_in_2000_directories_none_is_missed_or_doubled(
    root: Path, context: Context
) -> None:
    async with running(source(root), context):
        await wait_watching(context)
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(root), "2000", "5"
        )
        assert await writer.wait() == 0
        await context.wait_events(10_000, 50)
        await settle(context, root / "marker")

    expected = {f"{n % 40}/{n}/{index}" for n in range(2000) for index in range(5)}
    keys = [key for _, key in told(context)]
    assert len(keys) == len(set(keys)) == 10_000
    assert set(keys) == expected
    assert {name for name, _ in told(context)} == {"PutObject"}


async def test_moving_a_large_tree_in_tells_every_file(
    root: Path, tmp_path: Path, context: Context
) -> None:
    tree = tmp_path / "tree"
    subprocess.run([sys.executable, "-c", WRITER, str(tree), "200", "5"], check=True)
    async with running(source(root), context):
        await wait_watching(context)
        tree.rename(root / "tree")
        await context.wait_events(1000)
        await settle(context, root / "marker")

    assert len(told(context)) == len(set(told(context))) == 1000


async def test_writers_that_meet_a_lease_harm_nobody(root: Path, context: Context) -> None:
    """A lease that is being held makes the kernel signal us when a writer comes."""
    writer = (
        "import sys, time\n"
        "end = time.monotonic() + 3\n"
        "while time.monotonic() < end:\n"
        "    with open(sys.argv[1], 'ab') as file: file.write(b'x')\n"
    )
    async with running(source(root, settle_ms=1), context):
        await wait_watching(context)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", writer, str(root / "busy")
        )
        assert await process.wait() == 0
        size = (root / "busy").stat().st_size
        await context.wait(
            lambda: (
                bool(context.events)
                and context.bodies()[-1]["events"][0]["oss"]["object"]["size"] == size
            )
        )


async def test_a_directory_without_permission_is_reported_and_keeps_what_was_known(
    root: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir
    closed = root / "closed"

    def guarded(path: str) -> object:
        if str(path) == str(closed) and closed_now:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    closed_now = False
    monkeypatch.setattr("triggers.oss.tree.os.scandir", guarded)
    async with running(source(root, compare_s=0.1), context):
        await wait_watching(context)
        closed.mkdir()
        (closed / "a").write_text("a")
        await context.wait_events(1)
        closed_now = True
        await context.wait(lambda: not context.reports[-1].healthy)
        assert "closed" in context.reports[-1].text
        closed_now = False
        await context.wait(lambda: context.reports[-1].healthy)
        await settle(context, root / "marker")

    assert told(context) == [("PutObject", "closed/a")]

"""Notices of the real watchfiles."""

# Test code may block its own loop for a moment.
# ruff: noqa: ASYNC230

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from triggers.notices import Notices, listening, unwatched

DEADLINE_S = 20.0


async def heard(notices: Notices, wanted: Callable[[set[str], bool], bool]) -> set[str]:
    """Names below the paths, until ``wanted`` holds for them and for whether some were lost."""
    names: set[str] = set()
    lost = False
    async with asyncio.timeout(DEADLINE_S):
        while not wanted(names, lost):
            await notices.heard.wait()
            changes, some_lost = notices.take()
            names |= {os.path.basename(path) for _, path in changes}
            lost |= some_lost
    return names


async def test_there_is_no_gap_between_two_watchers(tmp_path: Path) -> None:
    count = 15
    (tmp_path / "0").mkdir()
    async with listening(recursive=True) as notices:
        await asyncio.to_thread(notices.follow, {str(tmp_path / "0")})
        for number in range(1, count):
            (tmp_path / str(number)).mkdir()
            (tmp_path / "0" / f"before-{number}").touch()
            paths = {str(tmp_path / str(each)) for each in range(number + 1)}
            follow = asyncio.create_task(asyncio.to_thread(notices.follow, paths))
            (tmp_path / "0" / f"during-{number}").touch()
            assert await follow
        expected = {f"{when}-{n}" for when in ("before", "during") for n in range(1, count)}
        # watchfiles itself may forget what comes in the instant of its hand-over (``notices``);
        # a gap between two watchers would lose half of them
        names = await heard(notices, lambda names, _: len(expected - names) <= 2)
        assert names <= expected


async def test_following_the_same_again_is_no_news(tmp_path: Path) -> None:
    async with listening(recursive=True) as notices:
        assert await asyncio.to_thread(notices.follow, {str(tmp_path)})
        assert not await asyncio.to_thread(notices.follow, {str(tmp_path)})


async def test_each_listener_hears_only_of_its_own_paths(tmp_path: Path) -> None:
    (tmp_path / "a" / "in").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    async with listening(recursive=True) as outer, listening(recursive=True) as other:
        await asyncio.to_thread(outer.follow, {str(tmp_path / "a"), str(tmp_path / "a" / "in")})
        await asyncio.to_thread(other.follow, {str(tmp_path / "ab")})
        (tmp_path / "a" / "in" / "1").touch()
        (tmp_path / "ab" / "2").touch()
        assert await heard(outer, lambda names, _: bool(names)) == {"1"}
        assert await heard(other, lambda names, _: bool(names)) == {"2"}


async def test_a_name_that_watchfiles_cannot_tell_loses_only_what_is_told_as_lost(
    tmp_path: Path,
) -> None:
    async with listening(recursive=True) as notices:
        await asyncio.to_thread(notices.follow, {str(tmp_path)})
        for number in range(3):
            with open(os.fsencode(tmp_path) + b"/caf\xe9%d" % number, "w"):
                await heard(notices, lambda _, lost: lost)
        (tmp_path / "next").touch()
        await heard(notices, lambda names, lost: lost or "next" in names)
        assert notices.fault == ""


async def test_a_missing_directory_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    async with listening(recursive=False) as notices:
        await asyncio.to_thread(notices.follow, {str(tmp_path / "there"), str(tmp_path / "absent")})
        (tmp_path / "there" / "1").touch()
        assert await heard(notices, lambda names, _: bool(names)) == {"1"}


async def test_a_failure_is_shown_and_the_next_try_clears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with listening(recursive=True) as notices:
        with monkeypatch.context() as patch:
            patch.setattr("triggers.notices.RustNotify", refuse)
            assert not await asyncio.to_thread(notices.follow, {str(tmp_path)})
            assert notices.fault == "No space left on device"
        assert await asyncio.to_thread(notices.follow, {str(tmp_path)})
        assert notices.fault == ""


async def test_a_listener_that_is_cancelled_while_it_begins_leaves_no_thread(
    tmp_path: Path,
) -> None:
    async def listen() -> None:
        async with listening(recursive=True) as notices:
            await asyncio.to_thread(notices.follow, {str(tmp_path)})
            await asyncio.Event().wait()

    task = asyncio.create_task(listen())
    async with asyncio.timeout(DEADLINE_S):
        while unwatched([tmp_path.stat().st_ino]):  # noqa: ASYNC110 - the kernel has no event
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [each for each in threading.enumerate() if each.name == "watchfiles"]

"""Tailed files on the real file system."""

# Test code may block its own loop for a moment.

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from trigger_context import Context, running

from eventd.plugin import SourceSettings, Trigger
from triggers.log import LogConfig, LogTrigger


@pytest.fixture
async def context(tmp_path: Path) -> Context:
    return Context(SourceSettings(tmp_path, "1200340056007800", "cn-local"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def trigger(path: str, **config: Any) -> Trigger[LogConfig]:
    raw = {"path": path, "batchWindowSeconds": 0.01, **config}
    return Trigger(
        id="t-1",
        service="s",
        function="f",
        name="lines",
        qualifier="LATEST",
        source_arn=None,
        config=LogConfig.model_validate(raw),
        raw_config=raw,
        created_time="2026-11-24T00:00:00Z",
        last_modified_time="2026-11-24T00:00:00Z",
    )


def source(context: Context, path: str, **config: Any) -> Any:
    return LogTrigger().source(trigger(path, **config), context.settings)


def lines(context: Context) -> list[str]:
    return [line for body in context.bodies() for line in body["lines"]]


async def wait_following(context: Context) -> None:
    await context.wait(lambda: context.cursor is not None)


async def wait_lines(context: Context, count: int) -> list[str]:
    await context.wait(lambda: len(lines(context)) >= count)
    return lines(context)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def test_a_new_trigger_starts_at_the_end_of_what_is_there(
    log: Path, context: Context
) -> None:
    append(log, "old 1\nold 2\nbegun")
    async with running(source(context, "app.log"), context):
        await wait_following(context)
        append(log, " and ended\nnew\r\n")
        await wait_lines(context, 2)

    assert lines(context) == ["begun and ended", "new"]


async def test_starting_position_begin_reads_everything(log: Path, context: Context) -> None:
    append(log, "".join(f"line {number}\n" for number in range(5000)))
    config = {"startingPosition": "begin", "batchLines": 700}
    async with running(source(context, "app.log", **config), context):
        await wait_lines(context, 5000)

    assert lines(context) == [f"line {number}" for number in range(5000)]
    assert max(len(body["lines"]) for body in context.bodies()) == 700


async def test_the_event_has_the_shape_of_fc_and_ranges_that_join(
    log: Path, context: Context
) -> None:
    append(log, "")
    config = {"functionParameter": {"level": "ERROR"}}
    async with running(source(context, "app.log", **config), context):
        await wait_following(context)
        append(log, "one\n")
        await wait_lines(context, 1)
        append(log, "two\n")
        await wait_lines(context, 2)

    first, second = context.bodies()
    assert set(first) == {"parameter", "source", "jobName", "taskId", "cursorTime", "lines"}
    assert first["parameter"] == {"level": "ERROR"}
    assert first["source"]["logstoreName"] == str(log)
    assert isinstance(first["source"]["shardId"], int)
    assert isinstance(first["cursorTime"], int)
    assert len(first["jobName"]) == 40
    assert first["jobName"] == second["jobName"]
    assert first["taskId"] != second["taskId"]
    assert first["source"]["endCursor"] == second["source"]["beginCursor"]
    inode = log.stat().st_ino
    assert base64.b64decode(second["source"]["endCursor"]).decode() == f"{inode}:8"


async def test_a_last_line_waits_for_its_line_break(log: Path, context: Context) -> None:
    append(log, "")
    async with running(source(context, "app.log", flushPartialSeconds=0), context):
        await wait_following(context)
        append(log, "whole\npar")
        await wait_lines(context, 1)
        append(log, "tial\n")
        await wait_lines(context, 2)

    assert lines(context) == ["whole", "partial"]


async def test_a_last_line_without_line_break_is_taken_after_a_while(
    log: Path, context: Context
) -> None:
    append(log, "")
    async with running(source(context, "app.log", flushPartialSeconds=0.3), context):
        await wait_following(context)
        append(log, "no end")
        await wait_lines(context, 1)
        append(log, "\nnext\n")
        await context.wait(lambda: "next" in lines(context))

    assert lines(context) == ["no end", "", "next"]


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
async def test_rotation_by_rename_loses_and_repeats_nothing(
    log: Path, context: Context, pattern: str
) -> None:
    append(log, "")
    expected = []
    async with running(source(context, pattern), context):
        await wait_following(context)
        for number in range(20):
            append(log, f"before {number}\n")
            log.rename(log.with_name(f"app.log.{number}"))
            append(log.with_name(f"app.log.{number}"), f"late {number}\n")
            append(log, f"after {number}\n")
            expected += [f"before {number}", f"late {number}", f"after {number}"]
            await wait_lines(context, len(expected))

    assert sorted(lines(context)) == sorted(expected)


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
async def test_rotation_by_copy_and_truncation_loses_and_repeats_nothing(
    log: Path, context: Context, pattern: str
) -> None:
    append(log, "")
    expected = []
    async with running(source(context, pattern), context):
        await wait_following(context)
        for number in range(10):
            append(log, f"seen {number}\n")
            expected.append(f"seen {number}")
            await wait_lines(context, len(expected))
            append(log, f"perhaps not seen {number}\n")
            shutil.copyfile(log, log.with_name(f"app.log.{number}"))
            os.truncate(log, 0)
            append(log, f"x{number}\n")
            expected += [f"perhaps not seen {number}", f"x{number}"]
            await wait_lines(context, len(expected))

    assert lines(context) == expected


async def test_a_restart_goes_on_where_it_was(log: Path, context: Context) -> None:
    append(log, "")
    async with running(source(context, "app.log"), context):
        await wait_following(context)
        append(log, "one\ntw")
        await wait_lines(context, 1)
    append(log, "o\nthree\n")
    async with running(source(context, "app.log"), context):
        await wait_lines(context, 3)

    assert lines(context) == ["one", "two", "three"]


async def test_rotation_during_downtime_loses_nothing(log: Path, context: Context) -> None:
    append(log, "")
    async with running(source(context, "app.log"), context):
        await wait_following(context)
        append(log, "one\n")
        await wait_lines(context, 1)
    append(log, "two\n")
    log.rename(log.with_name("app.log.1"))
    append(log, "three\n")
    async with running(source(context, "app.log"), context):
        await wait_lines(context, 3)

    assert sorted(lines(context)) == ["one", "three", "two"]


async def test_files_made_and_rotated_during_downtime_are_read_too(
    log: Path, context: Context
) -> None:
    append(log.with_name("app.log.0"), "before there was a trigger\n")
    os.utime(log.with_name("app.log.0"), (1_700_000_000, 1_700_000_000))
    append(log, "")
    async with running(source(context, "app.log"), context):
        await wait_following(context)
        append(log, "one\n")
        await wait_lines(context, 1)
    for number in (1, 2, 3):
        append(log, f"line {number}\n")
        log.rename(log.with_name(f"app.log.{number}"))
    append(log.with_name("app.log.offset"), "no rotated log\n")
    append(log, "end\n")
    async with running(source(context, "app.log"), context):
        await wait_lines(context, 5)

    assert sorted(lines(context)) == ["end", "line 1", "line 2", "line 3", "one"]


async def test_copy_and_truncation_during_downtime_lose_and_repeat_nothing(
    log: Path, context: Context
) -> None:
    append(log, "")
    async with running(source(context, "app.log"), context):
        await wait_following(context)
        append(log, "one\n")
        await wait_lines(context, 1)
    append(log, "two\n")
    shutil.copyfile(log, log.with_name("app.log.1"))
    os.truncate(log, 0)
    append(log, "a longer line than before\n")
    async with running(source(context, "app.log"), context):
        await wait_lines(context, 3)

    assert lines(context) == ["one", "two", "a longer line than before"]


async def test_new_files_and_directories_of_a_glob_are_read_from_their_start(
    tmp_path: Path, context: Context
) -> None:
    async with running(source(context, "logs/**/*.log"), context):
        await wait_following(context)
        (tmp_path / "logs").mkdir()
        append(tmp_path / "logs" / "a.log", "a\n")
        await wait_lines(context, 1)
        (tmp_path / "logs" / "deep").mkdir()
        append(tmp_path / "logs" / "deep" / "b.log", "b\n")
        append(tmp_path / "logs" / "deep" / "c.txt", "c\n")
        await wait_lines(context, 2)
        append(tmp_path / "logs" / "a.log", "again\n")
        await wait_lines(context, 3)

    assert sorted(lines(context)) == ["a", "again", "b"]


async def test_a_line_longer_than_a_batch_comes_in_pieces(log: Path, context: Context) -> None:
    append(log, "")
    text = "ä" * 5000
    async with running(source(context, "app.log", batchBytes=1025), context):
        await wait_following(context)
        append(log, f"{text}\nend\n")
        await context.wait(lambda: "end" in lines(context))

    assert "".join(lines(context)[:-1]) == text


async def test_bytes_that_are_no_text_are_replaced(log: Path, context: Context) -> None:
    append(log, "")
    async with running(source(context, "app.log"), context):
        await wait_following(context)
        with log.open("ab") as file:
            file.write(b"\xff\x00bad\n")
        await wait_lines(context, 1)

    assert lines(context) == ["\ufffd\x00bad"]


async def test_a_file_that_cannot_be_read_is_reported_beside_the_others(
    log: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, "")
    closed = log.with_name("closed.log")
    append(closed, "secret\n")
    opened = os.open

    def guarded(path: Any, *rest: Any, **more: Any) -> int:
        if str(path) == str(closed):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *rest, **more)

    monkeypatch.setattr("triggers.tail.os.open", guarded)
    async with running(source(context, "*.log"), context):
        await wait_following(context)
        append(log, "one\n")
        await wait_lines(context, 1)

    assert not context.reports[-1].healthy
    assert "closed.log" in context.reports[-1].text


async def test_while_watchfiles_cannot_watch_lines_are_read_all_the_same_and_it_says_so(
    log: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    append(log, "")
    monkeypatch.setattr("triggers.notices.RustNotify", refuse)
    async with running(source(context, "app.log"), context):
        await wait_following(context)
        append(log, "one\n")
        await wait_lines(context, 1)
        await context.wait(lambda: "not watched (Too many" in context.reports[-1].text)


async def test_a_directory_that_takes_the_place_of_another_is_watched(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triggers.log.FIND_S", 3600.0)
    directory = tmp_path / "logs"
    directory.mkdir()
    async with running(source(context, "logs/*.log", flushPartialSeconds=0), context):
        await wait_following(context)
        for number in range(3):
            append(directory / "app.log", f"{number}\n")
            await wait_lines(context, number + 1)
            directory.rename(tmp_path / f"old-{number}")
            directory.mkdir()

    assert lines(context) == ["0", "1", "2"]


async def test_a_logstore_of_fc_is_reported_as_missing(context: Context) -> None:
    config = LogConfig.model_validate({"sourceConfig": {"logstore": "access"}})
    base = trigger("unused")
    fc = Trigger(
        **{name: getattr(base, name) for name in base.__slots__ if name != "config"}, config=config
    )
    async with running(LogTrigger().source(fc, context.settings), context):
        await context.wait(lambda: bool(context.reports))
        await asyncio.sleep(0)

    assert "no such logstore yet: access" in context.reports[-1].text
    assert not context.reports[-1].healthy

"""The daemon's loop is uvloop; the other tests run on asyncio's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop
from trigger_context import Context, running

from eventd.plugin import SourceSettings, Trigger
from triggers.log import LogConfig, LogTrigger
from triggers.oss.directory import COMPLETE, DirectorySource
from triggers.oss.events import parse_arn
from triggers.oss.watch import DirectoryOptions


def test_a_bucket_is_watched_on_uvloop(tmp_path: Path) -> None:
    async def scenario() -> list[tuple[str, str]]:
        context = Context(SourceSettings(tmp_path, "1", "cn-local"))
        bucket = parse_arn("acs:oss:cn-local:1:photos")
        async with running(DirectorySource(bucket, tmp_path, DirectoryOptions()), context):
            await context.wait(lambda: (context.cursor or "").startswith(COMPLETE))
            await asyncio.to_thread((tmp_path / "new").write_text, "new")
            await context.wait_events(1)
            await asyncio.to_thread((tmp_path / "new").unlink)
            await context.wait_events(2)
        return context.told()

    assert uvloop.run(scenario()) == [("PutObject", "new"), ("DeleteObject", "new")]


def test_a_file_is_followed_on_uvloop(tmp_path: Path) -> None:
    config = {"path": "app.log", "startingPosition": "begin"}
    trigger = Trigger(
        id="t-1",
        service="s",
        function="f",
        name="lines",
        qualifier="LATEST",
        source_arn=None,
        config=LogConfig.model_validate(config),
        raw_config=config,
        created_time="2026-11-24T00:00:00Z",
        last_modified_time="2026-11-24T00:00:00Z",
    )

    async def scenario() -> list[list[str]]:
        context = Context(SourceSettings(tmp_path, "1", "cn-local"))
        async with running(LogTrigger().source(trigger, context.settings), context):
            await context.wait(lambda: context.cursor is not None)
            await asyncio.to_thread((tmp_path / "app.log").write_text, "one\ntwo\n")
            await context.wait_events(1)
        return [body["lines"] for body in context.bodies()]

    assert uvloop.run(scenario()) == [["one", "two"]]

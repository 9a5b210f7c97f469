"""Trigger types come from installed packages alone; eventd itself knows none of them."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

from system_node import KEY_ID, SECRET, Node, NodeFactory, until
from witness import Witness

DATA = Path(__file__).resolve().parents[1] / "data"
REPOSITORY = Path(__file__).resolve().parents[2]


def install(package: Path, site: Path, *, only: str = "", entry_points: bool = True) -> None:
    """Put ``package`` into ``site`` as ``pip install --target`` does, without a build backend: its
    modules, and the ``.dist-info`` by which it is found. ``only``: this module of it."""
    project = tomllib.loads((package / "pyproject.toml").read_text())
    modules = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for module in modules:
        if only in ("", module):
            shutil.copytree(
                package / module, site / module, ignore=shutil.ignore_patterns("__pycache__")
            )
    about = project["project"]
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    )
    groups = about.get("entry-points", {}) if entry_points else {}
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
            for group, points in groups.items()
        )
    )


async def trigger_status(one: Node, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        row for row in (await one.status())["triggers"] if row["trigger"] == name
    )
    return found


async def test_a_package_brings_its_own_trigger_type(node: NodeFactory, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(DATA / "extra_trigger", site)
    async with Witness() as witness:
        env = {
            "PYTHONPATH": str(site),
            "EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}",
        }
        source = witness.source + (
            "def handler(event, context):\n    done(tell(str(json.loads(event)['beat'])))\n"
        )
        first = node(env=env)
        async with first:
            await first.deploy("beats", source)
            made = await first.trigger("beats", "pulse", "heartbeat", {"intervalMs": 50})
            assert (made["triggerType"], made["sourceArn"]) == ("heartbeat", None)
            await until(lambda: witness.finished["5"], "the fifth beat")
            shown = await trigger_status(first, "pulse")
            assert shown["healthy"]
            assert shown["text"].startswith("beat ")

            path = "/2016-08-15/services/svc/functions/beats/triggers"
            for config, field in (
                (b'{"intervalMs": 1}', "TriggerConfig.intervalMs"),
                (b'{"intervalMs": "50"}', "TriggerConfig.intervalMs"),
                (b'{"intervall": 50}', "TriggerConfig.intervall"),
            ):
                refused = await first.request(
                    "PUT", f"{path}/pulse", b'{"triggerConfig": ' + config + b"}"
                )
                answer = refused.json()
                assert (refused.status, answer["ErrorCode"]) == (400, "InvalidArgument"), answer
                assert answer["ErrorMessage"].startswith(field), answer

            put = {"triggerConfig": {"enable": False}}
            await first.api("PUT", "/services/svc/functions/beats/triggers/pulse", put)
            queue = await until(lambda: _drained(first), "the end of the accepted beats")
            assert queue["deadLetters"] == 0
            quiet = sum(witness.finished.values())
        async with node(data=first.data, env=env) as second:
            put = {"triggerConfig": {"enable": True}}
            await second.api("PUT", "/services/svc/functions/beats/triggers/pulse", put)
            await until(lambda: sum(witness.finished.values()) >= quiet + 3, "beats go on")

    ran = sorted(map(int, witness.finished))
    assert ran == list(range(1, ran[-1] + 1)), "no beat was lost"
    assert set(witness.finished.values()) == {1}, "none ran twice"


async def _drained(one: Node) -> Any:
    queue = (await one.status())["queue"]
    return queue if not (queue["waiting"] or queue["claimed"]) else None


async def test_a_daemon_without_any_adapter_serves(node: NodeFactory, tmp_path: Path) -> None:
    """Its own distribution, found first, has no entry points, and no ``triggers`` beside it."""
    site = tmp_path / "site"
    site.mkdir()
    install(REPOSITORY, site, only="eventd", entry_points=False)
    bare = {"PYTHONPATH": str(site)}
    first = node()
    async with first:
        await first.deploy("f", "def handler(event, context):\n    return event\n")
        await first.trigger("f", "tick", "timer", {"cronExpression": "@every 1h", "enable": True})

    async with node(data=first.data, env=bare) as second:
        answer = await second.invoke("f", b"still")
        assert (answer.status, answer.body) == (200, b"still")
        shown = await trigger_status(second, "tick")
        assert not shown["healthy"]
        assert shown["text"] == "no adapter for 'timer'; installed: none"
        refused = await second.request(
            "POST",
            "/2016-08-15/services/svc/functions/f/triggers",
            b'{"triggerName": "new", "triggerType": "timer", "triggerConfig": {}}',
        )
        assert (refused.status, refused.json()["ErrorCode"]) == (400, "InvalidArgument")
        assert "none is installed" in refused.json()["ErrorMessage"]
        removed = await second.request(
            "DELETE", "/2016-08-15/services/svc/functions/f/triggers/tick"
        )
        assert removed.status == 204


async def test_a_plug_in_that_breaks_on_import_is_shown_and_harms_no_other(
    node: NodeFactory, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(DATA / "broken_trigger", site)
    install(DATA / "extra_trigger", site)
    async with node(env={"PYTHONPATH": str(site)}) as one:
        await one.deploy("f", "def handler(event, context):\n    return b''\n")
        await one.trigger("f", "pulse", "heartbeat", {})
        await one.trigger("f", "tick", "timer", {"cronExpression": "@every 1h", "enable": True})
        status = await one.status()
        shown = await status_command(one)

    assert status["brokenAdapters"] == [
        {
            "name": "broken",
            "target": "broken_trigger:BrokenTrigger",
            "error": "RuntimeError: libpigeon.so.3 is not installed",
        }
    ]
    assert "trigger type broken is not usable: RuntimeError: libpigeon.so.3" in shown
    healthy = {row["trigger"]: row["healthy"] for row in status["triggers"]}
    assert healthy == {"pulse": True, "tick": True}


async def status_command(one: Node) -> str:
    process = await create_subprocess_exec(
        sys.executable, "-m", "eventd", "status", "--endpoint", one.url,
        env={**os.environ, "EVENTD_ACCESS_KEY_ID": KEY_ID, "EVENTD_ACCESS_KEY_SECRET": SECRET},
        stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    return output.decode()

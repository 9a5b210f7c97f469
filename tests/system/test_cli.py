"""The command line against a whole daemon, as somebody at a terminal of 80 columns sees it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from system_node import KEY_ID, SECRET, Node, NodeFactory, until

COLUMNS = 80
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def command_line(one: Node, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EVENTD_")}
    environment.pop("COLUMNS", None)
    environment |= {
        "EVENTD_ENDPOINT": one.url,
        "EVENTD_ACCESS_KEY_ID": KEY_ID,
        "EVENTD_ACCESS_KEY_SECRET": SECRET,
        "TERM": "xterm",
    }
    return [sys.executable, "-m", "eventd", *words], environment


async def run(one: Node, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in a pipe."""
    command, environment = command_line(one, *words)
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, complaint = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in complaint
    return process.returncode, output.decode(), complaint.decode()


class Terminal:
    """What a command has written to its terminal so far, without colours."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.raw = bytearray()

    def text(self) -> str:
        return _CONTROL.sub("", self.raw.decode(errors="replace")).replace("\r", "")


@asynccontextmanager
async def terminal(one: Node, *words: str) -> AsyncIterator[Terminal]:
    """Run a command on a terminal of 80 columns; killed if it is still there afterwards."""
    command, environment = command_line(one, *words)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
    finally:
        os.close(theirs)
    shown = Terminal(process)
    ended = asyncio.Event()

    def readable() -> None:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            chunk = b""
        shown.raw.extend(chunk)
        if not chunk:
            loop.remove_reader(ours)
            ended.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(ours, readable)
    try:
        yield shown
        async with asyncio.timeout(30):
            await process.wait()
            await ended.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(ours)
        os.close(ours)


async def test_status_fits_80_columns(node: NodeFactory) -> None:
    async with node() as one:
        await one.deploy("resize-pictures", "def handler(event, context):\n    return b'x'\n")
        timer = {"cronExpression": "0 0 3 * * *", "enable": True}
        await one.trigger("resize-pictures", "every-night", "timer", timer)
        await one.invoke("resize-pictures")
        async with terminal(one, "status") as shown:
            pass
        lines = shown.text().splitlines()

    assert max(map(len, lines)) <= COLUMNS
    for part in ("svc/resize-pictures", "every-night", "next at ", "0 dead letters"):
        assert part in shown.text()
    assert not re.search(r"None|\{'|<\w+ object", shown.text())


@pytest.mark.parametrize("words", [("status", "--watch"), ("logs", "--follow")])
async def test_ctrl_c_ends_what_goes_on_by_itself(
    node: NodeFactory, words: tuple[str, ...]
) -> None:
    async with node() as one:
        await one.deploy("f", "def handler(event, context):\n    print('printed by f')\n")
        async with terminal(one, *words) as shown:
            if words[0] == "logs":
                # A new line is certain to be shown only once the command listens.
                async def called() -> bool:
                    await one.invoke("f")
                    return "printed by f" in shown.text()

                await until(called, "the first line")
            else:
                await until(lambda: "svc/f" in shown.text(), "the first table")
            shown.process.send_signal(signal.SIGINT)
    assert shown.process.returncode == 130
    assert "Traceback" not in shown.text()
    assert "KeyboardInterrupt" not in shown.text()
    if words[0] == "status":
        assert shown.raw.count(b"\x1b[?1049l") == 1, "the terminal is given back"
        assert b"\x1b[?25h" in shown.raw, "with its cursor"


async def test_a_function_with_an_http_trigger_is_told_by_its_url(node: NodeFactory) -> None:
    async with node() as one:
        await one.deploy(
            "web", "def handler(environ, start):\n    start('200 OK', [])\n    return b''\n"
        )
        await one.trigger("web", "http", "http", {"authType": "anonymous", "methods": ["GET"]})
        code, output, complaint = await run(one, "invoke", "svc/web")

    assert (code, output) == (4, "")
    assert f"curl '{one.url}/2016-08-15/proxy/svc/web/'" in complaint


async def test_logs_tell_a_wrong_name_from_a_quiet_function(node: NodeFactory) -> None:
    async with node() as one:
        await one.deploy("quiet", "def handler(event, context):\n    return b''\n")
        quiet = await run(one, "logs", "svc/quiet")
        wrong = [await run(one, "logs", name) for name in ("svc/quit", "scv")]

    assert quiet == (0, "", "no such lines; a function logs when it is called\n")
    assert [code for code, _, _ in wrong] == [4, 4]
    assert "FunctionNotFound: function 'quit' does not exist in service 'svc'" in wrong[0][2]
    assert "ServiceNotFound: service 'scv' does not exist" in wrong[1][2]


async def test_following_a_name_that_is_not_there_says_so_and_goes_on(node: NodeFactory) -> None:
    async with node() as one, terminal(one, "logs", "svc/later", "--follow") as shown:
        await until(
            lambda: "service 'svc' does not exist; waiting for it" in shown.text(),
            "the warning",
        )
        await one.deploy("later", "def handler(event, context):\n    print('printed by it')\n")

        async def called() -> bool:
            await one.invoke("later")
            return "printed by it" in shown.text()

        await until(called, "the first line")
        shown.process.send_signal(signal.SIGINT)
    assert shown.process.returncode == 130


async def test_what_cannot_be_reached_is_told_in_one_plain_line(node: NodeFactory) -> None:
    async with node() as one:
        other = node()
        other.port = one.port
        process = await other.launch()
        async with asyncio.timeout(30):
            assert await process.wait() == 2
        await other.end()
        publish = ("publish", "orders", "m", "--bootstrap-servers", "127.0.0.1:1")
        code, output, complaint = await run(one, *publish)

    listen = f"127.0.0.1:{one.port}"
    said = f"cannot listen on {listen}: address already in use; give another --listen"
    assert said in other.output.decode()
    assert (code, output) == (3, "")
    assert complaint == "eventd: no Kafka broker answers at 127.0.0.1:1\n"


async def test_doctor_fits_80_columns(node: NodeFactory, tmp_path: Path) -> None:
    async with terminal(node(), "doctor", "--data", str(tmp_path)) as shown:
        pass
    text = shown.text()
    assert shown.process.returncode == 0
    # A path is not broken; everything else is.
    assert all(len(line) <= COLUMNS or str(tmp_path) in line for line in text.splitlines())
    assert re.search(r"^\d+ missing, \d+ could be better, \d+ looked at$", text, re.MULTILINE)

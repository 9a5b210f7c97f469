"""The pages are true: their commands run, what they name exists, what is made is current."""

from __future__ import annotations

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blocks import BLOCK_S, KINDS, PAGES, REPOSITORY, Block, Session, blocks

STARTED = "Try it:"
SHARED = ("Makefile", "scripts", "docs", "pyproject.toml", "constraints.txt", ".venv")
"""What the commands of the pages use from the checkout; the rest happens in a directory aside."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def made_run(directory: Path, block: Block, address: str) -> Iterator[dict[str, str]]:
    """``make run`` as the page gives it, until Ctrl-C; gives the environment for a terminal
    beside it. Asserts that it starts, and that it ends cleanly."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EVENTD_")}
    environment.pop("MAKEFLAGS", None)
    environment.pop("MAKELEVEL", None)
    (command,) = block.text.splitlines()
    assert command == "make run"
    process = subprocess.Popen(
        ["make", "run", "-o", ".venv/.installed", f"LISTEN={address}"],
        cwd=directory, env=environment, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    output: list[str] = []
    started = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            output.append(line)
            if line.startswith(STARTED):
                started.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while not started.wait(0.1):
            assert process.poll() is None, "make run ended:\n" + "".join(output)
        yield environment
    finally:
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C sends
        process.wait(BLOCK_S)
        reader.join(BLOCK_S)
        process.stdout.close()
    assert "Traceback" not in "".join(output)
    for ended in (address, (directory / "data" / "kafka").read_text().strip()):
        host, _, port = ended.rpartition(":")
        with pytest.raises(OSError):
            socket.create_connection((host, int(port)), timeout=1).close()


def test_every_command_block_of_every_page_works(tmp_path: Path) -> None:
    for name in SHARED:
        (tmp_path / name).symlink_to(REPOSITORY / name)
    address = f"127.0.0.1:{free_port()}"
    pages = {page: blocks(page) for page in PAGES}
    (start,) = (one for found in pages.values() for one in found if one.kind == "make run")

    with made_run(tmp_path, start, address) as environment:
        for found in pages.values():
            session = Session(tmp_path, environment, address)
            for block in found:
                if block.kind == "demo":
                    session.run(block)
        _assert_a_second_run_leaves_the_first_alone(tmp_path, environment)


def _assert_a_second_run_leaves_the_first_alone(
    directory: Path, environment: dict[str, str]
) -> None:
    second = subprocess.run(
        ["make", "run", "-o", ".venv/.installed", f"LISTEN=127.0.0.1:{free_port()}"],
        cwd=directory, env=environment, capture_output=True, text=True,
        timeout=BLOCK_S, check=False,
    )  # fmt: skip
    assert second.returncode != 0
    assert "is in use by process" in second.stderr

    for command in ([".venv/bin/eventd", "status"], ["make", "publish", "TOPIC=a", "MESSAGE=b"]):
        subprocess.run(command, cwd=directory, env=environment, check=True, timeout=BLOCK_S)


def test_every_command_block_says_how_it_is_tested() -> None:
    found = [block for page in PAGES for block in blocks(page)]

    assert len(found) >= 8
    assert [block.place for block in found if block.kind not in KINDS] == []


def test_the_command_that_runs_this_test_exists() -> None:
    (block,) = (one for page in PAGES for one in blocks(page) if one.kind == "is this run")

    shown = subprocess.run(
        [*block.text.split(), "-n"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=BLOCK_S,
    )  # fmt: skip

    assert "scripts/test.sh" in shown.stdout
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("settings.md", [sys.executable, "-m", "eventd", "settings", "--markdown"]),
        ("commands.md", [sys.executable, "scripts/command_reference.py"]),
    ],
)
def test_the_reference_is_current(page: str, command: list[str]) -> None:
    made = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=BLOCK_S
    ).stdout

    assert (REPOSITORY / "docs" / "reference" / page).read_text() == made, "run: make docs"


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    named = set(
        re.findall(r"`((?:eventd|triggers|tests|scripts|docs)/[\w./-]*)(?::[\w.]+)?`", text)
    )
    linked = set(re.findall(r"\]\(((?!https?:)[^)#]+)\)", text))

    missing = [name for name in named if not (REPOSITORY / name).exists()]
    missing += [name for name in linked if not (REPOSITORY / page).parent.joinpath(name).exists()]

    assert named
    assert missing == []


def test_every_function_that_the_architecture_names_exists() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:eventd|triggers)/[\w/]+\.py):(\w+)(?:\.(\w+))?`", text)

    assert len(named) >= 20
    for path, name, method in named:
        module = ast.parse((REPOSITORY / path).read_text())
        found = [one for one in module.body if getattr(one, "name", "") == name]
        assert found, f"{path}:{name}"
        if method:
            body = getattr(found[0], "body", [])
            assert method in [getattr(one, "name", "") for one in body], f"{path}:{name}.{method}"


def test_every_example_in_a_help_text_is_a_command_that_parses() -> None:
    """``eventd X ...`` lines of the reference: the command and its options exist."""
    reference = (REPOSITORY / "docs" / "reference" / "commands.md").read_text()
    example = r"^    (?:\S+=\S+ |echo .* \| )?eventd ([a-z-]+)(.*)$"
    examples = re.findall(example, reference, re.MULTILINE)
    section = r"^## eventd ([a-z-]+)\n\n```text\n(.*?)^```$"
    helps = dict(re.findall(section, reference, re.MULTILINE | re.DOTALL))

    assert len(examples) >= 15
    for command, rest in examples:
        for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest.split(" | ")[0]):
            assert re.search(rf"^  .*{option}\b", helps[command], re.MULTILINE), (command, option)

"""The command blocks of a page, with the marks before them.

A mark is an HTML comment right before a block of shell commands: ``test:`` says how it is run,
``expect:`` what its output contains, ``until:`` what it contains when repeated for a while.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = (REPOSITORY / "README.md", REPOSITORY / "docs" / "tutorial" / "first-function.md")

KINDS = ("make run", "demo", "is this run")
REPEAT_S = 60.0
BLOCK_S = 120.0

_BLOCK = re.compile(
    r"((?:^<!--[^\n]*-->\n)*)^```(?:sh|bash|shell|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"^<!-- (test|expect|until): (.*?) -->$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: ``place`` is ``FILE:LINE`` for messages."""

    place: str
    kind: str
    text: str
    expect: tuple[str, ...]
    until: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """All shell blocks of a page, in order; ``kind`` is empty for one without a mark."""
    source = page.read_text()
    found = []
    for match in _BLOCK.finditer(source):
        marks: dict[str, list[str]] = {"test": [], "expect": [], "until": []}
        for name, value in _MARK.findall(match[1]):
            marks[name].append(value)
        line = source.count("\n", 0, match.start(2)) + 1
        kind = marks["test"][0] if len(marks["test"]) == 1 else ""
        place = f"{page.name}:{line}"
        found.append(Block(place, kind, match[2], tuple(marks["expect"]), tuple(marks["until"])))
    return found


class Session:
    """Runs blocks one after the other in ``directory``; variables they set live on, as in the
    reader's terminal."""

    def __init__(self, directory: Path, environment: Mapping[str, str], address: str) -> None:
        self._directory = directory
        self._environment = dict(environment)
        self._address = address

    def run(self, block: Block) -> None:
        """Run it; asserts exit code 0 and what the marks promise."""
        deadline = time.monotonic() + REPEAT_S
        while True:
            output = self._once(block)
            missing = [text for text in block.until if text not in output]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert not missing, f"{block.place}: {missing} not in\n{output}"
        for text in block.expect:
            assert text in output, f"{block.place}: {text!r} not in\n{output}"

    def _once(self, block: Block) -> str:
        kept = self._directory / ".environment"
        script = block.text.replace("127.0.0.1:9980", self._address)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > {kept}"],
            cwd=self._directory, env=self._environment, timeout=BLOCK_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block.place}: exit code {done.returncode}\n{done.stdout}"
        pairs = kept.read_bytes().split(b"\0")[:-1]
        self._environment = {
            os.fsdecode(name): os.fsdecode(value)
            for name, _, value in (pair.partition(b"=") for pair in pairs)
        }
        return done.stdout

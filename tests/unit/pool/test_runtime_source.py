"""The Python runtime runs on interpreters older than the daemon's."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[3] / "eventd" / "runtimes" / "python"
FILES = sorted(RUNTIME.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_runtime_is_python_3_8_and_uses_the_standard_library_alone(file: Path) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 8))

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names}


def test_there_is_a_runtime_to_look_at() -> None:
    assert "bootstrap.py" in {file.name for file in FILES}

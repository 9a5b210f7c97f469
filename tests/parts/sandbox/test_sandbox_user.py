"""The levels that an ordinary user gets, and the other event loop."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from eventd.pool.sandbox import order
from eventd.pool.sandbox.stock import open_to_others
from eventd.pool.zygote import SpawnSpec, Zygote

HERE = Path(__file__).parent
NOBODY = 65534


def _python() -> str:
    """An interpreter that any user may run."""
    candidates = [sys.executable, *(f"/usr/bin/python3.{minor}" for minor in range(15, 10, -1))]
    for candidate in candidates:
        real = os.path.realpath(candidate)
        if os.path.exists(real) and open_to_others(os.path.dirname(real)):
            return real
    pytest.skip("there is no Python here that an ordinary user could run")


@pytest.mark.root
@pytest.mark.parametrize("at_most", [order.USER_NAMESPACES, order.PROCESS])
def test_an_ordinary_user_gets_isolated_instances(tmp_path: Path, at_most: int) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and "pytest" in str(parent):
            parent.chmod(0o711)
    shutil.copytree(HERE.parents[2] / "eventd", tmp_path / "lib" / "eventd")
    for name in ("visitor.py", "echo_bootstrap.py"):
        shutil.copy(HERE / name, tmp_path / "lib" / name)
    place = tmp_path / "place"
    (place / "code").mkdir(parents=True)
    (place / "code" / "answer.py").write_text("VALUE = 42\n")
    os.chown(place, NOBODY, NOBODY)

    done = subprocess.run(
        [_python(), str(tmp_path / "lib" / "visitor.py"), str(place), str(at_most)],
        env={"PYTHONPATH": str(tmp_path / "lib"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=90,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        check=False,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["level"] == at_most
    assert found["value"] == "42"
    assert found["pid"] > 1
    if at_most == order.USER_NAMESPACES:
        assert "Read-only" in found["write"]
        assert found["uid"] == "1000"
        assert found["pids"] == "['1']"
        assert found["state"] == "None"
        assert "'code'" in found["root"]
        assert "'home'" not in found["root"]
    else:
        assert "ermi" in found["write"]
        assert "ermi" in found["root"]
    code, oom, peak_mb = found["end"]
    assert (code, oom) == (-9, True)
    assert 128 < peak_mb < 1000
    assert found["hog"] == ""


@pytest.mark.root
def test_the_zygote_works_on_uvloop(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()

    async def visit() -> tuple[int, bool]:
        zygote = Zygote(state_dir=tmp_path / "state", bootstrap=HERE / "echo_bootstrap.py")
        async with zygote:
            ours, theirs = socket.socketpair()
            process = await zygote.spawn(SpawnSpec("c-1", str(code), 128), theirs)
            ours.close()
            return (await process.wait()).code, process.running

    assert uvloop.run(visit()) == (0, False)

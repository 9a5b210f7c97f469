"""Leases of the real kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from triggers.oss.lease import Writer, leases_tell, look

WRITER_WHILE_HELD = """
import os, subprocess, sys
from triggers.oss import lease

stat = os.fstat

def stat_with_a_writer(descriptor):
    writer = "import os, sys; os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)"
    refused = subprocess.run([sys.executable, "-c", writer, sys.argv[1]], capture_output=True)
    assert b"BlockingIOError" in refused.stderr, refused.stderr
    return stat(descriptor)

lease.os.fstat = stat_with_a_writer
print(lease.look(sys.argv[1])[1].name)
"""


def test_a_file_tells_whether_somebody_writes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as file:
        assert look(str(path))[1] is Writer.SOMEBODY
        file.write("12345")
    status, writer = look(str(path))

    assert (status.st_size, writer) == (5, Writer.NONE)
    with path.open():
        assert look(str(path))[1] is Writer.NONE  # a reader is no writer


def test_a_writer_that_comes_while_the_lease_is_held_does_not_end_the_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    path.write_text("x")

    done = subprocess.run(
        [sys.executable, "-c", WRITER_WHILE_HELD, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=Path(__file__).parents[3],
    )

    assert (done.returncode, done.stdout) == (0, "NONE\n"), done.stderr


def test_leases_are_not_trusted_on_foreign_file_systems(tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mountinfo = tmp_path / "mountinfo"

    def mounted(kind: str) -> bool:
        mountinfo.write_text(f"36 35 {number} / /mnt rw,noatime master:1 - {kind} source rw\n")
        return leases_tell(tmp_path, mountinfo)

    assert mounted("ext4")
    assert mounted("tmpfs")
    assert not mounted("nfs4")
    assert not mounted("fuse.sshfs")
    assert not leases_tell(tmp_path / "absent", mountinfo)

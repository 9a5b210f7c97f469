"""``make run`` ends what it started however its terminal goes away."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

from blocks import BLOCK_S, REPOSITORY


def _read_until(terminal: int, text: bytes) -> bytes:
    output = b""
    deadline = time.monotonic() + BLOCK_S
    while text not in output:
        assert time.monotonic() < deadline, output.decode(errors="replace")
        if select.select([terminal], [], [], 0.2)[0]:
            output += os.read(terminal, 65536)
    return output


def test_closing_the_terminal_stops_the_daemon(tmp_path: Path) -> None:
    for name in ("scripts", ".venv"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EVENTD_")}
    ours, theirs = pty.openpty()
    with socket.create_server(("127.0.0.1", 0)) as broker, socket.socket() as probe:
        environment["EVENTD_KAFKA"] = f"127.0.0.1:{broker.getsockname()[1]}"  # that never answers
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        process = subprocess.Popen(
            ["setsid", "--ctty", "scripts/run.sh", "data", f"127.0.0.1:{port}"],
            cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        try:
            _read_until(ours, b"Try it:")
        finally:
            os.close(ours)  # the kernel sends SIGHUP, and nothing can be printed any more
        process.wait(BLOCK_S)

    left = (tmp_path / "data" / "endpoint").exists()
    if left:
        os.kill(int((tmp_path / "data" / "lock").read_text()), signal.SIGTERM)
    assert not left, "the daemon did not end by itself"

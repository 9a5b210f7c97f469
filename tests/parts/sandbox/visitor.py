"""Opens a zygote as whoever runs this, asks an instance questions, prints the answers as JSON."""

import asyncio
import json
import socket
import sys
from pathlib import Path

from eventd.config import PoolSettings
from eventd.pool.zygote import SpawnSpec, Zygote

QUESTIONS = {
    "value": "import answer; result = answer.VALUE",
    "uid": "result = os.getuid()",
    "root": "result = sorted(os.listdir('/'))",
    "pids": "result = [p for p in os.listdir('/proc') if p.isdigit()]",
    "write": "open(code_path + '/x', 'w')",
    "state": "os.listdir('/tmp')",
    "hog": "held = bytearray(300 << 20); import time; time.sleep(10)",
}


async def main(place: Path, at_most: int) -> None:
    found: dict[str, object] = {}
    async with Zygote(
        state_dir=place / "state",
        bootstrap=Path(__file__).with_name("echo_bootstrap.py"),
        settings=PoolSettings(blanks=1),
        at_most=at_most,
    ) as zygote:
        found["level"] = zygote.report.level
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        process = await zygote.spawn(SpawnSpec("c-1", str(place / "code"), 128), theirs)
        loop = asyncio.get_running_loop()
        for name, text in QUESTIONS.items():
            async with asyncio.timeout(20):
                await loop.sock_sendall(ours, text.encode())
                try:
                    found[name] = (await loop.sock_recv(ours, 65536)).decode()
                except ConnectionError:
                    found[name] = ""
        async with asyncio.timeout(20):
            status = await process.wait()
        found["end"] = [status.code, status.oom, status.peak_mb]
        found["pid"] = process.pid
        ours.close()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

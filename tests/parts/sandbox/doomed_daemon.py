"""Opens a zygote, starts an instance that hides a process, says so, and waits to be killed."""

import asyncio
import socket
import sys
from pathlib import Path

from eventd.config import PoolSettings
from eventd.pool.zygote import SpawnSpec, Zygote

HIDE = b"""
import signal, time
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
result = "hidden"
"""


async def main(state: str, code: str, at_most: int) -> None:
    async with Zygote(
        state_dir=Path(state),
        bootstrap=Path(__file__).with_name("echo_bootstrap.py"),
        settings=PoolSettings(blanks=1),
        at_most=at_most,
    ) as zygote:
        ours, theirs = socket.socketpair()
        process = await zygote.spawn(SpawnSpec("c-1", code, 128), theirs)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, HIDE)
        answer = await loop.sock_recv(ours, 100)
        sys.stdout.write(f"{zygote.report.level} {process.pid} {answer.decode()}\n")
        sys.stdout.flush()
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

"""Cold start through ``Zygote.spawn``: request to first answer of an instance, isolated.

Prints p50, p90 and p99 in ms and as a ratio to ``python -c pass``, measured in the same
interleaved run; with a blank ready, without one, and the memory of an idle instance.
Usage: ``python bench/cold_start_zygote.py [n] [level]`` (root for level 1).
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from eventd.config import PoolSettings
from eventd.pool.zygote import Process, SpawnSpec, Zygote

BOOTSTRAP = """
import os, sys
def serve(sock, code_path):
    sys.path.insert(0, code_path)
    import main
    while data := sock.recv(65536):
        sock.sendall(main.handler(data, None))
    os._exit(0)
"""


async def cold(zygote: Zygote, code: str) -> tuple[float, float, Process, socket.socket]:
    """Seconds until spawn returned, seconds until the first answer."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    begin = time.perf_counter()
    process = await zygote.spawn(SpawnSpec("c-bench", code, 128), theirs)
    spawned = time.perf_counter()
    ours.send(b"hello")
    answer = await loop.sock_recv(ours, 100)
    end = time.perf_counter()
    if answer != b"hello":
        raise RuntimeError(f"answered {answer!r}")
    return spawned - begin, end - begin, process, ours


async def series(zygote: Zygote, code: str, n: int, pause_s: float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"pass": [], "spawn": [], "first answer": []}
    for _ in range(n):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)  # noqa: ASYNC221 - the reference
        found["pass"].append(time.perf_counter() - begin)
        await asyncio.sleep(pause_s)
        spawn, answer, process, sock = await cold(zygote, code)
        found["spawn"].append(spawn)
        found["first answer"].append(answer)
        process.kill()
        await process.wait()
        sock.close()
    return found


def show(name: str, found: dict[str, list[float]]) -> None:
    reference = statistics.median(found["pass"])
    for part in ("spawn", "first answer"):
        times = sorted(found[part])
        p50, p90, p99 = (times[int(len(times) * q)] for q in (0.5, 0.9, 0.99))
        print(
            f"{name:22} {part:13} p50 {p50 * 1e3:6.2f} ms = {p50 / reference:.3f} x   "
            f"p90 {p90 / reference:.3f} x   p99 {p99 / reference:.3f} x   "
            f"(-c pass {reference * 1e3:.1f} ms)"
        )


def pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no Pss")


async def memory(zygote: Zygote, code: str) -> float:
    made = [await cold(zygote, code) for _ in range(30)]
    await asyncio.sleep(0.3)
    found = statistics.mean(pss_mb(process.pid) for _, _, process, _ in made)
    for _, _, process, sock in made:
        process.kill()
        await process.wait()
        sock.close()
    return found


def lay_out(place: Path) -> Path:
    place.chmod(0o755)
    (place / "code").mkdir()
    (place / "code" / "main.py").write_text("def handler(event, context): return event\n")
    (place / "bootstrap.py").write_text(BOOTSTRAP)
    return place


async def main(n: int, level: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        place = lay_out(Path(directory))
        for blanks in (2, 0):
            settings = PoolSettings(blanks=blanks)
            async with Zygote(
                state_dir=place / "state",
                bootstrap=place / "bootstrap.py",
                settings=settings,
                at_most=level,
            ) as zygote:
                code = str(place / "code")
                await asyncio.sleep(0.5)
                name = f"level {zygote.report.level}, blanks {blanks}"
                show(name, await series(zygote, code, n, 0.06))
                if blanks:
                    print(
                        f"{name:22} 30 idle instances: {await memory(zygote, code):.2f} MB PSS each"
                    )


if __name__ == "__main__":
    asyncio.run(
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else 100,
            int(sys.argv[2]) if len(sys.argv) > 2 else 1,
        )
    )

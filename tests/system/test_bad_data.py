"""Files of the data directory that were damaged while the daemon was down."""

from __future__ import annotations

import asyncio
import shutil

import health
from system_node import NodeFactory

GARBAGE = b"garbage \xff\x00" * 1000
STORE, REFUSED = 74, 2
FILES = {
    "meta.db": STORE,
    "queue.db": STORE,
    "history.db": STORE,
    "access-key": REFUSED,
    "zygote/epoch.json": REFUSED,
}
MADE_ANEW = ["endpoint", "ballast", "lock", "zygote/lock"]
HANDLER = "def handler(event, context):\n    return b'fine'\n"
OWN_KEY = {"EVENTD_ACCESS_KEY_ID": "", "EVENTD_ACCESS_KEY_SECRET": ""}


async def test_a_damaged_file_is_named_in_one_line_and_stays_as_it_is(node: NodeFactory) -> None:
    first = node(env=OWN_KEY)
    async with first:
        await health.healthy(first)
    wrong = {}
    for name, expected in FILES.items():
        data = first.data.with_name("copy-" + name.replace("/", "-"))
        shutil.copytree(first.data, data)
        (data / name).write_bytes(GARBAGE)
        for suffix in ("-wal", "-shm"):
            (data / (name + suffix)).unlink(missing_ok=True)
        second = node(data=data, env=OWN_KEY)
        process = await second.launch()
        async with asyncio.timeout(30):
            code = await process.wait()
        await second.end()
        lines = [line for line in second.output.splitlines() if b'"error"' in line]
        said = len(lines) == 1 and name.encode() in lines[0]
        kept = (data / name).read_bytes() == GARBAGE
        if code != expected or not said or not kept or b"Traceback" in second.output:
            wrong[name] = (code, kept, second.output)
    assert not wrong


async def test_files_that_only_help_are_made_anew(node: NodeFactory) -> None:
    first = node()
    async with first:
        await first.deploy("f", HANDLER)
        assert (await first.invoke("f")).body == b"fine"
    for name in MADE_ANEW:
        (first.data / name).write_bytes(GARBAGE)
    for path in (first.data / "code").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    async with node(data=first.data) as second:
        assert (await second.invoke("f")).body == b"fine"
        await health.healthy(second)


async def test_a_package_that_was_damaged_is_not_run(node: NodeFactory) -> None:
    first = node()
    async with first:
        await first.deploy("f", HANDLER)
        blobs = [path for path in (first.data / "blobs").rglob("*") if path.is_file()]
        assert len(blobs) == 1
        blobs[0].write_bytes(GARBAGE)
        reply = await first.invoke("f")
        await first.deploy("g", HANDLER + "# another package\n")
        other = await first.invoke("g")
        await health.healthy(first)
    assert (reply.status, reply.json()["ErrorCode"]) == (503, "ServiceUnavailable")
    assert "damaged" in reply.json()["ErrorMessage"]
    assert other.body == b"fine"

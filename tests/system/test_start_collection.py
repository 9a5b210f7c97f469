"""What a crash or a deletion left behind is collected when the daemon starts, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from system_node import NodeFactory, zipped

SAYS = "def handler(event, context):\n    return {!r}\n"


async def test_code_that_nothing_refers_to_is_gone_after_a_start(node: NodeFactory) -> None:
    first = node()
    async with first:
        await first.deploy("kept", SAYS.format("published"))
        await first.api("POST", "/services/svc/versions", {})
        await first.deploy("kept", SAYS.format("working copy"))
        await first.deploy("removed", SAYS.format("removed"))
        assert (await first.invoke("removed")).body == b"removed"
        await first.api("DELETE", "/services/svc/functions/removed")
        removed = set(stored(first.data))
        assert len(removed) == 3

    # A kill between the package and its row leaves a package without a row.
    orphan = zipped({"index.py": SAYS.format("never created")})
    digest = hashlib.sha256(orphan).hexdigest()
    place = first.data / "blobs" / digest[:2]
    place.mkdir(exist_ok=True)
    (place / digest).write_bytes(orphan)
    (first.data / "code" / digest).mkdir()

    async with node(data=first.data) as second:
        left = set(stored(second.data))
        assert len(left) == 2
        assert left < removed
        unpacked = {path.name for path in (second.data / "code").iterdir()}
        assert {name for name in unpacked if not name.startswith(".")} <= left
        latest, published = (
            await second.invoke("kept"),
            await second.invoke("kept", service="svc.1"),
        )
        assert (latest.body, published.body) == (b"working copy", b"published")


def stored(data: Path) -> list[str]:
    return [path.name for path in (data / "blobs").glob("??/*")]

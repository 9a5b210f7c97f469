"""What a daemon holds, seen from outside: to compare before and after an attack."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from system_node import Node, until


def children(pid: int) -> dict[int, list[int]]:
    """Every process below ``pid`` with its own children, itself included."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        fields = stat_fields(int(entry))
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found: dict[int, list[int]] = {}
    ahead = [pid]
    while ahead:
        here = ahead.pop()
        found[here] = parents.get(here, [])
        ahead += found[here]
    return found


def stat_fields(pid: int) -> list[str]:
    """State, parent and so on from ``/proc/PID/stat``; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descriptors(pid: int) -> Counter[str]:
    """Kinds of open descriptors (``socket``, ``/path``) with how many there are."""
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[os.readlink(entry).partition(":")[0]] += 1
        except FileNotFoundError:
            pass  # closed between listing and reading
    return found


def launcher_of(node: Node) -> int:
    """The zygote's process id."""
    assert node.process is not None
    below = children(node.process.pid)
    return next(pid for pid in below if name_of(pid) == "eventd-zygote")


def instance_pids(node: Node) -> list[int]:
    """First processes of instances and of blanks: what the zygote forked."""
    launcher = launcher_of(node)
    return [pid for pid in children(launcher)[launcher] if stat_fields(pid)[:1] != ["Z"]]


def control_groups(node: Node) -> list[str]:
    """Control groups of this daemon's instances, blanks' included."""
    epoch = orjson.loads((node.data / "zygote" / "epoch.json").read_bytes())
    return sorted(str(each) for top in epoch["groups"] for each in Path(top).glob("*/"))


@dataclass(frozen=True)
class Holdings:
    """What an operator would miss or find too much of."""

    resources: bytes
    code: frozenset[str]
    partial: tuple[str, ...] = field(default=())


async def holdings(node: Node) -> Holdings:
    """Every resource as the API lists it, and the files of code."""
    tree: dict[str, object] = {}
    services = (await node.api("GET", "/services?limit=100"))["services"]
    for service in services:
        name = service["serviceName"]
        functions = (await node.api("GET", f"/services/{name}/functions?limit=100"))["functions"]
        for function in functions:
            path = f"/services/{name}/functions/{function['functionName']}/triggers?limit=100"
            function["triggers"] = (await node.api("GET", path))["triggers"]
        versions = await node.api("GET", f"/services/{name}/versions")
        aliases = await node.api("GET", f"/services/{name}/aliases")
        tree[name] = [service, functions, versions, aliases]
    files = [
        str(path.relative_to(node.data))
        for folder in ("code", "blobs", "spool")
        for path in (node.data / folder).rglob("*")
        if path.is_file()
    ]
    partial = tuple(sorted(name for name in files if "partial" in name or "tmp" in name))
    return Holdings(orjson.dumps(tree), frozenset(files), partial)


async def healthy(node: Node) -> None:
    """The same process still serves, and says so."""
    assert node.process is not None
    assert node.process.returncode is None, node.output[-3000:]
    reply = await node.request("GET", "/readyz", signed=False)
    assert reply.status == 200, reply.body


async def quiet(node: Node) -> None:
    """Wait until no call runs or waits."""

    async def nothing() -> bool:
        status = await node.status()
        return not any(one["busy"] for one in status["instances"])

    await until(nothing, "no call is running any more")

"""Starting an instance's process and waiting for its end: the two slow edges of its life."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import orjson

from eventd.errors import InvalidArgument
from eventd.model.identity import new_request_id
from eventd.model.snapshot import FunctionSnapshot
from eventd.pool.call import Call
from eventd.pool.channel import Channel
from eventd.pool.surroundings import Surroundings
from eventd.pool.zygote import ExitStatus, Process, SpawnSpec

BUFFER_BYTES = 1 << 20
EXIT_S = 10.0
"""A killed process is gone within this time, or the machine is in trouble."""
LAST_WORDS_S = 1.0
"""What an ended process had written is read within this time, unless a child holds its socket."""


async def launch(
    instance_id: str, snapshot: FunctionSnapshot, shared: Surroundings, channel: Channel
) -> Process:
    """Unpack the code, start a process and connect ``channel`` to it.

    Raises what ``Packages.unpacked`` and ``Zygote.spawn`` raise, ``OSError`` without descriptors,
    ``InvalidArgument`` for a runtime that cannot run here. Failing or cancelled, it leaves no
    process and no socket.
    """
    if not snapshot.runtime.startswith("python"):
        raise InvalidArgument(
            f"function '{snapshot.function}' has the runtime {snapshot.runtime}, which cannot run "
            "on this machine yet; Python functions can"
        )
    code = await shared.packages.unpacked(snapshot.code_digest)
    ours, theirs = socket.socketpair()
    try:
        ours.setblocking(False)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        spec = SpawnSpec(
            instance_id=instance_id,
            code_dir=str(code),
            memory_mb=snapshot.memory_mb,
            disk_mb=snapshot.disk_mb,
            internet=snapshot.internet_access,
        )
        process = await shared.zygote.spawn(spec, theirs)
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: channel, sock=ours)
        except BaseException:
            process.kill()
            raise
    except BaseException:
        ours.close()
        theirs.close()
        raise
    return process


async def wait_exit(process: Process, channel_gone: asyncio.Event) -> ExitStatus | None:
    """Until the process has ended and its last words were read; ``None`` if it cannot be told.

    A process that closes its socket is killed: whatever it does then, nobody hears of it.
    """
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(process.wait())
        lost = group.create_task(channel_gone.wait())
        await asyncio.wait({ended, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.kill()
            await asyncio.wait({ended}, timeout=EXIT_S)
        elif not lost.done():
            await asyncio.wait({lost}, timeout=LAST_WORDS_S)
        lost.cancel()
        if not ended.done():
            ended.cancel()
            return None
    return ended.result()


def init_body(
    instance_id: str, snapshot: FunctionSnapshot, shared: Surroundings, first: Call | None
) -> bytes:
    """The body of ``INIT``: all that is constant for the instance's life. It initializes on behalf
    of ``first``."""
    request_id = first.request_id if first is not None else new_request_id()
    qualifier = first.qualifier if first is not None else snapshot.version_name
    fields: dict[str, Any] = {
        "instanceId": instance_id,
        "requestId": request_id,
        "qualifier": qualifier,
        "accountId": shared.account.account_id,
        "region": shared.account.region,
        "service": snapshot.service,
        "function": snapshot.function,
        "version": snapshot.version_name,
        "handler": snapshot.handler,
        "initializer": snapshot.initializer,
        "initializationTimeout": snapshot.initialization_timeout_s,
        "memory": snapshot.memory_mb,
        "timeout": snapshot.timeout_s,
        "concurrency": max(1, snapshot.instance_concurrency),
        "runtime": snapshot.runtime,
        "logProject": snapshot.log_project,
        "logStore": snapshot.log_store,
        "credentials": {},
        "environment": dict(snapshot.environment),
        "preStop": (snapshot.lifecycle.get("preStop") or {}).get("handler") or "",
        "logBytesPerSecond": shared.settings.max_log_bytes_s,
    }
    return orjson.dumps(fields)


def ready_times(info: bytes) -> tuple[float, float]:
    """Import and initializer, in ms, as ``READY`` tells them; 0 for nonsense, for it is only the
    instance's own figures that suffer."""
    try:
        fields = orjson.loads(info)
        return float(fields["importMs"]), float(fields["initMs"])
    except (ValueError, TypeError, KeyError):
        return 0.0, 0.0

"""kill -9 of what belongs to the daemon, and of the daemon with old instances that would stay."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import health
from system_node import Node, NodeFactory, until
from witness import Witness

WORK = """
import os, time
def handler(event, context):
    if event == b"pid":
        return str(os.getpid())
    line = tell(event.decode())
    time.sleep(0.05)
    done(line)
    return event
"""
LOST = {
    200: {"UnhandledInvocationError"},  # the process was killed: the function's error
    429: {"ResourceExhausted"},
    502: {"InstanceLost"},
    503: {"ResourceThrottled"},
}


@asynccontextmanager
async def load(node: Node, accepted: set[str], seen: Counter[str]) -> AsyncIterator[None]:
    """Synchronous and asynchronous calls until the block is left; each sync answer is judged."""
    stop = asyncio.Event()

    async def sync(caller: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            event = f"sync-{caller}-{number}".encode()
            reply = await node.invoke("work", event)
            if (reply.status, reply.body) == (200, event):
                seen["ok"] += 1
                continue
            kind = reply.headers.get("x-fc-error-type") or reply.json()["ErrorCode"]
            assert kind in LOST.get(reply.status, ()), (reply.status, reply.body)
            seen[kind] += 1

    async def queued() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"async-{number}"
            await node.invoke_async("work", name.encode())
            accepted.add(name)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for caller in range(4):
            group.create_task(sync(caller))
        group.create_task(queued())
        try:
            yield
        finally:
            stop.set()


async def test_the_daemon_outlives_its_zygote_its_instances_and_its_blanks(
    node: NodeFactory,
) -> None:
    seed = random.randrange(1 << 30)
    choice = random.Random(seed)
    accepted: set[str] = set()
    seen: Counter[str] = Counter()
    async with Witness() as witness:
        env = {"EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}"}
        one = node(env=env)
        async with one:
            await one.deploy("work", witness.source + WORK, instanceConcurrency=2)
            async with load(one, accepted, seen):
                for victim in ("instance", "zygote", "blank", "instance", "zygote", "all"):
                    enough = seen["ok"] + 20
                    await until(lambda enough=enough: seen["ok"] >= enough, "calls succeed")
                    launcher = health.launcher_of(one)
                    pids = health.instance_pids(one)
                    if victim == "zygote":
                        os.kill(launcher, signal.SIGKILL)
                        await until(lambda old=launcher: replaced(one, old), "a new zygote")
                    else:
                        # the newest are blanks, the oldest serve
                        chosen = {"instance": pids[:1], "blank": pids[-1:], "all": pids}[victim]
                        for pid in chosen:
                            kill(pid)
                enough = seen["ok"] + 20
                await until(lambda: seen["ok"] >= enough, "calls succeed again")
            await until(
                lambda: all(witness.finished[name] for name in accepted), "every accepted event"
            )
            letters = (await one.status())["queue"]["deadLetters"]
            await health.healthy(one)
            below = health.children(one.process.pid if one.process else 0)
            assert not [pid for pid in below if health.stat_fields(pid)[:1] == ["Z"]]
    assert letters == 0, seed
    assert not witness.overlaps, (seed, choice.random(), witness.overlaps)
    assert seen["ok"] > 100, seen


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself


def replaced(node: Node, old: int) -> bool:
    assert node.process is not None
    below = health.children(node.process.pid)
    return any(pid != old and health.name_of(pid) == "eventd-zygote" for pid in below)


STUBBORN = """
import os, signal, time
def handler(event, context):
    name = event.decode()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 3)
        line = tell("child-of-" + name)
        time.sleep(600)
    os.wait()
    line = tell(name)
    time.sleep({pause})
    done(line)
    return b""
"""


async def test_no_process_of_a_killed_daemon_runs_beside_the_next_one(node: NodeFactory) -> None:
    """Not even a child that made itself a daemon and ignores signals."""
    names = [f"event{number}" for number in range(4)]
    everyone = names + [f"child-of-{name}" for name in names]
    async with Witness() as witness:
        env = {
            "EVENTD_POOL_ALLOW_CONNECT": f"127.0.0.1:{witness.port}",
            "EVENTD_DRAIN_S": "0.5",
        }
        current = node(env=env)
        data = current.data
        for life in range(3):
            await current.__aenter__()
            if life == 0:
                source = witness.source + STUBBORN.replace("{pause}", "600")
                await current.deploy("stubborn", source, timeout=900)
                for name in names:
                    await current.invoke_async("stubborn", name.encode())
            await until(
                lambda life=life: all(witness.begun[name] == life + 1 for name in everyone),
                f"life {life}: all run",
            )
            assert current.process is not None
            old = set(health.children(current.process.pid)) - {current.process.pid}
            await current.kill()
            current = node(data=data, env=env)
        async with current:
            left = [pid for pid in old if health.stat_fields(pid)[:1] not in ([], ["Z"])]
            names_left = [health.name_of(pid) for pid in left]
            await current.api("DELETE", "/services/svc/functions/stubborn")
    assert not witness.overlaps, witness.overlaps
    assert not left, names_left

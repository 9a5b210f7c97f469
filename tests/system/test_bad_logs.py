"""A hundred calls in one instance write at the same moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from system_node import NodeFactory, until

CALLS = 100
HANDLER = """
import logging, os, subprocess, sys, threading
meeting = threading.Barrier(100)
log = logging.getLogger("app")

def handler(event, context):
    if event == b"warm":
        return b"warm"
    name = context.request_id
    meeting.wait(60)
    for step in range(3):
        print("print", step, end=" ")
        sys.stdout.write(name + "\\n")
        log.warning("logger %d %s", step, name)
        sys.stderr.write(f"stderr {step} {name}\\n")
    thread = threading.Thread(target=print, args=("thread", 0, name))
    thread.start()
    thread.join()
    subprocess.run(["sh", "-c", f"echo child 0 {name}; echo child 1 {name} >&2"], check=True)
    meeting.wait(60)
    print("last", 0, name)
    return str(os.getpid()).encode()
"""
EXPECTED = {
    **{f"{kind} {step}": 1 for kind in ("print", "logger", "stderr") for step in range(3)},
    "thread 0": 1,
    "child 0": 1,
    "child 1": 1,
    "last 0": 1,
}


async def test_a_hundred_calls_in_one_instance_each_get_their_own_lines(node: NodeFactory) -> None:
    async with node() as one:
        await one.deploy("busy", HANDLER, instanceConcurrency=CALLS, memorySize=2048, timeout=120)
        await one.invoke("busy", b"warm")
        replies = await asyncio.gather(*[one.invoke("busy") for _ in range(CALLS)])
        assert {reply.status for reply in replies} == {200}, replies[0].body
        assert len({reply.body for reply in replies}) == 1, "one process served them all"
        ids = {reply.headers["x-fc-request-id"] for reply in replies}

        async def stored() -> list[dict[str, Any]]:
            found = await one.request("GET", "/eventd/v1/logs?function=busy&limit=10000")
            lines: list[dict[str, Any]] = found.json()["lines"]
            ends = sum("FC Invoke End" in line["text"] for line in lines)
            return lines if ends == CALLS + 1 else []

        lines = await until(stored, "all end lines")
        shown = await one.request("GET", f"/eventd/v1/logs?requestId={min(ids)}")

    seen: dict[str, Counter[str]] = {name: Counter() for name in ids}
    frames: dict[str, list[str]] = {name: [] for name in ids}
    for line in lines:
        name, text = line["requestId"], line["text"]
        if name not in ids:
            assert not any(each in text for each in ids), line  # the warming call's
            continue
        mentioned = {each for each in ids if each in text}
        assert mentioned <= {name}, line
        if text.startswith(("FC ", "Duration: ")) or not text:
            frames[name].append(text)
        else:
            words = text.split()
            where = next(index for index, word in enumerate(words) if word in KINDS)
            seen[name][" ".join(words[where : where + 2])] += 1
    wrong = {name: counts for name, counts in seen.items() if counts != EXPECTED}
    assert not wrong, (len(wrong), next(iter(wrong.items())))
    for name, texts in frames.items():
        assert texts[0] == f"FC Invoke Start RequestId: {name}"
        assert texts[1] == f"FC Invoke End RequestId: {name}"
        assert texts[-1].startswith("Duration: ")
    own = [line["text"] for line in shown.json()["lines"]]
    assert own[0].startswith("FC Invoke Start")
    assert own[-1].startswith("Duration: ")
    assert len(own) == sum(EXPECTED.values()) + 4


KINDS = {key.split()[0] for key in EXPECTED}

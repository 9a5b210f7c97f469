"""Brokers that are away, members that are stuck: reported, and nothing is lost."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from kafka_broker import DevBroker, running_broker
from kafka_context import QUICK, Cluster, Context, consuming

from eventd.errors import ServiceUnavailable
from eventd.plugin import Event

pytestmark = pytest.mark.kafka


async def test_a_broker_that_is_down_at_start_is_reported_and_used_when_it_comes() -> None:
    broker = DevBroker()
    cluster = Cluster(broker.bootstrap, QUICK, apache=False)
    context = Context()

    async with consuming(cluster, "later", context, startingPosition="earliest"):
        await context.wait_until(lambda: any(not r.healthy for r in context.reports))
        assert context.reports[-1].text.startswith("broker away: ")
        await asyncio.to_thread(broker.start)
        try:
            await cluster.send("later", [b"1", b"2"])
            await context.wait_until(lambda: len(context.delivered) >= 2)
            await context.wait_until(lambda: context.reports[-1].healthy)
        except BaseException:
            await asyncio.to_thread(broker.kill)
            raise
    await asyncio.to_thread(broker.stop)

    assert context.values() == ["1", "2"]


async def test_a_broker_that_stops_answering_is_reported_and_nothing_is_lost() -> None:
    with running_broker() as broker:
        cluster = Cluster(broker.bootstrap, {**QUICK, "requestTimeoutMs": 2000}, apache=False)
        topic = await cluster.create_topic()
        context = Context()
        async with consuming(cluster, topic, context, startingPosition="earliest"):
            await cluster.send(topic, [b"%d" % i for i in range(100)])
            await context.wait_until(lambda: len(context.delivered) >= 50)
            broker.pause()
            await context.wait_until(lambda: not context.reports[-1].healthy)
            broker.resume()
            await cluster.send(topic, [b"%d" % i for i in range(100, 150)])
            await context.wait_until(lambda: len(set(context.values())) >= 150)
            await context.wait_until(lambda: context.reports[-1].healthy)

    values = [int(value) for value in context.values()]
    assert sorted(set(values)) == list(range(150))
    assert len(values) < 250  # what was not committed may come again, the rest may not


async def test_a_source_ends_while_its_broker_is_gone() -> None:
    with running_broker() as broker:
        cluster = Cluster(broker.bootstrap, {**QUICK, "requestTimeoutMs": 2000}, apache=False)
        topic = await cluster.create_topic()
        context = Context()
        async with asyncio.timeout(60):
            async with consuming(cluster, topic, context, startingPosition="earliest"):
                await cluster.send(topic, [b"1"])
                await context.wait_until(lambda: len(context.delivered) >= 1)
                broker.kill()


async def test_a_call_that_outlasts_a_rebalance_is_abandoned_and_offered_again(
    cluster: Cluster,
) -> None:
    topic = await cluster.create_topic(partitions=2)
    cancelled: list[str] = []
    stuck = asyncio.Event()

    async def handle(event: Event) -> bool:
        if orjson.loads(event.data)[0]["data"]["value"] != "stuck":
            return True
        try:
            await stuck.wait()
        except asyncio.CancelledError:
            cancelled.append(event.id)
            raise
        return True

    first, second = Context(handle), Context(handle)
    await cluster.send(topic, [b"stuck", b"after 0"], partition=0)
    await cluster.send(topic, [b"a", b"b"], partition=1)
    config = {"startingPosition": "earliest"}

    async with consuming(cluster, topic, first, **config):
        await first.wait_until(lambda: len(first.delivered) >= 2)
        second.state = dict(first.state)
        async with consuming(cluster, topic, second, **config):
            await first.wait_until(lambda: len(cancelled) == 1)
            stuck.set()
            await first.wait_until(lambda: len(first.delivered) + len(second.delivered) >= 4)

    values = sorted(first.values() + second.values())
    assert values == ["a", "after 0", "b", "stuck"]


async def test_a_store_that_fails_ends_the_source_with_its_error(cluster: Cluster) -> None:
    topic = await cluster.create_topic()
    await cluster.send(topic, [b"1"])

    async def handle(event: Event) -> bool:
        raise ServiceUnavailable("the store takes nothing")

    context = Context(handle)
    with pytest.raises(ExceptionGroup) as caught:
        async with consuming(cluster, topic, context, startingPosition="earliest") as task:
            await asyncio.wait({task}, timeout=30)

    assert caught.group_contains(ServiceUnavailable)

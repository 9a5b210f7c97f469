"""``eventd publish``: send a message to a Kafka topic, to try a trigger out."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Annotated

import typer

from eventd.cli.failure import Failure, Unreachable

_DEADLINE_S = 30.0


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    messages: Annotated[list[str], typer.Argument(metavar="MESSAGE...")],
    key: Annotated[str, typer.Option(metavar="KEY", help="The records' key. [none]")] = "",
    bootstrap_servers: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT,...", envvar="EVENTD_KAFKA", help="The cluster. [EVENTD_KAFKA]"
        ),
    ] = "",
) -> None:
    """Send messages to a Kafka topic.

    Examples:

      eventd publish orders '{"orderId": 7}' --bootstrap-servers 127.0.0.1:19092

      EVENTD_KAFKA=127.0.0.1:19092 eventd publish orders first second
    """
    servers = bootstrap_servers or os.environ.get("EVENTD_KAFKA", "")
    if not servers:
        raise Failure("no Kafka cluster: give --bootstrap-servers or set EVENTD_KAFKA")
    for position in asyncio.run(_send(servers, topic, key, messages)):
        print(position)


async def _send(servers: str, topic: str, key: str, messages: list[str]) -> list[str]:
    """``TOPIC-PARTITION@OFFSET`` of each message."""
    from aiokafka import AIOKafkaProducer
    from aiokafka.errors import KafkaConnectionError, KafkaError

    # It warns about a topic that the broker is about to create, and tells each failure twice.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    producer = AIOKafkaProducer(bootstrap_servers=servers, request_timeout_ms=10_000)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await producer.start()
            sent = [
                await producer.send_and_wait(topic, text.encode(), key=key.encode() or None)
                for text in messages
            ]
    except (KafkaConnectionError, TimeoutError) as error:
        raise Failure(
            f"no Kafka broker answers at {servers}", exit_code=Unreachable.exit_code
        ) from error
    except (KafkaError, OSError) as error:
        raise Unreachable(f"Kafka at {servers}", error) from error
    finally:
        await producer.stop()
    return [f"{one.topic}-{one.partition}@{one.offset}" for one in sent]

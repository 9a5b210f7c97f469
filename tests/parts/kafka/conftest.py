"""Real brokers for the Kafka tests: a development broker, and the one EVENTD_TEST_KAFKA names."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kafka_broker import DevBroker, running_broker
from kafka_context import APACHE, QUICK, Cluster


def _brokers() -> list[str]:
    return ["dev", *(["apache"] if os.environ.get("EVENTD_TEST_KAFKA") else [])]


@pytest.fixture(scope="session")
def dev_broker() -> Iterator[DevBroker]:
    with running_broker() as broker:
        yield broker


@pytest.fixture(params=_brokers())
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "apache":
        return Cluster(os.environ["EVENTD_TEST_KAFKA"], APACHE, apache=True)
    broker: DevBroker = request.getfixturevalue("dev_broker")
    return Cluster(broker.bootstrap, QUICK, apache=False)

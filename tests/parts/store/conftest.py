"""A store in a directory of its own, and invocations to put into it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from store_support import BALLAST_BYTES, Maker, Opener

from eventd.clock import Clock
from eventd.config import Settings
from eventd.metrics import Metrics
from eventd.model.identity import new_invocation_id
from eventd.model.invocation import Invocation
from eventd.store.opened import Store, open_store


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def opener(data: Path, metrics: Metrics) -> Opener:
    def open_it(**given: Any) -> AbstractAsyncContextManager[Store]:
        options: dict[str, Any] = {"ballast_bytes": BALLAST_BYTES, **given}
        clock = options.pop("clock", Clock())
        settings = options.pop("settings", Settings())
        return open_store(data, settings, metrics, clock, **options)

    return open_it


@pytest.fixture
def make() -> Maker:
    def make_one(**given: Any) -> Invocation:
        fields: dict[str, Any] = {
            "id": new_invocation_id(),
            "request_id": "request",
            "service": "shop",
            "function": "orders",
            "incarnation": "one",
            "qualifier": "LATEST",
            "payload": b"payload",
            "accepted_ms": 1,
        }
        return Invocation(**{**fields, **given})

    return make_one

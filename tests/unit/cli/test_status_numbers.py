"""Numbers made from counters, and ages."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from eventd.api.metrics import HELP, MetricsCollector
from eventd.api.status import quantile_ms
from eventd.cli.failure import Failure
from eventd.cli.logs import _since_ms
from eventd.metrics import Histogram, Metrics


@given(st.lists(st.floats(0, 50), min_size=1, max_size=50), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(times: list[float], share: float) -> None:
    histogram = Histogram()
    for seconds in times:
        histogram.observe(seconds)
    exact = sorted(times)[max(1, math.ceil(share * len(times))) - 1]
    upper = next(limit for limit in histogram.buckets if exact <= limit)
    lower = max((limit for limit in histogram.buckets if limit < exact), default=0.0)

    found = quantile_ms(histogram, share)

    assert found is not None
    assert lower * 1000 - 1e-6 <= found <= upper * 1000 + 1e-6


def test_a_quantile_of_nothing_is_unknown() -> None:
    assert quantile_ms(Histogram(), 0.5) is None


def test_what_lies_beyond_the_last_limit_counts_as_the_limit() -> None:
    histogram = Histogram()
    histogram.observe(1e6)

    assert quantile_ms(histogram, 0.99) == 60_000


def test_every_counter_is_explained_and_shown() -> None:
    metrics = Metrics()
    metrics.events_received["oss"] = 4
    metrics.store_commit.observe(0.003)
    metrics.function("demo", "hello", "LATEST").duration.observe(0.5)
    registry = CollectorRegistry()
    registry.register(MetricsCollector(metrics, lambda: {"instances": 2}))

    text = generate_latest(registry).decode()

    names = {family.name for family in text_string_to_metric_families(text)}
    for attribute in Metrics.__dataclass_fields__:
        if attribute != "functions":
            assert attribute in HELP
            assert names & {f"eventd_{attribute}", f"eventd_{attribute}_seconds"}
    assert 'eventd_events_received_total{type="oss"} 4.0' in text
    assert 'eventd_store_commit_seconds_bucket{le="0.005"} 1.0' in text
    assert 'eventd_store_commit_seconds_bucket{le="+Inf"} 1.0' in text
    assert re.search(r'function_duration_seconds_sum\{[^}]*version="LATEST"\} 0.5', text)
    assert "eventd_instances 2.0" in text


def test_an_age_is_counted_back_from_now() -> None:
    assert _since_ms("10m", 1000.0) == 400_000
    assert _since_ms("1d", 1000.0) == 0
    assert _since_ms("1970-01-01T00:00:05+00:00", 0.0) == 5000


@pytest.mark.parametrize("text", ["10", "m", "10 m", "-1m", "yesterday", "9999999999d", "٣m"])
def test_anything_else_is_no_age(text: str) -> None:
    with pytest.raises(Failure, match="--since: expected an age"):
        _since_ms(text, 1000.0)

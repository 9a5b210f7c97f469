"""The bytes of a record against a slow encoder."""

from __future__ import annotations

import base64
import json
from datetime import datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kafka_lanes import Rec

from triggers.kafka_payload import Encoder, rfc3339, text_json, value_json

values = st.one_of(st.none(), st.binary(max_size=20), st.text(max_size=20).map(str.encode))


def slow_text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return base64.b64encode(data).decode()
    if any(ord(c) < 32 and c not in "\t\n\r" for c in text):
        return base64.b64encode(data).decode()
    return text


@given(
    value=values,
    key=values,
    headers=st.lists(st.tuples(st.text(max_size=5), values), max_size=3).map(tuple),
    offset=st.integers(0, 2**62),
    timestamp=st.integers(-1, 2**45),
    topic=st.text('ab%"\\ü', min_size=1, max_size=6),
)
def test_a_record_is_encoded_as_fc_does(
    value: bytes | None,
    key: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...],
    offset: int,
    timestamp: int,
    topic: str,
) -> None:
    record = Rec(3, offset, key, value, topic, timestamp, headers)

    (event,) = orjson.loads(Encoder("c%1", "42").encode([record]))

    data = {
        "topic": topic,
        "partition": 3,
        "offset": offset,
        "timestamp": timestamp,
        "headers": {
            "headers": [
                {"key": name, "value": None if v is None else slow_text(v)} for name, v in headers
            ],
            "isReadOnly": False,
        },
        "value": None if value is None else slow_text(value),
    }
    if key is not None:
        data["key"] = slow_text(key)
    if value is not None and value[:1] in (b"{", b"["):
        try:
            data["value"] = json.loads(value)
        except ValueError:
            data["value"] = slow_text(value)
    assert event.pop("data") == data
    assert event == {
        "specversion": "1.0",
        "id": f"{topic}-3-{offset}",
        "source": "acs:alikafka",
        "type": "alikafka:Topic:Message",
        "subject": f"acs:alikafka:c%1:topic:{topic}",
        "datacontenttype": "application/json; charset=utf-8",
        "time": rfc3339(timestamp),
        "aliyunaccountid": "42",
    }


def test_raw_data_is_an_array_of_the_bare_data() -> None:
    made = Encoder("c", "42", raw_data=True).encode([Rec(0, 1), Rec(0, 2)])

    assert [data["offset"] for data in orjson.loads(made)] == [1, 2]
    assert orjson.loads(made)[0]["value"] == "v"


def test_times_are_rfc_3339_with_milliseconds() -> None:
    assert rfc3339(1_732_418_400_101) == "2024-11-24T03:20:00.101Z"
    assert rfc3339(-1).startswith("1970-01-01T00:00:00")
    assert rfc3339(2**62).startswith("9999-12-31T23:59:59")
    assert datetime.fromisoformat(rfc3339(5)).microsecond == 5000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"a": [1, 2]}', '{"a": [1, 2]}'),
        (b"[1", '"[1"'),
        (b"12", '"12"'),
        (b"", '""'),
        (b"a\tb", '"a\\tb"'),
        (b"\x08\x01", '"CAE="'),
        (b"[" * 5000, '"' + "[" * 5000 + '"'),
    ],
)
def test_only_objects_and_arrays_are_embedded(value: bytes, expected: str) -> None:
    assert value_json(value) == expected


def test_keys_are_never_parsed() -> None:
    assert text_json(b'{"a": 1}') == '"{\\"a\\": 1}"'

"""The bytes a function gets for Kafka records: FC's array of CloudEvents.

A record's value is embedded as JSON when it is a JSON object or array, as a string when it is
text, else as base64. Text is UTF-8 without control characters other than tab, line feed and
carriage return. Keys and header values follow the same rule, except that they are never parsed. A
record without key has no ``key``; one without value (a tombstone) has ``null``.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

import orjson

EVENT_SOURCE = "acs:alikafka"
EVENT_TYPE = "alikafka:Topic:Message"

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]").search
_NO_HEADERS = b'{"headers":[],"isReadOnly":false}'
_LAST_SECOND = 253_402_300_799  # of the year 9999, the last that RFC 3339 can write


class Record(Protocol):
    """What is read of aiokafka's ``ConsumerRecord``."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


def text_json(data: bytes) -> bytes:
    """A JSON string: the text, or the base64 of what is not text."""
    try:
        quoted = orjson.dumps(data.decode())
    except UnicodeDecodeError:
        return b'"' + b64encode(data) + b'"'
    # every control character is written with a backslash: without one there is none to look for
    if b"\\" in quoted and _CONTROL(data) is not None:
        return b'"' + b64encode(data) + b'"'
    return quoted


def value_json(value: bytes | None) -> bytes:
    """A record's value as JSON."""
    if value is None:
        return b"null"
    if value[:1] in (b"{", b"["):
        try:
            orjson.loads(value)
        except orjson.JSONDecodeError:
            return text_json(value)
        return value
    return text_json(value)


def subject(instance: str, topic: str) -> str:
    """CloudEvents ``subject`` of the records of a topic."""
    return f"acs:alikafka:{instance}:topic:{topic}"


def rfc3339(timestamp_ms: int) -> str:
    """``YYYY-MM-DDThh:mm:ss.mmmZ``; times outside the years 1970 to 9999 are cut to them."""
    second, ms = divmod(timestamp_ms, 1000)
    return f"{_second(second).decode()}.{ms:03d}Z"


@lru_cache(maxsize=256)  # strftime costs as much as encoding a record
def _second(second: int) -> bytes:
    moment = datetime.fromtimestamp(min(max(second, 0), _LAST_SECOND), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0").encode()


class Encoder:
    """Encodes records of one topic; keeps a template per partition and the last second's text.

    Args:
        instance: appears in ``subject``; the cluster's name.
        raw_data: FC's ``RawData`` schema, an array of the bare ``data`` values.
    """

    def __init__(self, instance: str, account_id: str, *, raw_data: bool = False) -> None:
        self._instance = instance
        self._account_id = account_id
        self._raw_data = raw_data
        self._templates: dict[tuple[str, int], bytes] = {}
        self._last_second: int | None = None
        self._last_text = b""

    def encode(self, records: Sequence[Record]) -> bytes:
        """The JSON array of ``records``, in their order."""
        events: list[bytes] = []
        for record in records:
            template = self._templates.get((record.topic, record.partition))
            if template is None:
                template = self._make_template(record.topic, record.partition)
            offset, timestamp = record.offset, record.timestamp
            key = record.key
            data = (
                offset,
                timestamp,
                self._headers(record.headers) if record.headers else _NO_HEADERS,
                b',"key":' + text_json(key) if key is not None else b"",
                value_json(record.value),
            )
            if self._raw_data:
                events.append(template % data)
                continue
            second, ms = divmod(timestamp, 1000)
            if second != self._last_second:
                self._last_second, self._last_text = second, _second(second)
            events.append(template % (offset, self._last_text, ms, *data))
        return b"[" + b",".join(events) + b"]"

    def _make_template(self, topic: str, partition: int) -> bytes:
        def quoted(text: str) -> bytes:
            return orjson.dumps(text)[1:-1].replace(b"%", b"%%")

        name = quoted(topic)
        data = b'{"topic":"%b","partition":%d,' % (name, partition)
        data += b'"offset":%d,"timestamp":%d,"headers":%b%b,"value":%b}'
        template = data
        if not self._raw_data:
            template = (
                b'{"specversion":"1.0","id":"%b-%d-' % (name, partition)
                + b'%d","source":"acs:alikafka","type":"alikafka:Topic:Message","subject":"'
                + quoted(subject(self._instance, topic))
                + b'","datacontenttype":"application/json; charset=utf-8","time":"%b.%03dZ",'
                + b'"aliyunaccountid":"%b","data":' % quoted(self._account_id)
                + data
                + b"}"
            )
        self._templates[topic, partition] = template
        return template

    @staticmethod
    def _headers(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
        items = b",".join(
            b'{"key":%b,"value":%b}'
            % (orjson.dumps(name), b"null" if value is None else text_json(value))
            for name, value in headers
        )
        return b'{"headers":[' + items + b'],"isReadOnly":false}'

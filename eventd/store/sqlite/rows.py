"""An invocation as a row of ``queue.db``: JSON text, payload, checksum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import orjson

from eventd.model.invocation import Invocation

SEQUENCE_BITS = 40
"""A row id is the function's number in the high bits, its sequence in these."""

CORRUPT = "Corrupt"
"""Reason of the dead letter that a damaged row becomes."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The function that rows belong to, under the number that the row ids carry."""

    no: int
    service: str
    function: str
    incarnation: str

    first_id: int = field(init=False, compare=False)
    last_id: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "first_id", self.no << SEQUENCE_BITS)
        object.__setattr__(self, "last_id", (self.no + 1 << SEQUENCE_BITS) - 1)


Row = tuple[int, str, bytes, int]
"""id, meta, payload (empty when it lies in a file), crc"""


class Damaged(Exception):
    """A row does not match its checksum; ``invocation`` holds what could be read."""

    def __init__(self, invocation: Invocation, file: str) -> None:
        super().__init__(f"invocation {invocation.id} is damaged")
        self.invocation = invocation
        self.file = file


def encode(row_id: int, invocation: Invocation, file: str = "") -> Row:
    """The row of ``invocation``; its payload is left out when it lies in ``file``."""
    meta = orjson.dumps(
        (
            invocation.id,
            invocation.request_id,
            invocation.qualifier,
            invocation.accepted_ms,
            invocation.due_ms,
            invocation.attempts,
            invocation.version,
            invocation.ordering_key,
            invocation.trigger_id,
            invocation.trigger_name,
            invocation.event_source,
            invocation.event_id,
            invocation.traceparent,
            invocation.depth,
            invocation.http.decode("latin-1"),
            file,
        )
    )
    payload = invocation.payload
    checksum = crc32(payload, crc32(meta, row_id & 0xFFFFFFFF))
    return row_id, meta.decode(), b"" if file else payload, checksum


def file_of(meta: str) -> str:
    """The name of the payload's file, or empty. ``ValueError``: the text is damaged."""
    fields = orjson.loads(meta)
    if not isinstance(fields, list) or len(fields) != 16 or not isinstance(fields[15], str):
        raise ValueError("not the fields of an invocation")
    return fields[15]


def decode(owner: Owner, row: Row, content: bytes | None = None) -> Invocation:
    """The invocation of ``row``; ``content`` is what its file holds, if it has one.

    Raises ``Damaged`` when checksum and content do not agree.
    """
    row_id, meta, payload, checksum = row
    if content is not None:
        payload = content
    try:
        fields = orjson.loads(meta)
        invocation = _build(owner, fields, payload)
        file = fields[15]
    except (ValueError, TypeError, AttributeError, IndexError):
        raise Damaged(_placeholder(owner, row_id, payload), "") from None
    if crc32(payload, crc32(meta.encode(), row_id & 0xFFFFFFFF)) != checksum:
        raise Damaged(invocation, file if isinstance(file, str) else "")
    return invocation


def _build(owner: Owner, fields: list[Any], payload: bytes) -> Invocation:
    (
        id_,
        request_id,
        qualifier,
        accepted_ms,
        due_ms,
        attempts,
        version,
        ordering_key,
        trigger_id,
        trigger_name,
        event_source,
        event_id,
        traceparent,
        depth,
        http,
        _file,
    ) = fields
    return Invocation(
        id=id_,
        request_id=request_id,
        service=owner.service,
        function=owner.function,
        incarnation=owner.incarnation,
        qualifier=qualifier,
        payload=payload,
        accepted_ms=accepted_ms,
        due_ms=due_ms,
        attempts=attempts,
        version=version,
        http=http.encode("latin-1"),
        trigger_id=trigger_id,
        trigger_name=trigger_name,
        event_source=event_source,
        event_id=event_id,
        ordering_key=ordering_key,
        traceparent=traceparent,
        depth=depth,
    )


def _placeholder(owner: Owner, row_id: int, payload: bytes) -> Invocation:
    return Invocation(
        id=f"damaged-{row_id:x}",
        request_id="",
        service=owner.service,
        function=owner.function,
        incarnation=owner.incarnation,
        qualifier="",
        payload=payload,
        accepted_ms=0,
    )

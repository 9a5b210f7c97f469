"""Entries (log lines, records) in compressed blocks: cheap to append, skipped fast in a search.

A row per line, with indexes, would cost some 20 times more per entry than a block of a thousand:
request ids are random, and an index on them dirties a page each.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import apsw
import cramjam
import orjson

from eventd.store.sqlite.connection import select

ENTRIES_PER_BLOCK = 1000
SEQ_BITS = 16
"""The position of an entry is its block's id, then its place in the block in these bits."""

BLOCKS_PER_STEP = 128
"""Looked at in one statement, so that no reader holds a snapshot for long."""

ADD = """
    INSERT INTO block (id, first_ms, last_ms, entries, owners, requests, body)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
HEADS_UP = """
    SELECT id, owners, requests FROM block
    WHERE id >= ? AND id <= ? AND last_ms >= ? AND first_ms <= ? ORDER BY id LIMIT ?
"""
HEADS_DOWN = """
    SELECT id, owners, requests FROM block
    WHERE id >= ? AND id <= ? AND last_ms >= ? AND first_ms <= ? ORDER BY id DESC LIMIT ?
"""
BODY = "SELECT body FROM block WHERE id = ?"
LAST = "SELECT coalesce(max(id), 0) FROM block"
END_OF_TIME = 1 << 62

Entry = Sequence[Any]
"""time_ms, service, function, request id, then what the kind of entry adds."""


@dataclass(frozen=True, slots=True)
class Search:
    """Which entries are asked for; empty fields ask for all. ``after_seq`` and ``before_seq``
    exclude themselves; times include both ends, in ms."""

    service: str = ""
    function: str = ""
    request_id: str = ""
    since_ms: int = 0
    until_ms: int = END_OF_TIME
    after_seq: int = 0
    before_seq: int = END_OF_TIME
    newest_first: bool = True
    limit: int = 100

    def matches(self, seq: int, entry: Entry) -> bool:
        return (
            self.after_seq < seq < self.before_seq
            and self.since_ms <= entry[0] <= self.until_ms
            and self.service in ("", entry[1])
            and self.function in ("", entry[2])
            and self.request_id in ("", entry[3])
        )


def append(connection: apsw.Connection, first_id: int, entries: Sequence[Entry]) -> int:
    """Store ``entries`` in blocks from ``first_id`` on; the next free id."""
    block_id = first_id
    for start in range(0, len(entries), ENTRIES_PER_BLOCK):
        part = entries[start : start + ENTRIES_PER_BLOCK]
        times = [entry[0] for entry in part]
        owners = sorted({f"{entry[1]}/{entry[2]}" for entry in part})
        hashes = {_hash(request_id) for request_id in {entry[3] for entry in part} if request_id}
        connection.execute(
            ADD,
            (
                block_id,
                min(times),
                max(times),
                len(part),
                orjson.dumps(owners).decode(),
                array("I", sorted(hashes)).tobytes(),
                bytes(cramjam.zstd.compress(_dump(part), level=1)),
            ),
        )
        block_id += 1
    return block_id


def search(
    connection: apsw.Connection,
    wanted: Search,
    *,
    candidate: Callable[[int], bool] | None = None,
    keep: Callable[[Entry], bool] | None = None,
) -> list[tuple[int, Entry]]:
    """(seq, entry) in the order asked for, at most ``limit``.

    Args:
        candidate: whether a block is worth reading, by its id; from another index.
        keep: whether an entry that matches is wanted.
    """
    found: list[tuple[int, Entry]] = []
    for block_id in _blocks(connection, wanted):
        if candidate is not None and not candidate(block_id):
            continue
        entries = read_block(connection, block_id)
        places = range(len(entries))
        for place in reversed(places) if wanted.newest_first else places:
            seq = block_id << SEQ_BITS | place
            entry = entries[place]
            if wanted.matches(seq, entry) and (keep is None or keep(entry)):
                found.append((seq, entry))
                if len(found) >= wanted.limit:
                    return found
    return found


def read_block(connection: apsw.Connection, block_id: int) -> list[Entry]:
    """The entries of a block; none if retention took it meanwhile."""
    body = connection.execute(BODY, (block_id,)).get
    if body is None:
        return []
    entries: list[Entry] = orjson.loads(bytes(cramjam.zstd.decompress(body)))
    return entries


def last_id(connection: apsw.Connection) -> int:
    found: int = connection.execute(LAST).get
    return found


def _blocks(connection: apsw.Connection, wanted: Search) -> Iterator[int]:
    """The ids of the blocks that may hold something, in the order asked for."""
    low = wanted.after_seq >> SEQ_BITS
    high = wanted.before_seq >> SEQ_BITS
    needle = array("I", [_hash(wanted.request_id)]).tobytes() if wanted.request_id else b""
    statement = HEADS_DOWN if wanted.newest_first else HEADS_UP
    while True:
        bounds = (low, high, wanted.since_ms, wanted.until_ms, BLOCKS_PER_STEP)
        rows = select(connection, statement, bounds)
        for block_id, owners, requests in rows:
            if needle in requests and _may_own(orjson.loads(owners), wanted):
                yield block_id
        if len(rows) < BLOCKS_PER_STEP:
            return
        if wanted.newest_first:
            high = rows[-1][0] - 1
        else:
            low = rows[-1][0] + 1


def _may_own(owners: list[str], wanted: Search) -> bool:
    if not wanted.service and not wanted.function:
        return True
    for owner in owners:
        service, _, function = owner.partition("/")
        if wanted.service in ("", service) and wanted.function in ("", function):
            return True
    return False


def _hash(request_id: str) -> int:
    return crc32(request_id.encode(errors="replace"))


def _dump(entries: Sequence[Entry]) -> bytes:
    try:
        return orjson.dumps(entries)
    except orjson.JSONEncodeError:  # a lone surrogate somewhere: keep the rest readable
        return orjson.dumps([[_valid(value) for value in entry] for entry in entries])


def _valid(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value

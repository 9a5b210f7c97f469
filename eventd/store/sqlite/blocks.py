"""Entries (log lines, records) in compressed blocks: cheap to append, skipped fast in a search.

A row per line, with indexes, would cost some 20 times more per entry than a block of a thousand:
request ids are random, and an index on them dirties a page each. An entry's position (``seq``) is
its block's id plus its place in it; packing small blocks together keeps positions.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import apsw
import cramjam
import orjson

from eventd.store.sqlite.connection import select

ENTRIES_PER_BLOCK = 1000

BLOCKS_PER_STEP = 64
"""Looked at in one read transaction, so that no reader holds a snapshot for long."""

END_OF_TIME = 1 << 62

ADD = """
    INSERT INTO block (id, entries, first_ms, last_ms, owners, requests, body)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
NEXT_UP = """
    SELECT id, entries, owners, requests FROM block
    WHERE id >= coalesce((SELECT max(id) FROM block WHERE id <= ?1), 0)
        AND last_ms >= ?2 AND first_ms <= ?3
    ORDER BY id LIMIT ?4
"""
NEXT_DOWN = """
    SELECT id, entries, owners, requests FROM block
    WHERE id < ?1 AND last_ms >= ?2 AND first_ms <= ?3 ORDER BY id DESC LIMIT ?4
"""
BODY = "SELECT body FROM block WHERE id = ?"
END = "SELECT id + entries FROM block ORDER BY id DESC LIMIT 1"
DONE_TO = "SELECT done_to FROM packing"
SET_DONE_TO = "UPDATE packing SET done_to = ?"
UNPACKED = "SELECT id, entries FROM block WHERE id >= ? ORDER BY id LIMIT ?"
REMOVE = "DELETE FROM block WHERE id BETWEEN ? AND ?"

Entry = Sequence[Any]
"""time_ms, service, function, request id, then what the kind of entry adds."""


@dataclass(frozen=True, slots=True)
class Search:
    """Which entries are asked for; empty fields ask for all. Positions and times include both
    ends; times in ms."""

    service: str = ""
    function: str = ""
    request_id: str = ""
    since_ms: int = 0
    until_ms: int = END_OF_TIME
    first_seq: int = 0
    last_seq: int = END_OF_TIME
    newest_first: bool = True
    limit: int = 100

    def matches(self, entry: Entry) -> bool:
        return (
            self.since_ms <= entry[0] <= self.until_ms
            and self.service in ("", entry[1])
            and self.function in ("", entry[2])
            and self.request_id in ("", entry[3])
        )


def append(connection: apsw.Connection, first_seq: int, entries: Sequence[Entry]) -> int:
    """Store ``entries`` from position ``first_seq`` on; the next free position."""
    for start in range(0, len(entries), ENTRIES_PER_BLOCK):
        _add(connection, first_seq + start, entries[start : start + ENTRIES_PER_BLOCK])
    return first_seq + len(entries)


def pack(connection: apsw.Connection, *, read: bool = True) -> tuple[int, Sequence[Entry]] | None:
    """Make one full block of the oldest small ones. Its id and (``read``) its entries; ``None`` if
    there are not enough entries for one yet."""
    start = connection.execute(DONE_TO).get
    rows = select(connection, UNPACKED, (start, ENTRIES_PER_BLOCK))
    total = used = 0
    for _, entries in rows:
        total += entries
        used += 1
        if total >= ENTRIES_PER_BLOCK:
            break
    if total < ENTRIES_PER_BLOCK:
        return None
    ids = [row[0] for row in rows[:used]]
    packed: Sequence[Entry] = ()
    if read or used > 1:
        packed = [entry for block_id in ids for entry in read_block(connection, block_id)]
    if used > 1:
        connection.execute(REMOVE, (ids[0], ids[-1]))
        _add(connection, ids[0], packed)
    connection.execute(SET_DONE_TO, (ids[0] + total,))
    return ids[0], packed


def search(
    connection: apsw.Connection,
    wanted: Search,
    *,
    candidates: Collection[int] | None = None,
    candidates_to: int = 0,
    keep: Callable[[Entry], bool] | None = None,
) -> list[tuple[int, Entry]]:
    """(position, entry) in the order asked for, at most ``limit``.

    Args:
        candidates: of the blocks before position ``candidates_to`` only these can match.
        keep: whether an entry that matches otherwise is wanted.
    """
    found: list[tuple[int, Entry]] = []
    low, high = wanted.first_seq, wanted.last_seq
    needle = array("I", [_hash(wanted.request_id)]).tobytes() if wanted.request_id else b""
    while low <= high and len(found) < wanted.limit:
        with connection:  # one snapshot: packing moves entries between blocks
            bounds = (wanted.since_ms, wanted.until_ms, BLOCKS_PER_STEP)
            if wanted.newest_first:
                rows = select(connection, NEXT_DOWN, (high + 1, *bounds))
            else:
                rows = select(connection, NEXT_UP, (low, *bounds))
            for block_id, _, owners, requests in rows:
                if needle not in requests or not _may_own(owners, wanted):
                    continue
                if candidates is None or block_id >= candidates_to or block_id in candidates:
                    entries = read_block(connection, block_id)
                    found += _matching(entries, block_id, low, high, wanted, keep)
                if len(found) >= wanted.limit:
                    break
        if len(rows) < BLOCKS_PER_STEP:
            break
        if wanted.newest_first:
            high = rows[-1][0] - 1
        else:
            low = rows[-1][0] + rows[-1][1]
    return found[: wanted.limit]


def read_block(connection: apsw.Connection, block_id: int) -> list[Entry]:
    body = connection.execute(BODY, (block_id,)).get
    entries: list[Entry] = orjson.loads(bytes(cramjam.zstd.decompress(body)))
    return entries


def next_seq(connection: apsw.Connection) -> int:
    """The first free position, at least 1; it never goes back, also when all blocks are gone."""
    found: int | None = connection.execute(END).get
    return max(found or 1, packed_to(connection))


def packed_to(connection: apsw.Connection) -> int:
    """The position that ends the full blocks."""
    found: int = connection.execute(DONE_TO).get
    return found


def _add(connection: apsw.Connection, block_id: int, entries: Sequence[Entry]) -> None:
    times = [entry[0] for entry in entries]
    owners = sorted({(entry[1], entry[2]) for entry in entries})
    hashes = {_hash(request_id) for request_id in {entry[3] for entry in entries} if request_id}
    connection.execute(
        ADD,
        (
            block_id,
            len(entries),
            min(times),
            max(times),
            orjson.dumps(owners).decode(),
            array("I", sorted(hashes)).tobytes(),
            bytes(cramjam.zstd.compress(_dump(entries), level=1)),
        ),
    )


def _matching(
    entries: Sequence[Entry],
    block_id: int,
    low: int,
    high: int,
    wanted: Search,
    keep: Callable[[Entry], bool] | None,
) -> list[tuple[int, Entry]]:
    found = [
        (block_id + place, entry)
        for place, entry in enumerate(entries)
        if low <= block_id + place <= high
        and wanted.matches(entry)
        and (keep is None or keep(entry))
    ]
    return found[::-1] if wanted.newest_first else found


def _may_own(owners: str, wanted: Search) -> bool:
    if not wanted.service and not wanted.function:
        return True
    return any(
        wanted.service in ("", service) and wanted.function in ("", function)
        for service, function in orjson.loads(owners)
    )


def _hash(request_id: str) -> int:
    return crc32(request_id.encode(errors="replace"))


def _dump(entries: Sequence[Entry]) -> bytes:
    try:
        return orjson.dumps(entries)
    except orjson.JSONEncodeError:  # a lone surrogate somewhere: keep the rest readable
        return orjson.dumps([[_valid(value) for value in entry] for entry in entries])


def _valid(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value

"""What the queue reads: backlogs at the start, next rows, dead letters. In the writer's thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apsw
import orjson

from eventd.model.invocation import DeadLetter, Invocation
from eventd.store.sqlite.payloads import PayloadFiles
from eventd.store.sqlite.rows import CORRUPT, Damaged, Owner, Row, decode, file_of

LOAD_ROWS = 256
LOAD_BYTES = 4 << 20

FUNCTIONS = "SELECT no, service, function, incarnation FROM function ORDER BY no"
COUNT_ROWS = "SELECT count(*), max(id) FROM invocation WHERE id BETWEEN ? AND ?"
COUNT_DELAYED = "SELECT count(*), max(id) FROM delayed WHERE function_no = ?"
COUNT_LETTERS = "SELECT count(*), coalesce(max(id), 0) FROM dead_letter"
FORGET_FUNCTION = "DELETE FROM function WHERE no = ?"
FILES = "SELECT name FROM payload_file"
NEXT_ROWS = """
    SELECT id, meta, payload, crc FROM invocation WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
"""
NEXT_DELAYED = """
    SELECT id, meta, payload, crc, due_ms FROM delayed
    WHERE function_no = ? AND (due_ms, id) > (?, ?) ORDER BY due_ms, id LIMIT ?
"""
ROW = "SELECT id, meta, payload, crc FROM invocation WHERE id = ?"
LETTERS = """
    SELECT id, meta, payload, crc, service, function, incarnation, reason, last_error, buried_ms
    FROM dead_letter ORDER BY id DESC LIMIT ?
"""
WAITING_ROWS = """
    SELECT id, meta FROM invocation WHERE id > ? AND id <= ? ORDER BY id LIMIT ?
"""
WAITING_DELAYED = """
    SELECT id, meta FROM delayed WHERE function_no = ? AND id > ? ORDER BY id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What one function left on disk: rows, delayed rows, and the highest sequence in use."""

    owner: Owner
    rows: int
    delayed: int
    highest: int


@dataclass(frozen=True, slots=True)
class Read:
    """One row that was read: the invocation, or what is left of it."""

    row_id: int
    invocation: Invocation
    file: str
    damaged: bool
    due_ms: int = 0


def restore(connection: apsw.Connection) -> tuple[list[Restored], set[str]]:
    """Every function with rows, and the names of the payload files in use."""
    found = []
    for no, service, function, incarnation in list(connection.execute(FUNCTIONS)):
        owner = Owner(no, service, function, incarnation)
        rows, last = connection.execute(COUNT_ROWS, (owner.first_id, owner.last_id)).get
        delayed, last_delayed = connection.execute(COUNT_DELAYED, (no,)).get
        if rows or delayed:
            highest = max(last or 0, last_delayed or 0) - owner.first_id
            found.append(Restored(owner, rows, delayed, highest))
        else:
            connection.execute(FORGET_FUNCTION, (no,))
    return found, {name for (name,) in connection.execute(FILES)}


def read_next(
    connection: apsw.Connection, files: PayloadFiles, owner: Owner, after: int
) -> list[Read]:
    """The next rows behind the id ``after``; none if there is none left."""
    rows = connection.execute(NEXT_ROWS, (after, owner.last_id, LOAD_ROWS))
    return list(_limited(_read(files, owner, row) for row in rows))


def read_next_delayed(
    connection: apsw.Connection, files: PayloadFiles, owner: Owner, after: tuple[int, int]
) -> list[Read]:
    """The next delayed rows behind ``after`` (due_ms, id)."""
    rows = connection.execute(NEXT_DELAYED, (owner.no, *after, LOAD_ROWS))
    return list(_limited(_read(files, owner, row[:4], row[4]) for row in rows))


def read_row(
    connection: apsw.Connection, files: PayloadFiles, owner: Owner, row_id: int
) -> Read | None:
    row = connection.execute(ROW, (row_id,)).get
    return None if row is None else _read(files, owner, row)


def read_letters(
    connection: apsw.Connection, files: PayloadFiles, limit: int
) -> Sequence[DeadLetter]:
    """The newest first; one that is damaged says so in its reason."""
    letters = []
    for row in connection.execute(LETTERS, (limit,)):
        owner = Owner(0, *row[4:7])
        read = _read(files, owner, row[:4])
        reason = CORRUPT if read.damaged else row[7]
        letters.append(DeadLetter(read.invocation, reason, row[8], row[9]))
    return letters


def waiting_ids(
    connection: apsw.Connection,
    owner: Owner,
    after: int,
    trigger_id: str,
    *,
    delayed: bool,
    limit: int,
) -> tuple[list[int], int | None]:
    """Ids behind ``after`` that belong to ``trigger_id`` (empty: all), and where to go on."""
    if delayed:
        rows = connection.execute(WAITING_DELAYED, (owner.no, after, limit))
    else:
        rows = connection.execute(WAITING_ROWS, (after, owner.last_id, limit))
    found = []
    seen = 0
    last = after
    for row_id, meta in rows:
        seen += 1
        last = row_id
        if not trigger_id or _trigger_of(meta) == trigger_id:
            found.append(row_id)
    return found, last if seen == limit else None


def read_rows(
    connection: apsw.Connection,
    files: PayloadFiles,
    owner: Owner,
    row_ids: Iterable[int],
    *,
    delayed: bool,
) -> list[Read]:
    table = "delayed" if delayed else "invocation"
    statement = f"SELECT id, meta, payload, crc FROM {table} WHERE id = ?"  # one of two names
    found = []
    for row_id in row_ids:
        row = connection.execute(statement, (row_id,)).get
        if row is not None:
            found.append(_read(files, owner, row))
    return found


def _limited(reads: Iterator[Read]) -> Iterator[Read]:
    size = 0
    for read in reads:
        yield read
        size += len(read.invocation.payload)
        if size >= LOAD_BYTES:
            return


def _read(files: PayloadFiles, owner: Owner, row: Row, due_ms: int = 0) -> Read:
    row_id, meta, _, _ = row
    try:
        file = file_of(meta)
    except ValueError:
        file = ""
    content = files.read(file) if file else None
    try:
        invocation = decode(owner, row, content)
    except Damaged as damaged:
        return Read(row_id, damaged.invocation, file, damaged=True, due_ms=due_ms)
    return Read(row_id, invocation, file, damaged=False, due_ms=due_ms)


def _trigger_of(meta: str) -> str:
    try:
        return str(orjson.loads(meta)[8])
    except (ValueError, IndexError, KeyError, TypeError):
        return ""  # a damaged row is found when it is loaded

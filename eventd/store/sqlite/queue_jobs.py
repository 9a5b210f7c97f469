"""What the queue writes, gathered per transaction so that a batch costs a handful of SQL steps.

Each step of SQLite gives the interpreter lock away and must win it back from the loop's thread;
so rows of a batch travel in one statement, never one by one.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import apsw
import orjson

from eventd.model.invocation import DeadLetter, Invocation
from eventd.store.interface import Progress
from eventd.store.sqlite.function_backlog import Head
from eventd.store.sqlite.rows import Owner, Row, encode
from eventd.store.sqlite.writer import Job

ROWS_PER_STEP = (256, 64, 16, 4, 1)

ADD_FUNCTIONS = """
    INSERT OR IGNORE INTO function (no, service, function, incarnation)
    SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?)
"""
FIND_SEEN = "SELECT key FROM seen WHERE key IN (SELECT value FROM json_each(?))"
ADD_SEEN = """
    INSERT INTO seen (key, trigger_id, seen_ms)
    SELECT value->>0, value->>1, value->>2 FROM json_each(?)
"""
ADD_FILES = "INSERT INTO payload_file (name) SELECT value FROM json_each(?)"
REMOVE_FILES = "DELETE FROM payload_file WHERE name IN (SELECT value FROM json_each(?))"
SET_CURSORS = """
    INSERT OR REPLACE INTO cursor (source, cursor)
    SELECT value->>0, value->>1 FROM json_each(?)
"""
SET_STATE = """
    INSERT OR REPLACE INTO state (source, key, value)
    SELECT value->>0, value->>1, value->>2 FROM json_each(?)
"""
UNSET_STATE = """
    DELETE FROM state WHERE (source, key) IN (SELECT value->>0, value->>1 FROM json_each(?))
"""
ADD_ROWS = "INSERT INTO invocation (id, meta, payload, crc) VALUES "
ADD_DELAYED = "INSERT INTO delayed (id, meta, payload, crc, function_no, due_ms) VALUES "
ADD_LETTERS = (
    "INSERT INTO dead_letter (id, meta, payload, crc, service, function, incarnation, reason,"
    " last_error, buried_ms) VALUES "
)
REMOVE_ROWS = "DELETE FROM invocation WHERE id IN (SELECT value FROM carray(?))"
REMOVE_DELAYED = "DELETE FROM delayed WHERE id IN (SELECT value FROM carray(?))"
REPLACE_ROW = "UPDATE invocation SET meta = ?2, payload = ?3, crc = ?4 WHERE id = ?1"

DelayedRow = tuple[int, str, bytes, int, int, int]
LetterRow = tuple[int, str, bytes, int, str, str, str, str, bytes, int]


def _statements(start: str, columns: int) -> dict[int, str]:
    values = f"({', '.join('?' * columns)})"
    return {count: start + ", ".join([values] * count) for count in ROWS_PER_STEP}


_ROW_STATEMENTS = _statements(ADD_ROWS, 4)
_DELAYED_STATEMENTS = _statements(ADD_DELAYED, 6)
_LETTER_STATEMENTS = _statements(ADD_LETTERS, 10)


def _insert(
    connection: apsw.Connection, statements: dict[int, str], rows: Sequence[tuple[Any, ...]]
) -> None:
    start = 0
    for count in ROWS_PER_STEP:
        while len(rows) - start >= count:
            values = tuple(chain.from_iterable(rows[start : start + count]))
            connection.execute(statements[count], values)
            start += count


def _json(connection: apsw.Connection, statement: str, values: Sequence[Any]) -> None:
    if values:
        connection.execute(statement, (orjson.dumps(values).decode(),))


def remove_rows(connection: apsw.Connection, ids: Sequence[int], *, delayed: bool) -> None:
    if ids:
        statement = REMOVE_DELAYED if delayed else REMOVE_ROWS
        connection.execute(statement, (apsw.carray(array("q", ids)),))


def remove_files(connection: apsw.Connection, names: Sequence[str]) -> None:
    _json(connection, REMOVE_FILES, names)


def insert_letters(connection: apsw.Connection, rows: Sequence[LetterRow]) -> None:
    _insert(connection, _LETTER_STATEMENTS, rows)


def letter_row(row_id: int, letter: DeadLetter, file: str) -> LetterRow:
    invocation = letter.invocation
    return (
        *encode(row_id, invocation, file),
        invocation.service,
        invocation.function,
        invocation.incarnation,
        letter.reason,
        letter.last_error,
        letter.buried_ms,
    )


Put = tuple[list[Head], Sequence[Invocation], asyncio.Future[Sequence[Invocation]]]
"""One call of ``Queue.put``."""


class PutJob(Job[frozenset[int]]):
    """All ``put`` calls of one transaction. Its result: the row ids that were not stored, since
    their event key is a repeat."""

    __slots__ = ("_done", "_seal", "keyed", "owners", "progress", "puts", "rows", "seen_ms")

    def __init__(
        self,
        seal: Callable[[], None],
        done: Callable[[PutJob, frozenset[int], BaseException | None], None],
        seen_ms: int,
    ) -> None:
        super().__init__(intake=True)
        self.puts: list[Put] = []
        self.rows: list[Row] = []
        self.keyed: list[tuple[str, str, int]] = []  # event key, trigger id, row id
        self.owners: list[Owner] = []
        self.progress: list[Progress] = []
        self.seen_ms = seen_ms
        self._seal = seal
        self._done = done

    def seal(self) -> None:
        self._seal()

    def run(self, connection: apsw.Connection) -> frozenset[int]:
        _json(
            connection,
            ADD_FUNCTIONS,
            [(owner.no, owner.service, owner.function, owner.incarnation) for owner in self.owners],
        )
        skipped = self._add_seen(connection) if self.keyed else frozenset[int]()
        rows = []
        delayed = []
        files = []
        heads = chain.from_iterable(put[0] for put in self.puts)
        for head, row in zip(heads, self.rows, strict=True):
            if skipped and row[0] in skipped:
                continue
            if head.delayed:
                delayed.append((*row, head.function.owner.no, head.invocation.due_ms))
            else:
                rows.append(row)
            if head.file:
                files.append(head.file)
        _insert(connection, _ROW_STATEMENTS, rows)
        _insert(connection, _DELAYED_STATEMENTS, delayed)
        _json(connection, ADD_FILES, files)
        if self.progress:
            self._save_progress(connection)
        return skipped

    def committed(self, result: frozenset[int]) -> None:
        self._done(self, result, None)

    def failed(self, error: BaseException) -> None:
        self._done(self, frozenset(), error)

    def _add_seen(self, connection: apsw.Connection) -> frozenset[int]:
        keys = orjson.dumps([key for key, _, _ in self.keyed]).decode()
        known = {row[0] for row in connection.execute(FIND_SEEN, (keys,))}
        new = []
        skipped = []
        for key, trigger_id, row_id in self.keyed:
            if key in known:
                skipped.append(row_id)
            else:
                known.add(key)
                new.append((key, trigger_id, self.seen_ms))
        _json(connection, ADD_SEEN, new)
        return frozenset(skipped)

    def _save_progress(self, connection: apsw.Connection) -> None:
        cursors: dict[str, str] = {}
        state: dict[tuple[str, str], str | None] = {}
        for progress in self.progress:
            if progress.cursor is not None:
                cursors[progress.source] = progress.cursor
            for key, value in (progress.state or {}).items():
                state[progress.source, key] = value
        _json(connection, SET_CURSORS, list(cursors.items()))
        kept = [(*key, value) for key, value in state.items() if value is not None]
        _json(connection, SET_STATE, kept)
        _json(connection, UNSET_STATE, [key for key, value in state.items() if value is None])


class SettleJob(Job[None]):
    """All outcomes of one transaction: finished, retried and buried ones. Never refused for want
    of space."""

    __slots__ = (
        "_done",
        "_seal",
        "calls",
        "delayed",
        "files",
        "letters",
        "new_files",
        "removed",
        "replaced",
    )

    def __init__(
        self,
        seal: Callable[[], None],
        done: Callable[[SettleJob, BaseException | None], None],
    ) -> None:
        super().__init__(intake=False)
        self.calls: list[tuple[asyncio.Future[None], Callable[[], None], Head | None]] = []
        self.removed: tuple[list[int], list[int]] = ([], [])  # by Head.delayed
        self.replaced: list[Row] = []
        self.delayed: list[DelayedRow] = []
        self.letters: list[LetterRow] = []
        self.files: list[str] = []  # of finished ones
        self.new_files: list[str] = []  # of letters that were never put
        self._seal = seal
        self._done = done

    def seal(self) -> None:
        self._seal()

    def run(self, connection: apsw.Connection) -> None:
        for delayed in (False, True):
            remove_rows(connection, self.removed[delayed], delayed=delayed)
        if self.replaced:
            connection.executemany(REPLACE_ROW, self.replaced)
        _insert(connection, _DELAYED_STATEMENTS, self.delayed)
        _insert(connection, _LETTER_STATEMENTS, self.letters)
        remove_files(connection, self.files)
        _json(connection, ADD_FILES, self.new_files)

    def committed(self, result: None) -> None:
        self._done(self, None)

    def failed(self, error: BaseException) -> None:
        self._done(self, error)

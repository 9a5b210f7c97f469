"""Opening one SQLite file: library check, file mode, pragmas, migrations."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from eventd.store.interface import StoreFailed

OLDEST_LIBRARY = (3, 51, 3)
"""Before it, resetting a WAL could lose commits (the WAL-reset bug)."""

BUSY_TIMEOUT_MS = 10_000

PAGE_BYTES = 8192
"""Twice SQLite's default: a batch of 1 KB rows commits in two thirds of the time."""

_STEP = re.compile(r"(?P<family>[a-z]+)-(?P<number>\d{4})\.sql")


class SchemaTooNew(StoreFailed):
    """The file was written by a newer eventd; nothing was changed."""


def check_library(version: str = "") -> None:
    """Raise ``StoreFailed`` if the SQLite library is older than ``OLDEST_LIBRARY``."""
    version = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < OLDEST_LIBRARY:
        wanted = ".".join(map(str, OLDEST_LIBRARY))
        raise StoreFailed(
            f"SQLite {version} can lose commits when it resets its log; "
            f"{wanted} or newer is needed (install a newer apsw)"
        )


def migrations(family: str) -> list[str]:
    """The SQL steps of one kind of file, in order; step n leads to ``user_version`` n."""
    steps: dict[int, str] = {}
    for entry in resources.files("eventd.store.migrations.sqlite").iterdir():
        match = _STEP.fullmatch(entry.name)
        if match is not None and match["family"] == family:
            steps[int(match["number"])] = entry.read_text(encoding="utf-8")
    if sorted(steps) != list(range(1, len(steps) + 1)):
        raise StoreFailed(f"the migrations of {family} are not numbered without a gap")
    return [steps[number] for number in sorted(steps)]


def open_writing(
    path: Path, family: str, *, synchronous: str, vfs: str | None = None
) -> apsw.Connection:
    """Open or create ``path`` (mode 0600), bring its schema up to date, give the connection that
    alone writes to it.

    Args:
        synchronous: ``FULL`` (each commit is synced) or ``NORMAL``.
        vfs: name of another SQLite file layer; tests inject disk failures with it.
    Raises:
        SchemaTooNew: the file belongs to a newer eventd.
        StoreFailed: the file cannot be opened or is no database.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(str(path), flags=flags, vfs=vfs)
    except (OSError, apsw.Error) as error:
        raise StoreFailed(f"cannot open {path}: {error}") from error
    try:
        _set_up(connection, path, synchronous)
        _migrate(connection, path, family)
    except apsw.Error as error:
        connection.close(True)
        raise StoreFailed(f"cannot use {path}: {error}") from error
    except StoreFailed:
        connection.close(True)
        raise
    return connection


def open_reading(path: Path) -> apsw.Connection:
    """A connection that only reads; for short queries in a thread."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def select(
    connection: apsw.Connection, statement: str, bindings: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """All rows of ``statement``, whose columns the caller knows the types of."""
    return connection.execute(statement, bindings).fetchall()


def _set_up(connection: apsw.Connection, path: Path, synchronous: str) -> None:
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    # A connection that closes after a failed sync must not copy its log into the database.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("page_size", PAGE_BYTES)
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise StoreFailed(f"{path}: the file system does not support SQLite's log (got {mode})")
    connection.pragma("synchronous", synchronous)
    connection.wal_autocheckpoint(0)
    connection.pragma("cache_size", -16_384)
    connection.pragma("temp_store", "memory")


def _migrate(connection: apsw.Connection, path: Path, family: str) -> None:
    steps = migrations(family)
    found = connection.pragma("user_version")
    if found > len(steps):
        raise SchemaTooNew(
            f"{path} has schema {found}, this eventd knows up to {len(steps)}; "
            "start the newer eventd, or restore a backup"
        )
    for number in range(found + 1, len(steps) + 1):
        with connection:
            connection.execute(steps[number - 1])
            connection.pragma("user_version", number)

"""Event keys seen: how long they are kept. In the writer's thread."""

from __future__ import annotations

import apsw

from eventd.store.sqlite.connection import select

KEEP_MS = 24 * 3600 * 1000
KEEP_PER_TRIGGER = 1_000_000
ROWS_PER_STEP = 5_000

TRIGGERS = "SELECT trigger_id, count(*) FROM seen GROUP BY trigger_id"
FORGET = """
    DELETE FROM seen WHERE key IN (
        SELECT key FROM seen WHERE trigger_id = ? AND seen_ms < ? ORDER BY seen_ms LIMIT ?
    )
"""
ALWAYS = 1 << 62


def prune_seen(
    connection: apsw.Connection, now_ms: int, *, keep_per_trigger: int = KEEP_PER_TRIGGER
) -> int:
    """Forget keys older than 24 h and beyond a million per trigger, a bounded number per call;
    how many."""
    forgotten = 0
    for trigger_id, count in select(connection, TRIGGERS):
        connection.execute(FORGET, (trigger_id, now_ms - KEEP_MS, ROWS_PER_STEP))
        expired = connection.changes()
        excess = min(count - expired - keep_per_trigger, ROWS_PER_STEP)
        if excess > 0:
            connection.execute(FORGET, (trigger_id, ALWAYS, excess))
            expired += connection.changes()
        forgotten += expired
    return forgotten

"""Finding the blocks that may hold a part of a line: an index of three characters in a row."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from eventd.store.sqlite import blocks
from eventd.store.sqlite.blocks import Entry
from eventd.store.sqlite.connection import select

GRAM = 3
MAX_GRAMS = 16
"""More of them hardly narrow a search."""

TEXT = 6
"""Where an entry of a log block has its text."""

ADD = "INSERT INTO grams (rowid, text) VALUES (?, ?)"
FIND = "SELECT rowid FROM grams WHERE grams MATCH ?"


def pack_and_index(connection: apsw.Connection) -> bool:
    """Pack one full block and index it; whether there was one."""
    packed = blocks.pack(connection)
    if packed is None:
        return False
    block_id, entries = packed
    connection.execute(ADD, (block_id, "\n".join(entry[TEXT] for entry in entries)))
    return True


def candidates(connection: apsw.Connection, text: str) -> tuple[set[int] | None, int]:
    """The indexed blocks that may hold ``text``, and the position up to which blocks are indexed.
    ``None``: the text is too short to tell."""
    query = _query(text)
    if not query:
        return None, 0
    indexed_to = blocks.packed_to(connection)
    return {row[0] for row in select(connection, FIND, (query,))}, indexed_to


def holds(text: str) -> Callable[[Entry], bool]:
    """Whether an entry's text holds ``text``; letter case does not matter."""
    lowered = text.lower()
    return lambda entry: lowered in entry[TEXT].lower()


def _query(text: str) -> str:
    """All grams of ``text`` (some, of a long one) in FTS5's language."""
    grams = list(dict.fromkeys(text[at : at + GRAM] for at in range(len(text) - GRAM + 1)))
    step = -(-len(grams) // MAX_GRAMS) or 1
    return " AND ".join('"' + gram.replace('"', '""') + '"' for gram in grams[::step])

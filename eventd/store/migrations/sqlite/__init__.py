"""``<file>-<number>.sql``: step ``number`` of one kind of file; ``PRAGMA user_version`` counts."""

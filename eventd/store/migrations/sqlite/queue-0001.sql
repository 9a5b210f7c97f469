-- How often this data directory was opened; one row.
CREATE TABLE owner (epoch INTEGER NOT NULL);
INSERT INTO owner VALUES (0);

-- Names the functions that queue rows belong to; `no` is the high part of their rowid.
CREATE TABLE function (
    no INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    function TEXT NOT NULL,
    incarnation TEXT NOT NULL
);

-- The hot table. id = no << 40 | sequence: each function's rows lie together in order, without
-- another index. `crc` covers id, meta and payload.
CREATE TABLE invocation (
    id INTEGER PRIMARY KEY,
    meta TEXT NOT NULL,
    payload BLOB NOT NULL,
    crc INTEGER NOT NULL
);

-- Invocations without ordering key that are not due yet.
CREATE TABLE delayed (
    id INTEGER PRIMARY KEY,
    meta TEXT NOT NULL,
    payload BLOB NOT NULL,
    crc INTEGER NOT NULL,
    function_no INTEGER NOT NULL,
    due_ms INTEGER NOT NULL
);
CREATE INDEX delayed_due ON delayed (function_no, due_ms, id);

CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY,
    meta TEXT NOT NULL,
    payload BLOB NOT NULL,
    crc INTEGER NOT NULL,
    service TEXT NOT NULL,
    function TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    reason TEXT NOT NULL,
    last_error BLOB NOT NULL,
    buried_ms INTEGER NOT NULL
);

-- Files that hold large payloads; a file without a row here is left over from a crash.
CREATE TABLE payload_file (name TEXT PRIMARY KEY) WITHOUT ROWID;

-- Event keys seen; `key` is a hash of trigger, source and event id.
CREATE TABLE seen (
    key TEXT PRIMARY KEY,
    trigger_id TEXT NOT NULL,
    seen_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX seen_age ON seen (trigger_id, seen_ms);

CREATE TABLE cursor (source TEXT PRIMARY KEY, cursor TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE state (
    source TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (source, key)
) WITHOUT ROWID;

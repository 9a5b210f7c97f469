-- Entries in blocks: `body` is zstd of a JSON list; `requests` the 32-bit hashes of the request
-- ids in it, `owners` the JSON list of its "service/function" names: both let a search skip it.
CREATE TABLE block (
    id INTEGER PRIMARY KEY,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    owners TEXT NOT NULL,
    requests BLOB NOT NULL,
    body BLOB NOT NULL
);

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

-- Which blocks hold a word. The text is not stored twice, and filled in behind the writer.
CREATE VIRTUAL TABLE words USING fts5(text, content='', detail='none', columnsize=0);
CREATE TABLE indexing (done_to INTEGER NOT NULL);
INSERT INTO indexing VALUES (0);

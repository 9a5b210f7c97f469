-- Entries in blocks: `id` is the position of the first, the others follow without a gap. `body` is
-- zstd of a JSON list; `requests` the 32-bit hashes of the request ids in it, `owners` the JSON
-- list of its "service/function" names: both let a search skip the block.
CREATE TABLE block (
    id INTEGER PRIMARY KEY,
    entries INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    owners TEXT NOT NULL,
    requests BLOB NOT NULL,
    body BLOB NOT NULL
);

-- Blocks before `done_to` are full; the small ones behind it are still to be packed.
CREATE TABLE packing (done_to INTEGER NOT NULL);
INSERT INTO packing VALUES (0);

-- One row per resource; `function` is empty where a kind has none.
CREATE TABLE resource (
    kind TEXT NOT NULL,
    service TEXT NOT NULL,
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    etag TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (service, kind, function, name)
) WITHOUT ROWID;

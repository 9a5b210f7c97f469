"""The HTTP request head as bytes, for an HTTP function that is called asynchronously."""

from __future__ import annotations

import orjson

from eventd.pool.call import HttpHead


def encode(head: HttpHead) -> bytes:
    """Inverse of ``decode``; a lone surrogate in a header becomes ``?`` (JSON cannot hold it)."""
    parts = [
        head.method,
        head.path,
        head.uri,
        head.query,
        [list(pair) for pair in head.headers],
        head.client_ip,
    ]
    try:
        return orjson.dumps(parts)
    except TypeError:  # raised for text that is not valid Unicode
        return orjson.dumps(_replaced(parts))


def decode(data: bytes) -> HttpHead:
    method, path, uri, query, headers, client_ip = orjson.loads(data)
    return HttpHead(
        method, path, uri, query, tuple((name, value) for name, value in headers), client_ip
    )


def _replaced(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    assert isinstance(value, list)
    return [_replaced(item) for item in value]

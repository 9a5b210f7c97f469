"""``parse_head``: one reading or a refusal."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.api.head import HeadersTooLarge, HeadLimits, malformed_so_far, parse_head
from eventd.errors import InvalidArgument

LIMITS = HeadLimits(headers=8192, path=4096)
names = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=12).map(
    lambda text: f"x-{text}"
)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF), max_size=30).filter(
    lambda text: not {"\x7f", *map(chr, range(0x80, 0xA0))} & set(text)
)


@given(st.lists(st.tuples(names, values), max_size=8))
def test_every_well_formed_field_is_read_as_it_was_sent(fields: list[tuple[str, str]]) -> None:
    fields = [(n, v) for n, v in fields if not n.lower().startswith("x-fc-")]
    lines = [f"{name}: {value}" for name, value in fields]
    head = "\r\n".join(["GET /a?b=c HTTP/1.1", "Host: h", *lines]) + "\r\n\r\n"

    found = parse_head(head.encode(), LIMITS)

    expected = [(name.lower(), value.strip(" \t")) for name, value in fields]
    assert found.fields == [("host", "h"), *expected]
    assert (found.method, found.target, found.keep_alive) == ("GET", "/a?b=c", True)
    for name, _ in expected:
        assert found.headers[name] == ",".join(v for n, v in expected if n == name)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_but_nothing_else(data: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\n" + data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    try:
        head = parse_head(raw, LIMITS)
    except InvalidArgument:
        return
    assert "\n" not in "".join(name + value for name, value in head.fields)
    assert "\0" not in "".join(name + value for name, value in head.fields)


def test_latin_1_is_read_where_it_is_not_utf_8() -> None:
    head = parse_head(b"GET / HTTP/1.1\r\nHost: a\r\nA: \xe4\r\nB: \xc3\xa4\r\n\r\n", LIMITS)

    assert (head.headers["a"], head.headers["b"]) == ("\u00e4", "\u00e4")


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("1.1", "", True), ("1.1", "close", False), ("1.1", "x, Close", False),
        ("1.0", "", False), ("1.0", "Keep-Alive", True),
    ],
)  # fmt: skip
def test_keeping_the_connection(version: str, connection: str, keeps: bool) -> None:
    line = f"Connection: {connection}\r\n" if connection else ""

    head = parse_head(f"GET / HTTP/{version}\r\nHost: a\r\n{line}\r\n".encode(), LIMITS)

    assert head.keep_alive is keeps


def test_the_limits_are_exact() -> None:
    line, host = b"GET / HTTP/1.1\r\n", b"Host: a\r\n"
    filling = b"A: " + b"x" * (8192 - len(host) - 5) + b"\r\n"

    assert parse_head(line + host + filling + b"\r\n", LIMITS).headers["host"] == "a"
    with pytest.raises(HeadersTooLarge):
        parse_head(line + host + b"A: x" + filling[3:] + b"\r\n", LIMITS)
    longest = b"/" * 4096
    assert parse_head(b"GET " + longest + b" HTTP/1.1\r\nHost: a\r\n\r\n", LIMITS)
    with pytest.raises(HeadersTooLarge):
        parse_head(b"GET /" + longest + b" HTTP/1.1\r\nHost: a\r\n\r\n", LIMITS)


def test_a_bare_line_feed_is_seen_before_the_head_is_whole() -> None:
    assert malformed_so_far(b"GET / HTTP/1.1\nHost")
    assert not malformed_so_far(b"GET / HTTP/1.1\r\nHost")

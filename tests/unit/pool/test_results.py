"""Values and errors of handlers as FC's bytes."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.runtimes.python.logs import MAX_LINE, _pieces
from eventd.runtimes.python.results import LoadError, exception_json, to_bytes


class Own:
    def to_json(self) -> dict[str, int]:
        return {"a": 1}


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b"\x00\xff", b"\x00\xff"),
        ("hällo", "hällo".encode()),
        (2, b"2"),
        (1.5, b"1.5"),
        (True, b"true"),
        (None, b"null"),
        ({"b": 1, "a": "ä"}, b'{\n    "a": "\\u00e4",\n    "b": 1\n}'),
        ([1], b"[\n    1\n]"),
        ([Decimal("1.5")], b"[\n    1.5\n]"),
        (datetime.date(2026, 11, 24), b'"2026-11-24"'),
        (Own(), b'{\n    "a": 1\n}'),
    ],
)
def test_a_returned_value_has_fc_s_bytes(value: Any, body: bytes) -> None:
    assert to_bytes(value) == body


def test_a_value_without_a_json_form_is_refused() -> None:
    with pytest.raises(TypeError):
        to_bytes(object())


def test_an_error_whose_text_fails_still_has_an_answer() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise ValueError

    error = json.loads(exception_json(Broken()))

    assert error["errorMessage"] == "<ValueError in __str__ of Broken>"


def test_a_deep_recursion_gives_a_bounded_error() -> None:
    def down() -> None:
        down()

    try:
        down()
    except RecursionError as error:
        body = exception_json(error)

    assert len(json.loads(body)["stackTrace"]) == 50
    assert len(body) < 64 << 10


def test_a_load_error_has_a_flat_stack() -> None:
    error = LoadError("ImportModuleError", "Unable", ModuleNotFoundError("No module named 'x'"))

    stack = json.loads(error.body)["stackTrace"]

    assert stack == [
        "Traceback (most recent call last):",
        "ModuleNotFoundError: No module named 'x'",
    ]


@given(st.lists(st.binary(max_size=10).map(lambda b: b.replace(b"\n", b"")), max_size=8))
def test_short_lines_stay_as_they_are(lines: list[bytes]) -> None:
    text = b"\n".join(lines)

    assert _pieces(text) == [text]


@given(st.lists(st.integers(0, 3 * MAX_LINE), min_size=1, max_size=6))
def test_long_lines_are_cut_and_nothing_is_lost(sizes: list[int]) -> None:
    text = b"\n".join(b"x" * size for size in sizes)

    pieces = _pieces(text)

    lines = b"\n".join(pieces).split(b"\n")
    assert all(len(line) <= MAX_LINE for line in lines)
    assert all(len(piece) <= 64 << 10 for piece in pieces)
    assert b"".join(lines) == text.replace(b"\n", b"")

"""Bodies: JSON objects, base64, and the package that is set aside."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.api.body import decode_base64, parse_object
from eventd.api.code_body import split_body
from eventd.errors import InvalidArgument

TEXTS = st.text(alphabet='ab"\\ü=', max_size=12)
LEAVES = TEXTS | st.integers(-5, 5) | st.none() | st.booleans()
CODES = st.dictionaries(st.sampled_from(["zipFile", "ZIPFILE", "zipfile", "x"]), LEAVES)
OBJECTS = st.dictionaries(
    TEXTS | st.sampled_from(["code", "Code", "zipFile"]), LEAVES | st.lists(LEAVES) | CODES
)


def restored(value: Any, token: str, text: str) -> Any:
    if isinstance(value, dict):
        return {k: restored(v, token, text) for k, v in value.items()}
    return text if token and value == token else value


@given(OBJECTS)
def test_setting_a_string_aside_changes_nothing_that_is_read(content: dict[str, Any]) -> None:
    body = split_body(bytearray(orjson.dumps(content)), long_bytes=4)

    text = bytes(body.text).decode() if body.text is not None else ""
    assert restored(body.content, body.token, text) == content


@given(st.integers(0, 1100), st.booleans())
def test_a_run_of_escapes_is_read_right(count: int, quoted: bool) -> None:
    description = "\\" * count + ('"' if quoted else "") + "x"
    content = {"description": description, "code": {"zipFile": "QUJD" * 9}}

    body = split_body(bytearray(orjson.dumps(content)), long_bytes=20)

    text = bytes(body.text).decode() if body.text is not None else ""
    assert {k: restored(v, body.token, text) for k, v in body.content.items()} == content


@given(st.binary(max_size=60))
def test_a_document_that_is_no_json_is_refused_all_the_same(junk: bytes) -> None:
    try:
        whole: object = parse_object(junk)
    except InvalidArgument:
        with pytest.raises(InvalidArgument):
            split_body(bytearray(junk), long_bytes=4)
    else:
        assert split_body(bytearray(junk), long_bytes=4).content == whole


def test_the_package_is_found_in_any_spelling_and_not_copied() -> None:
    body = split_body(bytearray(b'{"CODE": {"ZipFile": "' + b"QUJD" * 3 + b'"}}'), long_bytes=9)

    assert body.text is not None
    assert bytes(body.text) == b"QUJD" * 3
    assert body.content == {"CODE": {"ZipFile": body.token}}


@given(st.binary(max_size=500))
def test_base64_reads_back(data: bytes) -> None:
    encoded = base64.b64encode(data)

    assert decode_base64(encoded.decode(), field="F") == data
    assert decode_base64(memoryview(encoded), field="F") == data


def test_base64_longer_than_a_slice_reads_back() -> None:
    data = bytes(range(256)) * (3 << 12)

    assert decode_base64(base64.b64encode(data).decode(), field="F") == data


@pytest.mark.parametrize("text", ["A", "AA=A", "A===", "AAAA\n", "AAAA====", " AAAA", "ü", "A-_A"])
def test_loose_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="F is not valid base64"):
        decode_base64(text, field="F")


def test_padding_at_the_end_of_a_slice_is_not_the_end() -> None:
    text = "A" * ((1 << 20) - 2) + "==" + "AAAA"

    with pytest.raises(InvalidArgument, match="padding before the end"):
        decode_base64(text, field="F")

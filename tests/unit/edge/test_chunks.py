"""``ChunkDecoder`` against a slow oracle."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.api.chunks import ChunkDecoder
from eventd.errors import InvalidArgument

bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def encode(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def cut(data: bytes, points: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[start:end] for start, end in pairwise(at)]


@given(bodies, st.lists(st.integers(0, 400), max_size=8), st.binary(max_size=20))
def test_a_body_is_the_same_however_it_was_cut_and_what_follows_is_not_touched(
    parts: list[bytes], points: list[int], following: bytes
) -> None:
    decoder = ChunkDecoder()
    found, rest = b"", b""
    for piece in cut(encode(parts) + following, points):
        if decoder.done:
            rest += piece
            continue
        decoded, used = decoder.feed(piece)
        found += b"".join(decoded)
        rest += piece[used:]

    assert decoder.done
    assert (found, rest) == (b"".join(parts), following)


@given(bodies, st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_framing_byte_never_yields_another_body_silently(
    parts: list[bytes], where: int, byte: int
) -> None:
    """Whatever one byte becomes, the decoder either refuses, wants more, or was handed a body
    that a strict reader of the grammar reads the same way."""
    data = bytearray(encode(parts))
    data[where % len(data)] = byte
    decoder = ChunkDecoder()
    try:
        decoded, used = decoder.feed(bytes(data))
    except InvalidArgument:
        return
    if decoder.done:
        assert strictly(bytes(data[:used])) == b"".join(decoded)


def strictly(data: bytes) -> bytes:
    """The oracle: RFC 9112, 7.1, by recursion over the whole body."""
    line, _, rest = data.partition(b"\r\n")
    size = int(line.split(b";")[0].decode("ascii"), 16)
    assert line.split(b";")[0].isalnum()
    if size == 0:
        return b""
    assert rest[size : size + 2] == b"\r\n"
    return rest[:size] + strictly(rest[size + 2 :])


def test_a_size_of_a_billion_digits_is_refused_early() -> None:
    with pytest.raises(InvalidArgument):
        ChunkDecoder().feed(b"1" * 300)

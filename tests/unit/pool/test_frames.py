"""The protocol's frames, against a slow reader of the same stream."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventd.pool import frames
from eventd.pool.frames import Decoder, ProtocolError, encode
from eventd.runtimes.python import wire

FRAMES = st.lists(
    st.tuples(
        st.integers(frames.INIT, frames.STOP),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=300),
    ),
    max_size=20,
)


def slow_decode(stream: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while len(stream) >= 9:
        length, call_id, kind = struct.unpack("<IIB", stream[:9])
        if len(stream) < 9 + length:
            break
        found.append((kind, call_id, stream[9 : 9 + length]))
        stream = stream[9 + length :]
    return found


@given(FRAMES, st.lists(st.integers(0, 6000)), st.integers(0, 12))
def test_any_split_of_the_stream_gives_the_same_frames(
    sent: list[tuple[int, int, bytes]], cuts: list[int], missing: int
) -> None:
    stream = b"".join(encode(*frame) for frame in sent)
    stream = stream[: len(stream) - missing]
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    decoder = Decoder()
    received = [
        frame
        for start, stop in itertools.pairwise(edges)
        for frame in decoder.feed(stream[start:stop])
    ]

    assert received == slow_decode(stream)


@given(FRAMES)
def test_byte_by_byte_gives_the_same_frames(sent: list[tuple[int, int, bytes]]) -> None:
    decoder = Decoder()

    received = [
        frame
        for byte in b"".join(encode(*frame) for frame in sent)
        for frame in decoder.feed(bytes([byte]))
    ]

    assert received == sent


@given(st.binary(min_size=9, max_size=200))
def test_garbage_is_a_protocol_error_or_frames_within_bounds(garbage: bytes) -> None:
    try:
        received = Decoder().feed(garbage)
    except ProtocolError:
        length, _, kind = struct.unpack("<IIB", garbage[:9])
        if length <= frames.MAX_BODY and 1 <= kind <= 12:
            assert slow_decode(garbage)  # the first frame was right, a later one was not
    else:
        assert received == slow_decode(garbage)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<IIB", frames.MAX_BODY + 1, 1, frames.DATA),
        struct.pack("<IIB", 2**32 - 1, 1, frames.DATA),
        struct.pack("<IIB", 0, 1, 0),
        struct.pack("<IIB", 0, 1, frames.STOP + 1),
    ],
)
def test_an_impossible_header_is_refused_before_its_body(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(header)


def test_a_body_that_no_peer_would_take_is_not_encoded() -> None:
    with pytest.raises(ProtocolError):
        encode(frames.DATA, 1, bytes(frames.MAX_BODY + 1))


def test_both_ends_use_the_same_numbers() -> None:
    names = [
        name
        for name in vars(frames)
        if name.isupper() and isinstance(getattr(frames, name), int | struct.Struct)
    ]
    shared = [name for name in names if hasattr(wire, name)]

    assert {"INIT", "OPEN", "DATA", "END", "ERROR", "CREDIT", "WINDOW"} <= set(shared)
    for name in shared:
        ours, theirs = getattr(frames, name), getattr(wire, name)
        if isinstance(ours, struct.Struct):
            assert ours.format == theirs.format
        else:
            assert ours == theirs, name

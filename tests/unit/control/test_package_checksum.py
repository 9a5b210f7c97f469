"""CRC-64/XZ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventd.store.checksum import crc64, crc64_by_stream

POLYNOMIAL = 0xC96C5795D7870F42  # ECMA-182, reflected


def slow_crc64(data: bytes) -> int:
    value = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFFFFFFFFFF


def test_the_check_value_is_that_of_the_standard() -> None:
    assert crc64(b"123456789") == 11051210869376104954


@given(st.binary(max_size=2000))
def test_both_ways_agree_with_the_bitwise_definition(data: bytes) -> None:
    assert crc64(data) == crc64_by_stream(data) == slow_crc64(data)


def test_a_stream_longer_than_its_buffers_is_summed_whole() -> None:
    data = bytes(range(256)) * (3 << 12)

    assert crc64_by_stream(data) == crc64(data)

"""The order of the frames that a channel writes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from eventd.model.snapshot import FunctionSnapshot
from eventd.pool import frames
from eventd.pool.call import Call, CallKind
from eventd.pool.channel import Channel
from eventd.pool.frames import CREDIT, END, END_HEADER, MAX_DATA, U32, Decoder, encode


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Owner:
    """Starts the next call as soon as one has ended, as the pool does."""

    channel: Channel
    following: Call

    def succeeded(self, call: Call, payload: bytes, duration_us: int) -> None:
        self.channel.open(self.following)


def make_call(size: int) -> Call:
    return Call(
        CallKind.EVENT, "r", cast(FunctionSnapshot, None), "LATEST", b"x" * size, cast(Any, None)
    )


async def test_a_call_opened_between_an_end_and_a_credit_is_opened_before_its_data() -> None:
    owner = Owner()
    channel = owner.channel = Channel(asyncio.get_running_loop(), cast(Any, owner), 1 << 20)
    transport = Transport()
    channel.connection_made(transport)
    owner.following = make_call(3 * MAX_DATA)
    channel.open(make_call(1))
    channel.open(make_call(8 * MAX_DATA))
    await asyncio.sleep(0)
    transport.written = b""

    end = END_HEADER.pack(4, 1, END, 0)
    channel.data_received(end + encode(CREDIT, 2, U32.pack(MAX_DATA)))
    await asyncio.sleep(0)

    kinds = [kind for kind, stream, _ in Decoder().feed(transport.written) if stream == 3]
    assert kinds == [frames.OPEN, frames.DATA, frames.DATA, frames.END]

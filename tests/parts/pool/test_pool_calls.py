from __future__ import annotations

from pool_bench import Bench


async def test_an_event_handler_gets_bytes_and_its_result_comes_back(bench: Bench) -> None:
    function = bench.function(
        """
        def handler(event, context):
            assert type(event) is bytes
            return event[::-1]
        """
    )

    first = await bench.run(function, b"abc")
    second = await bench.run(function, b"")

    assert (first.succeeded, first.payload) == (True, b"cba")
    assert second.payload == b""
    assert first.instance_id == second.instance_id
    assert first.instance_id.startswith("c-")

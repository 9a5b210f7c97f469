"""FC's lines from records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eventd.logs.render import TAIL_BYTES, LiveRenderer, log_tail, merged
from eventd.model.invocation import InvocationRecord
from eventd.store.interface import LogLine


def record(**fields: Any) -> InvocationRecord:
    usual: dict[str, Any] = {
        "invocation_id": "i",
        "request_id": "r1",
        "service": "s",
        "function": "f",
        "incarnation": "n",
        "qualifier": "LATEST",
        "version": 0,
        "instance_id": "c-1",
        "started_ms": 1000,
        "duration_ms": 21.378,
        "memory_mb": 41.067,
        "memory_size_mb": 128,
        "error_type": "",
        "error": "",
    }
    return InvocationRecord(**{**usual, **fields})


def line(text: str, time_ms: int = 1005, seq: int = 1, request_id: str = "r1") -> LogLine:
    return LogLine(time_ms, "s", "f", 0, request_id, "c-1", text, seq)


def test_a_warm_success_reads_as_function_compute_writes_it() -> None:
    assert log_tail(["hello", "world"], record()).decode() == (
        "FC Invoke Start RequestId: r1\n"
        "hello\n"
        "world\n"
        "FC Invoke End RequestId: r1\n"
        "\n"
        "Duration: 21.38 ms, Billed Duration: 22 ms, Memory Size: 128 MB, Max Memory Used: 41.07 MB"
    )


def test_a_failure_is_named_at_the_end() -> None:
    failed = record(error_type="UnhandledInvocationError", duration_ms=3000.0)
    text = log_tail([], failed).decode()
    assert "FC Invoke End RequestId: r1, Error: Unhandled function error\n\nDuration" in text
    assert "Duration: 3000.00 ms, Billed Duration: 3000 ms" in text
    handled = log_tail([], record(error_type="HandledInvocationError")).decode()
    assert ", Error: Handled function error\n" in handled


def test_an_initializer_has_its_own_frame_before_the_start() -> None:
    lines = log_tail([], record(initializer=True)).decode().split("\n")
    assert lines[:3] == [
        "FC Initialize Start RequestId: r1",
        "FC Initialize End RequestId: r1",
        "FC Invoke Start RequestId: r1",
    ]


def test_at_least_one_millisecond_is_billed() -> None:
    assert "Billed Duration: 1 ms" in log_tail([], record(duration_ms=0.0)).decode()


@given(st.lists(st.text(max_size=2000), max_size=12))
def test_the_tail_is_the_end_of_the_text_and_valid(lines: list[str]) -> None:
    tail = log_tail(lines, record())
    whole = "\n".join(
        ["FC Invoke Start RequestId: r1", *lines, "FC Invoke End RequestId: r1", ""]
    ).encode(errors="replace")
    assert len(tail) <= TAIL_BYTES
    tail.decode()
    end = tail.index(b"\nDuration: ")
    assert whole.endswith(tail[:end])
    assert len(tail) > TAIL_BYTES - 4 or tail.startswith(b"FC Invoke Start")


def test_lines_stand_inside_the_frame_of_their_attempt_whatever_the_clocks_say() -> None:
    first = record(started_ms=1000, duration_ms=10)
    retry = record(started_ms=2000, duration_ms=10, attempt=1)
    lines = [line("early", 999, 1), line("late", 1500, 2), line("second", 2003, 3)]
    assert [shown.text.split(" RequestId")[0] for shown in merged(lines, [retry, first])] == [
        "FC Invoke Start",
        "early",
        "late",
        "FC Invoke End",
        "",
        shown_report(first),
        "FC Invoke Start",
        "second",
        "FC Invoke End",
        "",
        shown_report(retry),
    ]


def shown_report(one: InvocationRecord) -> str:
    return log_tail([], one).decode().rsplit("\n", 1)[1]


def test_a_live_view_starts_with_the_first_line_and_ends_with_the_record() -> None:
    live = LiveRenderer()
    begun = live.feed([line("one")], [])
    more = live.feed([line("two", seq=2)], [])
    ended = live.feed([line("three", seq=3)], [record()])
    assert [shown.text for shown in begun] == ["FC Invoke Start RequestId: r1", "one"]
    assert [shown.text for shown in more] == ["two"]
    assert [shown.text for shown in ended][:3] == ["three", "FC Invoke End RequestId: r1", ""]
    again = live.feed([], [replace(record(), started_ms=5000)])
    assert again[0].text == "FC Invoke Start RequestId: r1"


def test_lines_without_request_have_no_frame() -> None:
    shown = LiveRenderer().feed([line("from the instance", request_id="")], [])
    assert [one.text for one in shown] == ["from the instance"]

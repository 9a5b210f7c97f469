"""The memory part of the queue alone."""

from __future__ import annotations

from typing import Any

from eventd.model.invocation import Invocation
from eventd.store.sqlite.backlog import Backlog
from eventd.store.sqlite.function_backlog import FunctionBacklog, Head
from eventd.store.sqlite.rows import Damaged, Owner, decode, encode


def head(function: FunctionBacklog, row: int, **given: Any) -> Head:
    fields: dict[str, Any] = {
        "id": f"i{row}",
        "request_id": "r",
        "service": function.owner.service,
        "function": function.owner.function,
        "incarnation": "n",
        "qualifier": "LATEST",
        "payload": b"x" * 10,
        "accepted_ms": 0,
        **given,
    }
    return Head(function, function.owner.first_id + row, Invocation(**fields))


def backlog_of(**given: Any) -> tuple[Backlog, FunctionBacklog]:
    backlog = Backlog(**given)
    return backlog, backlog.function(Owner(1, "s", "f", "n"))


def test_no_more_than_the_bound_is_held_in_memory() -> None:
    backlog, function = backlog_of(max_held=10, low_water=3)
    for row in range(1, 101):
        backlog.added(head(function, row), 0)
    assert len(function.ready) == 10
    assert (function.on_disk, backlog.waiting) == (90, 100)


def test_payload_bytes_bound_it_too() -> None:
    backlog, function = backlog_of(max_bytes=55)
    for row in range(1, 101):
        backlog.added(head(function, row), 0)
    assert len(function.ready) == 6


def test_a_blocked_lane_does_not_hide_the_others_however_long_it_is() -> None:
    backlog, function = backlog_of(max_held=4, low_water=2)
    rows = [head(function, row, ordering_key="stuck") for row in range(1, 21)]
    other = head(function, 21, ordering_key="free")
    for one in [*rows, other]:
        backlog.added(one, 0)
    assert backlog.take() is rows[0]
    left = [*rows, other][len(function.lanes["stuck"]) + 1 :]
    while backlog.loads:
        backlog.loads.clear()
        part, left = left[:3], left[3:]
        backlog.loaded(function, part, part[-1].row_id if part else 0, 0)
    assert backlog.take() is other
    held = [one for one in function.lanes["stuck"] if isinstance(one, Head)]
    assert len(held) <= 4
    assert len(function.lanes["stuck"]) == 19


def test_functions_take_turns_one_by_one() -> None:
    backlog, one = backlog_of()
    two = backlog.function(Owner(2, "s", "g", "n"))
    for row in range(1, 4):
        backlog.added(head(one, row), 0)
    backlog.added(head(two, 1), 0)
    taken = [backlog.take() for _ in range(4)]
    assert [found.function for found in taken if found] == [one, two, one, one]
    assert backlog.take() is None


def test_a_row_is_bound_to_its_place() -> None:
    owner = Owner(1, "s", "f", "n")
    invocation = head(FunctionBacklog(owner), 1).invocation
    row = encode(owner.first_id + 1, invocation)
    assert decode(owner, row) == invocation
    try:
        decode(owner, (row[0] + 1, *row[1:]))
    except Damaged:
        return
    raise AssertionError("a row at another place was taken for whole")

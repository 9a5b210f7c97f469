"""The decisions of scaling, against what they must never do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventd.pool.scaling import RAMP, Demand, Room, expired, least_loaded, plan, total_for

COUNT = st.integers(0, 60)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    instances = draw(COUNT)
    warming = draw(st.integers(0, instances))
    return Demand(
        waiting=draw(st.integers(0, 500)),
        starting=draw(st.integers(0, warming)),
        warming=warming,
        instances=instances,
        concurrency=draw(st.integers(1, 200)),
    )


@st.composite
def rooms(draw: st.DrawFn) -> Room:
    used = draw(st.integers(0, 120))
    ending = draw(st.integers(0, used))
    return Room(
        per_function=draw(st.integers(1, 60)),
        total=draw(st.integers(1, 120)),
        used=used,
        ending=ending,
        idle_elsewhere=draw(st.integers(0, used - ending)),
    )


@given(demands(), rooms())
def test_a_plan_keeps_every_limit_and_wastes_nothing(demand: Demand, room: Room) -> None:
    result = plan(demand, room)

    slots_coming = (demand.starting + result.start) * demand.concurrency
    assert min(result.start, result.evict, result.missing) >= 0
    assert result.start == 0 or room.used + result.start <= room.total
    assert result.start == 0 or demand.instances + result.start <= room.per_function
    assert result.start == 0 or slots_coming < demand.waiting + demand.concurrency
    assert result.evict <= room.idle_elsewhere
    warm = demand.instances - demand.warming
    assert result.start == 0 or demand.warming + result.start <= max(RAMP, warm)


@given(demands(), rooms())
def test_a_plan_leaves_no_call_waiting_that_could_be_helped(demand: Demand, room: Room) -> None:
    result = plan(demand, room)

    covered = (demand.starting + result.start) * demand.concurrency >= demand.waiting
    at_function_limit = demand.instances + result.start >= room.per_function
    at_total_limit = room.used + result.start >= room.total
    ramping = demand.warming + result.start >= max(RAMP, demand.instances - demand.warming)
    assert covered or at_function_limit or at_total_limit or ramping
    assert covered or at_function_limit or ramping or result.missing
    assert result.missing <= result.evict + room.ending or result.evict == room.idle_elsewhere


@given(st.lists(st.integers(0, 5)), st.integers(1, 5))
def test_the_least_loaded_with_a_slot_is_chosen(loads: list[int], concurrency: int) -> None:
    index = least_loaded(loads, concurrency)

    free = [load for load in loads if load < concurrency]
    if index < 0:
        assert not free
    else:
        assert loads[index] == min(free)
        assert min(free) not in loads[index + 1 :]


def test_a_tenth_of_the_pool_is_for_nested_calls() -> None:
    assert total_for(100, nested=False) == 90
    assert total_for(100, nested=True) == 100
    assert total_for(5, nested=False) == 5


def test_only_the_idle_beyond_their_time_are_expired() -> None:
    assert expired([0.0, 5.0, 6.0], now=10.0, ttl_s=5.0) == [0, 1]

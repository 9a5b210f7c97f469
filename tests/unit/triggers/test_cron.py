"""Schedules against a slow oracle that looks at every second."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggers import cron

MOMENT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def following(expression: str, moment: datetime, count: int) -> list[str]:
    schedule = cron.parse(expression)
    found = []
    for _ in range(count):
        moment = schedule.next_after(moment, anchor=MOMENT)
        found.append(moment.strftime("%Y-%m-%dT%H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("@every 1s", 1),
        ("@every 5m", 300),
        ("@every 100m", 6000),
        ("@every 1h30m", 5400),
        ("@every 90s", 90),
        ("@every 1.5h", 5400),
        ("@every 1m500ms500ms", 61),
    ],
)
def test_every_counts_from_the_anchor(expression: str, seconds: int) -> None:
    schedule = cron.parse(expression)
    step = timedelta(seconds=seconds)

    assert schedule.next_after(MOMENT, anchor=MOMENT) == MOMENT + step
    assert schedule.next_after(MOMENT + step - SECOND / 2, anchor=MOMENT) == MOMENT + step
    assert schedule.next_after(MOMENT + step, anchor=MOMENT) == MOMENT + 2 * step
    assert schedule.next_after(MOMENT - 99 * step, anchor=MOMENT) == MOMENT + step


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 2 * * * *", ["2026-11-24T12:02:00", "2026-11-24T13:02:00"]),
        ("CRON_TZ=Asia/Shanghai 0 0 4 1 * *", ["2026-11-30T20:00:00", "2026-12-31T20:00:00"]),
        ("0 0 0 ? * MON", ["2026-11-30T00:00:00", "2026-12-07T00:00:00"]),
        ("0 0 0 ? * 1", ["2026-11-30T00:00:00", "2026-12-07T00:00:00"]),
        ("0 0 0 ? * 0", ["2026-11-29T00:00:00", "2026-12-06T00:00:00"]),
        ("0 0 0 ? * 7", ["2026-11-29T00:00:00", "2026-12-06T00:00:00"]),
        ("0 0 0 ? * SAT-SUN", ["2026-11-28T00:00:00", "2026-11-29T00:00:00"]),
        ("0 0 0 ? * SUN-MON", ["2026-11-29T00:00:00", "2026-11-30T00:00:00"]),
        ("0 0 0 29 FEB ?", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        ("0 0 0 13 * 5", ["2026-11-27T00:00:00", "2026-12-04T00:00:00", "2026-12-11T00:00:00"]),
        ("*/20 0 12 24 11 ?", ["2026-11-24T12:00:20", "2026-11-24T12:00:40"]),
        ("0 5/25 9-17 * * 1-5", ["2026-11-24T12:05:00", "2026-11-24T12:30:00"]),
        ("0 0,30 0 1 jan,JUL *", ["2027-01-01T00:00:00", "2027-01-01T00:30:00"]),
    ],
)
def test_six_fields(expression: str, expected: list[str]) -> None:
    assert following(expression, MOMENT, len(expected)) == expected


def test_a_time_in_the_gap_fires_at_the_first_moment_after_it() -> None:
    berlin = "CRON_TZ=Europe/Berlin 0 30 2 * * *"  # 2026-03-29: 02:00 becomes 03:00 = 01:00 UTC

    assert following(berlin, at("2026-03-27T12:00"), 3) == [
        "2026-03-28T01:30:00",
        "2026-03-29T01:00:00",
        "2026-03-30T00:30:00",
    ]


def test_many_times_in_the_gap_fire_once() -> None:
    assert following("CRON_TZ=Europe/Berlin 0 */20 2-3 * * *", at("2026-03-29T00:30"), 4) == [
        "2026-03-29T01:00:00",
        "2026-03-29T01:20:00",
        "2026-03-29T01:40:00",
        "2026-03-30T00:00:00",
    ]


def test_a_gap_at_midnight_fires_at_the_start_of_the_day() -> None:
    # Santiago, 2026-09-06: 00:00 becomes 01:00 = 04:00 UTC
    assert following("CRON_TZ=America/Santiago 0 30 0 * * *", at("2026-09-05T12:00"), 2) == [
        "2026-09-06T04:00:00",
        "2026-09-07T03:30:00",
    ]


def test_a_doubled_time_fires_once_at_its_first_coming() -> None:
    # 2026-10-25: 03:00 becomes 02:00; 02:30 comes at 00:30 and 01:30 UTC
    assert following("CRON_TZ=Europe/Berlin 0 30 2 * * *", at("2026-10-24T12:00"), 2) == [
        "2026-10-25T00:30:00",
        "2026-10-26T01:30:00",
    ]


def test_a_schedule_for_every_hour_goes_on_through_a_doubled_hour() -> None:
    assert following("CRON_TZ=Europe/Berlin 0 30 * * * *", at("2026-10-25T00:00"), 3) == [
        "2026-10-25T00:30:00",
        "2026-10-25T01:30:00",
        "2026-10-25T02:30:00",
    ]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "six fields"),
        ("* * * * *", "found 5"),
        ("* * * * * * *", "found 7"),
        ("60 * * * * *", "seconds: '60'"),
        ("0 60 * * * *", "minutes: '60'"),
        ("0 0 24 * * *", "hours: '24'"),
        ("0 0 0 0 * *", "day of month: '0'"),
        ("0 0 0 32 * *", "day of month: '32'"),
        ("0 0 0 L * ?", "day of month: 'L'"),
        ("0 0 0 15W * ?", "day of month: '15W'"),
        ("0 0 0 * 13 *", "month: '13'"),
        ("0 0 0 * FOO *", "month: 'FOO'"),
        ("0 0 0 ? * 8", "day of week: '8'"),
        ("0 0 0 ? * 6L", "day of week: '6L'"),
        ("0 0 0 ? * 2#1", "day of week: '2#1'"),
        ("0 0 0 ? * FRI-MON", "starts after its end"),
        ("? 0 0 * * *", "seconds: '?'"),
        ("0 */0 * * * *", "minutes: '*/0'"),
        ("0 5- * * * *", "minutes: '5-'"),
        ("0 -5 * * * *", "minutes: '-5'"),
        ("0 1,,2 * * * *", "minutes: ''"),
        ("0 ٣ * * * *", "minutes: '٣'"),
        ("0 0 0 30 2 ?", "never fire"),
        ("0 0 0 31 4,6,9,11 ?", "never fire"),
        ("CRON_TZ=Mars/Olympus 0 0 0 * * *", "CRON_TZ: 'Mars/Olympus'"),
        ("CRON_TZ=../../etc/passwd 0 0 0 * * *", "CRON_TZ"),
        ("CRON_TZ= 0 0 0 * * *", "CRON_TZ"),
        ("@every", "@every"),
        ("@every 5", "@every"),
        ("@every 500ms", "from 1s"),
        ("@every 0s", "from 1s"),
        ("@every -5m", "@every"),
        ("@every 1500ms", "whole seconds"),
        ("@every 99999999h", "87600h"),
        ("@hourly", "@every"),
    ],
)
def test_what_is_not_understood_is_refused_by_field(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        cron.parse(expression)


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"]
CHANGES = [
    at("2026-03-29T01:00"),
    at("2026-10-25T01:00"),
    at("2026-03-08T07:00"),
    at("2026-11-01T06:00"),
    at("2026-04-04T15:00"),
    at("2026-10-03T15:30"),
    at("2026-09-06T04:00"),
    at("2026-04-05T03:00"),
    at("2026-02-28T12:00"),
]


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.lists(number, min_size=1, max_size=3).map(lambda each: ",".join(map(str, each))),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
        st.tuples(st.just("*") | number.map(str), st.integers(1, 30)).map(
            lambda pair: f"{pair[0]}/{pair[1]}"
        ),
    )


def expand(text: str, low: int, high: int) -> set[int]:
    """Written apart from the code under test: by trying every value."""
    found = set()
    for value in range(low, high + 1):
        for item in text.split(","):
            span, _, step = item.partition("/")
            first, _, last = span.partition("-")
            if span in "*?":
                start, stop = low, high
            else:
                start = int(first)
                stop = int(last) if last else (high if step else start)
            if start <= value <= stop and (value - start) % int(step or 1) == 0:
                found.add(value)
    return found


def oracle(fields: list[str], zone: ZoneInfo, moment: datetime, until: datetime) -> datetime | None:
    """The first second that fits, by looking at each one."""
    ranges = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
    seconds, minutes, hours, days, months, week = (
        expand(text, *bounds) for text, bounds in zip(fields, ranges, strict=True)
    )
    week = {day % 7 for day in week}

    def fits(local: datetime) -> bool:
        day = local.day in days
        weekday = local.isoweekday() % 7 in week
        either = fields[3] not in "*?" and fields[5] not in "*?"
        return (
            local.second in seconds
            and local.minute in minutes
            and local.hour in hours
            and local.month in months
            and (day or weekday if either else day and weekday)
        )

    def skipped(before: datetime, after: datetime) -> bool:
        local = before.astimezone(zone).replace(tzinfo=None) + SECOND
        end = after.astimezone(zone).replace(tzinfo=None)
        while local < end:
            if fits(local):
                return True
            local += SECOND
        return False

    moment = moment.replace(microsecond=0)
    while moment < until:
        before, moment = moment, moment + SECOND
        local = moment.astimezone(zone)
        if local.fold and fields[2] != "*":
            continue
        if fits(local) or skipped(before, moment):
            return moment
    return None


@settings(max_examples=80, deadline=None)
@given(
    fields=st.tuples(
        st.sampled_from(["0", "30", "59", "*/15"]),
        numbers(0, 59),
        numbers(0, 23),
        numbers(1, 31),
        numbers(1, 12),
        numbers(0, 7),
    ),
    zone=st.sampled_from(ZONES),
    near=st.sampled_from(CHANGES),
    offset=st.integers(-7200, 7200),
)
def test_next_after_agrees_with_looking_at_every_second(
    fields: tuple[str, ...], zone: str, near: datetime, offset: int
) -> None:
    moment = near + timedelta(seconds=offset)
    until = moment + timedelta(hours=4)
    expected = oracle(list(fields), ZoneInfo(zone), moment, until)
    try:
        schedule = cron.parse(f"CRON_TZ={zone} {' '.join(fields)}")
    except ValueError:  # a day that no month has
        assert expected is None
        return

    found = schedule.next_after(moment, anchor=MOMENT)

    assert (found if found <= until else None) == expected


@settings(max_examples=100, deadline=None)
@given(
    expression=st.sampled_from(
        ["@every 7s", "*/7 * * * * *", "0 */5 * * * *", "CRON_TZ=Europe/Berlin 0 30 2 * * *"]
    ),
    start=st.integers(0, 86400 * 3),
    length=st.integers(0, 3600),
)
def test_last_until_is_the_last_of_all_that_follow(
    expression: str, start: int, length: int
) -> None:
    schedule = cron.parse(expression)
    after = at("2026-10-24T00:00") + timedelta(seconds=start, microseconds=length)
    until = after + timedelta(seconds=length)
    expected, due = None, schedule.next_after(after, anchor=MOMENT)
    while due <= until:
        expected, due = due, schedule.next_after(due, anchor=MOMENT)

    assert schedule.last_until(until, after=after, anchor=MOMENT) == expected

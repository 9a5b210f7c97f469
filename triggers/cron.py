"""Schedules, pure: ``@every 1h30m``, or six cron fields with an optional ``CRON_TZ=ZONE`` before.

Fields: seconds, minutes, hours, day of month, month, day of week (1-7 or MON-SUN; 0 is Sunday too).
When both day fields are restricted, a day that fits either one fits.

Daylight saving: a local time that the clock skips fires at the first moment after the gap; several
such times fire there once. A local time that comes twice fires at its first coming only, except
that a schedule for every hour (``*``) goes on through both.

Source: Function Compute 2.0, "Timer trigger".
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MAX_YEARS_AHEAD = 12
"""29 February may be 8 years away (1896-1904, 2096-2104); a day that fits is nearer than this."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_SECOND = timedelta(seconds=1)


class Schedule(ABC):
    """When a timer is due."""

    @abstractmethod
    def next_after(self, moment: datetime, *, anchor: datetime) -> datetime:
        """The first due time strictly after ``moment``, in UTC.

        Args:
            anchor: where the phase of ``@every`` starts; cron does not look at it.
        """

    def last_until(self, moment: datetime, *, after: datetime, anchor: datetime) -> datetime | None:
        """The last due time in ``(after, moment]``; ``None`` if there is none. Costs a bisection,
        however many due times lie between."""
        if self.next_after(after, anchor=anchor) > moment:
            return None
        low, high = after, moment  # a due time lies in (low, moment]; none in (high, moment]
        while high - low > _SECOND:
            middle = low + (high - low) / 2
            if self.next_after(middle, anchor=anchor) <= moment:
                low = middle
            else:
                high = middle
        found = self.next_after(low, anchor=anchor)
        later = self.next_after(found, anchor=anchor)
        return later if later <= moment else found


@dataclass(frozen=True, slots=True)
class Every(Schedule):
    """``@every``: at ``anchor`` plus each multiple of the interval."""

    interval: timedelta

    def next_after(self, moment: datetime, *, anchor: datetime) -> datetime:
        if moment < anchor:
            return (anchor + self.interval).astimezone(UTC)
        passed = (moment - anchor) // self.interval
        return (anchor + (passed + 1) * self.interval).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Cron(Schedule):
    """Six fields in a time zone. Days of week: 0 = Monday, as ``date.weekday`` counts.

    Attributes:
        every_hour: the hour field is ``*``.
        any_day_of_month, any_day_of_week: the field is ``*`` or ``?``.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days_of_month: frozenset[int]
    months: frozenset[int]
    days_of_week: frozenset[int]
    zone: tzinfo
    every_hour: bool
    any_day_of_month: bool
    any_day_of_week: bool

    def next_after(self, moment: datetime, *, anchor: datetime) -> datetime:
        found = self._search(moment)
        if found is None:
            raise ValueError("no date ever fits day of month and month")
        return found

    def ever(self) -> bool:
        """Whether any date fits at all (30 February does not)."""
        return self._search(datetime(2026, 1, 1, tzinfo=UTC)) is not None

    def fits_day(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days_of_month, day.weekday() in self.days_of_week
        if self.any_day_of_month or self.any_day_of_week:
            return in_month and in_week
        return in_month or in_week

    def _search(self, moment: datetime) -> datetime | None:
        # A gap may move the last time of a day past midnight, hence the day before as well.
        day = moment.astimezone(self.zone).date() - timedelta(days=1)
        for _ in range(MAX_YEARS_AHEAD * 366):
            if self.fits_day(day):
                found = self._first(day, moment, fold=0)
                if self.every_hour:
                    again = self._first(day, moment, fold=1)
                    found = min((each for each in (found, again) if each), default=None)
                if found is not None:
                    return found
            day += timedelta(days=1)
        return None

    def _first(self, day: date, moment: datetime, *, fold: int) -> datetime | None:
        """The first time of ``day`` after ``moment``; local order and UTC order agree for one
        ``fold``, so an hour or minute whose last second has passed is skipped whole."""
        last_minute, last_second = self.minutes[-1], self.seconds[-1]
        for hour in self.hours:
            if self._utc(day, hour, last_minute, last_second, fold) <= moment:
                continue
            for minute in self.minutes:
                if self._utc(day, hour, minute, last_second, fold) <= moment:
                    continue
                for second in self.seconds:
                    due = self._utc(day, hour, minute, second, fold)
                    if due > moment:
                        return due
        return None

    def _utc(self, day: date, hour: int, minute: int, second: int, fold: int) -> datetime:
        local = datetime.combine(day, time(hour, minute, second, fold=fold), self.zone)
        utc = local.astimezone(UTC)
        if utc.astimezone(self.zone).replace(tzinfo=None) == local.replace(tzinfo=None):
            return utc
        return _end_of_gap(local)


def _end_of_gap(local: datetime) -> datetime:
    """The moment at which the clock jumps over ``local``, which does not exist."""
    zone = local.tzinfo
    ends = (local.replace(fold=0).astimezone(UTC), local.replace(fold=1).astimezone(UTC))
    low, high = min(ends) - _SECOND, max(ends)
    before = low.astimezone(zone).utcoffset()
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def parse(text: str) -> Schedule:
    """Read a ``cronExpression``. ``ValueError``: what is wrong, with the name of the field."""
    expression = text.strip()
    if expression.startswith("@"):
        return _parse_every(expression)
    zone: tzinfo = UTC
    if expression.startswith("CRON_TZ="):
        name, _, expression = expression.removeprefix("CRON_TZ=").partition(" ")
        zone = _zone(name)
    fields = expression.split()
    if len(fields) != 6:
        raise ValueError(
            f"expected '@every DURATION' or six fields (seconds, minutes, hours, day of month, "
            f"month, day of week), found {len(fields)} fields"
        )
    seconds, minutes, hours, month_days, months, week_days = (
        spec.parse(field) for spec, field in zip(_FIELDS, fields, strict=True)
    )
    cron = Cron(
        seconds=tuple(sorted(seconds)),
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days_of_month=frozenset(month_days),
        months=frozenset(months),
        days_of_week=frozenset((day - 1) % 7 for day in week_days),
        zone=zone,
        every_hour=fields[2] == "*",
        any_day_of_month=fields[3] in "*?",
        any_day_of_week=fields[5] in "*?",
    )
    if not cron.ever():
        raise ValueError("day of month: no month that is named has such a day, it would never fire")
    return cron


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"CRON_TZ: {name!r} is no time zone; expected an IANA name such as Asia/Shanghai"
        ) from error


_UNITS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000, "us": 1, "µs": 1}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|h|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
MAX_INTERVAL = timedelta(days=3650)


def _parse_every(expression: str) -> Every:
    word, _, duration = expression.partition(" ")
    duration = duration.strip()
    if word != "@every" or not _DURATION.fullmatch(duration):
        raise ValueError(
            f"expected '@every' and a duration such as 5m or 1h30m, found {expression!r}"
        )
    parts = _PART.findall(duration)
    microseconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 1_000_000 <= microseconds <= MAX_INTERVAL / timedelta(microseconds=1):
        raise ValueError(f"@every: expected from 1s up to 87600h, found {duration}")
    if microseconds % 1_000_000:
        raise ValueError(f"@every: expected whole seconds, found {duration}")
    return Every(timedelta(microseconds=microseconds))


@dataclass(frozen=True, slots=True)
class _Field:
    """One cron field: its name in messages, its range, the words for its values from ``low`` up
    (days of week: from 1), and whether ``?`` is allowed."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    question: bool = False

    def parse(self, text: str) -> set[int]:
        values: set[int] = set()
        for item in text.split(","):
            values.update(self._item(item))
        return values

    def _item(self, item: str) -> range:
        span, slash, step_text = item.partition("/")
        step = 1
        if slash:
            if not (step_text.isascii() and step_text.isdigit() and int(step_text) > 0):
                raise self._wrong(item)
            step = int(step_text)
        if span == "*" or (span == "?" and self.question and not slash):
            return range(self.low, self.high + 1, step)
        first, dash, last = span.partition("-")
        start = self._value(first, item)
        stop = self._value(last, item) if dash else (self.high if slash else start)
        if dash and first.upper() == "SUN" and self.words == _DAYS:
            start = 0  # SUN-TUE starts the week with Sunday
        if start > stop:
            raise ValueError(f"{self.name}: {item!r} starts after its end")
        return range(start, stop + 1, step)

    def _value(self, text: str, item: str) -> int:
        if text.upper() in self.words:
            return self.words.index(text.upper()) + 1
        if not (text.isascii() and text.isdigit() and self.low <= int(text) <= self.high):
            raise self._wrong(item)
        return int(text)

    def _wrong(self, item: str) -> ValueError:
        words = f" or {self.words[0]}-{self.words[-1]}" if self.words else ""
        low = 1 if self.words == _DAYS else self.low
        signs = ", - * / ?" if self.question else ", - * /"
        return ValueError(
            f"{self.name}: {item!r} is not understood; expected {low}-{self.high}{words}, "
            f"with {signs}"
        )


_FIELDS = (
    _Field("seconds", 0, 59),
    _Field("minutes", 0, 59),
    _Field("hours", 0, 23),
    _Field("day of month", 1, 31, question=True),
    _Field("month", 1, 12, words=_MONTHS),
    _Field("day of week", 0, 7, words=_DAYS, question=True),
)

"""UTC days: periods of them, when a day is settled, and which days are due. Pure; everything else stands on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

ONE_DAY = timedelta(days=1)

SETTLES_AFTER = timedelta(minutes=30)
"""After midnight UTC, until a day's figures are complete at the provider (OpenRouter's activity: about 30 minutes)."""

DUE_AT = time(6, 0, tzinfo=UTC)
"""When the day before is read every day: late enough that it is settled at any provider."""


def in_words(seconds: float) -> str:
    """How long to wait, rounded up, for a sentence: ``40 seconds``, ``12 minutes``, ``2 hours``."""
    number, unit = (math.ceil(seconds), "second") if seconds <= 90 else (math.ceil(seconds / 60), "minute")
    if number > 90:
        number, unit = math.ceil(seconds / 3600), "hour"
    return f"{max(number, 1)} {unit}{'' if number <= 1 else 's'}"


def span(first: date, last: date) -> list[date]:
    """Each day from the first to the last, both included; none if the last is before the first."""
    return [date.fromordinal(number) for number in range(first.toordinal(), last.toordinal() + 1)]


def settles_at(day: date) -> datetime:
    """The moment from which a day's figures are complete at the provider."""
    return datetime.combine(day + ONE_DAY, time(), tzinfo=UTC) + SETTLES_AFTER


def last_settled(now: datetime) -> date:
    """The latest day whose figures are complete at the provider by now."""
    return (now.astimezone(UTC) - SETTLES_AFTER).date() - ONE_DAY


def last_due(now: datetime) -> date:
    """The latest day that the daily sync should have read by now: yesterday, and before 06:00 UTC the day before that.

    At 03:00 UTC on the 20th nobody has read the 19th yet, and nothing is wrong with that. A page about "the last 30
    days" therefore ends with the 18th until the 19th is due at 06:00; it would otherwise show a missing day, no
    average and no comparison every night.
    """
    return (now.astimezone(UTC) - timedelta(hours=DUE_AT.hour, minutes=DUE_AT.minute)).date() - ONE_DAY


@dataclass(frozen=True)
class Period:
    """UTC days from ``first`` to ``last``, both included."""

    first: date
    last: date

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def before(self) -> Period:
        """As many days, just before."""
        return Period(self.first - timedelta(days=self.days), self.first - ONE_DAY)

    @property
    def previous(self) -> Period:
        """What it is compared with by default: of a whole month the month before, of any other as many days."""
        whole = self == Period.month(self.first)
        return self.months_earlier(1) if whole else self.before

    def months_earlier(self, months: int) -> Period:
        """The same days so many months earlier: of 31 March, 28 February. Whole months stay whole, so that 1 to 28
        February becomes 1 to 31 January."""
        first, last = _months_earlier(self.first, months), _months_earlier(self.last, months)
        is_whole = self.first.day == 1 and (self.last + ONE_DAY).day == 1
        return Period(first, Period.month(last).last if is_whole else last)

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def meets(self, other: Period) -> bool:
        """Whether they have a day in common."""
        return self.first <= other.last and other.first <= self.last

    def __iter__(self) -> Iterator[date]:
        return iter(span(self.first, self.last))

    @classmethod
    def latest(cls, days: int, now: datetime) -> Period:
        """So many days up to the last one that is due."""
        last = last_due(now)
        return cls(last - timedelta(days=days - 1), last)

    @classmethod
    def month(cls, day: date) -> Period:
        """All days of the month of that day."""
        first = day.replace(day=1)
        return cls(first, (first + timedelta(days=31)).replace(day=1) - ONE_DAY)


def _months_earlier(day: date, months: int) -> date:
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    end = Period.month(date(year, month + 1, 1)).last
    return end.replace(day=min(day.day, end.day))


def intervals(days: Iterable[date]) -> list[Period]:
    """The fewest periods that hold these days and no others, in order."""
    found: list[Period] = []
    for day in sorted(set(days)):
        if found and day == found[-1].last + ONE_DAY:
            found[-1] = Period(found[-1].first, day)
        else:
            found.append(Period(day, day))
    return found

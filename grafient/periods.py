"""Periods of UTC days, as addresses name them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement

from grafient.models import utc_now

PERIODS = (7, 30, 90, 365)
MAX_DAYS = 366


class BadPeriod(ValueError):
    """The address asks for days that are none. The message is a sentence for the user."""


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
        return Period(self.first - timedelta(days=self.days), self.first - timedelta(days=1))

    def holds(self, column: Any) -> ColumnElement[bool]:
        """The condition that a column of days is within."""
        condition: ColumnElement[bool] = column.between(self.first, self.last)
        return condition

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=n) for n in range(self.days))

    @classmethod
    def latest(cls, days: int) -> Period:
        """The last completed days; today is not known before tomorrow."""
        today = utc_now().date()
        return cls(today - timedelta(days=days), today - timedelta(days=1))

    @classmethod
    def month(cls, text: str) -> Period:
        """All days of a month such as ``2026-06``. Raises BadPeriod."""
        try:
            if len(text) != 7:
                raise ValueError
            first = date.fromisoformat(f"{text}-01")
        except ValueError:
            raise BadPeriod("month has to be one such as 2026-06.") from None
        if not 2000 <= first.year <= 2200:
            raise BadPeriod("month has to be between the years 2000 and 2200.")
        return cls(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1))

    @classmethod
    def parse(cls, args: Mapping[str, str]) -> Period:
        """From ``from`` and ``to``, or ``days``, or the last 30. Raises BadPeriod."""
        if args.get("from") or args.get("to"):
            return cls._between(args.get("from", ""), args.get("to", ""))
        days = args.get("days", "") or "30"
        if days not in {str(n) for n in PERIODS}:
            raise BadPeriod(f"days is {days[:20]!r}, but can be {', '.join(map(str, PERIODS))}.")
        return cls.latest(int(days))

    @classmethod
    def _between(cls, first: str, last: str) -> Period:
        try:
            period = cls(_day(first), _day(last))
        except ValueError:
            raise BadPeriod("from and to have to be days such as 2026-06-03, both of them.") from None
        if period.first > period.last:
            raise BadPeriod("from is after to: the first day comes first.")
        if period.days > MAX_DAYS:
            raise BadPeriod(f"A period has at most {MAX_DAYS} days; this one has {period.days}.")
        if not 2000 <= period.first.year <= period.last.year <= 2200:
            raise BadPeriod("from and to have to be days between the years 2000 and 2200.")
        return period


def _day(text: str) -> date:
    if len(text) != 10:
        raise ValueError
    return date.fromisoformat(text)

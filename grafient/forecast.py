"""What a period, such as a calendar month, will cost: an estimate, from what is settled of it and from the weeks
before. Pure.

What is estimated is a float that is rounded to whole cents. ``Forecast.settled`` is exact, and so is all of it once the
period is wholly known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum
from math import ceil, log
from statistics import mean, median

from grafient.days import ONE_DAY, Period, span

WEEKS = 8
"""A forecast is made from so many weeks before its first day."""

LEAST_DAYS = 28
"""Of these weeks' days that have to be known."""

DAYS_TRIED = (5, 10, 15, 20, 25)
"""The days of a month after which the back-test makes a forecast."""

_CENT = Decimal("0.01")
_STEEPEST = 0.25
"""The most that a week can add or take away by the trend, as a part of the level."""
_DAMPING = 0.9
"""What is left of a trend after a week."""
_TREND_WEEKS = 4
"""With fewer there is no trend."""
_FLAT = 1e-9
"""A slope no steeper than this is what adding up floats leaves over."""
_JUMP = 1.5
"""A new level is this many times the one before, or the one before this many times the new one."""
_TRIES = 26
"""Earlier forecasts whose errors make the range, a week apart: half a year."""
_RIGHT = 0.8
"""The part of them that the range has to hold."""
_ENOUGH_TRIES = 4
"""With fewer, none of them can be the bound that 4 of 5 stay below."""
_ERROR_WITHOUT_TRY = 0.5
_LARGEST_ERROR = 9.0
"""Where a fraction of a cent was expected and $1,000 came, the range has to end somewhere."""


class Reason(StrEnum):
    """Why there is no forecast."""

    DAYS_MISSING = "days missing"
    TOO_LITTLE_HISTORY = "too little history"
    ONE_DAY = "one day"
    """A single day can't be told from the days before it."""


@dataclass(frozen=True)
class Forecast:
    """What the period will cost: ``expected``, and 4 times in 5 from ``low`` to ``high``.

    ``settled`` is what its days known so far cost; all four are the same once it is wholly known. ``tries``: how many
    earlier forecasts the range was found from.
    """

    period: Period
    settled: Decimal
    expected: Decimal
    low: Decimal
    high: Decimal
    tries: int


@dataclass(frozen=True)
class Try:
    """The forecast that would have been made after so many days of an earlier month, and what the month did cost."""

    month: Period
    day: int
    expected: Decimal
    actual: Decimal

    @property
    def off(self) -> Decimal | None:
        """How far off it was, as a part of what the month cost; None where that was nothing."""
        return abs(self.expected - self.actual) / abs(self.actual) if self.actual else None


@dataclass(frozen=True)
class Backtest:
    """How far off the forecasts of some earlier months would have been; the latest month comes first."""

    months: int
    tries: tuple[Try, ...]

    def off(self, day: int = 15) -> Decimal | None:
        """The mean error of the forecasts made after so many days: 0.06 is 6 %. None where no month cost anything."""
        found = [one.off for one in self.tries if one.day == day and one.off is not None]
        return mean(found) if found else None


def why_not(amounts: Mapping[date, Decimal], period: Period, through: date) -> Reason | None:
    """Why ``of`` has no forecast; None if it has one.

    Where a day of the period is missing, nobody knows what it cost so far. A period that is wholly known needs no
    history.
    """
    if any(day not in amounts for day in span(period.first, min(through, period.last))):
        return Reason.DAYS_MISSING
    if through >= period.last:
        return None
    if period.days == 1:
        return Reason.ONE_DAY
    return None if _has_history(_since_first_use(amounts, through), through.toordinal()) else Reason.TOO_LITTLE_HISTORY


def of(amounts: Mapping[date, Decimal], period: Period, through: date) -> Forecast | None:
    """The forecast of a period whose days should be known up to ``through``; ``why_not`` says why it is None.

    ``amounts``: what each known day cost. A day that is not in it is unknown, never zero. Days after ``through`` are
    not looked at.
    """
    if why_not(amounts, period, through) is not None:
        return None
    settled = _sum(amounts, Period(period.first, min(through, period.last)))
    if through >= period.last:
        return Forecast(period, settled, settled, settled, settled, 0)
    known, last = _since_first_use(amounts, through), through.toordinal()
    left = _left(period, through)
    rest = sum(_estimates(known, last, left))
    errors = _errors(known, last, left)
    width = _width(errors) * _measure(known, last, left)
    expected, high = (_cents(settled, estimate, ROUND_CEILING) for estimate in (rest, rest + width))
    low = _cents(settled, rest - width, ROUND_FLOOR)
    if min(known.values()) >= 0:
        low = max(low, settled)
    return Forecast(period, settled, expected, low, high, len(errors))


def reaches(
    amounts: Mapping[date, Decimal], period: Period, through: date, limit: Decimal, so_far: Decimal
) -> date | None:
    """The day of the period on which what it costs reaches ``limit``: a settled day, or one on which it is expected
    to; None where it does not, and where there is no forecast.

    ``so_far``: what is known of the period, what may still grow included. The first day that is not settled costs at
    least what that has beyond the settled days: with $90 of today's, $100 are not reached next week because today was
    expected to cost $10.
    """
    if why_not(amounts, period, through) is not None:
        return None
    total = Decimal(0)
    for day in span(period.first, min(through, period.last)):
        total += amounts[day]
        if total >= limit:
            return day
    left = _left(period, through)
    estimates = _estimates(_since_first_use(amounts, through), through.toordinal(), left) if left else []
    for number, estimate in zip(left, estimates, strict=True):
        total = max(total + Decimal(f"{estimate:.6f}"), so_far)
        if total >= limit:
            return date.fromordinal(number)
    return None


def _left(period: Period, through: date) -> range:
    """The days of the period that are to be estimated, by their ordinals."""
    return range(max(through.toordinal() + 1, period.first.toordinal()), period.last.toordinal() + 1)


def backtest(amounts: Mapping[date, Decimal], through: date, months: int = 3) -> Backtest | None:
    """Forecasts of so many of the last twelve months, the latest that can be tried, made after each of DAYS_TRIED.

    A month can be tried if it is wholly known and had enough history before it. None if there is no such month.
    """
    known, tries = _since_first_use(amounts, through), list[Try]()
    month = Period.month(through + ONE_DAY)
    for _ in range(12):
        month = Period.month(month.first - ONE_DAY)
        first, last = month.first.toordinal(), month.last.toordinal()
        if len(tries) == months * len(DAYS_TRIED):
            break
        if not _has_history(known, first - 1) or not all(day in known for day in range(first, last + 1)):
            continue
        actual = _sum(amounts, month)
        for days in DAYS_TRIED:
            after = first + days - 1
            settled = _sum(amounts, Period(month.first, date.fromordinal(after)))
            rest = sum(_estimates(known, after, range(after + 1, last + 1)))
            tries.append(Try(month, days, _cents(settled, rest, ROUND_CEILING), actual))
    return Backtest(len(tries) // len(DAYS_TRIED), tuple(tries)) if tries else None


def _sum(amounts: Mapping[date, Decimal], period: Period) -> Decimal:
    return sum((amounts[day] for day in period), Decimal(0))


def _cents(settled: Decimal, estimate: float, rounding: str) -> Decimal:
    """Whole cents, after a float's last digits are gone: $10 a day would come to $300.01 otherwise."""
    return (settled + Decimal(f"{estimate:.6f}")).quantize(_CENT, rounding)


def _since_first_use(amounts: Mapping[date, Decimal], through: date) -> dict[int, float]:
    """The amounts by their days' ordinals, from the first day on that cost anything.

    An account that was used for the first time three weeks ago has three weeks of history, whatever the provider
    reported about the year before.
    """
    first = min((day for day, amount in amounts.items() if amount and day <= through), default=date.min)
    return {day.toordinal(): float(amount) for day, amount in amounts.items() if first <= day <= through}


def _has_history(known: Mapping[int, float], last: int) -> bool:
    return sum(day in known for day in range(last - WEEKS * 7 + 1, last + 1)) >= LEAST_DAYS


def _estimates(known: Mapping[int, float], last: int, days: range, weeks: int = WEEKS) -> list[float]:
    """What each day will cost, from the weeks up to ``last``: its weekday's mean, carried on by the trend."""
    weekdays: list[list[tuple[int, float]]] = [[] for _ in range(7)]
    for day in range(last - weeks * 7 + 1, last + 1):
        if day in known:
            weekdays[day % 7].append(((last - day) // 7, known[day]))
    means = [_mean([amount for _, amount in found]) if found else None for found in weekdays]
    others = [one for one in means if one is not None]
    level = [sum(others) / len(others) if one is None else one for one in means]
    course = _course(weekdays, level)
    if weeks == WEEKS and (since := _new_level(course)):
        return _estimates(known, last, days, since)
    trend = _trend(course)
    ages = [age for found in weekdays for age, _ in found]
    age = sum(ages) / len(ages) + 0.5
    found = []
    for day in days:
        ahead = (1 - _DAMPING ** ((day - last) / 7)) / -log(_DAMPING)
        found.append(level[day % 7] * max(0.0, 1 + trend * (age + ahead)))
    return found


def _mean(amounts: list[float]) -> float:
    """The mean of what a weekday cost, in which no day lies farther outside the usual range than that is wide.

    The usual range is all but the lowest and the highest day. Spikes count, since who had one last month may have one
    again, but a single one does not decide the month.
    """
    ordered = sorted(amounts)
    if len(ordered) >= 4:
        low, high = ordered[1], ordered[-2]
        ordered[0], ordered[-1] = max(ordered[0], 2 * low - high), min(ordered[-1], 2 * high - low)
    return sum(ordered) / len(ordered)


def _course(weekdays: list[list[tuple[int, float]]], level: list[float]) -> list[tuple[int, float]]:
    """Each week's age, and what its known days cost as a part of what these weekdays cost at the level.

    So a day that is unknown makes no week cheaper.
    """
    cost, usual = [0.0] * WEEKS, [0.0] * WEEKS
    for weekday, found in enumerate(weekdays):
        for age, amount in found:
            cost[age] += amount
            usual[age] += level[weekday]
    return [(age, cost[age] / usual[age]) for age in range(WEEKS) if usual[age] > 0]


def _new_level(course: list[tuple[int, float]]) -> int | None:
    """For how many weeks what is spent has been on another level, if it has: no week before comes near any week since.

    Somebody turned the nightly batch off. Its costs would otherwise be in the forecast for eight weeks more.
    """
    for age in range(1, WEEKS):
        now = [part for week, part in course if week < age]
        before = [part for week, part in course if week >= age]
        if min(len(now), len(before)) >= 2 and (min(now) > _JUMP * max(before) or max(now) * _JUMP < min(before)):
            return age
    return None


def _trend(course: list[tuple[int, float]]) -> float:
    """What each week adds, as a part of the level: the median slope between any two weeks (Theil and Sen).

    It counts as much as the slopes agree on their direction (Kendall's tau); in mere noise they hardly do.
    """
    if len(course) < _TREND_WEEKS:
        return 0.0
    slopes = [(now - then) / (earlier - age) for age, now in course for earlier, then in course if earlier > age]
    agreement = abs(sum((slope > _FLAT) - (slope < -_FLAT) for slope in slopes)) / len(slopes)
    return max(-_STEEPEST, min(_STEEPEST, median(slopes) * agreement))


def _measure(known: Mapping[int, float], last: int, days: range) -> float:
    """What errors are measured by: what the days would cost at the plain mean of the weeks up to ``last``.

    Not by the estimate: that of an account which spends on few days can be nothing.
    """
    amounts = [abs(known[day]) for day in range(last - WEEKS * 7 + 1, last + 1) if day in known]
    return sum(amounts) / len(amounts) * len(days)


def _errors(known: Mapping[int, float], last: int, left: range) -> list[float]:
    """How far off the same forecast was in weeks before: of as many days, on the same weekdays, as far ahead.

    Weeks before which nothing was used are left out: they don't show how well usage can be foretold.
    """
    errors = []
    latest = ceil((left[-1] - last) / 7)
    for weeks in range(latest, latest + _TRIES):
        then, days = last - weeks * 7, range(left[0] - weeks * 7, left[-1] - weeks * 7 + 1)
        measure = _measure(known, then, days) if _has_history(known, then) else 0.0
        if measure and all(day in known for day in days):
            errors.append(abs(sum(known[day] for day in days) - sum(_estimates(known, then, days))) / measure)
    return errors


def _width(errors: list[float]) -> float:
    """The error that 4 of 5 forecasts stay below, if the next one is as likely to rank anywhere among these.

    While there are too few, those that are lacking count as errors of one half.
    """
    ordered = sorted(errors + [_ERROR_WITHOUT_TRY] * (_ENOUGH_TRIES - len(errors)))
    return min(_LARGEST_ERROR, ordered[ceil(_RIGHT * (len(ordered) + 1)) - 1])

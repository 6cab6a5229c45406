"""What a calendar month will cost: an estimate, from what is settled of it and from the weeks before. Pure.

An estimate is rounded up to whole cents. ``Forecast.settled`` is exact, and so is everything once the month is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from math import ceil, log
from statistics import mean, median

from grafient.days import ONE_DAY, Period, span

WEEKS = 8
"""Before a forecast's first day, from which it is made."""

LEAST_DAYS = 28
"""Of these weeks that have to be known."""

RIGHT = 0.8
"""How often the range should hold what the month comes to: 4 times in 5."""

DAYS_TRIED = (5, 10, 15, 20, 25)
"""The days of a month after which the back-test makes a forecast."""

_CENT = Decimal("0.01")
_STEEPEST = 0.25
"""A trend is at most this part of the level, a week."""
_DAMPING = 0.9
"""Of a trend that is left after a week."""
_TRIES = 26
"""Earlier forecasts, a week apart, from whose errors the range is found."""
_ENOUGH_TRIES = 8
_ERROR_WITHOUT_TRY = 0.5
_WIDEST = 9.0


class Reason(StrEnum):
    """Why there is no forecast."""

    DAYS_MISSING = "days missing"
    TOO_LITTLE_HISTORY = "too little history"


@dataclass(frozen=True)
class Forecast:
    """What the month will cost, most likely from ``low`` to ``high``. All four are the same once it is wholly known.

    ``settled``: what its known days cost. ``tries``: how many earlier forecasts the range was found from.
    """

    month: Period
    settled: Decimal
    expected: Decimal
    low: Decimal
    high: Decimal
    tries: int


@dataclass(frozen=True)
class Try:
    """A forecast as it would have been made after so many days of an earlier month. ``off``: as a part of what it cost.

    ``off`` is None where the month cost nothing.
    """

    month: Period
    day: int
    expected: Decimal
    actual: Decimal

    @property
    def off(self) -> Decimal | None:
        return abs(self.expected - self.actual) / abs(self.actual) if self.actual else None


@dataclass(frozen=True)
class Backtest:
    """How far off the forecasts of some earlier months would have been, the latest month first."""

    months: int
    tries: tuple[Try, ...]

    def off(self, day: int = 15) -> Decimal | None:
        """The mean error of the forecasts made after so many days, 0.06 for 6 %. None where no month cost anything."""
        found = [one.off for one in self.tries if one.day == day and one.off is not None]
        return mean(found) if found else None


def why_not(amounts: Mapping[date, Decimal], month: Period, through: date) -> Reason | None:
    """Why ``of`` has no forecast; None if it has one.

    A day of the month that should be known and is not leaves open what the month cost so far. A month that is wholly
    known needs no history.
    """
    if any(day not in amounts for day in span(month.first, min(through, month.last))):
        return Reason.DAYS_MISSING
    weeks = span(through - (WEEKS * 7 - 1) * ONE_DAY, through)
    if through < month.last and sum(day in amounts for day in weeks) < LEAST_DAYS:
        return Reason.TOO_LITTLE_HISTORY
    return None


def of(amounts: Mapping[date, Decimal], month: Period, through: date) -> Forecast | None:
    """The forecast of a calendar month whose days should be known up to ``through``; None if ``why_not`` says why.

    ``amounts``: what each known day cost. A day that is not in it is unknown, never zero; days after ``through`` are
    not looked at.
    """
    if why_not(amounts, month, through) is not None:
        return None
    settled = _sum(amounts, Period(month.first, min(through, month.last)))
    if through >= month.last:
        return Forecast(month, settled, settled, settled, settled, 0)
    known, last = _by_number(amounts), through.toordinal()
    left = range(max(last + 1, month.first.toordinal()), month.last.toordinal() + 1)
    rest = _estimate(known, last, left)
    errors = _errors(known, last, left)
    width = _width(errors)
    low, high = sorted((rest * max(0.0, 1 - width), rest * (1 + width)))
    return Forecast(month, settled, _plus(settled, rest), _plus(settled, low), _plus(settled, high), len(errors))


def backtest(amounts: Mapping[date, Decimal], through: date, months: int = 3) -> Backtest | None:
    """Forecasts of the last months that are wholly known, of at most a year, made after each of DAYS_TRIED.

    None if there is no month that is wholly known and had enough history before it.
    """
    known, tries, found = _by_number(amounts), list[Try](), 0
    month = Period.month(through + ONE_DAY)
    for _ in range(12):
        month = Period.month(month.first - ONE_DAY)
        if found == months:
            break
        first, last = month.first.toordinal(), month.last.toordinal()
        if not _has_history(known, first - 1) or not all(day in known for day in range(first, last + 1)):
            continue
        found += 1
        actual = _sum(amounts, month)
        for day in DAYS_TRIED:
            so_far = first + day - 1
            settled = _sum(amounts, Period(month.first, date.fromordinal(so_far)))
            rest = _estimate(known, so_far, range(so_far + 1, last + 1))
            tries.append(Try(month, day, _plus(settled, rest), actual))
    return Backtest(found, tuple(tries)) if found else None


def _sum(amounts: Mapping[date, Decimal], period: Period) -> Decimal:
    return sum((amounts[day] for day in period), Decimal(0))


def _plus(settled: Decimal, estimate: float) -> Decimal:
    """Up to whole cents: so an estimate of what can't be negative is never below what is settled."""
    return (settled + Decimal(estimate)).quantize(_CENT, ROUND_CEILING)


def _by_number(amounts: Mapping[date, Decimal]) -> dict[int, float]:
    """The amounts by their days' ordinals: seven days are one week, and a year takes well under a millisecond."""
    return {day.toordinal(): float(amount) for day, amount in amounts.items()}


def _has_history(known: Mapping[int, float], last: int) -> bool:
    return sum(day in known for day in range(last - WEEKS * 7 + 1, last + 1)) >= LEAST_DAYS


def _estimate(known: Mapping[int, float], last: int, days: range) -> float:
    """What the days will cost together, from the weeks up to ``last``: each weekday's mean, carried on by the trend."""
    weeks: list[list[tuple[int, float]]] = [[] for _ in range(7)]
    for day in range(last, last - WEEKS * 7, -1):
        if day in known:
            weeks[day % 7].append(((last - day) // 7, known[day]))
    means = [_mean([amount for _, amount in found]) for found in weeks]
    seen = [found for found in means if found is not None]
    level = [mean_or_other if mean_or_other is not None else sum(seen) / len(seen) for mean_or_other in means]
    trend = _trend(weeks, level)
    ages = [age for found in weeks for age, _ in found]
    middle = sum(ages) / len(ages) + 0.5
    total = 0.0
    for day in days:
        ahead = (1 - _DAMPING ** ((day - last) / 7)) / -log(_DAMPING)
        total += level[day % 7] * max(0.0, 1 + trend * (middle + ahead))
    return total


def _mean(amounts: list[float]) -> float | None:
    """The mean of a weekday. One spike counts as no more than twice as far out as what is usual on the weekday.

    Spikes are not left out: who has one a month will have one in this month as well.
    """
    if len(amounts) < 4:
        return sum(amounts) / len(amounts) if amounts else None
    ordered = sorted(amounts)
    low, high = ordered[1], ordered[-2]
    ordered[0], ordered[-1] = max(ordered[0], low - (high - low)), min(ordered[-1], high + (high - low))
    return sum(ordered) / len(ordered)


def _trend(weeks: list[list[tuple[int, float]]], level: list[float]) -> float:
    """How much a week adds, as a part of the level: the median slope between two weeks (Theil and Sen).

    It counts as far as the slopes agree in their sign (Kendall's tau), which in mere noise they hardly do. A week is
    compared with what its known days would cost at the level, so days that are unknown don't lower it.
    """
    cost, usual = [0.0] * WEEKS, [0.0] * WEEKS
    for weekday, found in enumerate(weeks):
        for age, amount in found:
            cost[age] += amount
            usual[age] += level[weekday]
    parts = [(age, cost[age] / usual[age]) for age in range(WEEKS) if usual[age] > 0]
    slopes = [(late - early) / (age - then) for then, late in parts for age, early in parts if age > then]
    if not slopes:
        return 0.0
    agreement = abs(sum((slope > 0) - (slope < 0) for slope in slopes)) / len(slopes)
    return max(-_STEEPEST, min(_STEEPEST, median(slopes) * agreement))


def _errors(known: Mapping[int, float], last: int, left: range) -> list[float]:
    """How far off the same forecast was 1, 2, ... weeks earlier, for as many days on the same weekdays."""
    errors = []
    weeks = ceil((left[-1] - last) / 7)
    for back in range(weeks * 7, (weeks + _TRIES) * 7, 7):
        days = range(left[0] - back, left[-1] - back + 1)
        if all(day in known for day in days) and _has_history(known, last - back):
            guess, actual = _estimate(known, last - back, days), sum(known[day] for day in days)
            if guess:
                errors.append(abs(actual / guess - 1))
            elif not actual:
                errors.append(0.0)
    return errors


def _width(errors: list[float]) -> float:
    """How far the range reaches to both sides, as a part of what is estimated.

    RIGHT of the errors are smaller, with one more that counts as the largest. While there are few, the others count as
    half of the estimate.
    """
    ordered = sorted(errors + [_ERROR_WITHOUT_TRY] * (_ENOUGH_TRIES - len(errors)))
    return min(_WIDEST, ordered[ceil(RIGHT * (len(ordered) + 1)) - 1])

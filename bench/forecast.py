"""How far off the forecast of a month is, over the year of the sandbox's accounts, beside two naive ones.

The accounts are those of the sandbox that cost anything, and a dozen more that differ in their size, their taste and
the days of their spikes. Each wholly known month with a month before it is forecast after 5, 10, 15, 20 and 25 days.
What is compared is the median error of all of these, as a part of what the month did cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from statistics import median

from bench.measure import Result, of
from grafient.days import ONE_DAY, Period
from grafient.forecast import backtest
from grafient.sandbox.account import Account
from grafient.sandbox.manners import ACCOUNTS

YEAR = Period(date(2025, 11, 25), date(2026, 11, 24))
ORDINARY_ACCOUNTS = 12
MONTHS = 12


@dataclass(frozen=True)
class Errors:
    """Of the same months on the same days: by our forecast, by last month's total, and by the mean day × all days."""

    ours: list[Decimal]
    last_month: list[Decimal]
    mean_day: list[Decimal]


def measure(_rounds: int) -> Iterator[Result]:
    """Once: every round would be the same."""
    years = [days for account in accounts() if any((days := year(account)).values())]
    found = [errors(days, YEAR.last) for days in years]
    ours = [error for one in found for error in one.ours]
    for against, theirs in (
        ("last month's total", [error for one in found for error in one.last_month]),
        ("the mean day × days", [error for one in found for error in one.mean_day]),
    ):
        pair = float(median(ours)), float(median(theirs))
        yield of("Forecast of a month, sandbox's year: error", against, [pair], least=1.0, said=percent)


def percent(error: float) -> str:
    return f"{error:.1%}"


def accounts() -> list[Account]:
    names = [f"ordinary-{number}" for number in range(1, ORDINARY_ACCOUNTS + 1)]
    return [*ACCOUNTS, *(Account(name, name) for name in names)]


def year(account: Account) -> dict[date, Decimal]:
    """What each day of the year cost."""
    return {day: sum((part.usage for part in account.slices(day)), Decimal(0)) for day in YEAR}


def errors(amounts: Mapping[date, Decimal], through: date) -> Errors:
    """The errors of all months of the last twelve that all three can forecast."""
    tested, found = backtest(amounts, through, MONTHS), Errors([], [], [])
    for one in tested.tries if tested else ():
        before = Period.month(one.month.first - ONE_DAY)
        if one.off is None or any(day not in amounts for day in before):
            continue
        so_far = Period(one.month.first, one.month.first + timedelta(days=one.day - 1))
        mean_day = sum(amounts[day] for day in so_far) / one.day
        found.ours.append(one.off)
        found.last_month.append(_off(sum((amounts[day] for day in before), Decimal(0)), one.actual))
        found.mean_day.append(_off(mean_day * one.month.days, one.actual))
    return found


def _off(guess: Decimal, actual: Decimal) -> Decimal:
    return abs(guess - actual) / abs(actual)

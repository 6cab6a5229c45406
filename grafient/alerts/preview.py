"""What would have been said in the last weeks, had a rule been set so: by what is known today of the days since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from grafient.alerts import budgets, rules
from grafient.alerts.budgets import Fields, Status
from grafient.models import utc_now
from grafient.states import AlertKind, BudgetPeriod

DAYS = 90
MOST_FIRED = 100


@dataclass(frozen=True)
class Fired:
    """Something that would have been said once a day was settled."""

    day: date
    title: str


def of(workspace_id: int, kind: AlertKind, settings: Mapping[str, Any]) -> list[Fired]:
    """The same of a rule other than a budget, if it is PREVIEWED."""
    return _OF[kind](workspace_id, settings)


def of_budget(workspace_id: int, fields: Fields) -> list[Fired]:
    """What a budget would have said in the last DAYS, the latest first, at most MOST_FIRED."""
    budget = fields.budget(workspace_id)
    days = iter(budgets.as_it_was(budget, utc_now(), DAYS + 1))
    status = next(days)
    period, said = status.period, _marks(status)
    found: list[Fired] = []
    for status in days:
        if status.period != period:
            period, said = status.period, {False: set(), True: set()}
        for is_forecast, marks in _marks(status).items():
            if marks - said[is_forecast]:
                found.append(Fired(status.through, _title(status, max(marks - said[is_forecast]), is_forecast)))
            said[is_forecast] |= marks  # what falls below a mark and reaches it again is no news
    return found[::-1][:MOST_FIRED]


def _marks(status: Status) -> dict[bool, set[int]]:
    """The marks that are reached: of what is spent, and (True) of the forecast."""
    return {False: set(status.actual_marks), True: set(status.forecast_marks)}


def _title(status: Status, mark: int, is_forecast: bool) -> str:
    """``80% of $250 used in November 2026: $200.00``."""
    of = f"{mark}% of {rules.in_words(status.budget.amount_usd)}"
    period = f"the {status.label}" if status.budget.period is BudgetPeriod.WEEK else status.label
    if is_forecast and status.forecast is not None:
        return f"{of} forecast for {period}: {_usd(status.forecast.expected)}"
    word = "on" if status.budget.period is BudgetPeriod.DAY else "in"
    return f"{of} used {word} {period}: {_usd(status.spent_usd or Decimal(0))}"


def _usd(amount: Decimal) -> str:
    return f"${amount:,.2f}"


_OF: Mapping[AlertKind, Callable[[int, Mapping[str, Any]], list[Fired]]] = {}
PREVIEWED = frozenset({AlertKind.BUDGET, *_OF})
"""What can be told of days that are over."""

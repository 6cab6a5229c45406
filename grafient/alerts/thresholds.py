"""Which thresholds of which budgets were reached."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal

from grafient.alerts import budgets
from grafient.alerts.budgets import Status
from grafient.alerts.findings import Finding, Look
from grafient.days import ONE_DAY, Period
from grafient.models import Budget
from grafient.states import AlertKind

SETTLING = timedelta(days=3)
"""For so long after its end a period is looked at: what its last days cost is known only then."""

_NEARLY = {"actual": Decimal("0.98"), "forecast": Decimal("0.95")}
"""How far below a threshold it has to fall before it no longer counts as reached: a forecast moves a little each day,
and what is known of today can be corrected."""


def find(look: Look) -> None:
    """Of each budget the period that goes on, those before as long as their last days settle, and what is open."""
    asked = []
    for budget in budgets.all_of(look.workspace_id):
        period = budgets.period_of(budget.period, look.today)
        asked.append((budget, period))
        periods = {
            period_of_open
            for one in look.open_of(AlertKind.BUDGET)
            if one.budget_id == budget.id and (period_of_open := _period(budget, one.subject)) is not None
        } - {period}
        before = budgets.period_of(budget.period, period.first - ONE_DAY)
        while look.today - before.last <= SETTLING and budget.created_at.date() <= before.last:
            periods.add(before)
            before = budgets.period_of(budget.period, before.first - ONE_DAY)
        asked += [(budget, one) for one in sorted(periods, key=lambda one: one.first)]
    for status in budgets.in_periods(look.workspace_id, asked, look.now):
        _find(look, status.budget, status)


def _period(budget: Budget, subject: str) -> Period | None:
    """The period that an incident is about; None if the budget is no longer for such periods."""
    first = date.fromisoformat(subject.partition(":")[2])
    period = budgets.period_of(budget.period, first)
    return period if period.first == first else None


def _find(look: Look, budget: Budget, status: Status) -> None:
    subject = f"{budget.id}:{status.period.first}"
    if status.spent_usd is None:
        incident = look.incidents.get((AlertKind.BUDGET, subject))
        if incident is not None and incident.resolved_at is None:
            look.keeps.add((AlertKind.BUDGET, subject))
        return
    has_ended = status.period.last < look.today
    forecast = status.forecast.expected if status.forecast is not None and not has_ended else None
    facts = {
        "name": budget.name,
        "period": str(budget.period),
        "first": status.period.first.isoformat(),
        "last": status.period.last.isoformat(),
        "amount_usd": f"{budget.amount_usd:f}",
        "spent_usd": f"{status.spent_usd:f}",
        "forecast_usd": f"{forecast:f}" if forecast is not None else None,
        "used_up_on": status.used_up_on.isoformat() if status.used_up_on else None,
        "missing": len(status.missing),
        "is_over": has_ended,
        "byok": budget.byok,
        "as_of": status.read_at.isoformat() if status.read_at else None,
    }
    marks = [*_reached("actual", budget.actual, status.spent_usd, budget.amount_usd)]
    stays = [*_reached("actual", budget.actual, status.spent_usd, budget.amount_usd, nearly=True)]
    if forecast is not None:
        marks += _reached("forecast", budget.forecast, forecast, budget.amount_usd)
        stays += _reached("forecast", budget.forecast, forecast, budget.amount_usd, nearly=True)
    else:  # there may be one again tomorrow
        stays += [f"forecast {percent}" for percent in budget.forecast]
    look.findings.append(
        Finding(
            AlertKind.BUDGET,
            subject,
            facts,
            marks,
            stays,
            budget_id=budget.id,
            is_news=not look.looked_at <= budget.since <= look.now,
            is_over=look.today - status.period.last > SETTLING,
        )
    )


def _reached(what: str, thresholds: Iterable[int], amount: Decimal, of: Decimal, nearly: bool = False) -> Iterable[str]:
    """The thresholds (percent) that an amount has reached, or nearly."""
    for percent in thresholds:
        if amount * 100 >= of * percent * (_NEARLY[what] if nearly else 1):
            yield f"{what} {percent}"

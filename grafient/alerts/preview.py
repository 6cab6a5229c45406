"""What would have been said in the last weeks, had a rule been set so: by what is known today of the days since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from grafient import coverage
from grafient.alerts import budgets, data, rules, spend, wording
from grafient.alerts.budgets import Fields, Status
from grafient.alerts.findings import HISTORY_DAYS
from grafient.alerts.spend import Account
from grafient.days import Period
from grafient.extensions import db
from grafient.models import CreditReading, utc_now
from grafient.query import Group, Query, all_integrations
from grafient.states import AlertKind, BudgetPeriod, Happened

DAYS = 90
MOST_FIRED = 100
MOST_ACCOUNTS = 20
"""That are looked at: with hundreds it would take longer than anybody waits for a form."""


@dataclass(frozen=True)
class Fired:
    """Something that would have been said once a day was settled."""

    day: date
    title: str


def of(workspace_id: int, kind: AlertKind, settings: Mapping[str, Any]) -> list[Fired]:
    """The same of a rule other than a budget, if it is PREVIEWED."""
    return _OF[kind](workspace_id, settings)


def leaves_out(workspace_id: int, kind: AlertKind) -> list[str]:
    """What it does not tell of: sentences."""
    said = []
    connected = sum(one.removed_at is None for one in all_integrations(workspace_id))
    if kind is not AlertKind.BUDGET and connected > MOST_ACCOUNTS:
        said.append(f"Only the first {MOST_ACCOUNTS} of {connected:,} integrations were looked at.")
    if kind is AlertKind.NEW:
        said.append("New hosts are left out.")
    return said


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
        return f"{of} forecast for {period}: {wording.usd(status.forecast.expected)}"
    word = "on" if status.budget.period is BudgetPeriod.DAY else "in"
    return f"{of} used {word} {period}: {wording.usd(status.spent_usd or Decimal(0))}"


def _unusual_days(workspace_id: int, settings: Mapping[str, Any]) -> list[Fired]:
    """Days in a row are said once, as they are by the rule itself."""
    found: list[Fired] = []
    for account in _accounts(workspace_id):
        going_on: set[str] = set()
        for day in sorted(account.settled)[-DAYS:]:
            now = dict(spend.unusual_on(account, day, settings, going_on))
            found += [_fired(AlertKind.UNUSUAL_DAY, day, now[subject]) for subject in now.keys() - going_on]
            going_on = set(now)
    return _latest(found)


def _new(workspace_id: int, settings: Mapping[str, Any]) -> list[Fired]:
    found: list[Fired] = []
    for account in _accounts(workspace_id):
        said: set[str] = set()
        for day in sorted(account.settled)[-DAYS:]:
            for _, subject, facts in spend.new_by(account, day, date.min, settings["least_usd"], _KEPT):
                if subject not in said:
                    said.add(subject)
                    found.append(_fired(AlertKind.NEW, day, facts))
    return _latest(found)


_KEPT = (Group.MODEL, Group.KEY)
"""Hosts are told of each line, of which three months would have to be read."""


def _credits(workspace_id: int, settings: Mapping[str, Any]) -> list[Fired]:
    """By the readings there are, and the pace that each day had."""
    found: list[Fired] = []
    since = utc_now() - timedelta(days=DAYS)
    for account in _accounts(workspace_id):
        mine = CreditReading.integration_id == account.integration.id, CreditReading.read_at >= since
        readings = db.session.execute(select(CreditReading).where(*mine).order_by(CreditReading.read_at)).scalars()
        reached: set[str] = set()
        for reading in readings:
            if reading.bought_usd is None:
                continue
            left = reading.bought_usd - reading.lifetime_usd
            pace = data.pace(account.settled, reading.read_at.date())
            days = data.days_left(left, pace)
            marks, stays = data.credit_marks(settings, left, days)
            if set(marks) - reached:
                facts = data.credit_facts(account.integration, left, pace, days, reading.read_at)
                found.append(_fired(AlertKind.CREDITS, reading.read_at.date(), facts))
            reached = (reached & set(stays)) | set(marks) | (reached if marks else set())
    return _latest(found)


def _accounts(workspace_id: int) -> Iterator[Account]:
    """The accounts that are connected, at most MOST_ACCOUNTS, with what each day of them cost."""
    today = utc_now().date()
    period = Period(today - timedelta(days=DAYS + HISTORY_DAYS), today)
    connected = [one for one in all_integrations(workspace_id) if one.removed_at is None][:MOST_ACCOUNTS]
    known = coverage.load(Query(workspace_id, period), connected)
    for one in connected:
        yield Account(workspace_id, one, known, period)


def _fired(kind: AlertKind, day: date, facts: Mapping[str, Any]) -> Fired:
    return Fired(day, wording.said(kind, Happened.OPENED, facts).title)


def _latest(found: list[Fired]) -> list[Fired]:
    return sorted(found, key=lambda one: (one.day, one.title), reverse=True)[:MOST_FIRED]


_OF: Mapping[AlertKind, Callable[[int, Mapping[str, Any]], list[Fired]]] = {
    AlertKind.UNUSUAL_DAY: _unusual_days,
    AlertKind.NEW: _new,
    AlertKind.CREDITS: _credits,
}
PREVIEWED = frozenset({AlertKind.BUDGET, *_OF})
"""What can be told of days that are over."""

"""What a digest says: what a day, week or month cost, why, how budgets stand, what is open, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode

from sqlalchemy import select

from grafient.alerts import budgets, wording
from grafient.alerts.message import Item, Message
from grafient.alerts.wording import on, short, usd
from grafient.coverage import Coverage
from grafient.days import ONE_DAY, Period
from grafient.extensions import db, settings
from grafient.models import Incident, utc_now
from grafient.query import Query, all_integrations
from grafient.reconciliation import VerdictState
from grafient.reports import changes, headline, statement, sums
from grafient.reports.changes import Changes
from grafient.reports.statement import Statement
from grafient.reports.sums import Slot, added_usd
from grafient.states import Happened, Summary

LATEST_DAY = 6
"""Of a month: until then a monthly digest waits for days of the month before that are not settled yet."""

MOST_NAMED = 5


class TooEarly(Exception):
    """The month is not settled, or not compared with the provider's other figures, yet."""


def of(workspace_id: int, uid: str, summary: Summary, day: date, workspace: str, at: datetime) -> Message | None:
    """The digest that was due on a UTC day; None where no account was ever connected. Raises TooEarly."""
    if not all_integrations(workspace_id):
        return None
    period, against = _periods(summary, day)
    query = Query(workspace_id, period)
    if summary is Summary.MONTHLY:
        return _monthly(query, against, uid, workspace, at, day)
    found = changes.report(query, against)
    label = on(period.last) if summary is Summary.DAILY else f"{short(period.first)} to {short(period.last)}"
    spent = _spent(query, found.after.coverage)
    items = [_costs(label, spent, found), *_month_so_far(query)]
    items += _budgets(workspace_id) + _open(workspace_id)
    title = f"{label}: {_amount(spent, found.after.coverage)}{workspace}"
    address = urlencode({"from": period.first.isoformat(), "to": period.last.isoformat()})
    return Message(
        uid,
        f"digest.{summary}",
        title,
        at,
        items=items,
        foot=_coverage(found.after.coverage),
        link=f"{settings.base_url}/?{address}",
    )


def _periods(summary: Summary, day: date) -> tuple[Period, Period]:
    """What a digest of a day is about, and what that is compared with: the same weekday before, the week before that
    one, the month before that one."""
    last = day - ONE_DAY
    if summary is Summary.DAILY:
        return Period(last, last), Period(last - timedelta(days=7), last - timedelta(days=7))
    if summary is Summary.WEEKLY:
        week = Period(last - timedelta(days=6), last)
        return week, week.before
    month = Period.month(day.replace(day=1) - ONE_DAY)
    return month, month.previous


def _spent(query: Query, found: Coverage) -> Decimal | None:
    """What is known of the period, of all accounts; None where nothing is."""
    settled = [one.usage_usd for (_, slot), one in sums.by_integration(query).items() if slot == Slot.PERIOD]
    return added_usd(settled) if settled or found.covered else None


def _amount(spent: Decimal | None, found: Coverage) -> str:
    if spent is None:
        return "not known yet"
    return f"{'' if found.lacks_nothing else 'at least '}{usd(spent)}"


def _costs(label: str, spent: Decimal | None, found: Changes) -> Item:
    """What it cost, what that was before, and what made the difference. Compared are the accounts that have all days
    of both periods."""
    coverage, before = found.after.coverage, found.before.period
    title = f"{label}: {_amount(spent, coverage)}"
    data = {"usd": None if spent is None else f"{spent:f}", "is_complete": coverage.lacks_nothing}
    earlier = short(before.first) if before.days == 1 else f"{short(before.first)} to {short(before.last)}"
    if found.difference is None:
        lines = [f"It can't be compared with {earlier}: no account has all days of both."]
        return Item(title, [*lines, *_left_out(found)], data=data)
    one = found.difference
    of = f"Accounts with all days of both cost {usd(one.after_usd)}: " if found.left_out else ""
    change = _change(one.change_usd, one.fraction)
    lines = [f"{of}{change[0].lower() + change[1:] if of else change} {earlier} ({usd(one.before_usd)})."]
    if drivers := one.by_model.drivers:
        lines.append(
            "Most of the change: " + "; ".join(f"{_name(d.name)} {_signed(d.change_usd)}" for d in drivers) + "."
        )
    parts = [
        (word, amount)
        for word, amount in (
            ("more or less usage", one.split.volume_usd),
            ("prices", one.split.price_usd),
            ("the choice of models", one.split.mix_usd),
            ("new models", one.split.new_usd),
            ("models no longer used", one.split.gone_usd),
        )
        if abs(amount) >= Decimal("0.005")
    ]
    if parts:
        lines.append("By reason: " + "; ".join(f"{word} {_signed(amount)}" for word, amount in parts) + ".")
    return Item(title, [*lines, *_left_out(found)], data=data)


def _left_out(found: Changes) -> list[str]:
    if not found.left_out:
        return []
    names = ", ".join(_name(one.label) for one in found.left_out)
    more = found.asked - found.compared - len(found.left_out)
    return [f"Not compared, since days of them are missing: {names}{f' and {more} more' if more > 0 else ''}."]


def _change(change: Decimal, fraction: Decimal | None) -> str:
    if not change:
        return "As much as"
    part = f" ({abs(fraction) * 100:.0f}%)" if fraction is not None else ""
    return f"{usd(abs(change))}{part} {'more' if change > 0 else 'less'} than"


def _signed(amount: Decimal) -> str:
    return f"+{usd(amount)}" if amount > 0 else usd(amount)


def _name(text: str) -> str:
    return wording.name(text) or "Unnamed"


def _month_so_far(query: Query) -> list[Item]:
    found = headline.report(replace(query, period=Period.latest(30, utc_now())), all_integrations(query.workspace_id))
    if found is None or found.month.usage_usd is None:
        return []
    at_least = "" if found.month.is_complete else "at least "
    lines = []
    if found.forecast is not None and found.month.period.last != found.whole.last:
        low, high = usd(found.forecast.low), usd(found.forecast.high)
        lines.append(f"Expected by its end: about {usd(found.forecast.expected)} (80% likely: {low} to {high}).")
    if found.credits is not None:
        days = "" if found.credits.days is None else f", {_days(found.credits.days)} at the present pace"
        lines.append(f"Credits left: {usd(found.credits.left_usd)}{days}.")
    is_over = found.month.period.last == found.whole.last
    month = f"{found.month.period.first:%B %Y}" if is_over else f"{found.month.period.first:%B} so far"
    return [Item(f"{month}: {at_least}{usd(found.month.usage_usd)}", lines)]


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number:,} days"


def _budgets(workspace_id: int) -> list[Item]:
    lines = []
    for one in budgets.statuses(workspace_id, utc_now())[:20]:
        called = f"{_name(one.budget.name)}, {one.label}"
        if one.spent_usd is None:
            lines.append(f"{called}: not known.")
            continue
        at_least = "at least " if one.is_floor else ""
        forecast = f", expected {usd(one.forecast.expected)}" if one.forecast is not None else ""
        of = f"{usd(one.spent_usd)} of {usd(one.budget.amount_usd)}"
        part = wording.percent(one.spent_usd, one.budget.amount_usd)
        lines.append(f"{called}: {at_least}{part} spent, {of}{forecast}.")
    return [Item("Budgets", lines)] if lines else []


def _open(workspace_id: int) -> list[Item]:
    here = Incident.workspace_id == workspace_id, Incident.resolved_at.is_(None)
    found = db.session.execute(select(Incident).where(*here).order_by(Incident.id.desc()).limit(21)).scalars().all()
    lines = [wording.said(one.kind, Happened.OPENED, one.facts, one.marks).title + "." for one in found[:20]]
    if len(found) > 20:
        lines.append("There are more on the page.")
    return [Item("Open alerts", lines, link=f"{settings.base_url}/alerts")] if lines else []


def _coverage(found: Coverage) -> str:
    if found.lacks_nothing:
        return "All days of all accounts are in these figures."
    days = f"{found.covered} of {found.asked} day{'' if found.asked == 1 else 's'} complete"
    without = f"; no data for {', '.join(map(_name, found.without_data[:5]))}" if found.without_data else ""
    return f"These figures are the least it can be: {days}{without}."


def _monthly(query: Query, against: Period, uid: str, workspace: str, at: datetime, day: date) -> Message:
    """The month with its statement, once that is all there."""
    found = statement.report(query)
    is_settled = found.coverage.lacks_nothing and found.verdict.unasked == 0
    if not is_settled and utc_now().date().day < LATEST_DAY and utc_now().date() < day + timedelta(days=LATEST_DAY):
        raise TooEarly
    month = f"{query.period.first:%B %Y}"
    total = found.total_usd
    address = urlencode({"month": f"{query.period.first:%Y-%m}"})
    items = [_costs(month, total, changes.report(query, against)), _statement(found)]
    items += _budgets(query.workspace_id) + _open(query.workspace_id)
    return Message(
        uid,
        "digest.monthly",
        f"{month}: {_amount(total, found.coverage)}{workspace}",
        at,
        items=items,
        foot=_coverage(found.coverage),
        link=f"{settings.base_url}/statement?{address}",
    )


def _statement(found: Statement) -> Item:
    """The total to the last digit, what it is made of, and what it was compared with."""
    at_least = "" if found.coverage.lacks_nothing else "at least "
    exact = "not known" if found.total_usd is None else f"{at_least}${found.total_usd.normalize():,f}"
    lines = [f"Total: {exact}."]
    if found.byok_usd.is_worth_showing and found.byok_usd.known is not None:
        least = "" if found.byok_usd.complete else "at least "
        lines.append(f"Beside that, estimated on your own provider keys (BYOK): {least}{usd(found.byok_usd.known)}.")
    named: Sequence[str] = [f"{_name(row.name)} {usd(row.usage_usd)}" for row in found.models[:MOST_NAMED]]
    more = len(found.models) - len(named) + found.models_left_out
    if named:
        lines.append("Models: " + "; ".join(named) + (f"; and {more} more" if more else "") + ".")
    lines.append(_checked(found))
    if found.restated:
        were = "was" if len(found.restated) == 1 else "were"
        lines.append(f"{len(found.restated)} of its days {were} restated by the provider.")
    return Item("Statement", lines, data={"total_usd": None if found.total_usd is None else f"{found.total_usd:f}"})


def _checked(found: Statement) -> str:
    verdict = found.verdict
    if verdict.state is VerdictState.VERIFIED:
        return "Each day agrees with the provider's other figures."
    if verdict.state is VerdictState.DIFFERS:
        return f"It differs from the provider's other figures by {usd(verdict.difference_usd)}."
    return f"It could not be compared in full: {verdict.why}"

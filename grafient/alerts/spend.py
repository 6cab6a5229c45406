"""What is so of costs: unusual days, today already above one, and what was never used before.

A day is judged once, when it is settled. A provider may restate it for days, and judging it again each time would open,
close and open an incident about the same day. A day that is missing when a later one is settled is not judged at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import and_, func, select

from grafient.alerts import unusual
from grafient.alerts.findings import HISTORY_DAYS, Finding, Look, settled
from grafient.alerts.unusual import Expected, Margin
from grafient.coverage import KeyDays, Known
from grafient.days import ONE_DAY, Period
from grafient.extensions import db
from grafient.models import UNATTRIBUTED, ApiKey, Incident, Integration, KeyPart, Line, Model, ModelTotal, Series
from grafient.query import Group, Query
from grafient.reports import sums
from grafient.reports.sums import Axis
from grafient.states import AlertKind, DayState, Source

MOST_JUDGED = 14
"""Days that are judged at once: those of an integration that was not read for long are no news any more."""

NEW_DAYS = 14
"""For so many days after it was first used, something is new."""

_KEPT = timedelta(days=7)
"""Without a further day for so long, what was unusual is over: the account was paused, or can't be read."""

NEW_LASTS = timedelta(days=7)
NEW_PARTS = (Group.MODEL, Group.KEY, Group.HOST)
MOST_DRIVERS = 3

_Amounts = Mapping[date, Decimal]


def find(look: Look) -> None:
    """Judge the days that were settled since the last look, and today so far."""
    first = look.today - timedelta(days=HISTORY_DAYS - 1)
    for one in look.connected:
        days = look.settled[one.id]
        newest = max(days, default=None)
        todo = _to_judge(look, one, newest)
        if newest is not None and todo:
            look.judges[one.id] = newest
            account = Account(look.workspace_id, one, look.known, Period(first, look.today))
            if look.rules[AlertKind.UNUSUAL_DAY].is_on:
                _judge(look, account, todo)
            if look.rules[AlertKind.NEW].is_on:
                _find_new(look, account)
        else:
            for incident in look.open_of(AlertKind.UNUSUAL_DAY, one.id):
                if look.today - (incident.last_day or incident.opened_at.date()) <= _KEPT:
                    look.keep(incident)
            for incident in look.open_of(AlertKind.NEW, one.id):
                if look.now - incident.told_at < NEW_LASTS:
                    look.keep(incident)
        _find_today(look, one, days)


def _to_judge(look: Look, integration: Integration, newest: date | None) -> list[date]:
    """The settled days that were not judged yet; of a new integration those from the day on which it was connected."""
    if newest is None:
        return []
    first = look.judged.get(integration.id, max(integration.created_at, look.since).date() - ONE_DAY) + ONE_DAY
    first = max(first, newest - timedelta(days=MOST_JUDGED - 1))
    return [day for day in look.settled[integration.id] if first <= day <= newest]


class Account:
    """An integration's settled days in a period, and what they are made of, each asked for once."""

    def __init__(self, workspace_id: int, integration: Integration, known: Known, period: Period) -> None:
        self.integration = integration
        self.query = Query(workspace_id, period, (integration.id,))
        mine = known.counted_by.get(integration.id, {})
        self.settled = settled(mine)
        self._sources = {day: one.source for day, one in mine.items()}
        self._parts: dict[Group, dict[str, dict[date, Decimal]]] = {}
        self._days: dict[tuple[Group, str], dict[date, Decimal]] = {}
        self._keys: KeyDays | None = None
        self.names: dict[Group, dict[str, str]] = {Group.MODEL: {}, Group.KEY: {}, Group.HOST: {}}

    def parts(self, group: Group) -> Mapping[str, Mapping[date, Decimal]]:
        """What each model, key or host cost on each day on which it was used."""
        if group not in self._parts:
            self._parts[group] = self._asked(group)
        return self._parts[group]

    def days_of(self, group: Group, name: str) -> Mapping[date, Decimal]:
        """The same of one, with the days since its first on which it is known not to have been used."""
        if (group, name) not in self._days:
            used = self.parts(group)[name]
            first = min(used)
            unused = (
                day for day in self.settled if day > first and day not in used and self._is_known(group, name, day)
            )
            self._days[group, name] = {**used, **dict.fromkeys(unused, Decimal(0))}
        return self._days[group, name]

    def _asked(self, group: Group) -> dict[str, dict[date, Decimal]]:
        found: dict[str, dict[date, Decimal]] = defaultdict(dict)
        query = self.query
        if group == Group.HOST:  # asked of each line there is, and only for what is new
            last = query.period.last
            query = replace(query, period=Period(last - timedelta(days=2 * NEW_DAYS), last))
        elif group == Group.KEY:  # named, since what no key explains would be worked out line by line otherwise
            self.names[group] = {name: called for name, called in sums.key_names(query).items() if name != UNATTRIBUTED}
            query = replace(query, keys=tuple(self.names[group]))
            if not query.keys:
                return {}
        for (name, day), amount in sums.amounts_by(query, Axis(group), Axis()):
            if name != UNATTRIBUTED:
                found[name][day] = amount.known
        if group == Group.KEY and found:
            self._keys = KeyDays.load([self.integration.id])
        return dict(found)

    def _is_known(self, group: Group, name: str, day: date) -> bool:
        if group == Group.MODEL:
            return True
        source = self._sources[day]
        if self._keys is not None and group == Group.KEY:
            return self._keys.is_read(self.integration.id, name, day, source)
        return source == Source.ACTIVITY


@dataclass
class _Run:
    """Days in a row on which something was unusual in the same direction."""

    subject: str
    first: date
    last: date
    facts: Mapping[str, Any]
    is_over: bool = False


def _judge(look: Look, account: Account, days: Sequence[date]) -> None:
    """Open, go on with and end what is unusual, day by day.

    A model or a key is told of only where the account's whole day is not unusual in the same direction: it is what made
    the day so, and is named there.
    """
    rule, one = look.rules[AlertKind.UNUSUAL_DAY], account.integration
    runs = {}
    for incident in look.open_of(AlertKind.UNUSUAL_DAY, one.id):
        subject = incident.subject.rpartition(":")[0]
        runs[subject] = _run_of(incident, subject)
    ended: list[_Run] = []
    begins = look.begins(AlertKind.UNUSUAL_DAY, one).date()
    for day in days:
        unusual_now = dict(unusual_on(account, day, rule.settings, runs.keys()))
        for subject in [*runs]:
            if subject not in unusual_now:
                runs[subject].is_over = True
                other = subject.rpartition(":")[0]
                if any(now.rpartition(":")[0] == other for now in unusual_now):
                    runs[subject].facts = {**runs[subject].facts, "turned": True}
                ended.append(runs.pop(subject))
        for subject, facts in unusual_now.items():
            if subject in runs:
                runs[subject].last, runs[subject].facts = day, facts
            elif day >= begins:
                runs[subject] = _Run(subject, day, day, facts)
    for run in [*ended, *runs.values()]:
        told_so_far = look.incidents.get((AlertKind.TODAY, f"{one.id}:{run.first}"))
        look.findings.append(
            Finding(
                AlertKind.UNUSUAL_DAY,
                f"{run.subject}:{run.first}",
                {**run.facts, "first_day": run.first.isoformat()},
                integration_id=one.id,
                first_day=run.first,
                last_day=run.last,
                is_over=run.is_over,
                is_news=not (told_so_far and run.subject == f"{one.id}:total:up"),
            )
        )


def _run_of(incident: Incident, subject: str) -> _Run:
    first = incident.first_day or incident.opened_at.date()
    return _Run(subject, first, incident.last_day or first, incident.facts)


def unusual_on(
    account: Account, day: date, settings: Mapping[str, Any], going_on: Iterable[str]
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """What was unusual on a day: the whole, then models, then keys, each with its facts."""
    one, margin = account.integration, Margin(settings["least_usd"], Decimal(settings["least_percent"]) / 100)
    least_days = settings["history_days"]
    directions = set()
    expected = unusual.expected(account.settled, day, margin, least_days)
    if expected is not None and (direction := expected.direction(account.settled[day])):
        directions.add(direction)
        facts = _facts(account, day, account.settled[day], expected)
        yield f"{one.id}:total:{direction}", {**facts, "drivers": _drivers(account, day, direction)}
    margin = Margin(max(settings["part_usd"], margin.usd), margin.part)
    for group, is_wanted in ((Group.MODEL, settings["models"]), (Group.KEY, settings["keys"])):
        found = set()
        for name, used in account.parts(group).items() if is_wanted else ():
            if max(used.values()) < margin.usd:
                continue  # of thousands of keys nearly all, and each takes a tenth of a millisecond
            amounts = account.days_of(group, name)
            expected = unusual.expected(amounts, day, margin, least_days) if day in amounts else None
            if expected is None or not (direction := expected.direction(amounts[day])):
                continue
            subject = f"{one.id}:{group}:{name[:400]}:{direction}"
            if direction not in directions or subject in going_on:
                found.add(direction)
                yield subject, _facts(account, day, amounts[day], expected, group, name)
        directions |= found


def _facts(
    account: Account, day: date, amount: Decimal, expected: Expected, group: Group | None = None, name: str = ""
) -> dict[str, Any]:
    read_at = account.integration.last_success_at
    return {
        "label": account.integration.label,
        "of": str(group) if group else "total",
        "name": account.names[group].get(name, name) if group else "",
        "id": name,
        "day": day.isoformat(),
        "usd": f"{amount:f}",
        "expected_usd": f"{expected.usd:f}",
        "as_of": read_at.isoformat() if read_at else None,
    }


def _drivers(account: Account, day: date, direction: str) -> list[dict[str, str]]:
    """The models that were the farthest from what is expected of them, the way the day was."""
    found = []
    for name in account.parts(Group.MODEL):
        amounts = account.days_of(Group.MODEL, name)
        if day in amounts:
            expected = unusual.expected(amounts, day, least_days=1)
            usual = expected.usd if expected else Decimal(0)
            off = amounts[day] - usual if direction == "up" else usual - amounts[day]
            if off > 0:
                found.append((off, name, amounts[day], usual))
    found.sort(key=lambda one: (-one[0], one[1]))
    worth = [one for one in found if one[0] * 10 >= found[0][0]]
    return [
        {"name": name, "usd": f"{amount:f}", "expected_usd": f"{usual:f}"}
        for _, name, amount, usual in worth[:MOST_DRIVERS]
    ]


def _find_today(look: Look, one: Integration, settled: _Amounts) -> None:
    """Days that are not settled and have already cost more than they are expected to in all."""
    rule = look.rules[AlertKind.TODAY]
    for incident in look.open_of(AlertKind.TODAY, one.id):
        day = incident.first_day or incident.opened_at.date()
        if day in settled:
            facts = {**incident.facts, "usd": f"{settled[day]:f}", "is_settled": True}
            look.findings.append(Finding(AlertKind.TODAY, incident.subject, facts, integration_id=one.id, is_over=True))
        elif look.today - day <= _KEPT:  # what it came to is told once that is known
            look.keep(incident)
    if not rule.is_on:
        return
    margin = Margin(rule["least_usd"], Decimal(rule["least_percent"]) / 100)
    for day in (look.today - ONE_DAY, look.today):
        counted = look.known.counted.get((one.id, day))
        if counted is None or counted.state is not DayState.PROVISIONAL or day < one.created_at.date():
            continue
        expected = unusual.expected(settled, day, margin)
        if expected is not None and counted.usage_usd > expected.high:
            facts = {
                "label": one.label,
                "day": day.isoformat(),
                "usd": f"{counted.usage_usd:f}",
                "expected_usd": f"{expected.usd:f}",
                "as_of": one.last_success_at.isoformat() if one.last_success_at else None,
            }
            look.findings.append(
                Finding(
                    AlertKind.TODAY,
                    f"{one.id}:{day}",
                    facts,
                    integration_id=one.id,
                    first_day=day,
                    last_day=day,
                    is_news=day >= look.begins(AlertKind.TODAY, one).date(),
                )
            )


def _find_new(look: Look, account: Account) -> None:
    begins = look.begins(AlertKind.NEW, account.integration).date()
    for day, subject, facts in new_by(account, max(account.settled), begins, look.rules[AlertKind.NEW]["least_usd"]):
        one = account.integration
        look.findings.append(
            Finding(AlertKind.NEW, subject, facts, integration_id=one.id, first_day=day, lasts=NEW_LASTS)
        )


def new_by(
    account: Account, newest: date, begins: date, least: Decimal, groups: Iterable[Group] = NEW_PARTS
) -> Iterable[tuple[date, str, Mapping[str, Any]]]:
    """Models, keys and hosts whose first day is one of the two weeks up to a day, and not before another one, and that
    have cost enough by then; each with that first day, what it is told apart by, and its facts."""
    one = account.integration
    if min(account.settled) > newest - timedelta(days=NEW_DAYS):
        return  # everything is new in an account that is
    recent = max(newest - timedelta(days=NEW_DAYS - 1), begins)
    for group in groups:
        costs = {
            name: sum((amount for day, amount in amounts.items() if recent <= day <= newest), Decimal(0))
            for name, amounts in account.parts(group).items()
            if recent <= min(amounts) <= newest
        }
        costs = {name: cost for name, cost in costs.items() if cost >= least and name}
        firsts = _first_days(one.id, group, list(costs)) if costs else {}
        for name, cost in costs.items():
            if firsts.get(name, recent) >= recent:
                day = min(account.parts(group)[name])
                facts = {
                    "label": one.label,
                    "of": str(group),
                    "name": account.names[group].get(name, name),
                    "id": name,
                    "day": day.isoformat(),
                    "usd": f"{cost:f}",
                    "through": newest.isoformat(),
                }
                yield day, f"{one.id}:{group}:{name[:400]}", facts


def _first_days(integration_id: int, group: Group, names: Sequence[str]) -> dict[str, date]:
    """The first day on which each of these was used."""
    by_group: dict[Group, tuple[Any, Any, Any]] = {
        Group.MODEL: (
            Model.name,
            Model.integration_id,
            select(Model.name, func.min(ModelTotal.day)).join(ModelTotal, ModelTotal.model_id == Model.id),
        ),
        Group.KEY: (
            ApiKey.key_hash,
            ApiKey.integration_id,
            select(ApiKey.key_hash, func.min(KeyPart.day)).join(KeyPart, KeyPart.key_id == ApiKey.id),
        ),
        Group.HOST: (
            Series.host,
            Series.integration_id,
            select(Series.host, func.min(Line.day)).join(
                Line, and_(Line.integration_id == Series.integration_id, Line.series_id == Series.id)
            ),
        ),
    }
    name, owner, statement = by_group[group]
    found = db.session.execute(statement.where(owner == integration_id, name.in_(names)).group_by(name))
    return {row[0]: row[1] for row in found}

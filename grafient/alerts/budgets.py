"""Budgets: what was spent of each in its present period, when it will be used up, and setting them.

What is spent is what is settled of the period and what is known so far of the days that are not. Days that are missing
are no zero: what is spent is then the least that it can be, and there is no forecast.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select

from grafient import audit, coverage, members
from grafient import forecast as forecasts
from grafient.alerts import closing, rules, wording
from grafient.coverage import Known
from grafient.days import ONE_DAY, Period, last_due, span
from grafient.extensions import db
from grafient.forecast import Forecast, Reason
from grafient.models import UNATTRIBUTED, ApiKey, Budget, Incident, Integration, Model, Series, utc_now
from grafient.query import Query, all_integrations
from grafient.reports import parts, sums
from grafient.reports.sums import DayCost, added_usd
from grafient.states import Action, BudgetPeriod, DayState

MOST_BUDGETS = 100
"""Of a workspace."""

MOST_CAPS = 100
MOST_MARKS = 10
MOST_PERCENT = 1000
MOST_NAME = 100
MOST_VALUES = 100
"""Of one filter."""

ACTUAL, FORECAST = (50, 80, 100), (100,)
"""The percentages of a sum at which somebody is told, unless others are set: of what is spent, and of the forecast."""

FILTERS = ("integration", "model", "host", "key")

HISTORY_DAYS = 400
"""What a forecast looks at; fewer where there are very many integrations."""

_MOST_ROWS = 40_000
_LEAST_DAYS = 87


class TooMany(Exception):
    """There are MOST_BUDGETS already."""


@dataclass(frozen=True)
class Fields:
    """What can be set of a budget; see ``Budget``."""

    name: str
    amount_usd: Decimal
    period: BudgetPeriod
    filters: Mapping[str, Sequence[Any]]
    byok: bool
    actual: Sequence[int]
    forecast: Sequence[int]

    def budget(self, workspace_id: int) -> Budget:
        """A budget of these, which nobody has added."""
        return _written(Budget(workspace_id=workspace_id), self)


@dataclass(frozen=True)
class Status:
    """Where a budget stands in a period. ``through``: the last day that is due, of the period or of another.

    ``spent_usd``: what is known of the period, days that may still grow included; None where nothing is. ``time``: the
    part of the period's days that are over by the clock. ``missing``: days that are due and missing for an integration,
    so that what is spent is at least that. ``read_at``: when days that may still grow were last read. ``used_up_on``:
    when the sum was used up, or will be if the forecast is right. The marks are percentages of the sum that are
    reached. ``about``: what the budget is about, in words; ``gone``: a sentence for each thing in it that no longer
    exists.
    """

    budget: Budget
    period: Period
    through: date
    spent_usd: Decimal | None
    settled_usd: Decimal | None
    time: Decimal
    missing: Sequence[date]
    read_at: datetime | None
    forecast: Forecast | None
    why_not: Reason | None
    used_up_on: date | None
    actual_marks: Sequence[int]
    forecast_marks: Sequence[int]
    about: str = "everything"
    gone: Sequence[str] = ()

    @property
    def left_usd(self) -> Decimal | None:
        """Less than nothing where more was spent."""
        return None if self.spent_usd is None else self.budget.amount_usd - self.spent_usd

    @property
    def part(self) -> Decimal | None:
        """What is spent as a part of the sum."""
        return None if self.spent_usd is None else self.spent_usd / self.budget.amount_usd

    @property
    def is_over(self) -> bool:
        return self.spent_usd is not None and self.spent_usd > self.budget.amount_usd

    @property
    def provisional_usd(self) -> Decimal:
        """The part of what is spent that may still grow."""
        return Decimal(0) if self.spent_usd is None else self.spent_usd - (self.settled_usd or Decimal(0))

    @property
    def is_floor(self) -> bool:
        """Whether what is spent is only the least that it can be."""
        return bool(self.missing)

    @property
    def label(self) -> str:
        return label(self.budget.period, self.period)


def period_of(kind: BudgetPeriod, day: date) -> Period:
    """The period that a day is in. Weeks begin on Monday, quarters in January, April, July and October."""
    if kind is BudgetPeriod.DAY:
        return Period(day, day)
    if kind is BudgetPeriod.WEEK:
        monday = day - timedelta(days=day.weekday())
        return Period(monday, monday + timedelta(days=6))
    if kind is BudgetPeriod.MONTH:
        return Period.month(day)
    if kind is BudgetPeriod.QUARTER:
        first = day.replace(month=day.month - (day.month - 1) % 3, day=1)
        return Period(first, Period.month(first + timedelta(days=80)).last)
    return Period(day.replace(month=1, day=1), day.replace(month=12, day=31))


def label(kind: BudgetPeriod, period: Period) -> str:
    """``23 November 2026``, ``week of 23 November``, ``November 2026``, ``Q4 2026``, ``2026``."""
    first = period.first
    on = wording.short(first)
    return {
        BudgetPeriod.DAY: f"{on} {first.year}",
        BudgetPeriod.WEEK: f"week of {on}",
        BudgetPeriod.MONTH: f"{first:%B %Y}",
        BudgetPeriod.QUARTER: f"Q{(first.month + 2) // 3} {first.year}",
        BudgetPeriod.YEAR: str(first.year),
    }[kind]


def all_of(workspace_id: int) -> list[Budget]:
    """The budgets of a workspace, as they are listed."""
    mine = select(Budget).where(Budget.workspace_id == workspace_id)
    return list(db.session.execute(mine.order_by(Budget.name, Budget.id)).scalars())


def owned(workspace_id: int, budget_id: int) -> Budget | None:
    """The budget, if it is this workspace's."""
    mine = select(Budget).where(Budget.workspace_id == workspace_id, Budget.id == budget_id)
    return db.session.execute(mine).scalar_one_or_none()


def statuses(workspace_id: int, now: datetime, budgets: Sequence[Budget] | None = None) -> list[Status]:
    """Where budgets of a workspace, by default all, stand in the periods that are under way.

    However many there are, they take a few statements together.
    """
    mine = all_of(workspace_id) if budgets is None else budgets
    return in_periods(workspace_id, [(one, period_of(one.period, now.date())) for one in mine], now)


def status(budget: Budget, now: datetime, period: Period) -> Status:
    """Where a budget stands in a period, or how it ended there."""
    return in_periods(budget.workspace_id, [(budget, period)], now)[0]


def as_it_was(budget: Budget, now: datetime, days: int) -> Iterator[Status]:
    """Where a budget would have stood after each of the last so many days, the first one first, by what is known today.
    It need not be added."""
    last = last_due(now)
    looked = [last - timedelta(days=ago) for ago in reversed(range(days))]
    first = period_of(budget.period, looked[0]).first
    costs = _Loaded(budget.workspace_id, [budget], Period(first, last), with_history=True).costs(budget)
    for day in looked:
        yield costs.status(budget, period_of(budget.period, day), day, day)


def in_periods(workspace_id: int, asked: Sequence[tuple[Budget, Period]], now: datetime) -> list[Status]:
    if not asked:
        return []
    today, through = now.date(), last_due(now)
    first, last = (some(getattr(period, end) for _, period in asked) for some, end in ((min, "first"), (max, "last")))
    budgets = [budget for budget, _ in asked]
    loaded = _Loaded(workspace_id, budgets, Period(min(first, today), min(last, today)), with_history=last > through)
    words = _Words(workspace_id, loaded.integrations, budgets)
    found = []
    for budget, period in asked:
        one = loaded.costs(budget).status(budget, period, through, today)
        found.append(replace(one, about=words.about(budget), gone=words.gone(budget)))
    return found


@dataclass(frozen=True)
class _Costs:
    """What is known of the days that a budget is about.

    ``settled`` and ``open``: what each day cost that is settled, and so far for others. ``live``: the same of settled
    days that are complete for all integrations that go on, of these alone. ``missing``: days that an integration lacks;
    ``whole``: those that are settled for all; ``known``: those of which anything is known. ``read_at``: when each open
    day was last read.
    """

    settled: Mapping[date, Decimal]
    open: Mapping[date, Decimal]
    live: Mapping[date, Decimal]
    missing: frozenset[date]
    whole: frozenset[date]
    known: frozenset[date]
    read_at: Mapping[date, datetime]

    def status(self, budget: Budget, period: Period, through: date, today: date) -> Status:
        """``through``: the last day that is due; ``today``: the last one to look at."""
        due, so_far = (span(period.first, min(end, period.last)) for end in (through, today))
        settled = added_usd(self.settled[day] for day in so_far if day in self.settled)
        spent = settled + added_usd(self.open[day] for day in so_far if day in self.open)
        is_known = any(day in self.known for day in so_far)
        why_not: Reason | None = Reason.DAYS_MISSING
        if all(day in self.whole for day in due):
            why_not = forecasts.why_not(self.live, period, through)
        forecast = gone = None
        if why_not is None:
            forecast, gone = self._forecast(period, through, due, spent)
        over_on = self._used_up_on(budget.amount_usd, so_far)
        if over_on is None and forecast is not None and gone is not None and forecast.expected >= budget.amount_usd:
            over_on = forecasts.reaches(self.live, period, through, budget.amount_usd - gone, spent - gone)
        return Status(
            budget=budget,
            period=period,
            through=through,
            spent_usd=spent if is_known else None,
            settled_usd=settled if is_known else None,
            time=Decimal(len(span(period.first, min(today - ONE_DAY, period.last)))) / period.days,
            missing=[day for day in due if day in self.missing],
            read_at=max((self.read_at[day] for day in so_far if day in self.read_at), default=None),
            forecast=forecast,
            why_not=why_not,
            used_up_on=over_on,
            actual_marks=_reached(budget.actual, spent, budget.amount_usd) if is_known else [],
            forecast_marks=_reached(budget.forecast, forecast.expected, budget.amount_usd) if forecast else [],
        )

    def _forecast(
        self, period: Period, through: date, due: Sequence[date], spent: Decimal
    ) -> tuple[Forecast | None, Decimal | None]:
        """Of the integrations that go on, with what others had cost when they were removed, which comes second. It is
        no less than what is spent already."""
        found = forecasts.of(self.live, period, through)
        if found is None:
            return None, None
        gone = added_usd(self.settled[day] for day in due if day in self.settled) - found.settled
        expected, low, high = (max(amount + gone, spent) for amount in (found.expected, found.low, found.high))
        return replace(found, settled=found.settled + gone, expected=expected, low=low, high=high), gone

    def _used_up_on(self, amount: Decimal, days: Sequence[date]) -> date | None:
        total = Decimal(0)
        for day in days:
            total += self.settled.get(day, Decimal(0)) + self.open.get(day, Decimal(0))
            if total >= amount:
                return day
        return None


def _reached(marks: Iterable[int], amount: Decimal, whole: Decimal) -> list[int]:
    return [mark for mark in marks if amount * 100 >= mark * whole]


class _Loaded:
    """A workspace's integrations, and what is known of the days of each of these budgets; asked once for all that are
    about the same.

    ``with_history``: as many days before as a forecast looks at, or as there is room for.
    """

    def __init__(self, workspace_id: int, budgets: Iterable[Budget], days: Period, *, with_history: bool) -> None:
        self.integrations = all_integrations(workspace_id)
        most = max(_LEAST_DAYS, min(HISTORY_DAYS, _MOST_ROWS // max(len(self.integrations), 1)))
        history = days.last - timedelta(days=most - 1)
        around = Period(min(days.first, history), days.last) if with_history else days
        self._around = around
        stored = coverage.Stored(self.integrations, around)
        known = {query: stored.known(query) for query in dict.fromkeys(query_of(one, around) for one in budgets)}
        costs = {query: _by_day(one) for query, one in known.items() if not (query.is_filtered or query.byok)}
        by_line = [query for query in known if query not in costs]
        removed = [one.id for one in self.integrations if one.removed_at is not None]
        costs |= zip(by_line, sums.costs_by_day([known[one].query for one in by_line], removed), strict=True)
        self._costs = {query: _costs(one, costs[query]) for query, one in known.items()}

    def costs(self, budget: Budget) -> _Costs:
        """What is known of a budget's days."""
        return self._costs[query_of(budget, self._around)]


def query_of(budget: Budget, period: Period) -> Query:
    """What a budget is about, on these days."""
    filters = {name: tuple(budget.filters.get(name, ())) for name in FILTERS}
    return Query(
        budget.workspace_id,
        period,
        integrations=filters["integration"],
        models=filters["model"],
        hosts=filters["host"],
        keys=filters["key"],
        byok=budget.byok,
    )


def _by_day(known: Known) -> list[DayCost]:
    """What each day cost in all, as it is stored with the day itself."""
    removed = {one.id: one.removed_at is not None for one in known.asked}
    return [
        DayCost(day, counted.state.is_settled, removed[integration_id], counted.usage_usd)
        for (integration_id, day), counted in known.counted.items()
        if integration_id in removed and day in known.period
    ]


def _costs(known: Known, days: Iterable[DayCost]) -> _Costs:
    settled, open_, live_only = (defaultdict[date, Decimal](Decimal) for _ in range(3))
    for one in days:
        (settled if one.settled else open_)[one.day] += one.usage_usd
        if one.settled and not one.apart:
            live_only[one.day] += one.usage_usd
    live = [one for one in known.asked if one.removed_at is None]
    whole_for_live = parts.days_of_all(known, live, known.period)
    missing, whole, any_known = set(), set(), set()
    for day in known.period:
        states = known.states_on(day)
        if not known.asked or DayState.MISSING in states.values():
            missing.add(day)
        elif all(state.is_settled for state in states.values()):
            whole.add(day)
        if any(state != DayState.MISSING for state in states.values()):
            any_known.add(day)
    read_at = known.provisional(removed=True) | known.provisional(removed=False)
    return _Costs(
        settled=settled,
        open=open_,
        live={day: live_only.get(day, Decimal(0)) for day in whole_for_live},
        missing=frozenset(missing),
        whole=frozenset(whole),
        known=frozenset(any_known) | settled.keys() | open_.keys(),
        read_at=read_at,
    )


class _Words:
    """What budgets are about, in words."""

    def __init__(self, workspace_id: int, integrations: Sequence[Integration], budgets: Sequence[Budget]) -> None:
        self._integrations = {one.id: one for one in integrations}
        hashes = {name for one in budgets for name in one.filters.get("key", ())} - {UNATTRIBUTED}
        self._keys = keys_named(workspace_id, hashes)

    def about(self, budget: Budget) -> str:
        found = []
        for name, one, many in (
            ("integration", "integration", "integrations"),
            ("model", "model", "models"),
            ("host", "host", "hosts"),
            ("key", "API key", "API keys"),
        ):
            called = [self._called(name, value) for value in budget.filters.get(name, ())]
            if called:
                more = f" and {len(called) - 3} more" if len(called) > 3 else ""
                found.append(f"{one if len(called) == 1 else many} {', '.join(called[:3])}{more}")
        return ("; ".join(found) or "everything") + (", with BYOK" if budget.byok else "")

    def gone(self, budget: Budget) -> list[str]:
        found = []
        for number in budget.filters.get("integration", ()):
            one = self._integrations.get(number)
            if one is None:
                found.append("An integration that it is about was deleted.")
            elif one.removed_at is not None:
                found.append(f"The integration “{one.label}” was removed.")
        for key_hash in budget.filters.get("key", ()):
            if key_hash == UNATTRIBUTED:
                continue
            key = self._keys.get(key_hash)
            if key is None:
                found.append("An API key that it is about is not known any more.")
            elif key[1]:
                found.append(f"The API key “{key[0]}” was deleted at the provider.")
        return found

    def _called(self, name: str, value: Any) -> str:
        if name == "integration":
            return f"“{self._integrations[value].label}”" if value in self._integrations else "(deleted)"
        if name == "key":
            called = "Unattributed" if value == UNATTRIBUTED else self._keys.get(value, ("(unknown)", True))[0]
            return f"“{called}”"
        return str(value)


def keys_named(workspace_id: int, hashes: Iterable[str]) -> dict[str, tuple[str, bool]]:
    """What these API keys of a workspace are called, and whether they are gone at the provider; by hash."""
    asked = list(hashes)
    if not asked:
        return {}
    mine = select(ApiKey.key_hash, ApiKey.name, ApiKey.gone_at).join(
        Integration, Integration.id == ApiKey.integration_id
    )
    mine = mine.where(Integration.workspace_id == workspace_id, ApiKey.key_hash.in_(asked))
    found: dict[str, tuple[str, bool]] = {}
    for key_hash, name, gone_at in db.session.execute(mine):
        is_gone = gone_at is not None and found.get(key_hash, ("", True))[1]
        found[key_hash] = (name.strip() or f"Unnamed {key_hash[:8]}", is_gone)
    return found


@dataclass(frozen=True)
class Cap:
    """Where the provider stops an API key by itself. ``reset``: "daily", "weekly", "monthly" or another word of the
    provider's for when that begins anew; empty for never. ``left_usd``: what was left at ``read_at``, None if it was
    not said."""

    key: str
    integration: str
    limit_usd: Decimal
    left_usd: Decimal | None
    reset: str
    read_at: datetime | None


def caps(workspace_id: int) -> list[Cap]:
    """The limits that the API keys of a workspace have at the provider, at most MOST_CAPS."""
    mine = (
        select(ApiKey, Integration.label)
        .join(Integration, Integration.id == ApiKey.integration_id)
        .where(
            Integration.workspace_id == workspace_id,
            Integration.removed_at.is_(None),
            ApiKey.gone_at.is_(None),
            ApiKey.limit_usd.is_not(None),
        )
        .order_by(ApiKey.name, ApiKey.key_hash, Integration.id)
        .limit(MOST_CAPS)
    )
    found = []
    for key, label_ in db.session.execute(mine):
        name, limit = key.name.strip() or f"Unnamed {key.key_hash[:8]}", key.limit_usd or Decimal(0)
        found.append(Cap(name, label_, limit, key.limit_left_usd, key.limit_reset or "", key.limit_read_at))
    return found


def create(workspace_id: int, fields: Fields) -> Budget:
    """Add a budget. Does not commit. Raises TooMany."""
    members.lock(workspace_id)
    mine = select(func.count()).select_from(Budget).where(Budget.workspace_id == workspace_id)
    if db.session.execute(mine).scalar_one() >= MOST_BUDGETS:
        raise TooMany
    budget = fields.budget(workspace_id)
    db.session.add(budget)
    db.session.flush()
    audit.note(Action.BUDGET_ADDED, workspace_id, _noted(budget))
    return budget


def change(budget: Budget, fields: Fields) -> None:
    """Set a budget anew, from now on. Does not commit."""
    members.lock(budget.workspace_id)
    _written(budget, fields).since = utc_now()
    audit.note(Action.BUDGET_CHANGED, budget.workspace_id, _noted(budget))


def delete(budget: Budget) -> None:
    """Delete a budget, and what was said of it. Does not commit."""
    members.lock(budget.workspace_id)
    audit.note(Action.BUDGET_DELETED, budget.workspace_id, _noted(budget))
    closing.before_deletion(budget.workspace_id, Incident.budget_id == budget.id, utc_now())
    db.session.delete(budget)


def _written(budget: Budget, fields: Fields) -> Budget:
    budget.name, budget.amount_usd, budget.period = fields.name, fields.amount_usd, fields.period
    budget.filters = {name: list(values) for name, values in fields.filters.items()}
    budget.byok, budget.actual, budget.forecast = fields.byok, list(fields.actual), list(fields.forecast)
    return budget


def _noted(budget: Budget) -> str:
    return f"{budget.name}: {rules.in_words(budget.amount_usd)} a {budget.period}"


def parsed(workspace_id: int, values: Mapping[str, Sequence[str]]) -> tuple[Fields | None, dict[str, str]]:
    """What a form says of a budget, None if it can't be set so; and what is wrong: a sentence by the field's name.

    ``values``: by name, each as often as it was sent; API keys by their hash, and UNATTRIBUTED for what no key
    explains.
    """
    wrong: dict[str, str] = {}

    def one(name: str) -> str:
        return next(iter(values.get(name, ())), "").strip()

    amount = Decimal(0)
    try:
        amount = _amount(one("amount_usd"))
    except ValueError as error:
        wrong["amount_usd"] = str(error)
    marks: dict[str, list[int]] = {}
    for name in ("actual", "forecast"):
        try:
            marks[name] = _marks(one(name))
        except ValueError as error:
            wrong[name] = str(error)
    if marks == {"actual": [], "forecast": []}:
        wrong["actual"] = "Enter at least one percentage, here or below."
    if one("period") not in list(BudgetPeriod):
        wrong["period"] = "Choose a period."
    filters, called, wrong_filters = _filters(workspace_id, values)
    wrong |= wrong_filters
    name = one("name") or ", ".join(called)[:MOST_NAME] or "All costs"
    if len(name) > MOST_NAME:
        wrong["name"] = f"A name can have up to {MOST_NAME} characters."
    elif not name.isprintable():
        wrong["name"] = "The name contains characters that can't be shown, such as a line break."
    if wrong:
        return None, wrong
    period, byok = BudgetPeriod(one("period")), bool(one("byok"))
    return Fields(name, amount, period, filters, byok, marks["actual"], marks["forecast"]), {}


def _amount(text: str) -> Decimal:
    amount = rules.usd(text, -rules.MOST_USD)
    if amount <= 0:
        raise ValueError("Enter an amount of more than $0.")
    return amount


def _marks(text: str) -> list[int]:
    """Percentages as people type them: ``50, 80 100``, ``50%, 80%``; none for an empty text. Raises ValueError."""
    found = []
    for part in text.replace(",", " ").replace("%", " ").replace(";", " ").split():
        if not (part.isascii() and part.isdigit() and len(part) < 6 and 1 <= int(part) <= MOST_PERCENT):
            raise ValueError(f"Enter whole percentages from 1 to {MOST_PERCENT:,}, such as 50, 80, 100.")
        found.append(int(part))
    if len(found) > MOST_MARKS:
        raise ValueError(f"Enter at most {MOST_MARKS} percentages.")
    if found != sorted(set(found)):
        raise ValueError("Each percentage must be larger than the one before it.")
    return found


def _filters(
    workspace_id: int, values: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[Any]], list[str], dict[str, str]]:
    """What a budget is about, what that is called, and what is wrong with it."""
    filters: dict[str, list[Any]] = {}
    called: list[str] = []
    wrong: dict[str, str] = {}
    chosen = {name: list(dict.fromkeys(values.get(name, ()))) for name in FILTERS}
    for name, some in chosen.items():
        if len(some) > MOST_VALUES:
            wrong[name] = f"Choose at most {MOST_VALUES}."
            chosen[name] = []
        elif any("\0" in one for one in some):
            wrong[name], chosen[name] = "This can't be chosen.", []
    if chosen["integration"]:
        mine = {str(one.id): one for one in all_integrations(workspace_id)}
        lacking = [one for one in chosen["integration"] if one not in mine]
        removed = [mine[one].label for one in chosen["integration"] if one in mine and mine[one].removed_at]
        if lacking:
            wrong["integration"] = "One of these integrations no longer exists. Choose again."
        elif removed:
            wrong["integration"] = f"“{removed[0]}” was removed. Choose another integration, or none."
        filters["integration"] = [int(one) for one in chosen["integration"] if one in mine]
        called += [mine[one].label for one in chosen["integration"] if one in mine]
    owned_ = select(Integration.id).where(Integration.workspace_id == workspace_id)
    for name, column, of in (("model", Model.name, Model.integration_id), ("host", Series.host, Series.integration_id)):
        if chosen[name]:
            there = select(column).where(of.in_(owned_), column.in_(chosen[name])).distinct()
            lacking = sorted(set(chosen[name]) - set(db.session.execute(there).scalars()))
            if lacking:
                wrong[name] = f"“{lacking[0][:100]}” was never used here. Choose another {name}, or none."
            filters[name] = chosen[name]
            called += chosen[name]
    if chosen["key"]:
        keys = keys_named(workspace_id, set(chosen["key"]) - {UNATTRIBUTED}) | {UNATTRIBUTED: ("Unattributed", False)}
        lacking = [one for one in chosen["key"] if one not in keys]
        gone = [keys[one][0] for one in chosen["key"] if one in keys and keys[one][1]]
        if lacking:
            wrong["key"] = "One of these API keys is not known. Choose again."
        elif gone:
            wrong["key"] = f"The API key “{gone[0]}” was deleted at the provider. Choose another, or none."
        filters["key"] = chosen["key"]
        called += [keys[one][0] for one in chosen["key"] if one in keys]
    return filters, called, wrong

"""The read side: queries that return frozen dataclasses. No page computes money.

USD are Decimal, exact; days are UTC; a figure that is not known is None, never zero. Totals leave provisional days
out. Amounts are what was charged to credits, or with the BYOK estimate if the query says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select, tuple_

from grafient import reconciliation
from grafient.coverage import (
    Choice,
    Coverage,
    Query,
    choices,
    counted,
    coverage,
    covered_days,
    day_states,
    integrations_of,
)
from grafient.extensions import db, providers
from grafient.models import (
    UNATTRIBUTED,
    ApiKey,
    CostLine,
    CoveredDay,
    DayCheck,
    Integration,
    KeyLine,
    Restatement,
    utc_now,
)
from grafient.models.columns import count_sum
from grafient.money import usd_sum
from grafient.periods import Period
from grafient.reconciliation import CheckedDay, Verdict

CHART_NAMES = 7
"""Models, hosts or keys with a colour of their own in the chart; the others are one."""

BREAKDOWN_ROWS = 500
DAY_ROWS = 1000
KEY_CHOICES = 1000

GROUPS = ("model", "host", "key")


@dataclass(frozen=True)
class Tally:
    """A sum of what is known. ``complete``: whether nothing in it was unknown; ``known`` None: all of it was."""

    known: Any
    complete: bool


@dataclass(frozen=True)
class Day:
    """One UTC day of the chart. ``state``: ``final``, ``provisional``, ``restated``, ``no_usage``, ``partial``
    (covered by some of the integrations only) or ``missing``, whose amounts are unknown (``total_usd`` None).
    ``by_name_usd`` runs parallel to ``Dashboard.chart``; its last is all others."""

    day: date
    state: str
    total_usd: Decimal | None
    by_name_usd: Sequence[Decimal | None]


@dataclass(frozen=True)
class Total:
    """What one model, host or key came to over the period, and its share of the total, 0 to 1 (None if the total is
    not positive). ``id`` is what to filter by; ``name`` what people call it ("" where the source tells none)."""

    id: str
    name: str
    usage_usd: Decimal
    share: Decimal | None


@dataclass(frozen=True)
class Provisional:
    """What is known so far of days that are not settled: a floor. ``as_of``: when it was read."""

    days: Sequence[date]
    usage_usd: Decimal
    as_of: datetime


@dataclass(frozen=True)
class ProviderTotal:
    """What one integration's provider billed over the period."""

    integration_id: int
    label: str
    provider: str
    provider_name: str
    usage_usd: Decimal | None
    byok_usd: Tally
    requests: Tally
    coverage: Coverage
    last_success_at: datetime | None
    no_history: str | None


@dataclass(frozen=True)
class KeyChoice:
    """An API key to filter by; ``gone``: it no longer exists at the provider."""

    key_hash: str
    name: str
    gone: bool


@dataclass(frozen=True)
class Dashboard:
    """Everything on the dashboard. ``total_usd`` and what derives from it is None when no day is settled.

    ``days`` are the period's, and today after them where the period ends with yesterday and today is known so far.
    ``provisional`` is what the unsettled ones of these days came to until now; it is in no other figure but the days'.
    """

    period: Period
    choices: Sequence[Choice]
    hosts: Sequence[str]
    keys: Sequence[KeyChoice]
    coverage: Coverage
    verdict: Verdict
    total_usd: Decimal | None
    provisional: Provisional | None
    byok_usd: Tally
    daily_average_usd: Decimal | None
    top: Total | None
    previous_usd: Decimal | None
    change: Decimal | None
    """Against the period before, as a fraction; None unless both are wholly covered and it was not zero."""

    group: str
    """What the chart and the totals are by: one of GROUPS."""
    chart: Sequence[Total]
    days: Sequence[Day]
    totals: Sequence[Total]
    """The most expensive first, at most 20; of ``found``."""
    found: int
    providers: Sequence[ProviderTotal]


@dataclass(frozen=True)
class BreakdownRow:
    """One model, host or key over the period."""

    id: str
    name: str
    usage_usd: Decimal
    share: Decimal | None
    byok_usd: Tally
    requests: Tally
    prompt_tokens: Tally
    completion_tokens: Tally
    reasoning_tokens: Tally
    cached_tokens: Tally
    days: int


@dataclass(frozen=True)
class Breakdown:
    """The rows in the order asked for, at most BREAKDOWN_ROWS; ``found`` says how many there are."""

    period: Period
    choices: Sequence[Choice]
    hosts: Sequence[str]
    keys: Sequence[KeyChoice]
    coverage: Coverage
    total_usd: Decimal | None
    provisional: Provisional | None
    totals: BreakdownRow | None
    """All rows added up, those past the limit too; None where no day is known."""
    group: str
    rows: Sequence[BreakdownRow]
    found: int


FIGURES = (
    "usage_usd",
    "byok_usd",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "days",
)
"""The columns of a breakdown after its first, which is named after the group."""

_COUNTS = FIGURES[2:-1]


def dashboard(query: Query, group: str = "model") -> Dashboard:
    """The period's figures, chart, totals by model, host or key, and providers."""
    shown = _with_today(query)
    states = day_states(shown)
    covered = counted({day: states[day] for day in query.period})
    totals = _totals_by(query, group)
    total = _total(states, query.period, totals)
    chart = [one for one in totals if one.usage_usd][:CHART_NAMES]
    drawn = {day: state for day, state in states.items() if day in query.period or state != "missing"}
    days = _days(shown, drawn, group, chart)
    previous, change = _change(query, covered, total)
    return Dashboard(
        period=query.period,
        choices=choices(query.workspace_id),
        hosts=_hosts(query),
        keys=keys(query.workspace_id),
        coverage=covered,
        verdict=reconciliation.verdict(integrations_of(query), query.period),
        total_usd=total,
        provisional=_provisional(shown),
        byok_usd=_byok(query),
        daily_average_usd=_average(days, query.period),
        top=totals[0] if totals and totals[0].usage_usd > 0 else None,
        previous_usd=previous,
        change=change,
        group=group,
        chart=[*chart, Total("", "All others", Decimal(0), None)],
        days=days,
        totals=totals[:20],
        found=len(totals),
        providers=_providers(query),
    )


def _with_today(query: Query) -> Query:
    """The query with today added to a period that ends with yesterday."""
    today = utc_now().date()
    if query.period.last != today - timedelta(days=1):
        return query
    return replace(query, period=Period(query.period.first, today))


def _total(states: Mapping[date, str], period: Period, totals: Sequence[Total]) -> Decimal | None:
    """The sum of all settled days; None where there is none."""
    known = any(states[day] not in ("missing", "provisional") for day in period)
    return sum((one.usage_usd for one in totals), Decimal(0)) if known else None


def _totals_by(query: Query, group: str) -> list[Total]:
    """What each model, host or key came to, the most expensive first."""
    table = _table(query, group)
    column = _column(table, group)
    rows = db.session.execute(
        _lines(query, column.label("id"), _amount(table, query).label("usage_usd"), table=table).group_by(column)
    ).all()
    whole = sum((row.usage_usd for row in rows), Decimal(0))
    names = _names(query, group)
    totals = [Total(r.id, names.get(r.id, r.id), r.usage_usd, _share(r.usage_usd, whole)) for r in rows]
    return sorted(totals, key=lambda one: (-one.usage_usd, one.name, one.id))


def _share(part: Decimal, whole: Decimal) -> Decimal | None:
    return part / whole if whole > 0 else None


def _days(query: Query, states: Mapping[date, str], group: str, chart: Sequence[Total]) -> list[Day]:
    """A row for each day, with a column for each name of the chart and one for the others."""
    table = _table(query, group)
    named = _column(table, group)
    column: ColumnElement[str | None] = case((named.in_([one.id for one in chart]), named), else_=literal(None)).label(
        "name"
    )
    amount = _amount(table, query).label("usage_usd")
    rows = db.session.execute(
        _lines(query, table.day, column, amount, table=table, settled=False).group_by(table.day, column)
    )
    amounts = {(row.day, row.name): row.usage_usd for row in rows}
    days = []
    for day, state in states.items():
        if state == "missing":
            days.append(Day(day, state, None, [None] * (len(chart) + 1)))
            continue
        by_name = [amounts.get((day, name), Decimal(0)) for name in (*(one.id for one in chart), None)]
        days.append(Day(day, state, sum(by_name, Decimal(0)), by_name))
    return days


def _average(days: Sequence[Day], period: Period) -> Decimal | None:
    """USD a day, over the days that are settled."""
    open_days = ("partial", "provisional")
    whole = [d.total_usd for d in days if d.total_usd is not None and d.state not in open_days and d.day in period]
    return sum(whole, Decimal(0)) / len(whole) if whole else None


def _change(query: Query, covered: Coverage, total: Decimal | None) -> tuple[Decimal | None, Decimal | None]:
    """The total of the period before, and the change since; both None unless both periods are wholly covered."""
    before = replace(query, period=query.period.before)
    if total is None or not covered.complete or not coverage(before).complete:
        return None, None
    table = _table(query)
    previous = db.session.execute(_lines(before, _amount(table, query), table=table)).scalar() or Decimal(0)
    return previous, (total - previous) / previous if previous > 0 else None


def _provisional(query: Query) -> Provisional | None:
    """What the days that are not settled came to so far; None where there is none, or nothing is known of it."""
    ids = [integration.id for integration in integrations_of(query)]
    known = select(CoveredDay.day, func.max(CoveredDay.changed_at, type_=CoveredDay.changed_at.type)).where(
        CoveredDay.integration_id.in_(ids), CoveredDay.state == "provisional", query.told
    )
    rows = db.session.execute(known.group_by(CoveredDay.day).order_by(CoveredDay.day)).all()
    if not rows:
        return None
    table = _table(query)
    statement = _lines(query, _amount(table, query), table=table, settled=False).where(_unsettled(query, table))
    amount: Decimal | None = db.session.execute(statement).scalar()
    return Provisional([row[0] for row in rows], amount or Decimal(0), max(row[1] for row in rows))


def _byok(query: Query) -> Tally:
    table = _table(query)
    columns = usd_sum(table.byok_usd), func.count(table.byok_usd), func.count()
    total, known, rows = db.session.execute(_lines(query, *columns, table=table)).one()
    return _tally(total, known, rows)


def _tally(total: Any, known: int, rows: int) -> Tally:
    """From SQL's sum, its count of known values and of rows. No rows at all add up to a known nothing."""
    return Tally(0 if rows == 0 else total, known == rows)


def _providers(query: Query) -> list[ProviderTotal]:
    table = _table(query)
    rows = db.session.execute(
        _lines(
            query,
            table.integration_id,
            *_sums(table, query, "requests"),
            table=table,
        ).group_by(table.integration_id)
    )
    sums = {row.integration_id: row for row in rows}
    integrations = integrations_of(query)
    covered = covered_days([i.id for i in integrations], query)
    return [_provider(query.period, i, sums.get(i.id), covered.get(i.id, (0, 0, 0))) for i in integrations]


def _provider(period: Period, integration: Integration, row: Any, covered: tuple[int, int, int]) -> ProviderTotal:
    days, provisional, restated = covered
    nothing = Decimal(0) if days else None
    return ProviderTotal(
        integration_id=integration.id,
        label=integration.label,
        provider=integration.provider,
        provider_name=providers[integration.provider].name,
        usage_usd=row.usage_usd if row else nothing,
        byok_usd=_tally(row.byok_usd, row.byok_known, row.lines) if row else Tally(nothing, True),
        requests=_tally(row.requests, row.requests_known, row.lines) if row else Tally(0 if days else None, True),
        coverage=Coverage(period.days, days, provisional, restated),
        last_success_at=integration.last_success_at,
        no_history=integration.no_history,
    )


def breakdown(query: Query, group: str, sort: str, descending: bool, limit: int | None = BREAKDOWN_ROWS) -> Breakdown:
    """A row for each model, host or key, sorted by name (the group's own) or one of FIGURES; the unknown come last."""
    covered = counted(states := day_states(query))
    rows = _breakdown_rows(query, group)
    known = any(state not in ("missing", "provisional") for state in states.values())
    total = sum((row.usage_usd for row in rows), Decimal(0)) if known else None
    ranked = _sorted(rows, "name" if sort == group else sort, descending)
    return Breakdown(
        period=query.period,
        choices=choices(query.workspace_id),
        hosts=_hosts(query),
        keys=keys(query.workspace_id),
        coverage=covered,
        total_usd=total,
        provisional=_provisional(query),
        totals=None if total is None else _totals(ranked, total),
        group=group,
        rows=ranked[:limit],
        found=len(ranked),
    )


def _breakdown_rows(query: Query, group: str) -> list[BreakdownRow]:
    table = _table(query, group)
    column = _column(table, group)
    rows = db.session.execute(
        _lines(
            query,
            column.label("id"),
            *_sums(table, query, *_COUNTS),
            func.count(table.day.distinct()).label("days"),
            table=table,
        ).group_by(column)
    ).all()
    whole = sum((row.usage_usd for row in rows), Decimal(0))
    names = _names(query, group)
    return [_breakdown_row(row, names.get(row.id, row.id), whole) for row in rows]


def _breakdown_row(row: Any, name: str, whole: Decimal) -> BreakdownRow:
    counts = {count: _tally(getattr(row, count), getattr(row, f"{count}_known"), row.lines) for count in _COUNTS}
    return BreakdownRow(
        id=row.id,
        name=name,
        usage_usd=row.usage_usd,
        share=_share(row.usage_usd, whole),
        byok_usd=_tally(row.byok_usd, row.byok_known, row.lines),
        days=row.days,
        **counts,
    )


def _totals(rows: Sequence[BreakdownRow], total: Decimal) -> BreakdownRow:
    added = {name: _added([getattr(row, name) for row in rows]) for name in ("byok_usd", *_COUNTS)}
    return BreakdownRow(id="", name="", usage_usd=total, share=_share(total, total), days=0, **added)


def _added(tallies: Sequence[Tally]) -> Tally:
    known = [tally.known for tally in tallies if tally.known is not None]
    if tallies and not known:
        return Tally(None, False)
    return Tally(sum(known, Decimal(0)), all(tally.complete for tally in tallies))


def _sorted(rows: Sequence[BreakdownRow], sort: str, descending: bool) -> list[BreakdownRow]:
    def value(row: BreakdownRow) -> Any:
        found = getattr(row, sort)
        return found.known if isinstance(found, Tally) else found

    by_name = sorted(rows, key=lambda row: (row.name, row.id))
    known = sorted((row for row in by_name if value(row) is not None), key=value, reverse=descending)
    return known + [row for row in by_name if value(row) is None]


def _hosts(query: Query) -> list[str]:
    """Who served models in the period, whatever else is filtered by; at most 200."""
    everything = replace(query, host=None, model=None, key=None)
    statement = _lines(everything, CostLine.host, table=CostLine, settled=False).distinct().order_by(CostLine.host)
    return list(db.session.execute(statement.limit(200)).scalars())


def keys(workspace_id: int) -> list[KeyChoice]:
    """The API keys of all integrations whose costs were read, those that are gone last; at most KEY_CHOICES."""
    query = (
        select(ApiKey.key_hash, ApiKey.name, ApiKey.gone_at)
        .join(Integration, Integration.id == ApiKey.integration_id)
        .where(Integration.workspace_id == workspace_id, ApiKey.read_at.is_not(None))
        .order_by(ApiKey.gone_at.is_not(None), ApiKey.name, ApiKey.key_hash)
    )
    return [KeyChoice(row[0], row[1], row[2] is not None) for row in db.session.execute(query.limit(KEY_CHOICES))]


LEDGER_COLUMNS = (
    "day",
    "integration",
    "model",
    "permaslug",
    "endpoint_id",
    "host",
    "usage_usd",
    "byok_usd",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "state",
)


def ledger(query: Query) -> Iterator[tuple[Any, ...]]:
    """Every cost line of the period in LEDGER_COLUMNS, oldest first, read in portions as they are used.

    Lines of provisional days are among them, under that state.
    """
    table = _table(query)
    columns = [getattr(table, name) for name in LEDGER_COLUMNS[2:-1]]
    statement = (
        _lines(query, table.day, Integration.label, *columns, CoveredDay.state, table=table, settled=False)
        .join(Integration, Integration.id == table.integration_id)
        .outerjoin(
            CoveredDay,
            and_(CoveredDay.integration_id == table.integration_id, CoveredDay.day == table.day),
        )
        .order_by(table.day, table.integration_id, table.permaslug, table.endpoint_id, table.host)
        .execution_options(yield_per=2000)
    )
    with closing(db.session.execute(statement)) as result:  # whoever reads may stop in the middle
        for row in result:
            yield tuple(row)


@dataclass(frozen=True)
class Change:
    """A line that a sync changed on a settled day: what it was and what it became (None: there was or is no line)."""

    day: date
    model: str
    permaslug: str
    endpoint_id: str
    host: str
    run_id: int
    changed_at: datetime
    usage_before_usd: Decimal | None
    usage_after_usd: Decimal | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True)
class RestatedDay:
    """A UTC day that a sync changed: its USD before and after, over the lines that changed."""

    integration_id: int
    label: str
    day: date
    changed_at: datetime
    run_id: int
    lines: int
    before_usd: Decimal
    after_usd: Decimal


@dataclass(frozen=True)
class DayPage:
    """One settled, provisional or missing day of one integration, line by line.

    ``lines`` (the most expensive first) and ``changes`` (the latest first) are at most DAY_ROWS; ``found`` and
    ``changes_found`` say how many there are. ``check``: the day by the provider's other count, if it was asked.
    """

    day: date
    state: str
    source: str | None
    changed_at: datetime | None
    usage_usd: Decimal | None
    byok_usd: Tally
    lines: Sequence[CostLine]
    found: int
    by_key: Sequence[Total]
    changes: Sequence[Change]
    changes_found: int
    check: CheckedDay | None


@dataclass(frozen=True)
class Statement:
    """A month to close the books on: every figure to the last digit, and what it is worth.

    ``days``: each day's state, USD, BYOK estimate and requests. ``over``: whether the month has ended in UTC.
    """

    period: Period
    over: bool
    choices: Sequence[Choice]
    coverage: Coverage
    total_usd: Decimal | None
    byok_usd: Tally
    provisional: Provisional | None
    days: Sequence[StatementDay]
    models: Sequence[BreakdownRow]
    keys: Sequence[Total]
    totals: BreakdownRow | None
    restated: Sequence[RestatedDay]
    verdict: Verdict


@dataclass(frozen=True)
class StatementDay:
    """A day of a statement; figures are None where nothing is known."""

    day: date
    state: str
    usage_usd: Decimal | None
    byok_usd: Tally
    requests: Tally


def statement(query: Query) -> Statement:
    """The statement of the query's period, which is a month."""
    found = breakdown(query, "model", "usage_usd", True, limit=None)
    states = day_states(query)
    rows = db.session.execute(
        _lines(
            query,
            CostLine.day,
            *_sums(CostLine, query, "requests"),
            table=CostLine,
        ).group_by(CostLine.day)
    )
    by_day = {row.day: row for row in rows}
    return Statement(
        period=query.period,
        over=query.period.last < utc_now().date(),
        choices=found.choices,
        coverage=found.coverage,
        total_usd=found.total_usd,
        byok_usd=_byok(query),
        provisional=found.provisional,
        days=[_statement_day(day, state, by_day.get(day)) for day, state in states.items()],
        models=found.rows,
        keys=_totals_by(query, "key"),
        totals=found.totals,
        restated=restated_days([i.id for i in integrations_of(query)], limit=None, period=query.period),
        verdict=reconciliation.verdict(integrations_of(query), query.period),
    )


def _statement_day(day: date, state: str, row: Any) -> StatementDay:
    if row is None:
        known = state not in ("missing", "provisional", "partial")
        nothing = Tally(0, True) if known else Tally(None, False)
        return StatementDay(day, state, Decimal(0) if known else None, nothing, nothing)
    byok = _tally(row.byok_usd, row.byok_known, row.lines)
    return StatementDay(day, state, row.usage_usd, byok, _tally(row.requests, row.requests_known, row.lines))


def restated_days(integration_ids: Sequence[int], limit: int | None, period: Period | None = None) -> list[RestatedDay]:
    """What syncs changed, per day and sync, the latest first."""
    query = (
        select(
            Restatement.integration_id,
            Integration.label,
            Restatement.day,
            Restatement.run_id,
            func.max(Restatement.changed_at, type_=Restatement.changed_at.type).label("changed_at"),
            func.count().label("lines"),
            usd_sum(Restatement.usage_before_usd).label("before"),
            usd_sum(Restatement.usage_after_usd).label("after"),
        )
        .join(Integration, Integration.id == Restatement.integration_id)
        .where(Restatement.integration_id.in_(integration_ids))
        .group_by(Restatement.integration_id, Integration.label, Restatement.day, Restatement.run_id)
        .order_by(Restatement.run_id.desc(), Restatement.day.desc())
        .limit(limit)
    )
    if period is not None:
        query = query.where(period.holds(Restatement.day))
    nothing = Decimal(0)
    return [
        RestatedDay(
            r.integration_id, r.label, r.day, r.changed_at, r.run_id, r.lines, r.before or nothing, r.after or nothing
        )
        for r in db.session.execute(query)
    ]


def day_page(integration: Integration, day: date) -> DayPage:
    """One day of one integration: its lines now, what each key spent, and all that ever changed."""
    query = Query(integration.workspace_id, Period(day, day), integration.id)
    covered = db.session.get(CoveredDay, (integration.id, day))
    check = db.session.get(DayCheck, (integration.id, day))
    mine = CostLine.integration_id == integration.id, CostLine.day == day
    found = db.session.execute(select(CostLine).where(*mine)).scalars().all()
    usage = sum((line.usage_usd for line in found), Decimal(0)) if covered else None
    estimates = [line.byok_usd for line in found if line.byok_usd is not None]
    checkable = covered is not None and covered.source == "activity" and covered.state != "provisional"
    changes = select(Restatement).where(Restatement.integration_id == integration.id, Restatement.day == day)
    changed = db.session.execute(select(func.count()).select_from(changes.subquery())).scalar_one()
    latest = changes.order_by(Restatement.id.desc()).limit(DAY_ROWS)
    return DayPage(
        day=day,
        state=covered.state if covered else "missing",
        source=covered.source if covered else None,
        changed_at=covered.changed_at if covered else None,
        usage_usd=usage,
        byok_usd=_tally(sum(estimates, Decimal(0)) if estimates else None, len(estimates), len(found)),
        lines=sorted(found, key=lambda line: (-line.usage_usd, line.model, line.endpoint_id, line.host))[:DAY_ROWS],
        found=len(found),
        by_key=_totals_by(replace(query, byok=False), "key"),
        changes=[_change_of(row) for row in db.session.execute(latest).scalars()],
        changes_found=changed,
        check=CheckedDay(integration.id, day, usage, check.analytics_usd)
        if check is not None and checkable and usage is not None
        else None,
    )


def _change_of(row: Restatement) -> Change:
    before, after = (None if text is None else json.loads(text) for text in (row.before, row.after))
    return Change(
        day=row.day,
        model=(after or before or {}).get("model") or row.permaslug,
        permaslug=row.permaslug,
        endpoint_id=row.endpoint_id,
        host=row.host,
        run_id=row.run_id,
        changed_at=row.changed_at,
        usage_before_usd=row.usage_before_usd,
        usage_after_usd=row.usage_after_usd,
        before=before,
        after=after,
    )


_Table = type[CostLine] | type[KeyLine]


def _table(query: Query, group: str = "") -> _Table:
    """Where the lines are: those of accounts, or their parts by key where keys are asked for."""
    return KeyLine if query.key is not None or group == "key" else CostLine


def _column(table: Any, group: str) -> Any:
    return {"model": table.model, "host": table.host}[group] if group != "key" else table.key_hash


def _names(query: Query, group: str) -> dict[str, str]:
    """What people call each key; models and hosts are called what they are."""
    if group != "key":
        return {}
    ids = [integration.id for integration in integrations_of(query)]
    rows = db.session.execute(select(ApiKey.key_hash, ApiKey.name).where(ApiKey.integration_id.in_(ids)))
    return {row.key_hash: row.name for row in rows} | {UNATTRIBUTED: "Unattributed"}


def _amount(table: Any, query: Query) -> Any:
    """The sum in USD: charged to credits, and with the BYOK estimate if that is asked for."""
    return usd_sum(table.usage_usd, table.byok_usd) if query.byok else usd_sum(table.usage_usd)


def _sums(table: Any, query: Query, *counts: str) -> list[Any]:
    """The amount, the BYOK estimate and these counts, each with how many lines know it, and all lines."""
    return [
        _amount(table, query).label("usage_usd"),
        usd_sum(table.byok_usd).label("byok_usd"),
        func.count(table.byok_usd).label("byok_known"),
        *(count_sum(getattr(table, name)).label(name) for name in counts),
        *(func.count(getattr(table, name)).label(f"{name}_known") for name in counts),
        func.count().label("lines"),
    ]


def _lines(query: Query, *columns: Any, table: _Table, settled: bool = True) -> Select[Any]:
    """A select over the query's lines, by default those of settled days. Every figure on every page is from here."""
    statement = (
        select(*columns).select_from(table).where(table.integration_id.in_(_mine(query)), query.period.holds(table.day))
    )
    if settled:
        statement = statement.where(~_unsettled(query, table))
    if query.host is not None:
        statement = statement.where(table.host == query.host)
    if query.model:
        statement = statement.where(table.model.icontains(query.model, autoescape=True))
    if query.key is not None:
        statement = statement.where(KeyLine.key_hash == query.key)
    return statement


def _mine(query: Query) -> Select[Any]:
    mine = select(Integration.id).where(Integration.workspace_id == query.workspace_id)
    return mine if query.integration_id is None else mine.where(Integration.id == query.integration_id)


def _unsettled(query: Query, table: _Table) -> ColumnElement[bool]:
    """The condition that a line is of a day that may still grow."""
    open_days = select(CoveredDay.integration_id, CoveredDay.day).where(
        CoveredDay.integration_id.in_(_mine(query)),
        CoveredDay.state == "provisional",
        query.period.holds(CoveredDay.day),
    )
    return tuple_(table.integration_id, table.day).in_(open_days)

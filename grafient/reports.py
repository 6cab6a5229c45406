"""The read side: queries that return frozen dataclasses. No page computes money.

USD are Decimal, exact; days are UTC; a figure that is not known is None, never zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, select

from grafient.coverage import Choice, Coverage, Query, choices, coverage, covered_days, integrations_of
from grafient.extensions import db, providers
from grafient.models import CostLine, CoveredDay, Integration
from grafient.models.columns import count_sum
from grafient.money import usd_sum
from grafient.periods import Period

CHART_MODELS = 7
"""Models with a colour of their own in the chart; the others are one."""

BREAKDOWN_ROWS = 500


@dataclass(frozen=True)
class Tally:
    """A sum of what is known. ``complete``: whether nothing in it was unknown; ``known`` None: all of it was."""

    known: Any
    complete: bool


@dataclass(frozen=True)
class Day:
    """One UTC day of the chart. ``state``: ``final``, ``provisional``, ``restated``, ``no_usage``, ``partial``
    (covered by some of the integrations only) or ``missing``, whose amounts are unknown (``total_usd`` None).
    ``by_model_usd`` runs parallel to ``Dashboard.chart_models``; its last is all other models."""

    day: date
    state: str
    total_usd: Decimal | None
    by_model_usd: Sequence[Decimal | None]


@dataclass(frozen=True)
class ModelTotal:
    """A model's USD over the period, and its share of the total, 0 to 1 (None if the total is not positive)."""

    model: str
    usage_usd: Decimal
    share: Decimal | None


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


@dataclass(frozen=True)
class Dashboard:
    """Everything on the dashboard. ``total_usd`` and what derives from it is None when no day is covered."""

    period: Period
    choices: Sequence[Choice]
    coverage: Coverage
    total_usd: Decimal | None
    byok_usd: Tally
    daily_average_usd: Decimal | None
    top_model: ModelTotal | None
    previous_usd: Decimal | None
    change: Decimal | None
    """Against the period before, as a fraction; None unless both are wholly covered and it was not zero."""

    chart_models: Sequence[str]
    days: Sequence[Day]
    models: Sequence[ModelTotal]
    providers: Sequence[ProviderTotal]


@dataclass(frozen=True)
class BreakdownRow:
    """One model over the period."""

    model: str
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
    coverage: Coverage
    total_usd: Decimal | None
    totals: BreakdownRow | None
    """All rows added up, those past the limit too; None where no day is known."""
    rows: Sequence[BreakdownRow]
    found: int


SORTS = (
    "model",
    "usage_usd",
    "byok_usd",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "days",
)


def dashboard(query: Query) -> Dashboard:
    """The period's figures, chart, models and providers."""
    covered, states = coverage(query)
    models = _models(query)
    known = any(state != "missing" for state in states.values())
    total = sum((m.usage_usd for m in models), Decimal(0)) if known else None
    chart_models = [m.model for m in models if m.usage_usd][:CHART_MODELS]
    days = _days(query, states, chart_models)
    previous, change = _change(query, covered, total)
    return Dashboard(
        period=query.period,
        choices=choices(query.workspace_id),
        coverage=covered,
        total_usd=total,
        byok_usd=_byok(query),
        daily_average_usd=_average(days),
        top_model=models[0] if models and models[0].usage_usd > 0 else None,
        previous_usd=previous,
        change=change,
        chart_models=[*chart_models, "Other models"],
        days=days,
        models=models[:20],
        providers=_providers(query),
    )


def _models(query: Query) -> list[ModelTotal]:
    """Every model's USD, the most expensive first."""
    total = usd_sum(CostLine.usage_usd).label("usage_usd")
    rows = db.session.execute(_lines(query, CostLine.model, total).group_by(CostLine.model)).all()
    whole = sum((row.usage_usd for row in rows), Decimal(0))
    ranked = sorted(rows, key=lambda row: (-row.usage_usd, row.model))
    return [ModelTotal(row.model, row.usage_usd, _share(row.usage_usd, whole)) for row in ranked]


def _share(part: Decimal, whole: Decimal) -> Decimal | None:
    return part / whole if whole > 0 else None


def _days(query: Query, states: Mapping[date, str], chart_models: Sequence[str]) -> list[Day]:
    """A row for each day, with a column for each model of the chart and one for the others."""
    column: ColumnElement[str | None] = case(
        (CostLine.model.in_(chart_models), CostLine.model), else_=literal(None)
    ).label("model")
    total = usd_sum(CostLine.usage_usd).label("usage_usd")
    rows = db.session.execute(_lines(query, CostLine.day, column, total).group_by(CostLine.day, column))
    amounts = {(row.day, row.model): row.usage_usd for row in rows}
    days = []
    for day, state in states.items():
        if state == "missing":
            days.append(Day(day, state, None, [None] * (len(chart_models) + 1)))
            continue
        by_model = [amounts.get((day, model), Decimal(0)) for model in (*chart_models, None)]
        days.append(Day(day, state, sum(by_model, Decimal(0)), by_model))
    return days


def _average(days: Sequence[Day]) -> Decimal | None:
    """USD a day, over the days that are covered whole."""
    whole = [day.total_usd for day in days if day.total_usd is not None and day.state != "partial"]
    return sum(whole, Decimal(0)) / len(whole) if whole else None


def _change(query: Query, covered: Coverage, total: Decimal | None) -> tuple[Decimal | None, Decimal | None]:
    """The total of the period before, and the change since; both None unless both periods are wholly covered."""
    before = replace(query, period=query.period.before)
    if total is None or not covered.complete or not coverage(before)[0].complete:
        return None, None
    statement = _lines(before, usd_sum(CostLine.usage_usd))
    previous = db.session.execute(statement).scalar() or Decimal(0)
    return previous, (total - previous) / previous if previous > 0 else None


def _byok(query: Query) -> Tally:
    statement = _lines(query, usd_sum(CostLine.byok_usd), func.count(CostLine.byok_usd), func.count())
    total, known, rows = db.session.execute(statement).one()
    return _tally(total, known, rows)


def _tally(total: Any, known: int, rows: int) -> Tally:
    """From SQL's sum, its count of known values and of rows. No rows at all add up to a known nothing."""
    return Tally(0 if rows == 0 else total, known == rows)


def _providers(query: Query) -> list[ProviderTotal]:
    rows = db.session.execute(
        _lines(
            query,
            CostLine.integration_id,
            usd_sum(CostLine.usage_usd).label("usage_usd"),
            usd_sum(CostLine.byok_usd).label("byok_usd"),
            func.count(CostLine.byok_usd).label("byok_known"),
            count_sum(CostLine.requests).label("requests"),
            func.count(CostLine.requests).label("requests_known"),
            func.count().label("lines"),
        ).group_by(CostLine.integration_id)
    )
    sums = {row.integration_id: row for row in rows}
    integrations = integrations_of(query)
    covered = covered_days([i.id for i in integrations], query.period)
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
    )


_BREAKDOWN_COUNTS = ("requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")


def breakdown(query: Query, sort: str, descending: bool, limit: int | None = BREAKDOWN_ROWS) -> Breakdown:
    """A row for each model, sorted by one of SORTS; unknown figures come last either way."""
    sums = [
        column
        for name in _BREAKDOWN_COUNTS
        for column in (
            count_sum(getattr(CostLine, name)).label(name),
            func.count(getattr(CostLine, name)).label(f"{name}_known"),
        )
    ]
    rows = db.session.execute(
        _lines(
            query,
            CostLine.model,
            usd_sum(CostLine.usage_usd).label("usage_usd"),
            usd_sum(CostLine.byok_usd).label("byok_usd"),
            func.count(CostLine.byok_usd).label("byok_known"),
            func.count(CostLine.day.distinct()).label("days"),
            func.count().label("lines"),
            *sums,
        ).group_by(CostLine.model)
    ).all()
    covered, states = coverage(query)
    known = any(state != "missing" for state in states.values())
    total = sum((row.usage_usd for row in rows), Decimal(0)) if known else None
    ranked = _sorted([_breakdown_row(row, total or Decimal(0)) for row in rows], sort, descending)
    return Breakdown(
        period=query.period,
        choices=choices(query.workspace_id),
        hosts=_hosts(query),
        coverage=covered,
        total_usd=total,
        totals=None if total is None else _totals(ranked, total),
        rows=ranked[:limit],
        found=len(ranked),
    )


def _breakdown_row(row: Any, whole: Decimal) -> BreakdownRow:
    counts = {name: _tally(getattr(row, name), getattr(row, f"{name}_known"), row.lines) for name in _BREAKDOWN_COUNTS}
    return BreakdownRow(
        model=row.model,
        usage_usd=row.usage_usd,
        share=_share(row.usage_usd, whole),
        byok_usd=_tally(row.byok_usd, row.byok_known, row.lines),
        days=row.days,
        **counts,
    )


def _totals(rows: list[BreakdownRow], total: Decimal) -> BreakdownRow:
    names = ("byok_usd", *_BREAKDOWN_COUNTS)
    added = {name: _added([getattr(row, name) for row in rows]) for name in names}
    return BreakdownRow(model="", usage_usd=total, share=_share(total, total), days=0, **added)


def _added(tallies: list[Tally]) -> Tally:
    known = [tally.known for tally in tallies if tally.known is not None]
    if tallies and not known:
        return Tally(None, False)
    return Tally(sum(known, Decimal(0)), all(tally.complete for tally in tallies))


def _sorted(rows: list[BreakdownRow], sort: str, descending: bool) -> list[BreakdownRow]:
    def value(row: BreakdownRow) -> Any:
        found = getattr(row, sort)
        return found.known if isinstance(found, Tally) else found

    by_name = sorted(rows, key=lambda row: row.model)
    known = sorted((row for row in by_name if value(row) is not None), key=value, reverse=descending)
    return known + [row for row in by_name if value(row) is None]


def _hosts(query: Query) -> list[str]:
    """Who served models in the period, whatever host and model are filtered by; at most 200."""
    everything = replace(query, host=None, model=None)
    statement = _lines(everything, CostLine.host).distinct().order_by(CostLine.host).limit(200)
    return list(db.session.execute(statement).scalars())


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
    """Every cost line of the period in LEDGER_COLUMNS, oldest first, read in portions as they are used."""
    columns = [getattr(CostLine, name) for name in LEDGER_COLUMNS[2:-1]]
    statement = (
        _lines(query, CostLine.day, Integration.label, *columns, CoveredDay.state)
        .join(Integration, Integration.id == CostLine.integration_id)
        .outerjoin(
            CoveredDay,
            and_(CoveredDay.integration_id == CostLine.integration_id, CoveredDay.day == CostLine.day),
        )
        .order_by(CostLine.day, CostLine.integration_id, CostLine.permaslug, CostLine.endpoint_id, CostLine.host)
        .execution_options(yield_per=2000)
    )
    with closing(db.session.execute(statement)) as result:  # whoever reads may stop in the middle
        for row in result:
            yield tuple(row)


def _lines(query: Query, *columns: Any) -> Select[Any]:
    """A select over the query's cost lines. Every figure on every page comes through here."""
    mine = select(Integration.id).where(Integration.workspace_id == query.workspace_id)
    if query.integration_id is not None:
        mine = mine.where(Integration.id == query.integration_id)
    statement = (
        select(*columns)
        .select_from(CostLine)
        .where(CostLine.integration_id.in_(mine), query.period.holds(CostLine.day))
    )
    if query.host is not None:
        statement = statement.where(CostLine.host == query.host)
    if query.model:
        statement = statement.where(CostLine.model.icontains(query.model, autoescape=True))
    return statement

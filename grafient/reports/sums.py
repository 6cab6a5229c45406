"""The sums behind every figure: one select over the lines of a query, added up by whatever is asked for.

Pages, alerts and exports ask here. Nothing here knows a page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import join

from grafient import attribution
from grafient.days import Period
from grafient.extensions import db
from grafient.models import UNATTRIBUTED, ApiKey, CostLine, CoveredDay, DayTotal, Integration, Model, ModelTotal, Series
from grafient.models.columns import count_sum, usd_sum
from grafient.query import Group, Measure, Query, within
from grafient.states import DayState

COUNTS = ("requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")

_AT_ONCE = 20
"""Queries in one statement; databases know a most of parameters and of parts."""

_MEASURED: Mapping[Measure, Sequence[str]] = {
    Measure.USD: (),
    Measure.REQUESTS: ("requests",),
    Measure.TOKENS: ("prompt_tokens", "completion_tokens"),
}
"""The counts that a measure adds up."""


@dataclass(frozen=True)
class Tally:
    """A sum of what is known. ``complete``: whether nothing in it was unknown; ``known`` None: all of it was."""

    known: Any
    complete: bool

    @property
    def is_worth_showing(self) -> bool:
        """Whether it is unknown, or more than nothing."""
        return self.known is None or self.known > 0


@dataclass(frozen=True)
class Measures:
    """What some lines add up to, in USD, requests and tokens, and the number of days that have such lines."""

    usage_usd: Decimal
    byok_usd: Tally
    requests: Tally
    prompt_tokens: Tally
    completion_tokens: Tally
    reasoning_tokens: Tally
    cached_tokens: Tally
    days: int


@dataclass(frozen=True)
class Total:
    """What one model, host or key cost over a period, and its share of the total, 0 to 1 (None if the total is not
    positive). ``id`` is what to filter by; ``name`` what people call it ("" where the source does not say)."""

    id: str
    name: str
    usage_usd: Decimal
    share: Decimal | None


class DaySum(NamedTuple):
    """What lines of one day and one name (None: all that were not named) add up to; None where a part is unknown.

    ``settled``: whether totals count them.
    """

    day: date
    name: str | None
    settled: bool
    amount: Decimal | None


def totals_by(query: Query, group: Group) -> list[Total]:
    """What each model, host or key cost on settled days, the most expensive first."""
    return _totals(query, group, db.session.execute(_by_group(query, group)))


def _by_group(query: Query, group: Group, names: Iterable[str] = ("name", "usage_usd")) -> Select[Any]:
    """``names``: of the columns, in order; those that it has not are NULL."""
    rows = _rows(query, group)
    known = {"name": rows.by(group), "usage_usd": _amount(rows, query)}
    columns = [known.get(name, null()).label(name) for name in names]
    return _lines(query, rows, *columns).group_by(rows.number(group))


def _totals(query: Query, group: Group, found: Iterable[Any]) -> list[Total]:
    amounts: dict[str, Decimal] = defaultdict(Decimal)
    for row in found:
        amounts[str(row.name)] += row.usage_usd
    whole = added_usd(amounts.values())
    names = key_names(query) if group == Group.KEY else {}
    totals = [Total(one, names.get(one, one), usage, share(usage, whole)) for one, usage in amounts.items()]
    return sorted(totals, key=lambda one: (-one.usage_usd, one.name, one.id))


def measures_by(query: Query, group: Group) -> dict[str, Measures]:
    """All that is measured of each model, host or key on settled days."""
    return measures_in([query.period], query, group)[0]


def measures_in(
    periods: Sequence[Period], query: Query, group: Group, integration_ids: Collection[int] | None = None
) -> list[dict[str, Measures]]:
    """The same for each of these periods in one statement; of these integrations alone, if they are named."""
    parts = []
    for number, period in enumerate(periods):
        within_it = replace(query, period=period)
        rows = _rows(within_it, group)
        column = rows.by(group)
        columns = literal(number).label("period"), column.label("id"), *_measured(rows, query)
        part = _lines(within_it, rows, *columns).group_by(column)
        parts.append(part if integration_ids is None else part.where(rows.owner.in_(integration_ids)))
    found: list[dict[str, Measures]] = [{} for _ in periods]
    for row in db.session.execute(union_all(*parts)):
        found[row.period][row.id] = _measures(row)
    return found


def measures_by_day(query: Query) -> dict[date, Measures]:
    """All that is measured of each settled day that has lines."""
    rows = _rows(query)
    statement = _lines(query, rows, rows.columns.day.label("id"), *_measured(rows, query))
    return {row.id: _measures(row) for row in db.session.execute(statement.group_by(rows.columns.day))}


class Axis(NamedTuple):
    """What amounts are told apart by: a ``group``, or each day (None). ``named``: of a group, those that are told
    apart, where all others are one; None for all."""

    group: Group | None = None
    named: Collection[str] | None = None


def amounts_by(query: Query, *axes: Axis, measure: Measure = Measure.USD) -> list[tuple[tuple[Any, ...], Tally]]:
    """What was measured on settled days by one or two things at once: their names (None for all others) or days, in the
    order of ``axes``, and how much it was.
    """
    rows = _rows(query, *(axis.group for axis in axes))
    places = [_place(rows, axis).label(f"place_{number}") for number, axis in enumerate(axes)]
    names = _MEASURED[measure]
    figures = [_amount(rows, query).label("usage_usd")] if measure == Measure.USD else []
    figures += [count_sum(getattr(rows.columns, name)).label(name) for name in names]
    known = [rows.known(name).label(f"{name}_known") for name in names]
    statement = _lines(query, rows, *places, *figures, *known, rows.number_of_lines.label("lines"))
    found = []
    for row in db.session.execute(statement.group_by(*places)):
        values = row._mapping
        tallies = [tally(values[name], values[f"{name}_known"], row.lines) for name in names]
        amount = added(tallies) if names else Tally(row.usage_usd, True)
        found.append((tuple(row[: len(axes)]), amount))
    return found


def _place(rows: _Rows, axis: Axis) -> Any:
    if axis.group is None:
        return rows.columns.day
    name = rows.by(axis.group)
    return name if axis.named is None else case((name.in_(axis.named), name))


class MeasuredDay(NamedTuple):
    """All that is measured of one day's lines, those that totals count (``settled``) or the others."""

    day: date
    settled: bool
    measures: Measures


def every_day(query: Query) -> list[MeasuredDay]:
    """Each day that has lines, settled or not, in order."""
    rows = _rows(query)
    day, settled = rows.columns.day, case((_unsettled(query, rows), 0), else_=1).label("settled")
    statement = _lines(query, rows, day.label("day"), settled, *_measured(rows, query), settled=False)
    found = db.session.execute(statement.group_by(day, settled).order_by(day, settled))
    return [MeasuredDay(row.day, bool(row.settled), _measures(row)) for row in found]


class Piece(NamedTuple):
    """What one series of an integration cost, and one API key's part of it if that was asked for. ``settled``: whether
    totals count it. ``first`` and ``last``: the days between which it has lines."""

    integration_id: int
    permaslug: str
    endpoint_id: str
    host: str
    model: str
    key: str
    settled: bool
    first: date
    last: date
    usage_usd: Decimal


def pieces(query: Query, *, keys: bool) -> list[Piece]:
    """What the query's lines are made of, settled or not. ``keys``: by API key too.

    One statement for everything that costs can be told apart by, so that a page with five tables doesn't read the
    same lines five times.
    """
    rows = _rows(query, Group.KEY) if keys or query.keys else _rows(query, Group.HOST)
    line = rows.columns
    names = line.integration_id, line.series_id, line.permaslug, line.endpoint_id, line.host, line.model
    key = line.key_hash if keys else literal(UNATTRIBUTED)
    settled = case((_unsettled(query, rows), 0), else_=1).label("settled")
    group = [*names, settled, *([line.key_hash] if keys else [])]
    days = func.min(line.day).label("first"), func.max(line.day).label("last")
    columns = *names, key.label("key"), settled, *days, _amount(rows, query).label("usage_usd")
    found = db.session.execute(_lines(query, rows, *columns, settled=False).group_by(*group))
    return [
        Piece(
            row.integration_id,
            row.permaslug,
            row.endpoint_id,
            row.host,
            row.model,
            row.key,
            bool(row.settled),
            row.first,
            row.last,
            row.usage_usd,
        )
        for row in found
    ]


class Slot(StrEnum):
    """Where a line's day lies, seen from a query's period."""

    PERIOD = "period"
    AFTER = "after"
    UNSETTLED = "unsettled"
    """In the period or after it, and no total counts it yet."""


_ByIntegration = dict[tuple[int, Slot], Measures]


def by_integration(query: Query) -> _ByIntegration:
    """All that is measured of each integration (by its id) in the query's period."""
    return _by_slot(db.session.execute(_by_owner(query, query.period)))


def overview(query: Query, group: Group, around: Period) -> tuple[list[Total], _ByIntegration]:
    """``totals_by`` and ``by_integration`` in one statement, the latter also of days after the query's period until the
    end of ``around``."""
    found = _ask(_overview, query, group, around=around)
    totals = _totals(query, group, (row for row in found if row.id is None))
    return totals, _by_slot(row for row in found if row.id is not None)


def _overview(query: Query, group: Group, around: Period) -> Any:
    measured = _by_owner(query, around, null().label("name"))
    names = [column.name for column in measured.selected_columns]
    return union_all(measured, _by_group(query, group, names))


def _by_owner(query: Query, around: Period, *more: Any) -> Select[Any]:
    wide = replace(query, period=around)
    rows = _rows(wide)
    table, unsettled = rows.columns, _unsettled(wide, rows)
    slot = case(
        (unsettled, Slot.UNSETTLED),
        (table.day > query.period.last, Slot.AFTER),
        else_=Slot.PERIOD,
    ).label("slot")
    columns = *more, rows.owner.label("id"), slot, *_measured(rows, query)
    return _lines(wide, rows, *columns, settled=False).group_by(rows.owner, slot)


def _by_slot(found: Iterable[Any]) -> _ByIntegration:
    return {(row.id, Slot(row.slot)): _measures(row) for row in found}


def by_day(query: Query, group: Group, names: Sequence[str], measure: Measure = Measure.USD) -> list[DaySum]:
    """What each day had, by these models, hosts, keys or integrations and, under the name None, all others, if they had
    anything.

    The others are what is left of the day's total, so that not each of their rows has to be looked at.
    """
    parts: list[DaySum] = []
    rest: dict[tuple[date, bool], Decimal | None] = {}
    for day, name, settled, amount in _ask(_days, query, group, names=names, measure=measure):
        found = None if amount is None else Decimal(amount)
        if name is None:
            rest[day, bool(settled)] = found
        else:
            parts.append(DaySum(day, str(name), bool(settled), found))
    for day, _, settled, amount in parts:
        whole = rest[day, settled]
        rest[day, settled] = None if whole is None or amount is None else whole - amount
    return parts + [DaySum(day, None, settled, left) for (day, settled), left in rest.items() if left != 0]


class DayCost(NamedTuple):
    """What lines of one day cost. ``settled``: whether totals count them; ``apart``: whether they are of integrations
    that are told apart."""

    day: date
    settled: bool
    apart: bool
    usage_usd: Decimal


def costs_by_day(queries: Sequence[Query], apart: Collection[int]) -> list[list[DayCost]]:
    """What each day cost by each of these queries, in their order; those integrations (by id) by themselves.

    So many in one statement: 100 budgets, each of something else, took as many.
    """
    found: list[list[DayCost]] = [[] for _ in queries]
    for first in range(0, len(queries), _AT_ONCE):
        some = queries[first : first + _AT_ONCE]
        parts = (_costs_by_day(query, number, apart) for number, query in enumerate(some, first))
        for number, day, settled, is_apart, amount in db.session.execute(union_all(*parts)):
            found[number].append(DayCost(day, bool(settled), bool(is_apart), amount))
    return found


def _costs_by_day(query: Query, number: int, apart: Collection[int]) -> Select[Any]:
    rows = _rows(query)
    day = rows.columns.day
    settled = case((_unsettled(query, rows), 0), else_=1).label("settled")
    is_apart = case((rows.owner.in_(apart), 1), else_=0).label("is_apart")
    columns = literal(number).label("number"), day.label("day"), settled, is_apart, _amount(rows, query).label("amount")
    return _lines(query, rows, *columns, settled=False).group_by(day, settled, is_apart)


def totals_by_day(query: Query, measure: Measure) -> dict[date, Decimal | None]:
    """What each settled day that has lines had; None where a part of it is unknown."""
    found = _ask(_whole_days, query, Group.MODEL, measure=measure)
    return {day: None if amount is None else Decimal(amount) for day, _, settled, amount in found if settled}


def _whole_days(query: Query, group: Group, measure: Measure) -> Any:
    return _by_day(query, _rows(query), null(), measure)


def _days(query: Query, group: Group, names: Any, measure: Measure) -> Any:
    rows, whole = _rows(query, group), _rows(query)
    named = rows.by(group)
    of_names = _by_day(query, rows, named, measure).where(named.in_(names)).group_by(named)
    return union_all(_by_day(query, whole, null(), measure), of_names)


def _by_day(query: Query, rows: _Rows, name: Any, measure: Measure) -> Select[Any]:
    day = rows.columns.day
    settled = case((_unsettled(query, rows), 0), else_=1).label("settled")
    columns = day.label("day"), name.label("name"), settled, _measure(rows, query, measure).label("amount")
    return _lines(query, rows, *columns, settled=False).group_by(day, settled)


def _measure(rows: _Rows, query: Query, measure: Measure) -> Any:
    """A sum; NULL where a line of it is unknown."""
    if measure == Measure.USD:
        return _amount(rows, query)
    names = _MEASURED[measure]
    all_known = and_(*(rows.known(name) == rows.number_of_lines for name in names))
    return case((all_known, count_sum(*(getattr(rows.columns, name) for name in names))))


def _ask(make: Callable[..., Any], query: Query, group: Group, **more: Any) -> Sequence[Any]:
    """The rows of a statement that ``make`` makes of a query. It is made once for all queries that differ in their
    workspace, integration and days alone, since SQLAlchemy takes longer to make it than the database to answer.
    """
    if query.is_filtered or query.unknown or group == Group.KEY:
        return db.session.execute(make(query, group, **more)).all()
    values = {"workspace": query.workspace_id, "integrations": query.integrations, "names": more.get("names")}
    for name, period in {"period": query.period, **more}.items():
        if isinstance(period, Period):
            values |= {f"{name}_first": period.first, f"{name}_last": period.last}
    measure = more.pop("measure", None)
    statement = _made_once(make, group, not query.integrations, query.byok, tuple(more), measure)
    return db.session.connection().execute(statement, values).all()


@cache
def _made_once(
    make: Callable[..., Any], group: Group, every: bool, byok: bool, more: tuple[str, ...], measure: Measure | None
) -> Any:
    """The same with names for what differs."""

    def period(name: str) -> Any:
        return Period(bindparam(f"{name}_first"), bindparam(f"{name}_last"))  # type: ignore[arg-type]

    workspace: Any = bindparam("workspace")
    integrations: Any = () if every else bindparam("integrations", expanding=True)
    named = {"names": bindparam("names", expanding=True), "around": period("around")}
    fixed = {} if measure is None else {"measure": measure}
    query = Query(workspace, period("period"), integrations, byok=byok)
    return make(query, group, **fixed, **{name: named[name] for name in more})


def cost_lines(query: Query, fields: Sequence[str]) -> Select[Any]:
    """Every cost line, oldest first, settled or not: day, integration's label, these fields, and the day's state."""
    rows = _Rows(CostLine, CostLine) if not query.keys else _rows(query)
    line = rows.columns
    columns = [getattr(line, name) for name in fields]
    covered = CoveredDay.integration_id == line.integration_id, CoveredDay.day == line.day
    return (
        _lines(query, rows, line.day, Integration.label, *columns, CoveredDay.state, settled=False)
        .join(Integration, Integration.id == line.integration_id)
        .outerjoin(CoveredDay, covered[0] & covered[1])
        .order_by(line.day, line.integration_id, line.permaslug, line.endpoint_id, line.host)
    )


def key_names(query: Query) -> dict[str, str]:
    """What people call each API key that the query can be about, by its hash, and what no key explains."""
    statement = select(ApiKey.key_hash, ApiKey.name).where(ApiKey.integration_id.in_(_mine(query)))
    return {row.key_hash: row.name for row in db.session.execute(statement)} | {UNATTRIBUTED: "Unattributed"}


def tally(total: Any, known: int, rows: int) -> Tally:
    """From a sum, the number of known values in it, and the number of rows. No rows add up to a known nothing."""
    return Tally(0 if rows == 0 else total, known == rows)


def added(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies; none add up to a known nothing."""
    found = list(tallies)
    known = [one.known for one in found if one.known is not None]
    if found and not known:
        return Tally(None, False)
    return Tally(sum(known, Decimal(0)), all(one.complete for one in found))


def added_usd(amounts: Iterable[Decimal]) -> Decimal:
    """The sum of amounts, exact."""
    return sum(amounts, Decimal(0))


def share(part: Decimal, whole: Decimal) -> Decimal | None:
    """A part of a whole, 0 to 1; None where the whole is not positive."""
    return part / whole if whole > 0 else None


@dataclass(frozen=True)
class _Rows:
    """What a query adds up: the lines themselves, or as few rows as have what is asked for.

    ``summed``: the rows are totals of lines, which say in how many lines each figure is known.
    """

    source: Any
    columns: Any
    summed: bool = False

    @property
    def owner(self) -> Any:
        """The column with the integrations' ids."""
        return Model.integration_id if self.columns is ModelTotal else self.columns.integration_id

    def by(self, group: Group) -> Any:
        """The column with the names of models, of hosts, or with the hashes of keys."""
        if group == Group.MODEL and self.summed:
            return Model.name
        if group == Group.INTEGRATION:
            return cast(self.owner, String)
        return getattr(self.columns, {Group.MODEL: "model", Group.HOST: "host", Group.KEY: "key_hash"}[group])

    def number(self, group: Group) -> Any:
        """The same, or the numbers that stand for the names: grouping by them takes three quarters of the time."""
        if group == Group.INTEGRATION:
            return self.owner
        return Model.id if group == Group.MODEL and self.summed else self.by(group)

    def known(self, name: str) -> Any:
        """In how many lines a figure is known."""
        column = getattr(self.columns, f"{name}_known" if self.summed else name)
        return func.sum(column) if self.summed else func.count(column)

    @property
    def number_of_lines(self) -> Any:
        return func.sum(self.columns.lines) if self.summed else func.count()


def _rows(query: Query, *groups: Group | None) -> _Rows:
    """The narrowest rows that have what a query filters and groups by."""
    if query.keys or Group.KEY in groups:
        lines = attribution.by_key(_mine(query), query.period, query.keys, _series(query))
        return _Rows(lines, lines.c)
    if query.hosts or Group.HOST in groups:
        return _Rows(CostLine, CostLine)
    if query.models or query.text or Group.MODEL in groups:
        return _Rows(join(Model, ModelTotal, ModelTotal.model_id == Model.id), ModelTotal, summed=True)
    return _Rows(DayTotal, DayTotal, summed=True)


def _series(query: Query) -> Select[Any] | None:
    """Those that the query's lines are of; None for all. What no key explains is worked out line by line, which takes
    much longer of all lines than of the few that are asked for."""
    found = select(Series.id).join(Model, Model.id == Series.model_id).where(Series.integration_id.in_(_mine(query)))
    if query.models:
        found = found.where(Model.name.in_(query.models))
    if query.hosts:
        found = found.where(Series.host.in_(query.hosts))
    return found if query.models or query.hosts else None


def _amount(rows: _Rows, query: Query) -> Any:
    """The sum in USD: charged to credits, and with the BYOK estimate if that is asked for."""
    line = rows.columns
    return usd_sum(line.usage_usd, line.byok_usd) if query.byok else usd_sum(line.usage_usd)


def _measured(rows: _Rows, query: Query) -> list[Any]:
    """Each sum with the number of lines in which it is known, the number of lines, and of days."""
    line = rows.columns
    return [
        _amount(rows, query).label("usage_usd"),
        usd_sum(line.byok_usd).label("byok_usd"),
        *(count_sum(getattr(line, name)).label(name) for name in COUNTS),
        *(rows.known(name).label(f"{name}_known") for name in ("byok_usd", *COUNTS)),
        rows.number_of_lines.label("lines"),
        func.count(line.day.distinct()).label("days"),
    ]


def _measures(row: Any) -> Measures:
    found: Mapping[str, Any] = row._mapping
    names = ("byok_usd", *COUNTS)
    tallies = {name: tally(found[name], found[f"{name}_known"], found["lines"]) for name in names}
    return Measures(usage_usd=found["usage_usd"], days=found["days"], **tallies)


def _lines(query: Query, rows: _Rows, *columns: Any, settled: bool = True) -> Select[Any]:
    """A select over the query's lines, by default those of settled days. Every figure on every page is from here."""
    line = rows.columns
    mine = rows.owner.in_(_mine(query)), within(line.day, query.period)
    statement = select(*columns).select_from(rows.source).where(*mine)
    if settled:
        statement = statement.where(~_unsettled(query, rows))
    if query.unknown:
        statement = statement.where(tuple_(rows.owner, line.day).not_in(query.unknown))
    if query.hosts:
        statement = statement.where(rows.by(Group.HOST).in_(query.hosts))
    if query.models:
        statement = statement.where(rows.by(Group.MODEL).in_(query.models))
    if query.text:
        statement = statement.where(rows.by(Group.MODEL).icontains(query.text, autoescape=True))
    return statement


def _mine(query: Query) -> Select[Any]:
    mine = select(Integration.id).where(Integration.workspace_id == query.workspace_id)
    # Where a statement is made once, the integrations are a parameter, which is never an empty tuple.
    return mine if query.integrations == () else mine.where(Integration.id.in_(query.integrations))


def _unsettled(query: Query, rows: _Rows) -> ColumnElement[bool]:
    """The condition that a line is of a day that may still grow."""
    open_days = select(CoveredDay.integration_id, CoveredDay.day).where(
        CoveredDay.integration_id.in_(_mine(query)),
        CoveredDay.state == DayState.PROVISIONAL,
        within(CoveredDay.day, query.period),
    )
    return tuple_(rows.owner, rows.columns.day).in_(open_days)

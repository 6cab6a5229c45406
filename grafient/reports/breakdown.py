"""The breakdown: all that is measured of each model, host, key, integration, day, week or month of a period."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from grafient import coverage
from grafient.coverage import Coverage, Known
from grafient.days import Period
from grafient.models import Integration
from grafient.query import Group, Measure, Query, all_integrations
from grafient.reports import parts, pivot, sums
from grafient.reports.chart import Step
from grafient.reports.parts import Filters, Provisional
from grafient.reports.pivot import By, Line, Pivot
from grafient.reports.sums import COUNTS, Axis, Measures, Tally, added, added_usd, share

MOST_ROWS = 200
"""On a page."""

FIGURES = ("usage_usd", "byok_usd", *COUNTS, "days")
DERIVED = ("share", "change_usd", "change", "usd_per_million_tokens", "usd_per_request")
"""What follows from them, and from what the row cost before."""

Against = Callable[[Period], Period | None]
"""What a period is compared with, if with anything."""


@dataclass(frozen=True)
class Row:
    """One model, host, key or integration over the period; or some of its days, which are its ``period``.

    ``usage_usd`` and ``days``, with usage, are None where nothing is known of it. ``before_usd``: what it cost in the
    period it is compared with; None without one, and where either of the two is not wholly known.
    """

    id: str
    name: str
    usage_usd: Decimal | None
    byok_usd: Tally
    requests: Tally
    prompt_tokens: Tally
    completion_tokens: Tally
    reasoning_tokens: Tally
    cached_tokens: Tally
    days: int | None
    share: Decimal | None = None
    before_usd: Decimal | None = None
    period: Period | None = None
    coverage: Coverage | None = None

    @property
    def tokens(self) -> Tally:
        """Prompt and completion; the others are parts of these."""
        return added((self.prompt_tokens, self.completion_tokens))

    @property
    def change_usd(self) -> Decimal | None:
        return None if self.usage_usd is None or self.before_usd is None else self.usage_usd - self.before_usd

    @property
    def change(self) -> Decimal | None:
        """As a fraction; None where it cost nothing before."""
        if self.usage_usd is None or self.before_usd is None or self.before_usd <= 0:
            return None
        return (self.usage_usd - self.before_usd) / self.before_usd

    @property
    def usd_per_million_tokens(self) -> Decimal | None:
        return self._usd_per(self.tokens, 1_000_000)

    @property
    def usd_per_request(self) -> Decimal | None:
        return self._usd_per(self.requests, 1)

    def _usd_per(self, count: Tally, size: int) -> Decimal | None:
        if self.usage_usd is None or not count.complete or not count.known:
            return None
        return self.usage_usd * size / Decimal(count.known)

    def amount(self, measure: Measure) -> Tally:
        """What a pivot shows of it."""
        usage = Tally(self.usage_usd, self.usage_usd is not None)
        return {Measure.USD: usage, Measure.REQUESTS: self.requests, Measure.TOKENS: self.tokens}[measure]


@dataclass(frozen=True)
class Breakdown:
    """The rows in the order asked for, perhaps of one ``page`` of many; ``found`` says how many there are.

    ``totals``: all rows added up, those of other pages too. It and ``total_usd`` are None where no day is settled.
    ``before``: what is compared with, for the ``compared`` of ``comparable`` integrations that have data now: one that
    was removed earlier is in neither amount. ``pivot``: the columns, if there are any. ``too_many``: so many days,
    weeks or months were asked for as columns, for which there is no room. ``floors``: the rows of a page, by id, whose
    figures are the least they can be.
    """

    period: Period
    filters: Filters
    coverage: Coverage
    total_usd: Decimal | None
    provisional: Sequence[Provisional]
    totals: Row | None
    group: By
    rows: Sequence[Row]
    found: int
    page: int
    pages: int
    before: Period | None
    compared: int
    comparable: int
    pivot: Pivot | None
    too_many: int
    floors: Collection[str]

    @property
    def first(self) -> int:
        """The number of the first row of the page."""
        return (self.page - 1) * MOST_ROWS + 1

    @property
    def left_out(self) -> int:
        """How many rows are on other pages."""
        return self.found - len(self.rows)


def report(
    query: Query,
    group: By,
    sort: str,
    descending: bool,
    *,
    against: Against = lambda period: period.previous,
    columns: By | None = None,
    measure: Measure = Measure.USD,
    find: str = "",
    page: int = 1,
    limit: int | None = MOST_ROWS,
) -> Breakdown:
    """A row for each of the group, sorted by name or date (the group's own) or one of FIGURES and DERIVED; the unknown
    come last. ``find``: a part of the rows' names.
    """
    integrations = all_integrations(query.workspace_id)
    compared = _compared(query.period, group, against) if columns is None else {}
    periods = (query.period, *compared.values())
    around = Period(min(one.first for one in periods), max(one.last for one in periods))
    known = coverage.load(query, integrations, Group.KEY if Group.KEY in (group, columns) else Group.MODEL, around)
    query, before = known.query, compared.get(query.period)
    if isinstance(group, Step):
        found, before_usd = _by_days(query, known, group, compared, around)
    else:
        found, before_usd = _by_names(query, known, group, before, integrations)
    whole = usd(found)
    found = [row for row in found if find.casefold() in (row.name or row.id).casefold()]
    total = usd(found) if known.any_settled else None
    ranked = _sorted(found, "name" if sort == group else sort, descending)
    first = 0 if limit is None else (page - 1) * limit
    shown = ranked[first:] if limit is None else ranked[first : first + limit]
    too_many = len(columns.parts(query.period)) if isinstance(columns, Step) else 0
    found_pivot = None
    if columns is not None and too_many <= pivot.MOST_COLUMNS:
        counted = _lines(found) if find or len(shown) == len(found) else None
        lines = columns, _columns(query, known, columns, integrations)
        found_pivot = pivot.of(
            query, known, (group, _lines(shown)), lines, measure, counted, [row.amount(measure) for row in shown]
        )
    return Breakdown(
        period=query.period,
        filters=parts.filters(query, integrations),
        coverage=known.coverage,
        total_usd=total,
        provisional=parts.provisional(known, sums.by_integration(query), query.period.last),
        totals=None
        if total is None
        else replace(totals(found, total), share=share(total, whole), before_usd=None if find else before_usd),
        group=group,
        rows=shown,
        found=len(ranked),
        page=page,
        pages=1 if limit is None else max(1, -(-len(ranked) // limit)),
        before=before,
        compared=len(known.integrations),
        comparable=len({one.id for some in (query.period, before) if some for one in known.asked_in(some)}),
        pivot=found_pivot,
        floors=parts.floors(known, group, [row.id for row in shown]) if isinstance(group, Group) and limit else (),
        too_many=too_many if too_many > pivot.MOST_COLUMNS else 0,
    )


def rows(query: Query, group: Group, names: Mapping[str, str] | None = None) -> list[Row]:
    """A row for each model, host, key or integration that has lines on settled days, in no order."""
    measured = sums.measures_by(query, group)
    whole = added_usd(one.usage_usd for one in measured.values())
    called = names or (sums.key_names(query) if group == Group.KEY else {})
    return [
        Row(name, called.get(name, name), share=share(one.usage_usd, whole), **vars(one))
        for name, one in measured.items()
    ]


def totals(found: Sequence[Row], total: Decimal) -> Row:
    """All rows in one."""
    return Row("", "", usage_usd=total, share=share(total, total), days=0, **_added(found))


def usd(found: Iterable[Row]) -> Decimal:
    """What is known of what rows cost together."""
    return added_usd(row.usage_usd for row in found if row.usage_usd is not None)


def _added(found: Sequence[Row | Measures]) -> dict[str, Any]:
    return {name: added(getattr(row, name) for row in found) for name in ("byok_usd", *COUNTS)}


_NOTHING: dict[str, Any] = dict.fromkeys(("byok_usd", *COUNTS), Tally(0, True))
_UNKNOWN: dict[str, Any] = dict.fromkeys(("byok_usd", *COUNTS), Tally(None, False))


def _compared(period: Period, group: By, against: Against) -> dict[Period, Period]:
    """What the period is compared with and, where rows are days, what each of them is: the day or the month before it,
    or the same a year ago."""
    compared = [period, *(group.parts(period) if isinstance(group, Step) else [])]
    return {one: before for one in compared if (before := against(one)) is not None}


def _by_names(
    query: Query, known: Known, group: Group, before: Period | None, integrations: Sequence[Integration]
) -> tuple[list[Row], Decimal | None]:
    """The rows, and what all cost before."""
    labels = {str(one.id): one.label for one in integrations} if group == Group.INTEGRATION else None
    found = rows(query, group, labels)
    if group == Group.INTEGRATION:
        there = {row.id for row in found}
        for one in known.asked:
            if str(one.id) not in there and not query.is_filtered:
                has_data = one in known.integrations and known.any_settled
                row = Row(str(one.id), one.label, None, days=None, **_UNKNOWN)
                if has_data:
                    nothing = share(Decimal(0), usd(found))
                    row = Row(str(one.id), one.label, Decimal(0), days=0, share=nothing, **_NOTHING)
                found.append(row)
    if before is None or not known.integrations:
        return found, None
    earlier = {name: tally.known for (name,), tally in sums.amounts_by(_at(query, known, before), Axis(group))}
    comparable = _comparable(known, group, query.period, before)
    found = [replace(row, before_usd=earlier.get(row.id, Decimal(0))) if comparable(row.id) else row for row in found]
    return found, added_usd(earlier.values()) if _settled(known, query.period, before) else None


def _comparable(known: Known, group: Group, period: Period, before: Period) -> Callable[[str], bool]:
    """Whether what one of a group cost is known of each day of both periods."""
    if group == Group.INTEGRATION:
        complete = {
            str(i.id) for i in known.integrations if known.is_complete(i, period) and known.is_complete(i, before)
        }
        return complete.__contains__
    if not _settled(known, period, before):
        return lambda _: False
    return lambda name: all(known.knows_throughout(some, group, name or None) for some in (period, before))


def _settled(known: Known, *periods: Period) -> bool:
    return all(known.state(day).is_settled for period in periods for day in period)


def _at(query: Query, known: Known, period: Period) -> Query:
    """The query at another time, of the integrations that the figures are of."""
    return replace(query, period=period, integrations=tuple(one.id for one in known.integrations))


def _by_days(
    query: Query, known: Known, step: Step, compared: Mapping[Period, Period], around: Period
) -> tuple[list[Row], Decimal | None]:
    """The same of all of the period's days, those without lines too."""
    measured = sums.measures_by_day(_at(query, known, around)) if known.integrations else {}
    whole = added_usd(one.usage_usd for day, one in measured.items() if day in query.period)

    def cost(period: Period) -> Decimal:
        return added_usd(measured[day].usage_usd for day in period if day in measured)

    def earlier(period: Period) -> Decimal | None:
        before = compared.get(period)
        return None if before is None or not _settled(known, period, before) else cost(before)

    found = []
    for line in pivot.days_of(step, query.period, known):
        period = line.period or query.period
        some = [measured[day] for day in period if day in measured]
        row = Row(line.id, line.id, None, days=None, period=period, coverage=line.coverage, **_UNKNOWN)
        if some or any(known.state(day).is_settled for day in period):
            usage = cost(period)
            part = share(usage, whole)
            row = replace(row, usage_usd=usage, days=len(some), share=part, before_usd=earlier(period), **_added(some))
        found.append(row)
    return found, earlier(query.period)


def _lines(found: Sequence[Row]) -> list[Line]:
    return [Line(row.id, row.name, row.period, row.coverage, 0, row.usage_usd is not None) for row in found]


def _columns(query: Query, known: Known, columns: By, integrations: Sequence[Integration]) -> list[Line]:
    if isinstance(columns, Step):
        return pivot.days_of(columns, query.period, known)
    labels = {str(one.id): one.label for one in integrations} if columns == Group.INTEGRATION else {}
    totals = [replace(one, name=labels.get(one.id, one.name)) for one in sums.totals_by(query, columns)]
    return pivot.columns_of(totals)


def _sorted(found: Sequence[Row], sort: str, descending: bool) -> list[Row]:
    def value(row: Row) -> Any:
        figure = getattr(row, sort)
        return figure.known if isinstance(figure, Tally) else figure

    by_name = sorted(found, key=lambda row: (row.name, row.id))
    known = sorted((row for row in by_name if value(row) is not None), key=value, reverse=descending)
    return known + [row for row in by_name if value(row) is None]

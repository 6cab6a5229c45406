"""The breakdown: everything that is measured of each model, host or key over a period."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from grafient import coverage
from grafient.coverage import Coverage
from grafient.days import Period
from grafient.query import Group, Query, all_integrations
from grafient.reports import parts, sums
from grafient.reports.parts import Filters, Provisional
from grafient.reports.sums import COUNTS, Measures, Tally, added, added_usd, share

MOST_ROWS = 500

FIGURES = ("usage_usd", "byok_usd", *COUNTS, "days")
"""The columns after the first, which is named after the group."""


@dataclass(frozen=True)
class Row(Measures):
    """One model, host or key over the period."""

    id: str
    name: str
    share: Decimal | None


@dataclass(frozen=True)
class Breakdown:
    """The rows in the order asked for, perhaps not all; ``found`` says how many there are.

    ``totals``: all rows added up, those past the limit too. It and ``total_usd`` are None where no day is settled.
    """

    period: Period
    filters: Filters
    coverage: Coverage
    total_usd: Decimal | None
    provisional: Sequence[Provisional]
    totals: Row | None
    group: Group
    rows: Sequence[Row]
    found: int

    @property
    def left_out(self) -> int:
        """How many rows are past the limit."""
        return self.found - len(self.rows)


def report(query: Query, group: Group, sort: str, descending: bool, limit: int | None = MOST_ROWS) -> Breakdown:
    """A row for each model, host or key, sorted by name (the group's own) or one of FIGURES; the unknown come last."""
    integrations = all_integrations(query.workspace_id)
    known = coverage.load(query, integrations, group)
    query = known.query
    found = rows(query, group)
    total = added_usd(row.usage_usd for row in found) if known.any_settled else None
    ranked = _sorted(found, "name" if sort == group else sort, descending)
    return Breakdown(
        period=query.period,
        filters=parts.filters(query, integrations),
        coverage=known.coverage,
        total_usd=total,
        provisional=parts.provisional(known, sums.by_integration(query, query.period)),
        totals=None if total is None else totals(found, total),
        group=group,
        rows=ranked[:limit],
        found=len(ranked),
    )


def rows(query: Query, group: Group) -> list[Row]:
    """A row for each model, host or key that has lines on settled days, in no order."""
    measured = sums.measures_by(query, group)
    whole = added_usd(one.usage_usd for one in measured.values())
    names = sums.key_names(query) if group == Group.KEY else {}
    return [_row(name, names.get(name, name), one, share(one.usage_usd, whole)) for name, one in measured.items()]


def totals(found: Sequence[Row], total: Decimal) -> Row:
    """All rows in one."""
    tallies = {name: added(getattr(row, name) for row in found) for name in ("byok_usd", *COUNTS)}
    return Row(id="", name="", usage_usd=total, share=share(total, total), days=0, **tallies)


def _row(row_id: str, name: str, measures: Measures, part: Decimal | None) -> Row:
    return Row(id=row_id, name=name, share=part, **vars(measures))


def _sorted(found: Sequence[Row], sort: str, descending: bool) -> list[Row]:
    def value(row: Row) -> Any:
        figure = getattr(row, sort)
        return figure.known if isinstance(figure, Tally) else figure

    by_name = sorted(found, key=lambda row: (row.name, row.id))
    known = sorted((row for row in by_name if value(row) is not None), key=value, reverse=descending)
    return known + [row for row in by_name if value(row) is None]

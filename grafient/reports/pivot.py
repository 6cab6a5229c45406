"""The breakdown by two things at once: an amount for each row and column, and what each column adds up to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from grafient.coverage import Coverage, Known
from grafient.days import Period
from grafient.query import Group, Measure, Query
from grafient.reports import sums
from grafient.reports.chart import Step
from grafient.reports.sums import Axis, Tally, Total, added
from grafient.states import DayState

By = Group | Step
"""What a table has a row or a column for."""

MOST_COLUMNS = 31


@dataclass(frozen=True)
class Line:
    """What one row or column is of: a model, host, key or integration, or the days of a ``period``.

    ``others``: it is of all others, so many, that have no column of their own. ``is_known`` False: nothing is known of
    it, such as of an integration that was never read.
    """

    id: str
    name: str = ""
    period: Period | None = None
    coverage: Coverage | None = None
    others: int = 0
    is_known: bool = True


@dataclass(frozen=True)
class Pivot:
    """``cells``: a list for each row, parallel to the columns; None where nothing was used, and an unknown tally where
    it is not known whether anything was. ``row_totals`` are parallel to the rows; ``totals`` are the columns', of all
    rows, those of other pages too.
    """

    by: By
    measure: Measure
    columns: Sequence[Line]
    cells: Sequence[Sequence[Tally | None]]
    row_totals: Sequence[Tally]
    totals: Sequence[Tally]

    @property
    def others(self) -> int:
        """How many models, hosts, keys or integrations have no column of their own."""
        return sum(column.others for column in self.columns)


def days_of(step: Step, period: Period, known: Known) -> list[Line]:
    """A row or column for each day, week or month of a period."""
    return [
        Line(_id(step, part), period=part, coverage=Coverage.of([known.state(day) for day in part]))
        for part in step.parts(period)
    ]


def _id(step: Step, part: Period) -> str:
    return f"{part.first:%Y-%m}" if step == Step.MONTH else part.first.isoformat()


def columns_of(totals: Sequence[Total]) -> list[Line]:
    """A column for each of a group, the most expensive first; of more than MOST_COLUMNS, the last is all others."""
    most = MOST_COLUMNS if len(totals) <= MOST_COLUMNS else MOST_COLUMNS - 1
    columns = [Line(one.id, one.name) for one in totals[:most]]
    left = len(totals) - len(columns)
    return columns + ([Line("", others=left)] if left else [])


def of(
    query: Query,
    known: Known,
    rows: tuple[By, Sequence[Line]],
    columns: tuple[By, Sequence[Line]],
    measure: Measure,
    counted: Sequence[Line] | None,
    row_totals: Sequence[Tally],
) -> Pivot:
    """``rows`` and ``columns``: what they are by, and those to show. ``counted``: the rows that the columns' totals are
    of; None for all there are, where those that are not shown need not be told apart. ``row_totals``: what is known of
    the rows to show."""
    down, across = _Edge(rows[0], rows[1] if counted is None else counted), _Edge(*columns)
    row_axis = down.axis if counted is None else Axis(down.axis.group)
    amounts: dict[tuple[Any, Any], list[Tally]] = defaultdict(list)
    days: dict[tuple[Any, Any], set[date]] = defaultdict(set)
    whole: dict[Any, list[Tally]] = defaultdict(list)
    for (row, column), amount in sums.amounts_by(query, row_axis, across.axis, measure=measure):
        at = down.place(row), across.place(column)
        if counted is None or at[0] in down.ids:
            amounts[at].append(amount)
            days[at].update(one for one in (row, column) if isinstance(one, date))
            whole[at[1]].append(amount)

    def cell(row: Line, column: Line) -> Tally | None:
        at = row.id, across.key(column)
        amount = added(amounts[at]) if at in amounts else None
        silent = _silent(known, row, column, days.get(at, ()))
        if not row.is_known or (silent is None and amount is None):
            return Tally(None, False)
        named, by = (row, down.by) if column.period else (column, across.by)
        if amount is None:
            return None if _is_known(known.knows_nothing, by, named, silent or ()) else Tally(None, False)
        return amount if _is_known(known.knows_part, by, named, silent or ()) else Tally(amount.known, False)

    def over_all_days(amount: Tally, by: By, line: Line, with_lines: Collection[date]) -> Tally:
        """As a cell that has all of the period's days: where one of them does not tell hosts, a host's amount is the
        least it can be. The days of an integration that are missing are told by its coverage."""
        if by == Group.INTEGRATION:
            return amount
        silent = _silent(known, Line("", period=query.period), line, with_lines)
        return amount if _is_known(known.knows_part, by, line, silent or ()) else Tally(amount.known, False)

    def row_total(row: Line, amount: Tally) -> Tally:
        if row.period or isinstance(across.by, Group):
            return amount
        seen = {day for column in across.lines for day in days.get((row.id, across.key(column)), ())}
        return over_all_days(amount, down.by, row, seen)

    def column_total(column: Line) -> Tally:
        key = across.key(column)
        amount = _total(column, whole[key])
        if column.period or isinstance(down.by, Group):
            return amount
        return over_all_days(amount, across.by, column, {day for at in days if at[1] == key for day in days[at]})

    return Pivot(
        across.by,
        measure,
        across.lines,
        [[cell(row, column) for column in across.lines] for row in rows[1]],
        [row_total(row, amount) for row, amount in zip(rows[1], row_totals, strict=True)],
        [column_total(column) for column in across.lines],
    )


def _is_known(knows: Callable[[date, Group, str | None], bool], by: By, line: Line, silent: Collection[date]) -> bool:
    """Whether it is known what a line had on the days on which it had nothing. Beside an amount, a day that is missing
    for an integration is told by the coverage; where there is no amount, nothing would say that it may not be nothing.
    """
    name = None if line.others else line.id
    return not isinstance(by, Group) or all(knows(day, by, name) for day in silent)


class _Edge:
    """The rows or the columns, and where on them an amount belongs."""

    def __init__(self, by: By, lines: Sequence[Line]) -> None:
        self.by, self.lines = by, lines
        self.ids = {one.id for one in lines if not one.others}
        self.axis = Axis(by, sorted(self.ids)) if isinstance(by, Group) else Axis()
        self._of_days = {day: one.id for one in lines if one.period for day in one.period}

    def key(self, line: Line) -> str | None:
        return None if line.others else line.id

    def place(self, name: Any) -> Any:
        """The key of the row or column of a name or day; None of what is not shown by itself."""
        return name if isinstance(self.by, Group) else self._of_days.get(name)


def _silent(known: Known, row: Line, column: Line, with_lines: Collection[date]) -> list[date] | None:
    """The days of a cell that had usage, but none in the cell; None where no day of it is known. Of what has no days,
    such as a model and a host, there are none to look at."""
    periods = [one.period for one in (row, column) if one.period]
    if not periods:
        return []
    days = [day for day in periods[0] if day in periods[-1]]
    counted = [day for day in days if known.state(day) not in (DayState.MISSING, DayState.PROVISIONAL)]
    silent = [day for day in counted if day not in with_lines and known.state(day) != DayState.NO_USAGE]
    return None if days and not counted else silent


def _total(column: Line, amounts: Sequence[Tally]) -> Tally:
    nothing_known = not amounts and column.coverage is not None and not column.coverage.covered
    return Tally(None, False) if nothing_known else added(amounts)

"""The totals of each day and of each model: lines added up once, when they change, and not for each page.

A team's year is some hundred thousand lines, of which a dashboard wants sums by day and by model. These are a tenth of
the rows or less. Whoever changes lines writes the totals of their days in the same transaction, so that no reader sees
one without the other. ``wrong`` has the database add up all lines once more, and says where that is something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import Any

from sqlalchemy import Select, delete, func, insert, select

from grafient import lines
from grafient.extensions import db
from grafient.models import DayTotal, Line, ModelTotal, Series
from grafient.money import in_steps
from grafient.providers import BilledLine

COUNTED = ("byok_usd", "requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")
"""What can be unknown in a line, so that its sum goes with the number of lines in which it is known."""

_SUMS = ["usage_usd", *(column for name in COUNTED for column in (name, f"{name}_known")), "lines"]


def write(
    integration_id: int, days: Collection[date], found: Iterable[BilledLine], model_ids: Mapping[str, int]
) -> None:
    """Write the totals of an integration's days, of which these are all lines, in the caller's transaction. What the
    days had before was cleared.

    ``model_ids``: of all models that the lines have.
    """
    by_model: dict[tuple[date, str], _Sum] = {}
    by_day: dict[date, _Sum] = {}
    for line in found:
        sums = by_model.get((line.day, line.model))
        if sums is None:
            sums = by_model[line.day, line.model] = _Sum()
        sums.add(line)
    for (day, _), sums in by_model.items():
        by_day.setdefault(day, _Sum()).add_all(sums)
    stored = lines.stored_days(days)
    rows = [(integration_id, stored[day], model_ids[model], *sums.figures()) for (day, model), sums in by_model.items()]
    lines.insert_many("model_total", _columns("model_id"), rows)
    whole = [(integration_id, stored[day], *sums.figures()) for day, sums in by_day.items()]
    lines.insert_many("day_total", _columns(), whole)


class _Sum:
    """Lines added up: of each figure the sum of what is known, and of how many lines that is. USD are in 10^-12.

    A reply can have ten thousand lines, so each figure is added by a line of its own, not in a loop over their names.
    """

    __slots__ = ("byok", "cached", "completion", "lines", "prompt", "reasoning", "requests", "usage")

    def __init__(self) -> None:
        self.usage = self.lines = 0
        self.byok, self.requests, self.prompt = [0, 0], [0, 0], [0, 0]
        self.completion, self.reasoning, self.cached = [0, 0], [0, 0], [0, 0]

    def add(self, line: BilledLine) -> None:
        self.lines += 1
        self.usage += in_steps(line.usage_usd)
        if line.byok_usd is not None:
            self.byok[0] += in_steps(line.byok_usd)
            self.byok[1] += 1
        if line.requests is not None:
            self.requests[0] += line.requests
            self.requests[1] += 1
        if line.prompt_tokens is not None:
            self.prompt[0] += line.prompt_tokens
            self.prompt[1] += 1
        if line.completion_tokens is not None:
            self.completion[0] += line.completion_tokens
            self.completion[1] += 1
        if line.reasoning_tokens is not None:
            self.reasoning[0] += line.reasoning_tokens
            self.reasoning[1] += 1
        if line.cached_tokens is not None:
            self.cached[0] += line.cached_tokens
            self.cached[1] += 1

    def add_all(self, other: _Sum) -> None:
        self.lines += other.lines
        self.usage += other.usage
        for mine, others in zip(self._counted(), other._counted(), strict=True):
            mine[0] += others[0]
            mine[1] += others[1]

    def figures(self) -> list[int | None]:
        """As ``_SUMS`` names them; a sum of which nothing is known is None."""
        counted = [one for total, known in self._counted() for one in (total if known else None, known)]
        return [self.usage, *counted, self.lines]

    def _counted(self) -> tuple[list[int], ...]:
        return self.byok, self.requests, self.prompt, self.completion, self.reasoning, self.cached


def clear(integration_id: int, days: Collection[date]) -> None:
    """Take the totals of an integration's days away, in the caller's transaction."""
    if days:
        for table in (DayTotal, ModelTotal):
            mine = table.integration_id == integration_id, table.day.in_(days)
            db.session.connection().execute(delete(table.__table__).where(*mine))  # type: ignore[arg-type]


def wrong() -> list[tuple[int, date]]:
    """The integrations and days whose totals are not what their lines add up to. None, unless something is broken."""
    found: set[tuple[int, date]] = set()
    for table, wanted, names in ((DayTotal, _by_day(), _columns()), (ModelTotal, _by_model(), _columns("model_id"))):
        stored = select(*(getattr(table, name) for name in names))
        for only_in, other in ((wanted, stored), (stored, wanted)):
            different = only_in.except_(other).subquery()
            rows = db.session.execute(select(different.c[0], different.c[1]))
            found |= {(row[0], row[1]) for row in rows}
    return sorted(found)


def repair() -> int:
    """Have the database add up anew what is wrong, in the caller's transaction; how many days that was."""
    found: dict[int, set[date]] = {}
    for integration_id, day in wrong():
        found.setdefault(integration_id, set()).add(day)
    for integration_id, days in found.items():
        add_up(integration_id, days)
    return sum(map(len, found.values()))


def add_up(integration_id: int, days: Collection[date]) -> None:
    """Have the database work out the totals of these days, from the lines that are stored."""
    clear(integration_id, days)
    mine = Line.integration_id == integration_id, Line.day.in_(days)
    for table, query, names in ((DayTotal, _by_day(), _columns()), (ModelTotal, _by_model(), _columns("model_id"))):
        db.session.execute(insert(table.__table__).from_select(names, query.where(*mine)))  # type: ignore[arg-type]


def _by_model() -> Select[Any]:
    columns = Line.integration_id, Line.day, Series.model_id
    return select(*columns, *_sums()).join(Series, Series.id == Line.series_id).group_by(*columns)


def _by_day() -> Select[Any]:
    columns = Line.integration_id, Line.day
    return select(*columns, *_sums()).group_by(*columns)


def _columns(*also: str) -> list[str]:
    return ["integration_id", "day", *also, *_SUMS]


def _sums() -> list[Any]:
    pairs = ((func.sum(getattr(Line, name)), func.count(getattr(Line, name))) for name in COUNTED)
    return [func.sum(Line.usage_usd), *(column for pair in pairs for column in pair), func.count()]

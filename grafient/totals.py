"""The totals of each day and of each model: lines added up once, when they change, and not for each page.

A team's year is some hundred thousand lines, of which a dashboard wants sums by day and by model. Whoever changes lines
writes the totals of their days in the same transaction, so that no reader sees one without the other. ``wrong`` has the
database add up all lines once more, and says where that is something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date
from operator import add
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update

from grafient import lines
from grafient.extensions import db
from grafient.models import DayTotal, Integration, Line, Model, ModelTotal, Series
from grafient.models.integrations import new_revision

COUNTED = ("byok_usd", "requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")
"""What can be unknown in a line, so that its sum goes with the number of lines in which it is known."""

_SUMS = ["usage_usd", *(column for name in COUNTED for column in (name, f"{name}_known")), "lines"]


def write(integration_id: int, numbers: lines.Ids, found: Iterable[lines.Row]) -> None:
    """Write the totals of an integration's days, of which these are all lines, in the caller's transaction. What the
    days had before was cleared.

    A reply can have ten thousand lines, so each figure is added by a line of its own, not in a loop over their names.
    """
    model_of = {number: numbers.models[name[-1]] for name, number in numbers.series.items()}
    by_model: dict[tuple[int, Any], list[Any]] = {}
    for _, day, series, usd, byok_usd, requests, _, prompt, completion, reasoning, cached in found:
        key = model_of[series], day
        sums = by_model.get(key)
        if sums is None:
            sums = by_model[key] = [0] * len(_SUMS)
        sums[0] += usd
        sums[13] += 1
        if byok_usd is not None:
            sums[1] += byok_usd
            sums[2] += 1
        if requests is not None:
            sums[3] += requests
            sums[4] += 1
        if prompt is not None:
            sums[5] += prompt
            sums[6] += 1
        if completion is not None:
            sums[7] += completion
            sums[8] += 1
        if reasoning is not None:
            sums[9] += reasoning
            sums[10] += 1
        if cached is not None:
            sums[11] += cached
            sums[12] += 1
    by_day: dict[Any, list[Any]] = {}
    for (_, day), sums in by_model.items():
        whole = by_day.get(day)
        by_day[day] = sums if whole is None else [*map(add, whole, sums)]
    rows = [(*key, *_figures(sums)) for key, sums in by_model.items()]
    lines.insert_many("model_total", _columns("model_id"), rows)
    rows = [(integration_id, day, *_figures(sums)) for day, sums in by_day.items()]
    lines.insert_many("day_total", _columns("integration_id"), rows)


def _figures(sums: list[Any]) -> list[Any]:
    """Sums in the order of ``_SUMS`` for the database: a sum of which nothing is known is NULL."""
    if all(sums[2::2]):
        return sums
    return [None if number in _COUNTED_AT and not sums[number + 1] else one for number, one in enumerate(sums)]


_COUNTED_AT = range(1, 2 * len(COUNTED), 2)


def clear(integration_id: int, days: Collection[date]) -> None:
    """Take the totals of an integration's days away, in the caller's transaction."""
    if not days:
        return
    models = select(Model.id).where(Model.integration_id == integration_id)
    for table, mine in (
        (DayTotal, DayTotal.integration_id == integration_id),
        (ModelTotal, ModelTotal.model_id.in_(models)),
    ):
        db.session.connection().execute(delete(table.__table__).where(mine, table.day.in_(days)))  # type: ignore[arg-type]


def wrong() -> list[tuple[int, date]]:
    """The integrations and days whose totals are not what their lines add up to. None, unless something is broken."""
    days = select(*(getattr(DayTotal, name) for name in _columns("integration_id")))
    found = _differences(_by_day(), days)
    models = select(*(getattr(ModelTotal, name) for name in _columns("model_id")))
    of_models = _differences(_by_model(), models)
    rows = db.session.execute(select(Model.id, Model.integration_id).where(Model.id.in_({one for one, _ in of_models})))
    owners = {row[0]: row[1] for row in rows}
    return sorted(found | {(owners[model_id], day) for model_id, day in of_models})


def _differences(wanted: Select[Any], stored: Select[Any]) -> set[tuple[int, date]]:
    """The first two columns of the rows that only one of them has."""
    found: set[tuple[int, date]] = set()
    for one, other in ((wanted, stored), (stored, wanted)):
        only = one.except_(other).subquery()
        found |= {(row[0], row[1]) for row in db.session.execute(select(only.c[0], only.c[1]))}
    return found


def repair() -> int:
    """Have the database add up anew what is wrong, in the caller's transaction; how many days that was."""
    found: dict[int, set[date]] = {}
    for integration_id, day in wrong():
        found.setdefault(integration_id, set()).add(day)
    for integration_id, days in found.items():
        add_up(integration_id, days)
    changed = update(Integration).where(Integration.id.in_(found)).values(revision=new_revision())
    db.session.execute(changed.execution_options(synchronize_session=False))
    return sum(map(len, found.values()))


def add_up(integration_id: int, days: Collection[date]) -> None:
    """Have the database work out the totals of these days, from the lines that are stored."""
    clear(integration_id, days)
    mine = Line.integration_id == integration_id, Line.day.in_(days)
    for table, query, own in ((DayTotal, _by_day(), "integration_id"), (ModelTotal, _by_model(), "model_id")):
        db.session.execute(insert(table.__table__).from_select(_columns(own), query.where(*mine)))  # type: ignore[arg-type]


def _by_model() -> Select[Any]:
    columns = Series.model_id, Line.day
    return select(*columns, *_sums()).join(Series, Series.id == Line.series_id).group_by(*columns)


def _by_day() -> Select[Any]:
    columns = Line.integration_id, Line.day
    return select(*columns, *_sums()).group_by(*columns)


def _columns(own: str) -> list[str]:
    return [own, "day", *_SUMS]


def _sums() -> list[Any]:
    pairs = ((func.sum(getattr(Line, name)), func.count(getattr(Line, name))) for name in COUNTED)
    return [func.sum(Line.usage_usd), *(column for pair in pairs for column in pair), func.count()]

"""The totals of each day and of each model: lines added up once, when they change, and not for each page.

A team's year is some hundred thousand lines, of which a dashboard wants sums by day and by model. These are a tenth of
the rows or less. They are worked out anew from the lines, by the database, in the transaction that changes lines, so
that no reader sees one without the other.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Any

from sqlalchemy import Select, and_, delete, func, insert, select

from grafient.extensions import db
from grafient.models import DayTotal, Line, ModelTotal, Series

COUNTED = ("byok_usd", "requests", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens")
"""What can be unknown in a line, so that its sum goes with the number of lines in which it is known."""

_SUMS = ["usage_usd", *(column for name in COUNTED for column in (name, f"{name}_known")), "lines"]


def refresh(integration_id: int, days: Collection[date]) -> None:
    """Work out anew the totals of an integration's days, in the caller's transaction."""
    if not days:
        return
    connection = db.session.connection()
    for table in (DayTotal, ModelTotal):
        connection.execute(delete(table.__table__).where(table.integration_id == integration_id, table.day.in_(days)))  # type: ignore[arg-type]
    mine = Line.integration_id == integration_id, Line.day.in_(days)
    connection.execute(insert(ModelTotal.__table__).from_select(_columns("model_id"), by_model().where(*mine)))  # type: ignore[arg-type]
    connection.execute(insert(DayTotal.__table__).from_select(_columns(), by_day().where(*mine)))  # type: ignore[arg-type]


def by_model() -> Select[Any]:
    """What the totals of models are: lines by integration, day and model."""
    columns = Line.integration_id, Line.day, Series.model_id
    return select(*columns, *_sums()).join(Series, Series.id == Line.series_id).group_by(*columns)


def by_day() -> Select[Any]:
    """What the totals of days are: lines by integration and day."""
    columns = Line.integration_id, Line.day
    return select(*columns, *_sums()).group_by(*columns)


def wrong() -> list[tuple[int, date]]:
    """The integrations and days whose totals are not what their lines add up to. None, unless something is broken."""
    found: set[tuple[int, date]] = set()
    for table, wanted, names in ((DayTotal, by_day(), _columns()), (ModelTotal, by_model(), _columns("model_id"))):
        should = wanted.subquery()
        have = select(*(getattr(table, name) for name in names)).subquery()
        for one, other in ((should, have), (have, should)):
            same = and_(*(a.is_not_distinct_from(b) for a, b in zip(one.c, other.c, strict=True)))
            missing = select(one.c[0], one.c[1]).where(~select(other.c[0]).where(same).exists())
            found |= {(row[0], row[1]) for row in db.session.execute(missing)}
    return sorted(found)


def repair() -> int:
    """Work out anew what is wrong, in the caller's transaction; of how many days of integrations that was."""
    found: dict[int, set[date]] = {}
    for integration_id, day in wrong():
        found.setdefault(integration_id, set()).add(day)
    for integration_id, days in found.items():
        refresh(integration_id, days)
    return sum(map(len, found.values()))


def _columns(*also: str) -> list[str]:
    return ["integration_id", "day", *also, *_SUMS]


def _sums() -> list[Any]:
    pairs = ((func.sum(getattr(Line, name)), func.count(getattr(Line, name))) for name in COUNTED)
    return [func.sum(Line.usage_usd), *(column for pair in pairs for column in pair), func.count()]

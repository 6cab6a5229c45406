"""Cost lines in bulk: read with their names, and replaced, for ``ledger`` and ``attribution``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any, cast

from msgspec.structs import astuple
from sqlalchemy import ColumnElement, Table, bindparam, delete, insert, select

from grafient.extensions import db
from grafient.models import CostLine, KeyPart, Line, Model, Series
from grafient.models.columns import Day
from grafient.money import in_steps
from grafient.providers import BilledLine

Identity = tuple[date, str, str, str]
Name = tuple[str, str, str, str]

IDENTITY = ("day", "permaslug", "endpoint_id", "host")
NAME = ("permaslug", "endpoint_id", "host", "model")
FIELDS = BilledLine.__struct_fields__
MEASURES = tuple(name for name in FIELDS if name not in IDENTITY)
FIGURES = tuple(name for name in MEASURES if name != "model")


identity: Callable[[BilledLine], Identity] = attrgetter(*IDENTITY)
"""What makes a line the same line in another reply."""

name: Callable[[BilledLine], Name] = attrgetter(*NAME)
"""What its series is called."""

Row = tuple[Any, ...]
"""A line as it is written: its owner, its day as the driver takes it, the number of its series, and its FIGURES, USD in
10^-12."""


def stored(integration_id: int, *conditions: ColumnElement[bool]) -> list[BilledLine]:
    """The lines of an integration that are stored."""
    columns = [getattr(CostLine, field) for field in FIELDS]
    query = select(*columns).where(CostLine.integration_id == integration_id, *conditions)
    return [BilledLine(*row) for row in db.session.execute(query)]


def rows(owner_id: int, numbers: Ids, found: Sequence[BilledLine]) -> list[Row]:
    """Lines of an integration, or what an API key spent of them, as they are written.

    A reply can have ten thousand lines, so this goes field by field of all that are of one day.
    """
    day_of = stored_days(line.day for line in found)
    made: list[Row] = []
    for day, some in groupby(found, attrgetter("day")):
        _, permaslugs, endpoint_ids, hosts, models, usage, byok, *counts = zip(*map(astuple, some), strict=True)
        names = zip(permaslugs, endpoint_ids, hosts, models, strict=True)
        made += zip(
            repeat(owner_id),
            repeat(day_of[day]),
            map(numbers.series.__getitem__, names),
            map(in_steps, usage),
            [None if amount is None else in_steps(amount) for amount in byok],
            *counts,
        )
    return made


def replace(integration_id: int, numbers: Ids, gone: Sequence[BilledLine], here: Sequence[Row]) -> None:
    """Take lines of an integration away and write others, in the caller's transaction."""
    _replace(Line, "integration_id", integration_id, numbers, gone, here)


def replace_parts(key_id: int, numbers: Ids, gone: Sequence[BilledLine], here: Sequence[Row]) -> None:
    """The same with what an API key of an integration spent."""
    _replace(KeyPart, "key_id", key_id, numbers, gone, here)


def _replace(
    rows: type[Line | KeyPart],
    owner: str,
    owner_id: int,
    numbers: Ids,
    gone: Sequence[BilledLine],
    here: Sequence[Row],
) -> None:
    table = cast(Table, rows.__table__)
    key = (owner, "day", "series_id")
    statement = delete(table).where(*(table.c[column] == bindparam(f"b_{column}") for column in key))
    own = {f"b_{owner}": owner_id}
    series = numbers.series
    execute_many(statement, [own | {"b_day": line.day, "b_series_id": series[name(line)]} for line in gone])
    insert_many(table.name, (*key, *FIGURES), here)


def stored_days(days: Iterable[date]) -> dict[date, Any]:
    """How each of these days is written, for ``insert_many``."""
    return {day: Day().process_bind_param(day, db.engine.dialect) for day in set(days)}


def insert_many(table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows whose values are as the driver takes them: whole numbers, days, or None.

    Through SQLAlchemy's column types, the first ingest of a reply of 1,500 rows took a fifth longer. PostgreSQL takes
    the rows as an array of each column, since one by one they take several times as long.
    """
    if not rows:
        return
    connection = db.session.connection()
    into = f"{table} ({', '.join(columns)})"
    if connection.dialect.name == "sqlite":
        values = f"({', '.join('?' * len(columns))})"
        connection.exec_driver_sql(f"INSERT INTO {into} VALUES {values}", list(rows))  # noqa: S608 - our own names
        return
    types = [db.metadata.tables[table].c[column].type.compile(connection.dialect) for column in columns]
    arrays = ", ".join(f"%s::{one}[]" for one in types)
    columnwise = tuple(_array(column) for column in zip(*rows, strict=True))
    connection.exec_driver_sql(f"INSERT INTO {into} SELECT * FROM unnest({arrays})", columnwise)  # noqa: S608


def _array(values: Iterable[Any]) -> str:
    return f"{{{','.join(['NULL' if one is None else str(one) for one in values])}}}"


@dataclass(frozen=True)
class Ids:
    """The numbers that stand for an integration's names: of its series, and of its models."""

    series: Mapping[Name, int]
    models: Mapping[str, int]


def ids(integration_id: int, found: Iterable[BilledLine]) -> Ids:
    """The numbers of an integration's names, those of these lines among them; what is new is written.

    Two syncs of one integration can't both write them: whoever commits holds the integration's run.
    """
    query = select(Series.id, Series.permaslug, Series.endpoint_id, Series.host, Model.name, Model.id)
    query = query.join(Model, Model.id == Series.model_id).where(Series.integration_id == integration_id)
    series: dict[Name, int] = {}
    models: dict[str, int] = {}
    for series_id, *names, model, model_id in db.session.execute(query):
        series[(*names, model)] = series_id  # type: ignore[index]
        models[model] = model_id
    found = list(found)
    new = sorted(set(map(name, found)) - series.keys())
    if new:
        models |= _new_models(integration_id, _dearest_first(found, {model for *_, model in new} - models.keys()))
        called = {model_id: model for model, model_id in models.items()}
        own = {"integration_id": integration_id}
        rows = [own | dict(zip(NAME[:3], one[:3], strict=True)) | {"model_id": models[one[3]]} for one in new]
        columns = Series.permaslug, Series.endpoint_id, Series.host, Series.model_id, Series.id
        inserted = db.session.connection().execute(insert(cast(Table, Series.__table__)).returning(*columns), rows)
        series |= {(row[0], row[1], row[2], called[row[3]]): row[4] for row in inserted}
    return Ids(series, models)


def _dearest_first(found: Iterable[BilledLine], names: Collection[str]) -> list[str]:
    """Models in the order of what they cost. Charts give models their colours in the order in which they were first
    written, and there are fewer colours than models: those that cost the most should not share one.
    """
    cost = dict.fromkeys(sorted(names), Decimal(0))
    for line in found:
        if line.model in cost:
            cost[line.model] += line.usage_usd
    return sorted(cost, key=lambda one: -cost[one])


def _new_models(integration_id: int, names: Sequence[str]) -> dict[str, int]:
    rows = [{"integration_id": integration_id, "name": one} for one in names]
    if not rows:
        return {}
    statement = insert(cast(Table, Model.__table__)).returning(Model.name, Model.id)
    return {row[0]: row[1] for row in db.session.connection().execute(statement, rows)}


def execute_many(statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Execute a statement once for each of the rows; with no rows, not at all."""
    if rows:
        db.session.connection().execute(statement, list(rows))

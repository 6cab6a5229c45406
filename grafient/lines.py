"""Cost lines in bulk: read with their names, and replaced, for ``ledger`` and ``attribution``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, bindparam, delete, insert, select

from grafient.extensions import db
from grafient.models import CostLine, KeyPart, Line, Model, Series
from grafient.providers import BilledLine

Identity = tuple[date, str, str, str]
Name = tuple[str, str, str, str]

IDENTITY = ("day", "permaslug", "endpoint_id", "host")
NAME = ("permaslug", "endpoint_id", "host", "model")
FIELDS = BilledLine.__struct_fields__
MEASURES = tuple(name for name in FIELDS if name not in IDENTITY)
FIGURES = tuple(name for name in MEASURES if name != "model")


def identity(line: BilledLine) -> Identity:
    """What makes a line the same line in another reply."""
    return line.day, line.permaslug, line.endpoint_id, line.host


def name(line: BilledLine) -> Name:
    """What its series is called."""
    return line.permaslug, line.endpoint_id, line.host, line.model


def stored(integration_id: int, *conditions: ColumnElement[bool]) -> list[BilledLine]:
    """The lines of an integration that are stored."""
    columns = [getattr(CostLine, field) for field in FIELDS]
    query = select(*columns).where(CostLine.integration_id == integration_id, *conditions)
    return [BilledLine(*row) for row in db.session.execute(query)]


def replace(integration_id: int, gone: Iterable[BilledLine], here: Iterable[BilledLine]) -> None:
    """Take lines of an integration away and write others, in the caller's transaction."""
    _replace(Line, {"integration_id": integration_id}, integration_id, gone, here)


def replace_parts(integration_id: int, key_id: int, gone: Iterable[BilledLine], here: Iterable[BilledLine]) -> None:
    """The same with what one of its API keys spent."""
    _replace(KeyPart, {"key_id": key_id}, integration_id, gone, here)


def _replace(
    rows: type[Line | KeyPart],
    own: dict[str, int],
    integration_id: int,
    gone: Iterable[BilledLine],
    here: Iterable[BilledLine],
) -> None:
    gone, here, table = list(gone), list(here), cast(Table, rows.__table__)
    series = series_ids(integration_id, {name(line) for line in (*gone, *here)})
    names = (*own, "day", "series_id")
    statement = delete(table).where(*(table.c[column] == bindparam(f"b_{column}") for column in names))
    old = {f"b_{column}": value for column, value in own.items()}
    execute_many(statement, [old | {"b_day": line.day, "b_series_id": series[name(line)]} for line in gone])
    execute_many(insert(table), [own | {"series_id": series[name(line)]} | _figures(line) for line in here])


def _figures(line: BilledLine) -> dict[str, Any]:
    return {
        "day": line.day,
        "usage_usd": line.usage_usd,
        "byok_usd": line.byok_usd,
        "requests": line.requests,
        "byok_requests": line.byok_requests,
        "prompt_tokens": line.prompt_tokens,
        "completion_tokens": line.completion_tokens,
        "reasoning_tokens": line.reasoning_tokens,
        "cached_tokens": line.cached_tokens,
    }


def series_ids(integration_id: int, names: Collection[Name]) -> dict[Name, int]:
    """The ids of an integration's series by these names; those that are new are written.

    Two syncs of one integration can't both write them: whoever commits holds the integration's run.
    """
    if not names:
        return {}
    query = select(Series.id, Series.permaslug, Series.endpoint_id, Series.host, Model.name)
    query = query.join(Model, Model.id == Series.model_id).where(Series.integration_id == integration_id)
    found: dict[Name, int] = {(row[1], row[2], row[3], row[4]): row[0] for row in db.session.execute(query)}
    new = sorted(set(names) - found.keys())
    if new:
        models = _model_ids(integration_id, {model for *_, model in new})
        own = {"integration_id": integration_id}
        rows = [own | dict(zip(NAME[:3], one[:3], strict=True)) | {"model_id": models[one[3]]} for one in new]
        columns = Series.id, Series.permaslug, Series.endpoint_id, Series.host, Series.model_id
        called = {model_id: model for model, model_id in models.items()}
        for row in db.session.connection().execute(insert(cast(Table, Series.__table__)).returning(*columns), rows):
            found[row[1], row[2], row[3], called[row[4]]] = row[0]
    return found


def _model_ids(integration_id: int, names: Collection[str]) -> dict[str, int]:
    query = select(Model.name, Model.id).where(Model.integration_id == integration_id, Model.name.in_(names))
    found = {row[0]: row[1] for row in db.session.execute(query)}
    rows = [{"integration_id": integration_id, "name": one} for one in sorted(set(names) - found.keys())]
    if rows:
        new = db.session.connection().execute(
            insert(cast(Table, Model.__table__)).returning(Model.name, Model.id), rows
        )
        found |= {row[0]: row[1] for row in new}
    return found


def execute_many(statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Execute a statement once for each of the rows; with no rows, not at all."""
    if rows:
        db.session.connection().execute(statement, list(rows))

"""Cost lines in bulk: read, identified, and replaced, for ``ledger`` and ``attribution``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, select

from grafient.extensions import db
from grafient.models import CostLine, KeyLine
from grafient.providers import BilledLine

Identity = tuple[date, str, str, str]

IDENTITY = ("day", "permaslug", "endpoint_id", "host")
FIELDS = tuple(field.name for field in fields(BilledLine))
MEASURES = tuple(name for name in FIELDS if name not in IDENTITY)


def identity(line: BilledLine) -> Identity:
    """What makes a line the same line in another reply."""
    return line.day, line.permaslug, line.endpoint_id, line.host


def stored(table: type[CostLine | KeyLine], integration_id: int, *conditions: ColumnElement[bool]) -> list[BilledLine]:
    """The lines of an integration in a table."""
    columns = [getattr(table, name) for name in FIELDS]
    query = select(*columns).where(table.integration_id == integration_id, *conditions)
    return [BilledLine(**row._mapping) for row in db.session.execute(query)]


def replace(
    table: type[CostLine | KeyLine],
    integration_id: int,
    gone: Iterable[BilledLine],
    here: Iterable[BilledLine],
    **also: str,
) -> None:
    """Take lines away and write others; ``also`` names what else makes a row of the table, its ``key_hash``."""
    names = (*IDENTITY, *also)
    statement = delete(table.__table__).where(  # type: ignore[arg-type]
        table.integration_id == bindparam("b_integration_id"),
        *(getattr(table, name) == bindparam(f"b_{name}") for name in names),
    )
    own = {f"b_{name}": value for name, value in also.items()} | {"b_integration_id": integration_id}
    execute_many(statement, [{f"b_{name}": getattr(line, name) for name in IDENTITY} | own for line in gone])
    constant: dict[str, Any] = also | {"integration_id": integration_id}
    execute_many(insert(table), [{name: getattr(line, name) for name in FIELDS} | constant for line in here])


def execute_many(statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Execute a statement once for each of the rows; with no rows, not at all."""
    if rows:
        db.session.connection().execute(statement, list(rows))

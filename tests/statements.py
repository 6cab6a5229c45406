"""What the database is asked, to be counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from flask import Flask
from sqlalchemy import event

from grafient.extensions import db


class Statement(NamedTuple):
    """A statement as the driver gets it."""

    text: str
    parameters: Any


@contextmanager
def asked(app: Flask) -> Iterator[list[Statement]]:
    """The statements inside the block, by any thread; without the beginnings of transactions."""
    found: list[Statement] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:
        if not statement.startswith("BEGIN"):
            found.append(Statement(statement, parameters))

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


def scanned(app: Flask, statements: Iterable[Statement]) -> list[str]:
    """The statements for which SQLite would look at all rows of a table; none on PostgreSQL, which isn't asked."""
    found = []
    with app.app_context(), db.engine.connect() as connection:
        for one in statements if db.engine.dialect.name == "sqlite" else ():
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {one.text}", one.parameters).all()
            steps = [row[-1].split() for row in plan]
            if any(step[0] == "SCAN" and step[1] in db.metadata.tables for step in steps):
                found.append(f"{one.text}\n{plan}")
    return found

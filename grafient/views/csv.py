"""Exports as CSV files: see ``grafient.tables``. Each is noted in the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response, stream_with_context
from flask_security import current_user

from grafient import audit, database, tables
from grafient.days import Period
from grafient.reports.sums import Tally
from grafient.states import Action
from grafient.views import sample


def exported(what: str) -> None:
    """Note in the audit log that somebody took a file of this. Apart from the page's transaction, which only reads."""
    audit.note_apart(Action.EXPORTED, current_user.workspace_id, what)


def download(name: str, period: Period | None, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Response:
    """A file of these rows, sent as they come. The name of one of sample data says so."""
    what = f"sample-{name}" if sample.is_shown() else name
    exported(f"{name}, {period.first} to {period.last}" if period else name)
    filename = f"grafient-{what}-{period.first}-{period.last}.csv" if period else f"grafient-{what}.csv"
    return Response(
        stream_with_context(_portions(columns, rows)),
        mimetype="text/csv",
        headers={"Content-Disposition": f"attachment; filename={filename}"},
    )


def _portions(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    database.reading.set(True)  # a stream goes on after its request, and must keep no writer out
    yield from tables.as_csv(columns, (map(_known, row) for row in rows))


def _known(value: Any) -> Any:
    """A sum of which a part is unknown is unknown."""
    if isinstance(value, Tally):
        return value.known if value.complete else None
    return value

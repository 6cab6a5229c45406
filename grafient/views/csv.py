"""Exports as CSV (RFC 4180): exact digits, unknown empty, nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any

from flask import Response, stream_with_context
from flask_security import current_user

from grafient import audit, database
from grafient.days import Period
from grafient.reports.sums import Tally
from grafient.states import Action
from grafient.views import sample

_FORMULA = re.compile(r"(^|[;|\t\r\n][ \"']*)(?=[=+\-@\t\r\n＝＋－＠])")
"""What begins a formula, at the beginning or behind what some spreadsheets take for a separator: where a comma is the
decimal point, Excel reads ``a;=cmd`` as two cells. It takes the full-width signs for the others.
https://owasp.org/www-community/attacks/CSV_Injection"""

_PORTION = 64 * 1024


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
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([_cell(column) for column in columns])
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        if buffer.tell() > _PORTION:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _cell(value: Any) -> str:
    """Exact digits, ISO days, unknown empty, and no text that a spreadsheet would run as a formula."""
    if isinstance(value, Tally):
        value = value.known if value.complete else None
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}" if value else "0"
    if isinstance(value, (int, date)):
        return str(value)
    return _FORMULA.sub(r"\1'", str(value))

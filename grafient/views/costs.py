"""Dashboard, Breakdown, and their exports: one query in the address, shared by all four."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from flask import Blueprint, Response, abort, render_template, request, stream_with_context
from flask.typing import ResponseReturnValue
from flask_security import auth_required, current_user

from grafient import database, periods, reports, status
from grafient.coverage import Query, choices
from grafient.models import UNATTRIBUTED, utc_now
from grafient.periods import Period
from grafient.reports import Tally

blueprint = Blueprint("costs", __name__)

_FILTERS = ("days", "from", "to", "integration", "host", "key", "q", "group", "byok")
NO_KEY = "unattributed"
"""In the address, for what no key explains."""


@blueprint.get("/")
@auth_required("session")
def dashboard() -> ResponseReturnValue:
    """What the period cost."""
    query = _query()
    return render_template(
        "dashboard/index.html",
        dashboard=reports.dashboard(query, _group()),
        backfilling=status.backfilling(query.workspace_id),
        unseen=status.unseen(current_user.id, query.workspace_id),
        query=_args(),
        periods=periods.PERIODS,
        today=utc_now().date(),
    )


@blueprint.get("/breakdown")
@auth_required("session")
def breakdown() -> ResponseReturnValue:
    """The same per model, host or key, sorted and filtered."""
    group = _group()
    sort, descending = _sort(group)
    return render_template(
        "dashboard/breakdown.html",
        breakdown=reports.breakdown(_query(), group, sort, descending),
        query=_args(),
        periods=periods.PERIODS,
        today=utc_now().date(),
        sort=sort,
        direction="desc" if descending else "asc",
        limit=reports.BREAKDOWN_ROWS,
    )


@blueprint.get("/breakdown.csv")
@auth_required("session")
def breakdown_csv() -> ResponseReturnValue:
    """The breakdown's rows, all of them. A figure of which a part is unknown is empty: it is not a total."""
    query, group = _query(), _group()
    found = reports.breakdown(query, group, *_sort(group), limit=None)
    columns = (*((group, "key_hash") if group == "key" else (group,)), *reports.FIGURES, "days_covered", "days_asked")
    covered = [found.coverage.covered, found.coverage.asked]
    cells = (
        [row.name, *([row.id] if group == "key" else []), *(getattr(row, name) for name in reports.FIGURES), *covered]
        for row in found.rows
    )
    return _csv("breakdown", query.period, columns, cells)


@blueprint.get("/ledger.csv")
@auth_required("session")
def ledger_csv() -> ResponseReturnValue:
    """Every cost line of the period, exact."""
    query = _query()
    return _csv("ledger", query.period, reports.LEDGER_COLUMNS, reports.ledger(query))


@blueprint.get("/statement")
@auth_required("session")
def statement() -> ResponseReturnValue:
    """A month, to be printed: by default the last one that is over."""
    today = utc_now().date()
    month = request.args.get("month") or f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"
    period = Period.month(month)
    query = Query(current_user.workspace_id, period, _integration())
    following = period.last + timedelta(days=1)
    return render_template(
        "dashboard/statement.html",
        statement=reports.statement(query),
        keys=reports.keys(query.workspace_id),
        month=month,
        previous=period.first - timedelta(days=1),
        following=following if following <= today else None,
        integration=query.integration_id,
        printed_at=utc_now(),
    )


@blueprint.app_template_filter()
def without(args: Mapping[str, str], *names: str) -> dict[str, str]:
    """An address's filters but for these."""
    return {name: value for name, value in args.items() if name not in names}


def _query() -> Query:
    return Query(
        workspace_id=current_user.workspace_id,
        period=Period.parse(request.args),
        integration_id=_integration(),
        host=_text("host") or None,
        model=_text("q").strip() or None,
        key=_key(),
        byok=request.args.get("byok") == "1",
    )


def _key() -> str | None:
    """An API key's hash, what no key explains, or None for all. One that nobody has simply has no costs."""
    text = _text("key")
    return UNATTRIBUTED if text == NO_KEY else text or None


def _group() -> str:
    group = request.args.get("group") or "model"
    if group not in reports.GROUPS:
        abort(400)
    return group


def _text(name: str) -> str:
    """A filter as it stands in the address; 400 with a NUL in it, which no database has."""
    value = request.args.get(name, "")
    if "\0" in value:
        abort(400)
    return value


def _integration() -> int | None:
    """The integration asked for; 404 where it is not the user's own."""
    text = request.args.get("integration", "")
    if not text:
        return None
    own = {str(choice.id): choice.id for choice in choices(current_user.workspace_id)}
    if text not in own:
        abort(404)
    return own[text]


def _args() -> dict[str, str]:
    """The filters as they stand in the address, for links that keep them."""
    return {name: request.args[name] for name in _FILTERS if request.args.get(name)}


def _sort(group: str) -> tuple[str, bool]:
    sort = request.args.get("sort") or "usage_usd"
    direction = request.args.get("dir") or ("asc" if sort == group else "desc")
    if sort not in (group, *reports.FIGURES) or direction not in ("asc", "desc"):
        abort(400)
    return sort, direction == "desc"


def _csv(name: str, period: Period, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Response:
    filename = f"grafient-{name}-{period.first}-{period.last}.csv"
    return Response(
        stream_with_context(_csv_lines(columns, rows)),
        mimetype="text/csv",
        headers={"Content-Disposition": f"attachment; filename={filename}"},
    )


def _csv_lines(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """RFC 4180, in portions of about 64 KiB."""
    database.reading.set(True)  # a stream goes on after its request, and must keep no writer out
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        if buffer.tell() > 64 * 1024:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _cell(value: Any) -> str:
    """Exact digits, ISO days, unknown empty, and no text that a spreadsheet would run as a formula.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    if isinstance(value, Tally):
        value = value.known if value.complete else None
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}" if value else "0"
    if isinstance(value, (int, date)):
        return str(value)
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text

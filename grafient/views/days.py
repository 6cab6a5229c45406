"""One UTC day over all integrations."""

from __future__ import annotations

from datetime import date

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from grafient import usual
from grafient.days import ONE_DAY, Period
from grafient.models import UNATTRIBUTED, utc_now
from grafient.query import Group, Query, keys_called
from grafient.reports import day as day_report
from grafient.views import addresses
from grafient.views.formats import key_names
from grafient.views.kept import kept

blueprint = Blueprint("days", __name__)

FIRST = date(2000, 1, 1)


@blueprint.get("/days/<day>")
@kept
def show(day: str) -> ResponseReturnValue:
    """What the day cost, and why."""
    found = addresses.day(day)
    query = addresses.query_of(Period(found, found))
    page = day_report.report(query)
    shown = {row.id for row in page.keys.rows} | set(query.keys)
    names = key_names(keys_called(query.workspace_id, shown - {UNATTRIBUTED}))
    filters = {name: value for name, value in addresses.kept().items() if name not in addresses.PERIOD}
    return render_template(
        "days/show.html",
        page=page,
        period=query.period,
        names=names,
        only=_only(query, names),
        filters=filters,
        around=addresses.days_until(found, query.integrations),
        with_byok=query.byok,
        weeks=usual.WEEKS,
        least=usual.LEAST,
        previous=found - ONE_DAY if found > FIRST else None,
        following=found + ONE_DAY if found < utc_now().date() else None,
        here=filters | {"from": day, "to": day},
    )


def _only(query: Query, names: dict[str, str]) -> list[tuple[Group, str]]:
    """What the page is filtered by, but for integrations, which it lists."""
    found = [(Group.MODEL, one) for one in query.models] + [(Group.HOST, one) for one in query.hosts]
    return found + [(Group.KEY, names.get(one, one)) for one in query.keys]

"""Dashboard, Breakdown, statements, and their exports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import auth_required, current_user

from grafient import status
from grafient.days import ONE_DAY
from grafient.models import UNATTRIBUTED, utc_now
from grafient.query import MOST_CHOICES, Group, Query, keys_called
from grafient.reports import breakdown as breakdowns
from grafient.reports import dashboard as dashboards
from grafient.reports import ledger
from grafient.reports import statement as statements
from grafient.reports.breakdown import Breakdown, Row
from grafient.reports.dashboard import Dashboard
from grafient.reports.parts import Choice, Filters
from grafient.reports.sums import Total
from grafient.views import addresses, csv
from grafient.views.formats import key_names
from grafient.views.kept import kept

blueprint = Blueprint("costs", __name__)


@blueprint.before_request
def _by_name() -> ResponseReturnValue | None:
    """Where a filter was named and not chosen, go to the address of what has that name, or let it be chosen."""
    found = addresses.named() if addresses.has_names() and current_user.is_authenticated else None
    if isinstance(found, addresses.Search):
        return render_template("dashboard/choose.html", search=found, endpoint=request.endpoint)
    return None if found is None else redirect(url_for(str(request.endpoint), **dict[str, Any](found)))


@blueprint.get("/")
@kept
def dashboard() -> str:
    """What the period cost."""
    query = addresses.query()
    found = dashboards.report(query, addresses.group(), current_user.id)
    return render_template(
        "dashboard/index.html",
        dashboard=found,
        backfilling=any(row.last_success_at is None for row in found.providers)
        and status.backfilling(query.workspace_id),
        unseen=found.unseen,
        who=next((row.provider_name for row in found.providers), "The provider"),
        labels={row.integration_id: row.label for row in found.providers} if len(found.providers) > 1 else {},
        **_shared("costs.dashboard", query, found, addresses.kept()),
    )


@blueprint.get("/breakdown")
@kept
def breakdown() -> str:
    """The same per model, host or key, sorted and filtered."""
    query, group, kept = addresses.query(), addresses.group(), addresses.kept()
    sort, descending = _sort(group)
    found = breakdowns.report(query, group, sort, descending)
    direction = "desc" if descending else "asc"
    sorted_address = kept if (sort, direction) == ("usage_usd", "desc") else kept | {"sort": sort, "dir": direction}
    return render_template(
        "dashboard/breakdown.html",
        breakdown=found,
        sort=sort,
        direction=direction,
        directions=lambda name: _next_direction(name, group, sort, descending),
        limit=breakdowns.MOST_ROWS,
        filtered=query.is_filtered or query.integration_id is not None,
        **_shared("costs.breakdown", query, found, sorted_address),
    )


@blueprint.get("/breakdown.csv")
@auth_required("session")
def breakdown_csv() -> ResponseReturnValue:
    """The breakdown's rows, all of them. A figure of which a part is unknown is empty: it is not a total."""
    query, group = addresses.query(), addresses.group()
    found = breakdowns.report(query, group, *_sort(group), limit=None)
    names = (group, "key_hash") if group == Group.KEY else (group,)
    covered = found.coverage
    ends = {
        "days_covered": covered.covered,
        "days_asked": covered.asked,
        "integrations_covered": covered.counted,
        "integrations_asked": covered.integrations,
    }
    cells = (
        [row.name, row.id][: len(names)] + [getattr(row, name) for name in breakdowns.FIGURES] + list(ends.values())
        for row in found.rows
    )
    return csv.download("breakdown", query.period, (*names, *breakdowns.FIGURES, *ends), cells)


@blueprint.get("/ledger.csv")
@auth_required("session")
def ledger_csv() -> ResponseReturnValue:
    """Every cost line of the period, exact."""
    query = addresses.query()
    return csv.download("ledger", query.period, ledger.COLUMNS, ledger.rows(query))


@blueprint.get("/statement")
@auth_required("session")
def statement() -> ResponseReturnValue:
    """A month, to be printed: by default the last one that is over."""
    period = addresses.month(request.args.get("month", ""))
    query = Query(current_user.workspace_id, period, addresses.integration())
    found = statements.report(query)
    following = period.last + ONE_DAY
    chosen = [choice for choice in found.integrations if query.integration_id in (None, choice.id)]
    return render_template(
        "dashboard/statement.html",
        statement=found,
        names=key_names(keys_called(query.workspace_id, {total.id for total in found.keys.rows} - {UNATTRIBUTED})),
        most_choices=MOST_CHOICES,
        limit=statements.MOST_ROWS,
        month=f"{period.first:%Y-%m}",
        previous=period.first - ONE_DAY,
        following=following if following <= utc_now().date() else None,
        integration=query.integration_id,
        sole=chosen[0] if len(chosen) == 1 else None,
        labels={choice.id: choice.label for choice in chosen} if len(chosen) > 1 else {},
        linked=_linked(found.integrations),
        here={"from": period.first.isoformat(), "to": period.last.isoformat(), "integration": query.integration_id},
        printed_at=utc_now(),
    )


@blueprint.app_template_filter()
def with_group(args: Mapping[str, str], group: Group) -> dict[str, str]:
    """An address's filters, added up by that; models are what is shown without asking."""
    return dict(args) if group == Group.MODEL else {**args, "group": group}


@blueprint.app_template_filter()
def without(args: Mapping[str, str], *names: str) -> dict[str, str]:
    """An address's filters but for these."""
    return {name: value for name, value in args.items() if name not in names}


def _shared(endpoint: str, query: Query, found: Dashboard | Breakdown, kept: Mapping[str, str]) -> dict[str, Any]:
    """What the templates that both pages include need. ``kept``: all that the address has, its sort included."""
    filters: Filters = found.filters
    names = _key_names(query, found)
    return {
        "endpoint": endpoint,
        "found": found,
        "filters": filters,
        "most_choices": MOST_CHOICES,
        "query": addresses.kept(),
        "kept": kept,
        "lengths": addresses.LENGTHS,
        "period": found.period,
        "coverage": found.coverage,
        "with_byok": query.byok,
        "parted": query.is_filtered,
        "names": names,
        "narrowed": _narrowed(query, filters, names),
        "linked": _linked(filters.integrations),
        "today": utc_now().date(),
        "oldest_in_window": utc_now().date() - timedelta(days=status.WINDOW_DAYS),
    }


def _key_names(query: Query, found: Dashboard | Breakdown) -> dict[str, str]:
    """The names of all API keys; where they are too many to choose from, of those that the page shows."""
    if len(found.filters.keys) <= MOST_CHOICES:
        return key_names(found.filters.keys)
    rows: Sequence[Row | Total] = found.rows if isinstance(found, Breakdown) else found.totals
    shown = {row.id for row in rows} if found.group == Group.KEY else set()
    return key_names(keys_called(query.workspace_id, (shown | {query.key or UNATTRIBUTED}) - {UNATTRIBUTED}))


def _narrowed(query: Query, filters: Filters, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is filtered by, as words and a name that may be empty."""
    parts = [("the integration", one.label) for one in filters.integrations if one.id == query.integration_id]
    if query.host is not None:
        parts.append(("the host", query.host))
    if query.key == UNATTRIBUTED:
        parts.append(("unattributed costs", ""))
    elif query.key is not None:
        parts.append(("the API key", names.get(query.key, query.key)))
    if query.model is not None:
        parts.append(("models containing", f"“{query.model}”"))
    return parts


def _linked(choices: Iterable[Choice]) -> set[int]:
    """The integrations that have pages: those that were not removed."""
    return {choice.id for choice in choices if not choice.removed}


def _next_direction(name: str, group: Group, sort: str, descending: bool) -> str:
    """Which way a click on a column's head sorts: names from A on and figures from the largest, then the other way."""
    if name == sort:
        return "asc" if descending else "desc"
    return "asc" if name == group else "desc"


def _sort(group: Group) -> tuple[str, bool]:
    sort = request.args.get("sort") or "usage_usd"
    direction = request.args.get("dir") or ("asc" if sort == group else "desc")
    if sort not in (group, *breakdowns.FIGURES) or direction not in ("asc", "desc"):
        abort(400)
    return sort, direction == "desc"

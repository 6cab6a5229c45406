"""Dashboard, Breakdown, statements, and their exports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user

from grafient import status
from grafient.days import ONE_DAY, Period
from grafient.models import UNATTRIBUTED, utc_now
from grafient.money import rounded
from grafient.query import MOST_CHOICES, Group, Measure, Query, keys_called
from grafient.reports import breakdown as breakdowns
from grafient.reports import dashboard as dashboards
from grafient.reports import headline as headlines
from grafient.reports import ledger, pivot
from grafient.reports import statement as statements
from grafient.reports.breakdown import Breakdown, Row
from grafient.reports.chart import Step
from grafient.reports.dashboard import Dashboard
from grafient.reports.parts import Choice, Filters
from grafient.reports.pivot import By, Pivot
from grafient.reports.sums import Tally, Total
from grafient.states import Role
from grafient.views import access, addresses, csv
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


@blueprint.before_request
def _without_empty() -> ResponseReturnValue | None:
    """A page's address has no empty parameters, so that one can read it, share it, and have it kept once."""
    found = None if str(request.endpoint).endswith("_csv") else addresses.without_empty()
    return None if found is None else redirect(url_for(str(request.endpoint), **dict[str, Any](found)))


@blueprint.get("/")
@kept
def dashboard() -> ResponseReturnValue:
    """What the period cost."""
    query, wrong = addresses.query_or_latest()
    found = dashboards.report(
        query,
        addresses.group(),
        current_user.id,
        against=addresses.against,
        measure=addresses.measure(),
        step=addresses.step(),
        cumulative=addresses.is_cumulative(),
    )
    page = render_template(
        "dashboard/index.html",
        dashboard=found,
        headline=headlines.report(query, found.integrations),
        measures=list(Measure),
        steps=_steps(found.period),
        backfilling=any(row.last_success_at is None for row in found.providers)
        and status.backfilling(query.workspace_id),
        unseen=found.unseen,
        who=next((row.provider_name for row in found.providers), "The provider"),
        labels={row.integration_id: row.label for row in found.providers} if len(found.providers) > 1 else {},
        **_shared("costs.dashboard", query, found, addresses.kept(), wrong),
    )
    return page, 400 if wrong else 200


def _steps(period: Period) -> list[Step]:
    """What a bar can be of: no more bars than a screen has room for."""
    most = {Step.DAY: 366, Step.WEEK: 7 * 366, Step.MONTH: addresses.MAX_DAYS}
    return [step for step in Step if period.days <= most[step]]


@blueprint.get("/breakdown")
@kept
def breakdown() -> ResponseReturnValue:
    """The same per model, host, key, integration, day, week or month, by one of these or two; sorted and filtered."""
    (query, wrong), group, kept = addresses.query_or_latest(), addresses.rows(), addresses.kept()
    sort, descending = _sort(group)
    found = _breakdown(query, page=addresses.page())
    if found.page > found.pages:
        abort(404)
    direction = "desc" if descending else "asc"
    is_usual = (sort, descending) == _usual_sort(group)
    page = render_template(
        "dashboard/breakdown.html",
        breakdown=found,
        sort=sort,
        direction=direction,
        directions=lambda name: _next_direction(name, group, sort, descending),
        rows_and_columns=[*Group, *Step],
        columns=addresses.columns(),
        most_columns=pivot.MOST_COLUMNS,
        measure=addresses.measure(),
        measures=list(Measure),
        filtered=query.is_filtered or bool(query.integrations or addresses.find()),
        **_shared(
            "costs.breakdown", query, found, kept if is_usual else kept | {"sort": sort, "dir": direction}, wrong
        ),
    )
    return page, 400 if wrong else 200


def _breakdown(query: Query, page: int = 1, limit: int | None = breakdowns.MOST_ROWS) -> Breakdown:
    group = addresses.rows()
    return breakdowns.report(
        query,
        group,
        *_sort(group),
        against=addresses.against,
        columns=addresses.columns(),
        measure=addresses.measure(),
        find=addresses.find(),
        page=page,
        limit=limit,
    )


@blueprint.get("/breakdown.csv")
@access.needs(Role.VIEWER)
def breakdown_csv() -> ResponseReturnValue:
    """The breakdown's rows, all of them. A figure of which a part is unknown is empty: it is not a total."""
    query, group = addresses.query(), addresses.rows()
    found = _breakdown(query, limit=None)
    if found.too_many:
        raise addresses.BadPeriod(f"A table can have up to {pivot.MOST_COLUMNS} columns; this has {found.too_many:,}.")
    ids = {Group.KEY: "key_hash", Group.INTEGRATION: "integration_id"}
    names = (group, *(name for by, name in ids.items() if by == group))
    covered = found.coverage
    ends = {
        "days_covered": covered.covered,
        "days_asked": covered.asked,
        "integrations_covered": covered.counted,
        "integrations_asked": covered.integrations,
    }
    if found.pivot is None:
        figures: Sequence[Any] = breakdowns.FIGURES
        derived: Sequence[str] = breakdowns.DERIVED
        values = ([getattr(row, name) for name in figures] for row in found.rows)
    else:
        figures, derived = (*_heads(found.pivot, _key_names(query, found)), "total"), ()
        zero = Tally(0, True)
        cells = zip(found.pivot.cells, found.pivot.row_totals, strict=True)
        values = ([*(one or zero for one in some), total] for some, total in cells)
    lines = (
        [row.name, row.id][: len(names)]
        + some
        + [*ends.values()]
        + [rounded(one) if (one := getattr(row, name)) is not None else None for name in derived]
        for row, some in zip(found.rows, values, strict=True)
    )
    return csv.download("breakdown", query.period, (*names, *figures, *ends, *derived), lines)


def _heads(found: Pivot, names: Mapping[str, str]) -> list[str]:
    """The columns of a file: days as such, and names as on the page."""
    called = names if found.by == Group.KEY else {}
    return ["others" if one.others else called.get(one.id, one.name or one.id) or "unknown" for one in found.columns]


@blueprint.get("/ledger.csv")
@access.needs(Role.VIEWER)
def ledger_csv() -> ResponseReturnValue:
    """Every cost line of the period, exact."""
    query = ledger.known(addresses.query())
    return csv.download("ledger", query.period, ledger.COLUMNS, ledger.rows(query))


@blueprint.get("/statement")
@access.needs(Role.VIEWER)
def statement() -> ResponseReturnValue:
    """A month, to be printed: by default the last one that is over."""
    period = addresses.month(request.args.get("month", ""))
    query = Query(current_user.workspace_id, period, addresses.integrations())
    found = statements.report(query)
    following = period.last + ONE_DAY
    chosen = [choice for choice in found.integrations if not query.integrations or choice.id in query.integrations]
    return render_template(
        "dashboard/statement.html",
        statement=found,
        names=key_names(keys_called(query.workspace_id, {total.id for total in found.keys.rows} - {UNATTRIBUTED})),
        most_choices=MOST_CHOICES,
        limit=statements.MOST_ROWS,
        month=f"{period.first:%Y-%m}",
        previous=period.first - ONE_DAY,
        following=following if following <= utc_now().date() else None,
        chosen=[str(one) for one in query.integrations],
        sole=chosen[0] if len(chosen) == 1 else None,
        labels={choice.id: choice.label for choice in chosen} if len(chosen) > 1 else {},
        linked=_linked(found.integrations),
        here={"from": period.first.isoformat(), "to": period.last.isoformat(), "integration": query.integrations},
        printed_at=utc_now(),
    )


@blueprint.app_template_filter()
def with_group(args: Mapping[str, Any], group: By) -> dict[str, Any]:
    """An address's filters, added up by that; models are what is shown without asking."""
    return dict(args) if group == Group.MODEL else {**args, "group": group}


@blueprint.app_template_filter()
def without(args: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """An address's filters but for these."""
    return {name: value for name, value in args.items() if name not in names}


@blueprint.app_template_filter()
def only(args: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Of an address's filters these alone."""
    return {name: args[name] for name in names if args.get(name)}


@blueprint.app_template_filter()
def less(args: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    """An address's filters but for one value of one of them."""
    return {**args, name: [one for one in args.get(name, []) if one != value]}


def _shared(
    endpoint: str, query: Query, found: Dashboard | Breakdown, kept: addresses.Address, wrong: str
) -> dict[str, Any]:
    """What the templates that both pages include need. ``kept``: all that the address has, its sort included.

    ``wrong``: what is wrong with the period that was asked for.
    """
    filters: Filters = found.filters
    names = _key_names(query, found)
    return {
        "endpoint": endpoint,
        "found": found,
        "filters": filters,
        "picks": picks(query, filters, names),
        "most_choices": MOST_CHOICES,
        "query": addresses.kept(),
        "kept": kept,
        "lengths": addresses.LENGTHS,
        "named_periods": addresses.NAMED_PERIODS,
        "comparisons": addresses.AGAINST,
        "period": found.period,
        "wrong": wrong,
        "coverage": found.coverage,
        "with_byok": query.byok,
        "parted": query.is_filtered,
        "names": names,
        "linked": _linked(filters.integrations),
        "today": utc_now().date(),
    }


def _key_names(query: Query, found: Dashboard | Breakdown) -> dict[str, str]:
    """The names of all API keys; where they are too many to choose from, of those that the page shows."""
    if len(found.filters.keys) <= MOST_CHOICES:
        return key_names(found.filters.keys)
    rows: Sequence[Row | Total] = found.rows if isinstance(found, Breakdown) else found.totals
    shown = {row.id for row in rows} if found.group == Group.KEY else set()
    if isinstance(found, Breakdown) and found.pivot and found.pivot.by == Group.KEY:
        shown |= {column.id for column in found.pivot.columns}
    return key_names(keys_called(query.workspace_id, (shown | set(query.keys)) - {UNATTRIBUTED}))


@dataclass(frozen=True)
class Pick:
    """One filter: its name in the address and on the page, and what can be chosen, each a value, what it is called, and
    whether it is chosen.

    ``by_name``: there is more to choose from, so that a part of the name is asked for.
    """

    what: str
    label: str
    options: Sequence[tuple[str, str, bool]]
    by_name: bool

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """What is chosen, and what it is called."""
        return [(value, name) for value, name, is_chosen in self.options if is_chosen]


def picks(query: Query, filters: Filters, names: Mapping[str, str]) -> list[Pick]:
    """What a page can be filtered by, where there is a choice or something is chosen."""
    integrations = {str(one.id): f"{one.label}{' (removed)' if one.removed else ''}" for one in filters.integrations}
    hosts, models = ({one: one for one in some if one} for some in (filters.hosts, filters.models))
    asked: tuple[tuple[str, str, Mapping[str, str], Sequence[Any], int], ...] = (
        ("integration", "Integration", integrations, query.integrations, len(integrations)),
        ("model", "Model", models, query.models, len(filters.models)),
        ("host", "Host", hosts, query.hosts, len(filters.hosts)),
        ("key", "API key", names, query.keys, len(filters.keys)),
    )
    found = []
    for what, label, all_, chosen, there_are in asked:
        mine, many = [str(one) for one in chosen], there_are > MOST_CHOICES
        shown = {one: all_.get(one, one) for one in mine} | ({} if many else dict(all_))
        options = [(value or addresses.NO_KEY, name, value in mine) for value, name in shown.items()]
        offered = there_are > 1 or (there_are == 1 and what != "integration")
        if offered or mine:
            found.append(Pick(what, label, options, many))
    return found


def _linked(choices: Iterable[Choice]) -> set[int]:
    """The integrations that have pages: those that were not removed."""
    return {choice.id for choice in choices if not choice.removed}


def _next_direction(name: str, group: By, sort: str, descending: bool) -> str:
    """Which way a click on a column's head sorts: names from A on and figures from the largest, then the other way."""
    if name == sort:
        return "asc" if descending else "desc"
    return "asc" if name == group and isinstance(group, Group) else "desc"


def _usual_sort(group: By) -> tuple[str, bool]:
    """What costs most comes first, and of days the latest."""
    return ("usage_usd" if isinstance(group, Group) else group), True


def _sort(group: By) -> tuple[str, bool]:
    sort = request.args.get("sort") or _usual_sort(group)[0]
    direction = request.args.get("dir") or ("asc" if sort == group and isinstance(group, Group) else "desc")
    if sort not in (group, "tokens", *breakdowns.FIGURES, *breakdowns.DERIVED) or direction not in ("asc", "desc"):
        abort(400)
    return sort, direction == "desc"

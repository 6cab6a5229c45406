"""Why it changed: two periods compared."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from grafient.days import Period
from grafient.models import UNATTRIBUTED
from grafient.query import Group, keys_called
from grafient.reports import changes
from grafient.split import PRICED_BY
from grafient.views import addresses
from grafient.views.addresses import NO_KEY
from grafient.views.formats import key_names
from grafient.views.kept import kept

blueprint = Blueprint("changes", __name__)

_NARROWING = {"integration": "the integration", "host": "the host", "key": "the API key", "model": "the model"}
_FROM_ELSEWHERE = (*addresses.SEVERAL, "q", "byok", "group")
_MOST_NAMED = 3
"""Of each kind of filter; the others are counted."""


@blueprint.before_request
def _with_days() -> ResponseReturnValue | None:
    """A form has a field for each day, and an address one value for both."""
    if not {"against_from", "against_to"} & request.args.keys():
        return None
    first, last = (request.args.get(f"against_{end}", "") for end in ("from", "to"))
    return redirect(url_for("changes.index", **dict[str, Any](addresses.kept(), against=f"{first}/{last}")))


@blueprint.get("/changes")
@kept
def index() -> ResponseReturnValue:
    """What changed between two periods, and why."""
    (query, wrong), group = addresses.query_or_latest(), addresses.group()
    against, wrong_against = addresses.against_or_previous(query.period)
    found = changes.report(query, against, group)
    here = addresses.kept() | {"from": query.period.first.isoformat(), "to": query.period.last.isoformat()}
    chosen = request.args.getlist("key")[:_MOST_NAMED]
    shown = [row.id for row in found.by_group.rows] if found.by_group and group == Group.KEY else []
    names = _key_names(query.workspace_id, {*shown, *chosen})
    shown_otherwise = {"days", "period", *(["against"] if wrong_against else [])}
    page = render_template(
        "changes/index.html",
        endpoint="changes.index",
        found=found,
        kept={name: values for name, values in here.items() if name not in shown_otherwise},
        names=names,
        against=request.args.get("against") or "previous",
        narrowed=_narrowed(names),
        narrowing=(*_NARROWING, "q"),
        with_byok=query.byok,
        priced_by=PRICED_BY,
        linked=found.linked,
        wrong=wrong,
        wrong_against=wrong_against,
    )
    return page, 400 if wrong or wrong_against else 200


@blueprint.app_template_global()
def changes_address(period: Period, before: Period) -> str:
    """This page for two periods, filtered as the page that one comes from."""
    filters: dict[str, Any] = {name: value for name, value in addresses.kept().items() if name in _FROM_ELSEWHERE}
    days = {"from": period.first.isoformat(), "to": period.last.isoformat()}
    return url_for("changes.index", **filters | days, against=f"{before.first.isoformat()}/{before.last.isoformat()}")


def _key_names(workspace_id: int, hashes: Collection[str]) -> dict[str, str]:
    """What to call these API keys."""
    return key_names(keys_called(workspace_id, set(hashes) - {UNATTRIBUTED, NO_KEY}))


def _narrowed(names: dict[str, str]) -> list[tuple[str, str]]:
    """What is filtered by, as words and a name."""
    parts = []
    for what, words in _NARROWING.items():
        values = [*filter(None, request.args.getlist(what))]
        for value in values[:_MOST_NAMED]:
            if what == "key" and value == NO_KEY:
                parts.append(("unattributed costs", ""))
            else:
                parts.append((words, names.get(value, value) if what == "key" else addresses.name_of(what, value)))
        if len(values) > _MOST_NAMED:
            parts.append((f"{len(values) - _MOST_NAMED:,} more", ""))
    if text := request.args.get("q", "").strip():
        parts.append(("models containing", f"“{text}”"))
    return parts

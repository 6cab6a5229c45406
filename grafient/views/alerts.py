"""Alerts: what is so now, budgets, rules, and what was so before; and the links in messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from flask import Blueprint, abort, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user

from grafient import audit, integrations, jobs, members
from grafient.alerts import board, budgets, preview, rules, watch, wording
from grafient.alerts.budgets import Fields
from grafient.alerts.channels import store
from grafient.alerts.preview import Fired
from grafient.alerts.rules import Rule, Setting
from grafient.days import Period
from grafient.extensions import client, db, limiter
from grafient.models import UNATTRIBUTED, Budget, Incident, utc_now
from grafient.query import MOST_CHOICES, Query, all_integrations, keys_called, matching
from grafient.reports import parts
from grafient.states import Action, AlertKind, BudgetPeriod, Role
from grafient.views import access, addresses
from grafient.views.accounts import TRIES
from grafient.views.addresses import NO_KEY
from grafient.views.costs import picks
from grafient.views.formats import key_names
from grafient.views.htmx import is_htmx

blueprint = Blueprint("alerts", __name__, url_prefix="/alerts")

PREVIEWS = "60 per minute"
"""A preview works out 90 days."""

NUMBER = "int(max=2147483647)"
ANY_RULE = f"any({','.join(rules.KINDS)})"


@blueprint.get("")
@access.needs(Role.VIEWER)
def index() -> ResponseReturnValue:
    """Everything about alerts on one page."""
    workspace_id, here, now = current_user.workspace_id, addresses.place(), utc_now()
    past = board.resolved(workspace_id, int(here.get("page", 1)))
    if past.page > past.pages:
        abort(404)
    return render_template(
        "alerts/index.html",
        incidents=board.open_of(workspace_id),
        most_open=board.MOST_OPEN,
        statuses=budgets.statuses(workspace_id, now),
        caps=budgets.caps(workspace_id),
        most_caps=budgets.MOST_CAPS,
        rules=[(rules.KINDS[rule.kind], rule, in_a_sentence(rule)) for rule in rules.of(workspace_id).values()],
        channels=store.listed(workspace_id),
        past=past,
        snoozes=board.SNOOZES[:2],
        now=now,
        **_WORDING,
    )


@blueprint.get(f"/incidents/<{NUMBER}:incident_id>")
@access.needs(Role.VIEWER)
def incident(incident_id: int) -> ResponseReturnValue:
    """All that became of one."""
    found = _owned(incident_id)
    return render_template(
        "alerts/incident.html",
        incident=found,
        events=board.events(found),
        most_events=board.MOST_EVENTS,
        page_about=_page_about(found),
        snoozes=board.SNOOZES,
        now=utc_now(),
        **_WORDING,
    )


@blueprint.post(f"/incidents/<{NUMBER}:incident_id>/acknowledge")
@access.needs(Role.MEMBER)
def acknowledge(incident_id: int) -> ResponseReturnValue:
    """Say that somebody knows."""
    found = _owned(incident_id)
    board.acknowledge(found, current_user.email, utc_now())
    _commit(found.workspace_id)
    flash(f"Acknowledged: {wording.title(found)}.", "success")
    return redirect(_back_to(found), 303)


@blueprint.post(f"/incidents/<{NUMBER}:incident_id>/snooze")
@access.needs(Role.MEMBER)
def snooze(incident_id: int) -> ResponseReturnValue:
    """Hear nothing of it for some days."""
    found, days = _owned(incident_id), _snooze_days()
    board.snooze(found, days, utc_now())
    _commit(found.workspace_id)
    flash(f"Snoozed for {'1 day' if days == 1 else f'{days} days'}: {wording.title(found)}.", "success")
    return redirect(_back_to(found), 303)


@blueprint.get("/answer/<token>")
@access.public
@limiter.limit(TRIES)
def answer(token: str) -> ResponseReturnValue:
    """Where a link in a message leads: what it is about, and what can be said to it. Looking changes nothing: programs
    that look at mail before people do follow every link."""
    found = board.answered(token)
    if found is None:
        return _no_answer()
    return render_template("alerts/answer.html", incident=found[0], token=token, now=utc_now(), **_WORDING)


@blueprint.post("/answer/<token>")
@access.public
@limiter.limit(TRIES)
def give_answer(token: str) -> ResponseReturnValue:
    """Say it."""
    found = board.answered(token)
    if found is None:
        return _no_answer()
    one, channel = found
    who = f"link in channel {channel.name}"
    with audit.acting(who, client()):
        if request.form.get("what") == "acknowledge":
            board.acknowledge(one, who, utc_now())
        else:
            board.snooze(one, _snooze_days(), utc_now())
        _commit(one.workspace_id)
    return redirect(url_for("alerts.answer", token=token), 303)


@blueprint.get("/budgets/new")
@access.needs(Role.MEMBER)
def new_budget() -> ResponseReturnValue:
    """The form, about what the address filters by."""
    asked = request.args.to_dict(flat=False)
    values = _DEFAULTS | {
        name: asked[name] for name in (*budgets.FILTERS, "byok", "period", "amount_usd") if name in asked
    }
    return _budget_form(values)


@blueprint.post("/budgets")
@access.needs(Role.MEMBER)
def create_budget() -> ResponseReturnValue:
    """Set it."""
    values, fields, wrong = _sent_budget()
    if fields is None:
        return _budget_form(values, wrong, code=422)
    try:
        made = budgets.create(current_user.workspace_id, fields)
    except budgets.TooMany:
        db.session.rollback()
        most = f"A workspace can have up to {budgets.MOST_BUDGETS} budgets. Delete one to add another."
        return _budget_form(values, {"": most}, code=409)
    name = made.name
    _commit(current_user.workspace_id)
    flash(f"Budget “{name}” added.", "success")
    return redirect(url_for("alerts.index", _anchor="budgets"), 303)


@blueprint.get(f"/budgets/<{NUMBER}:budget_id>")
@access.needs(Role.MEMBER)
def budget(budget_id: int) -> ResponseReturnValue:
    """The form of one that there is."""
    found = _owned_budget(budget_id)
    return _budget_form(_values_of(found), budget=found)


@blueprint.post(f"/budgets/<{NUMBER}:budget_id>")
@access.needs(Role.MEMBER)
def change_budget(budget_id: int) -> ResponseReturnValue:
    """Set it anew."""
    found = _owned_budget(budget_id)
    values, fields, wrong = _sent_budget()
    if fields is None:
        return _budget_form(values, wrong, budget=found, code=422)
    budgets.change(found, fields)
    _commit(current_user.workspace_id)
    flash(f"Budget “{fields.name}” saved.", "success")
    return redirect(url_for("alerts.index", _anchor="budgets"), 303)


@blueprint.post(f"/budgets/<{NUMBER}:budget_id>/delete")
@access.needs(Role.MEMBER)
def delete_budget(budget_id: int) -> ResponseReturnValue:
    """Delete it."""
    found = _owned_budget(budget_id)
    name = found.name
    budgets.delete(found)
    _commit(current_user.workspace_id)
    flash(f"Budget “{name}” deleted.", "success")
    return redirect(url_for("alerts.index", _anchor="budgets"), 303)


@blueprint.get(f"/rules/<{ANY_RULE}:kind>")
@access.needs(Role.MEMBER)
def rule(kind: str) -> ResponseReturnValue:
    """The settings of a rule."""
    found = rules.of(current_user.workspace_id)[AlertKind(kind)]
    return _rule_form(found.kind, found.is_on, _texts_of(found))


@blueprint.post(f"/rules/<{ANY_RULE}:kind>")
@access.needs(Role.MEMBER)
def change_rule(kind: str) -> ResponseReturnValue:
    """Set them."""
    one, values, is_on = AlertKind(kind), dict(request.form.items()), bool(request.form.get("is_on"))
    found, wrong = rules.parsed(one, values)
    if wrong:
        return _rule_form(one, is_on, values, wrong, code=422)
    members.lock(current_user.workspace_id)
    rules.save(current_user.workspace_id, one, is_on, found, utc_now())
    label = rules.KINDS[one].label
    audit.note(Action.RULE_CHANGED, current_user.workspace_id, f"{label}: {_as_set(one, is_on, found)}")
    _commit(current_user.workspace_id)
    flash(f"“{label}” saved.", "success")
    return redirect(url_for("alerts.index", _anchor="rules"), 303)


@blueprint.post("/preview")
@limiter.limit(PREVIEWS)
@access.needs(Role.MEMBER)
def show_preview() -> ResponseReturnValue:
    """What would have been said, had a form been saved before the last weeks. Nothing is stored."""
    kind = request.form.get("kind", "")
    if kind not in preview.PREVIEWED:
        abort(400)
    fired: list[Fired] | None = None
    if kind == AlertKind.BUDGET:
        values, fields, wrong = _sent_budget()
        if fields is not None:
            fired = preview.of_budget(current_user.workspace_id, fields)
        number = request.form.get("budget", "")
        known = _owned_budget(int(number)) if number.isascii() and number.isdigit() and len(number) < 10 else None
        if not is_htmx():
            return _budget_form(values, wrong, budget=known, fired=fired, code=422 if wrong else 200)
    else:
        one, sent = AlertKind(kind), dict(request.form.items())
        found, wrong = rules.parsed(one, sent)
        if not wrong:
            fired = preview.of(current_user.workspace_id, one, found)
        if not is_htmx():
            return _rule_form(one, bool(sent.get("is_on")), sent, wrong, fired=fired, code=422 if wrong else 200)
    left_out = preview.leaves_out(current_user.workspace_id, AlertKind(kind))
    html = render_template("alerts/_preview.html", fired=fired, wrong=wrong, left_out=left_out, **_PREVIEW)
    response = make_response(html)
    response.vary.add("HX-Request")
    return response


_WORDING = {"title_of": wording.title, "lines_of": wording.lines, "kind_name": wording.kind_name}
_PREVIEW = {"preview_days": preview.DAYS, "most_fired": preview.MOST_FIRED}
_DEFAULTS: dict[str, list[str]] = {
    "name": [""],
    "amount_usd": [""],
    "period": [BudgetPeriod.MONTH],
    "actual": [", ".join(map(str, budgets.ACTUAL))],
    "forecast": [", ".join(map(str, budgets.FORECAST))],
}


def in_a_sentence(rule: Rule) -> str:
    """The settings of a rule, such as ``At least $1 and 30% more``."""
    kind = rules.KINDS[rule.kind]
    if kind.sentence:
        words = {one.name: _in_words(one, rule.settings[one.name]) for one in kind.settings}
        return kind.sentence.format(**words)
    found = [text for one in kind.settings if (text := _said(one, rule.settings[one.name]))]
    return ", ".join([*found[:1], *(_lower(text) for text in found[1:])])


def _in_words(one: Setting, value: Any) -> str:
    if one.unit == "usd":
        return rules.in_words(value)
    return f"{value}%" if one.unit == "percent" else str(value)


def _said(one: Setting, value: Any) -> str:
    if value is None or value is False:
        return ""
    if one.unit == "yes":
        return one.label
    if one.unit == "usd":
        return f"{one.label} {rules.in_words(value)}"
    unit = {"percent": "%", "days": "", "hours": " hours", "minutes": " minutes"}[one.unit]
    between = ": " if one.label.startswith("Days") else " "
    return f"{one.label}{between}{value:,}{unit}"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _as_set(kind: AlertKind, is_on: bool, settings: Mapping[str, Any]) -> str:
    said = in_a_sentence(Rule(kind, is_on, settings))
    return f"{'on' if is_on else 'off'}{f', {_lower(said)}' if said else ''}"


def _owned(incident_id: int) -> Incident:
    found = board.owned(current_user.workspace_id, incident_id)
    return abort(404) if found is None else found


def _owned_budget(budget_id: int) -> Budget:
    found = budgets.owned(current_user.workspace_id, budget_id)
    return abort(404) if found is None else found


def _snooze_days() -> int:
    days = request.form.get("days", "")
    return int(days) if days in map(str, board.SNOOZES) else abort(400)


def _commit(workspace_id: int) -> None:
    """Commit, and have the workspace looked at anew."""
    watch.look_again(workspace_id)
    db.session.commit()
    jobs.wake()


def _back_to(found: Incident) -> str:
    if request.form.get("back") == "incident":
        return url_for("alerts.incident", incident_id=found.id)
    return url_for("alerts.index")


def _no_answer() -> ResponseReturnValue:
    return render_template("alerts/answer.html", incident=None), 404


def _page_about(found: Incident) -> tuple[str, str] | None:
    """Where the figures behind an incident are: an address, and what is there."""
    if found.budget_id is not None:
        return url_for("alerts.index", _anchor=f"budget-{found.budget_id}"), "The budget"
    if found.integration_id is None or not integrations.find(found.workspace_id, found.integration_id):
        return None
    return wording.path(found.kind, found.facts, found.integration_id), _ABOUT.get(found.kind, "The integration")


_ABOUT = {
    AlertKind.UNUSUAL_DAY: "What that day cost",
    AlertKind.TODAY: "What that day cost",
    AlertKind.NEW: "What it cost",
    AlertKind.RESTATED: "The month's statement",
}


def _values_of(found: Budget) -> dict[str, list[str]]:
    """A budget as its form has it."""
    values = {name: [str(one) or NO_KEY for one in found.filters.get(name, ())] for name in budgets.FILTERS}
    return values | {
        "name": [found.name],
        "amount_usd": [rules.in_words(found.amount_usd).removeprefix("$")],
        "period": [found.period],
        "actual": [", ".join(map(str, found.actual))],
        "forecast": [", ".join(map(str, found.forecast))],
        "byok": ["1"] if found.byok else [],
    }


def _sent_budget() -> tuple[dict[str, list[str]], Fields | None, dict[str, str]]:
    """What was sent, with what was named in place of being chosen; what can be set of it; and what is wrong."""
    values = request.form.to_dict(flat=False)
    unnamed: dict[str, str] = {}
    for what in budgets.FILTERS:
        text = next(iter(values.pop(f"{what}_name", ())), "").strip()
        if text and "\0" not in text:
            matches, found = matching(current_user.workspace_id, what, text.removesuffix(" (deleted)"))
            if found == 1:
                values[what] = [*values.get(what, ()), matches[0].value or NO_KEY]
            else:
                unnamed[what] = _not_one(what, text, [one.name for one in matches], found)
    sent = values | {"key": [UNATTRIBUTED if one == NO_KEY else one for one in values.get("key", ())]}
    fields, wrong = budgets.parsed(current_user.workspace_id, sent)
    return values, None if unnamed else fields, wrong | unnamed


def _not_one(what: str, text: str, names: Sequence[str], found: int) -> str:
    called = {"key": "API key"}.get(what, what)
    if not found:
        return f"No {called} has “{text[:100]}” in its name."
    listed = ", ".join(names[:5]) + (", …" if found > 5 else "")
    return f"{found:,} {called}s have “{text[:100]}” in their names: {listed}. Enter all of one name."


def _budget_form(
    values: Mapping[str, Sequence[str]],
    wrong: Mapping[str, str] | None = None,
    *,
    budget: Budget | None = None,
    fired: Sequence[Fired] | None = None,
    code: int = 200,
) -> ResponseReturnValue:
    workspace_id = current_user.workspace_id
    query = Query(
        workspace_id,
        Period.latest(30, utc_now()),
        integrations=tuple(int(one) for one in values.get("integration", ()) if one.isascii() and one.isdigit()),
        models=tuple(values.get("model", ())),
        hosts=tuple(values.get("host", ())),
        keys=tuple(UNATTRIBUTED if one == NO_KEY else one for one in values.get("key", ())),
    )
    choices = parts.filters(Query(workspace_id, query.period), all_integrations(workspace_id))
    hashes = set(query.keys) - {UNATTRIBUTED}
    keys = choices.keys if len(choices.keys) <= MOST_CHOICES else keys_called(workspace_id, hashes)
    return (
        render_template(
            "alerts/budget.html",
            values={name: next(iter(some), "") for name, some in values.items()},
            wrong=wrong or {},
            picks=picks(query, choices, key_names(keys)),
            periods=list(BudgetPeriod),
            budget=budget,
            fired=fired,
            left_out=[],
            **_PREVIEW,
        ),
        code,
    )


def _texts_of(found: Rule) -> dict[str, str]:
    """The settings of a rule as its form has them."""
    texts = {}
    for name, value in found.settings.items():
        if isinstance(value, Decimal):
            texts[name] = rules.in_words(value).removeprefix("$")
        else:
            texts[name] = "" if value is None or value is False else "1" if value is True else str(value)
    return texts


def _rule_form(
    kind: AlertKind,
    is_on: bool,
    values: Mapping[str, str],
    wrong: Mapping[str, str] | None = None,
    *,
    fired: Sequence[Fired] | None = None,
    code: int = 200,
) -> ResponseReturnValue:
    return (
        render_template(
            "alerts/rule.html",
            rule=rules.KINDS[kind],
            is_on=is_on,
            values=values,
            wrong=wrong or {},
            is_previewed=kind in preview.PREVIEWED,
            fired=fired,
            left_out=preview.leaves_out(current_user.workspace_id, kind) if fired is not None else [],
            **_PREVIEW,
        ),
        code,
    )

"""Integrations: the cards, Add Integration with its test, and what can be done with one."""

from __future__ import annotations

from datetime import timedelta
from functools import wraps
from typing import Any

from flask import (
    Blueprint,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    send_file,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_security import current_user
from flask_wtf import FlaskForm
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from grafient import disk, evidence, integrations, jobs, status
from grafient.extensions import limiter, providers, settings
from grafient.forms import IntegrationForm, RemoveForm, RenameForm, ReplaceKeyForm
from grafient.integrations import AlreadyConnected, Preview
from grafient.members import Refused
from grafient.models import UNATTRIBUTED, Integration, utc_now
from grafient.providers import PROVIDERS, KeyRejected, ProviderError
from grafient.query import keys_called
from grafient.reports import integration_day
from grafient.restatements import mark_restatements_seen
from grafient.states import Role
from grafient.views import access, addresses, csv
from grafient.views.formats import key_names
from grafient.views.htmx import answer, is_htmx

blueprint = Blueprint("integrations", __name__, url_prefix="/integrations")

CHECKS = "30 per minute"
"""A check keeps a thread for up to 20 seconds.

The limit stands above the sign-in, because it asks Redis: who is signed in is read from the database, and that begins a
transaction which would keep SQLite's other writers waiting for a Redis that does not answer.
"""


def owned(view: Any) -> Any:
    """Pass the integration of the address, or 404 where it is not the user's own, or is gone when the view is done.

    Checking a key takes seconds, with no transaction open. Where another tab removed the integration and its costs
    meanwhile, the answer was an error of ours; on PostgreSQL that happened to every form, within a smaller moment.
    """

    @wraps(view)
    def wrapped(integration_id: int, **kwargs: Any) -> ResponseReturnValue:
        workspace_id = current_user.workspace_id
        integration = integrations.find(workspace_id, integration_id)
        if integration is None:
            abort(404)
        try:
            answered: ResponseReturnValue = view(integration, **kwargs)
        except (ObjectDeletedError, StaleDataError, IntegrityError):
            access.ask_anew()
            if integrations.find(workspace_id, integration_id) is not None:
                raise
            abort(404)
        return answered

    return wrapped


@blueprint.get("")
@access.needs(Role.VIEWER)
def index() -> ResponseReturnValue:
    """The cards, some at a time."""
    here = addresses.place()
    found = status.cards(current_user.workspace_id, int(here.get("page", "1")), here.get("q", ""))
    return render_template("integrations/index.html", found=found, here=here)


@blueprint.get("/cards")
@access.needs(Role.VIEWER)
def watch() -> ResponseReturnValue:
    """The cards of a list that something can happen to, all at once: asking for each took 50 requests every 2 seconds.

    404 where one is gone, so that the list is loaded anew.
    """
    ids = {number for number in request.args.getlist("id", type=int) if 0 < number <= 2147483647}
    if len(ids) > status.CARDS_A_PAGE:
        abort(400)
    cards = status.some_cards(current_user.workspace_id, sorted(ids))
    if len(cards) < len(ids):
        abort(404)
    return render_template("integrations/_watch.html", cards=cards, again=True)


@blueprint.get("/new")
@access.needs(Role.ADMIN)
def new() -> ResponseReturnValue:
    """The form."""
    return _form_page(IntegrationForm())


@blueprint.post("/test")
@limiter.limit(CHECKS)
@access.needs(Role.ADMIN)
def test() -> ResponseReturnValue:
    """Test Connection: what the provider says of the key. Nothing is stored."""
    form = IntegrationForm()
    result = _tested(form) if form.validate() else _wrong_input(form)
    code = 200 if result["ok"] else 422
    if not is_htmx():
        return _form_page(form, code, result=result)
    response = make_response(render_template("integrations/_test_result.html", result=result), code)
    response.vary.add("HX-Request")
    return response


@blueprint.post("")
@limiter.limit(CHECKS)
@access.needs(Role.ADMIN)
def create() -> ResponseReturnValue:
    """Check the key again, save it, start the backfill."""
    form = IntegrationForm()
    if not form.validate():
        return _form_page(form, 422)
    try:
        integration = integrations.connect(
            current_user.workspace_id,
            form.provider.data,
            form.label.data or "",
            form.api_key.data,
            twice=form.twice.data,
        )
    except ProviderError as error:
        return _form_page(form, 422, result=_failed(form, error))
    except AlreadyConnected as error:
        form.twice_offered = True
        return _form_page(form, 422, error=str(error))
    except Refused as error:
        return _form_page(form, 422, error=str(error))
    jobs.wake()
    flash(f"“{integration.label}” is connected. Its history is being read.", "success")
    return answer(None, url_for(".index"))


@blueprint.get("/<int(max=2147483647):integration_id>")
@access.needs(Role.VIEWER)
@owned
def show(integration: Integration) -> ResponseReturnValue:
    """One integration. Whoever opens it has seen what changed; a page that is open renews itself, perhaps unseen."""
    page = _page(integration)
    if not is_htmx():
        with disk.tolerated():
            mark_restatements_seen(current_user.id, integration.id)
    return page


@blueprint.get("/<int(max=2147483647):integration_id>/days/<day>")
@access.needs(Role.VIEWER)
@owned
def day(integration: Integration, day: str) -> ResponseReturnValue:
    """One of its days, line by line."""
    found = addresses.day(day)
    today, provider = utc_now().date(), providers[integration.provider]
    page = integration_day.report(integration, found)
    return render_template(
        "integrations/day.html",
        integration=integration,
        page=page,
        names=key_names(keys_called(integration.workspace_id, {row.id for row in page.by_key.rows} - {UNATTRIBUTED})),
        around=addresses.days_until(found, [integration.id]),
        who=provider.name,
        window_days=provider.window_days,
        in_window=(today - found).days <= provider.window_days,
        today=today,
        previous=found - timedelta(days=1) if found > today - timedelta(days=366) else None,
        following=found + timedelta(days=1) if found < today else None,
    )


@blueprint.get("/<int(max=2147483647):integration_id>/card")
@access.needs(Role.VIEWER)
@owned
def card(integration: Integration) -> ResponseReturnValue:
    """Its card."""
    return render_template("integrations/_card.html", card=status.card(integration))


_ACTIONS = {"sync": integrations.force_sync, "pause": integrations.pause, "resume": integrations.resume}


@blueprint.post("/<int(max=2147483647):integration_id>/<any(sync, pause, resume):action>")
@access.needs(Role.ADMIN)
@owned
def act(integration: Integration, action: str) -> ResponseReturnValue:
    """Force Sync; no daily syncs for a time; daily syncs again, and one now."""
    _ACTIONS[action](integration)
    if action != "pause":
        jobs.wake()
    html = render_template("integrations/_card.html", card=status.card(integration)) if is_htmx() else None
    return answer(html, url_for(".index", **addresses.place()))


@blueprint.post("/<int(max=2147483647):integration_id>/rename")
@access.needs(Role.ADMIN)
@owned
def rename(integration: Integration) -> ResponseReturnValue:
    """Another label; addresses and history stay."""
    form = RenameForm()
    if not form.validate():
        return _page(integration, 422, rename_form=form)
    integrations.rename(integration, form.label.data)
    flash(f"The integration is called “{integration.label}” now.", "success")
    return redirect(url_for(".show", integration_id=integration.id), 303)


@blueprint.get("/<int(max=2147483647):integration_id>/<any(key, rename, delete):form>")
@access.needs(Role.VIEWER)
def sent(integration_id: int, form: str) -> ResponseReturnValue:
    """Where a form was refused, its address stays in the browser and can be entered again."""
    return redirect(url_for(".show", integration_id=integration_id, _anchor=form))


@blueprint.post("/<int(max=2147483647):integration_id>/key")
@limiter.limit(CHECKS)
@access.needs(Role.ADMIN, recent=True)
@owned
def replace_key(integration: Integration) -> ResponseReturnValue:
    """Another key; the history stays."""
    form = ReplaceKeyForm()
    if not form.validate():
        return _page(integration, 422, key_form=form)
    integration_id = integration.id
    try:
        integrations.replace_key(integration, form.api_key.data)
    except (ProviderError, Refused) as error:
        form.api_key.errors = [str(error)]
        return _page(integration, 422, key_form=form)
    jobs.wake()
    flash("The new key works. A sync is running.", "success")
    return redirect(url_for(".show", integration_id=integration_id), 303)


@blueprint.post("/<int(max=2147483647):integration_id>/delete")
@access.needs(Role.ADMIN, recent=True)
@owned
def delete(integration: Integration) -> ResponseReturnValue:
    """Remove it, with or without its history."""
    form = RemoveForm()
    if not form.validate():
        return _page(integration, 422, delete_form=form)
    label, keep = integration.label, form.history.data == "keep"
    integrations.remove(integration, keep_history=keep)
    flash(f"“{label}” was removed. Its costs were {'kept' if keep else 'deleted'}.", "success")
    return answer(None, url_for(".index"))


@blueprint.get("/<int(max=2147483647):integration_id>/runs/<int(max=2147483647):run_id>/replies.zip")
@access.needs(Role.VIEWER)
@owned
def replies(integration: Integration, run_id: int) -> ResponseReturnValue:
    """What the provider answered in a run, as it came."""
    file = evidence.archive(integration.id, run_id)
    if file is None:
        abort(404)
    csv.exported(f"replies of sync {run_id} of {integration.label}")
    return send_file(file, "application/zip", as_attachment=True, download_name=f"grafient-sync-{run_id}-replies.zip")


def _page(integration: Integration, code: int = 200, **forms: FlaskForm) -> ResponseReturnValue:
    """Its page; ``forms``: the one that was sent, under the name that the template has for it."""
    page = status.integration_page(integration)
    others = {
        "rename_form": RenameForm(formdata=None, label=integration.label),
        "key_form": ReplaceKeyForm(formdata=None),
        "delete_form": RemoveForm(formdata=None),
    }
    html = render_template(
        "integrations/show.html",
        page=page,
        key_name=providers[integration.provider].key_name,
        reply_days=settings.raw_reply_days,
        limit=status.HISTORY_ROWS,
        **{**others, **forms},
    )
    return html, code


def _form_page(
    form: IntegrationForm, code: int = 200, result: dict[str, Any] | None = None, error: str | None = None
) -> ResponseReturnValue:
    html = render_template(
        "integrations/new.html",
        form=form,
        result=result,
        error=error,
        providers=[providers[slug] for slug in PROVIDERS],
    )
    return html, code, {"Vary": "HX-Request"}


def _tested(form: IntegrationForm) -> dict[str, Any]:
    try:
        found = integrations.preview(form.provider.data, form.api_key.data)
    except ProviderError as error:
        return _failed(form, error)
    return _result(form, found=found)


def _failed(form: IntegrationForm, error: ProviderError) -> dict[str, Any]:
    return _result(form, message=str(error), offer_key_link=isinstance(error, KeyRejected))


def _wrong_input(form: IntegrationForm) -> dict[str, Any]:
    return _result(form, message=" ".join(str(error) for errors in form.errors.values() for error in errors))


def _result(
    form: IntegrationForm, found: Preview | None = None, message: str = "", offer_key_link: bool = False
) -> dict[str, Any]:
    """What the result of a connection test shows; it is good if the provider described the key."""
    provider = providers.get(form.provider.data) or next(iter(providers.values()))
    return {
        "ok": found is not None,
        "found": found,
        "provider": provider,
        "message": message,
        "offer_key_link": offer_key_link,
    }

"""Your data: take everything along, delete the workspace, delete the account."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flask import (
    Blueprint,
    Response,
    current_app,
    flash,
    redirect,
    render_template,
    session,
    stream_with_context,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_security import current_user

from grafient import archive, audit, database, leaving
from grafient.extensions import db, limiter, settings
from grafient.forms import TypedForm
from grafient.leaving import Mistyped
from grafient.members import Refused
from grafient.models import utc_now
from grafient.states import Action, Role
from grafient.views import access, sample

blueprint = Blueprint("leaving", __name__, url_prefix="/account/data")

DOWNLOADS = "4 per minute; 30 per hour"
"""From one address. Each keeps one of the server's threads for as long as it takes."""
SECONDS = 3.0
"""How long a request goes on deleting what is left of a workspace; ticks do the rest."""


@blueprint.get("")
@access.signed_in
def index() -> ResponseReturnValue:
    """What one can take along, and delete."""
    return _page()


@blueprint.get("/<any(download, workspace, account):form>")
@access.signed_in
def sent(form: str) -> ResponseReturnValue:
    """Where a form was sent to, for who had to say who they are in between."""
    return redirect(url_for(".index", _anchor=form))


@blueprint.post("/download")
@limiter.limit(DOWNLOADS)
@access.needs(Role.OWNER, recent=True)
def download() -> ResponseReturnValue:
    """Everything of the workspace, sent as it is made. Only a form of ours can ask for it: what it takes is noted."""
    workspace_id, what = current_user.workspace_id, "sample-workspace" if sample.is_shown() else "workspace"
    audit.note(Action.EXPORTED, workspace_id, "everything")
    db.session.commit()
    return Response(
        stream_with_context(_portions(workspace_id)),
        mimetype="application/zip",
        headers={"Content-Disposition": f"attachment; filename=grafient-{what}-{utc_now():%Y-%m-%d}.zip"},
    )


def _portions(workspace_id: int) -> Iterator[bytes]:
    database.reading.set(True)  # a stream goes on after its request, and must keep no writer out
    yield from archive.packed(workspace_id, current_app.extensions["version"])


@blueprint.post("/workspace")
@access.needs(Role.OWNER, recent=True)
def workspace() -> ResponseReturnValue:
    """Delete the workspace that one is looking at."""
    form, workspace_id = TypedForm(prefix="workspace"), current_user.workspace_id
    refused = _refused(form, lambda: leaving.delete_workspace(workspace_id, form.typed.data or ""))
    if refused is not None:
        return refused
    leaving.finish(SECONDS)
    flash("The workspace was deleted, with everything in it.", "success")
    return redirect(url_for("accounts.index"), 303)


@blueprint.post("/account")
@access.needs(None, recent=True)
def account() -> ResponseReturnValue:
    """Delete the account of who is signed in, and sign them out of what is no longer there."""
    form, user_id = TypedForm(prefix="account"), current_user.id
    deleted = _refused(form, lambda: leaving.delete_account(user_id, form.typed.data or "", settings.operators))
    if deleted is not None:
        return deleted
    session.clear()
    leaving.finish(SECONDS)
    flash("Your account was deleted.", "success")
    return redirect(url_for("security.login"), 303)


def _refused(form: TypedForm, delete: Callable[[], None]) -> ResponseReturnValue | None:
    """The page that says why nothing was deleted; None if something was."""
    if not form.validate():
        return _page(form, 422)
    try:
        delete()
    except Mistyped as wrong:
        db.session.rollback()
        form.typed.errors = [str(wrong)]
        return _page(form, 422)
    except Refused:
        db.session.rollback()
        return _page(code=409)  # which says why
    return None


def _page(sent: TypedForm | None = None, code: int = 200) -> ResponseReturnValue:
    """``sent``: the form that was refused."""
    forms = {name: TypedForm(formdata=None, prefix=name) for name in ("workspace", "account")}
    if sent is not None:
        forms[sent._prefix.rstrip("-")] = sent
    places = leaving.places(current_user.id)
    here = current_user.workspace_id if access.may(Role.OWNER) else None
    return render_template(
        "accounts/data.html",
        goes=None if here is None else leaving.what_goes(here, current_user.id),
        alone=[place for place in places if place.goes],
        refusal=leaving.refusal(current_user, places, settings.operators),
        word=leaving.WORD,
        reply_days=settings.raw_reply_days,
        workspace_form=forms["workspace"],
        account_form=forms["account"],
    ), code

"""Members: who belongs to the workspace, invitations, and which workspace one is looking at."""

from __future__ import annotations

from collections.abc import Callable

from flask import (
    Blueprint,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_security import current_user

from grafient import jobs, mail, members
from grafient.extensions import db, limiter
from grafient.forms import InvitationForm, WorkspaceForm
from grafient.members import Refused
from grafient.plans import PLANS
from grafient.states import Letter, Role
from grafient.views import access
from grafient.views.accounts import TRIES

blueprint = Blueprint("members", __name__)


@blueprint.get("/account/members")
@access.needs(Role.VIEWER)
def index() -> ResponseReturnValue:
    """Who is in, and for owners what they can do about it."""
    return _page(InvitationForm())


@blueprint.post("/account/members/invite")
@access.needs(Role.OWNER)
def invite() -> ResponseReturnValue:
    """Send an invitation by mail, or make a link, which is shown once."""
    form = InvitationForm()
    if not form.validate_on_submit():
        return _page(form, 422)
    try:
        invitation, token = members.invite(
            current_user.workspace_id, Role(form.role.data), form.note.data or "", form.email.data or ""
        )
    except Refused as refused:
        return _page(form, 422, refused=str(refused))
    if invitation.email:
        mail.post(Letter.INVITATION, invitation.email, invitation)
    db.session.commit()
    if invitation.email:
        jobs.wake()
        flash(f"The invitation is on its way to {invitation.email}.", "success")
        return redirect(url_for("members.index"), 303)
    link = url_for("members.invitation", token=token, _external=True)
    response = make_response(_page(InvitationForm(formdata=None), link=link))
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.post("/account/members/invitations/<int(max=2147483647):invitation_id>/delete")
@access.needs(Role.OWNER)
def take_back(invitation_id: int) -> ResponseReturnValue:
    """Make an invitation worthless."""
    members.take_back(current_user.workspace_id, invitation_id)
    flash("The invitation no longer works.", "success")
    return redirect(url_for("members.index"), 303)


@blueprint.post("/account/members/<int(max=2147483647):user_id>/role")
@access.needs(Role.OWNER, recent=True)
def set_role(user_id: int) -> ResponseReturnValue:
    """Give a member another role."""
    if request.form.get("role") not in list(Role):
        abort(400)
    return _done(
        lambda: members.set_role(current_user.workspace_id, user_id, Role(request.form["role"])), "Role changed."
    )


@blueprint.post("/account/members/<int(max=2147483647):user_id>/remove")
@access.needs(Role.OWNER, recent=True)
def remove(user_id: int) -> ResponseReturnValue:
    """Take a member out."""
    return _done(lambda: members.remove(current_user.workspace_id, user_id), "The member was removed.")


@blueprint.post("/account/leave")
@access.needs(Role.VIEWER, recent=True)
def leave() -> ResponseReturnValue:
    """Leave the workspace oneself."""
    return _done(lambda: members.remove(current_user.workspace_id, current_user.id), "You have left the workspace.")


@blueprint.get("/account/members/<int(max=2147483647):user_id>/<any(role, remove):form>")
@blueprint.get("/account/leave", defaults={"user_id": 0, "form": "leave"})
@access.needs(Role.VIEWER)
def sent(user_id: int, form: str) -> ResponseReturnValue:
    """Where a form was sent to, for who had to say who they are in between."""
    return redirect(url_for("members.index"))


@blueprint.post("/account/workspace")
@access.needs(Role.OWNER)
def rename() -> ResponseReturnValue:
    """Call the workspace something."""
    form = WorkspaceForm()
    if not form.validate_on_submit():
        return _page(InvitationForm(formdata=None), 422, naming=form)
    members.rename(current_user.workspace_id, form.name.data or "")
    flash("Name saved.", "success")
    return redirect(url_for("members.index"), 303)


@blueprint.post("/account/workspaces/<int(max=2147483647):workspace_id>")
@access.signed_in
def switch(workspace_id: int) -> ResponseReturnValue:
    """Look at another of one's workspaces."""
    if not members.switch(current_user, workspace_id):
        abort(404)
    return redirect(url_for("costs.dashboard"), 303)


@blueprint.get("/invitations/<token>")
@access.public
@limiter.limit(TRIES)
def invitation(token: str) -> ResponseReturnValue:
    """What one is invited to; who has no account may make one with it, whatever the policy."""
    found = members.invited(token)
    if found is None:
        return make_response(render_template("accounts/invitation.html", invitation=None), 404)
    if not current_user.is_authenticated:
        session["invitation"] = token
    return render_template("accounts/invitation.html", invitation=found[0], workspace=found[1], token=token)


@blueprint.post("/invitations/<token>")
@access.signed_in
def accept(token: str) -> ResponseReturnValue:
    """Come in."""
    if not members.accept(token, current_user):
        return make_response(render_template("accounts/invitation.html", invitation=None), 404)
    db.session.commit()
    session.pop("invitation", None)
    return redirect(url_for("costs.dashboard"), 303)


def _done(change: Callable[[], None], said: str) -> ResponseReturnValue:
    try:
        change()
    except Refused as refused:
        db.session.rollback()
        return _page(InvitationForm(formdata=None), 409, refused=str(refused))
    flash(said, "success")
    return redirect(url_for("members.index"), 303)


def _page(
    form: InvitationForm,
    code: int = 200,
    *,
    naming: WorkspaceForm | None = None,
    refused: str = "",
    link: str = "",
) -> ResponseReturnValue:
    here = current_user.workspace_id
    workspace = current_user.workspace
    return render_template(
        "accounts/members.html",
        members=members.of(here),
        invitations=members.invitations(here) if access.may(Role.OWNER) else [],
        letters=mail.of_invitations(here) if access.may(Role.OWNER) else {},
        can_be_sent=mail.can_be_sent(),
        plan=PLANS[workspace.plan],
        form=form,
        naming=naming or WorkspaceForm(formdata=None, name=workspace.name),
        roles=list(Role),
        refused=refused,
        link=link,
        own_id=current_user.id,
    ), code

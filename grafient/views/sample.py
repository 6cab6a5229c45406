"""Sample data: look around with it while nothing is connected, and remove it."""

from __future__ import annotations

from flask import Blueprint, flash, g, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user

from grafient import integrations, jobs
from grafient.members import Refused
from grafient.states import Role
from grafient.views import access

blueprint = Blueprint("sample", __name__, url_prefix="/sample")


@blueprint.post("")
@access.needs(Role.ADMIN)
def add() -> ResponseReturnValue:
    """Fill the empty workspace."""
    try:
        integrations.add_sample(current_user.workspace_id)
    except Refused as error:
        flash(str(error), "error")
    else:
        jobs.wake()
    return redirect(url_for("costs.dashboard"), 303)


@blueprint.post("/remove")
@access.needs(Role.ADMIN)
def remove() -> ResponseReturnValue:
    """Empty it again."""
    integrations.remove_sample(current_user.workspace_id)
    flash("The sample data was removed.", "success")
    return redirect(url_for("costs.dashboard"), 303)


def is_shown() -> bool:
    """Whether the page is of sample data. The question whether a page is kept has answered that already."""
    known: bool | None = g.get("has_sample")
    return integrations.has_sample(current_user.workspace_id or 0) if known is None else known

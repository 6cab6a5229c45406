"""For those who run Grafient: the six o'clock run, workers, and how late everything is."""

from __future__ import annotations

from flask import Blueprint, abort, make_response, render_template
from flask.typing import ResponseReturnValue
from flask_security import current_user

from grafient import jobs
from grafient.accounts import is_operator
from grafient.extensions import settings
from grafient.models import utc_now
from grafient.reports.operations import operations, recent
from grafient.views import access
from grafient.views.htmx import is_htmx

blueprint = Blueprint("operations", __name__)


@blueprint.get("/operations")
@access.signed_in
def index() -> ResponseReturnValue:
    """The page, or for htmx what changes on it; for others than operators there is no such page."""
    if not is_operator(current_user, settings.operators):
        abort(404)
    now = utc_now()
    page, crew = operations(now), jobs.crew()
    if is_htmx():
        response = make_response(render_template("operations/_live.html", page=page, crew=crew))
    else:
        response = make_response(render_template("operations/index.html", page=page, crew=crew, slots=recent(now)))
    response.vary.add("HX-Request")
    return response

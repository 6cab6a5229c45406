"""For those who run Grafient: is the process up, and is everything it needs there?"""

from __future__ import annotations

from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import SQLAlchemyError

from grafient import database, disk, jobs, keyring
from grafient.extensions import db, settings
from grafient.views import access

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@access.public
def healthz() -> ResponseReturnValue:
    """The process answers."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
@access.public
def readyz() -> ResponseReturnValue:
    """Disk, database, encryption keys, Redis, worker and scheduler; 503 and which one otherwise."""
    problems = _database() or _keys()
    problems |= jobs.health() | _disk()
    if problems:
        return jsonify(status="not ready", problems=problems), 503
    return jsonify(status="ready")


def _disk() -> dict[str, str]:
    return {"disk": disk.FULL} if disk.is_full(settings.data_dir) else {}


def _keys() -> dict[str, str]:
    wrong = keyring.problem(current_app.extensions["vault"])
    return {"encryption keys": wrong} if wrong else {}


def _database() -> dict[str, str]:
    try:
        behind = database.pending(db.engine)
    except database.SchemaError as error:
        return {"database": str(error)}
    except SQLAlchemyError as error:
        return {"database": f"does not answer ({type(error).__name__})"}
    return {"database": "is of an older version: run flask --app wsgi upgrade"} if behind else {}

"""The audit log: a page for owners, and its file; and under whose name what is done through pages is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

from flask import Blueprint, Flask, has_request_context, render_template, request
from flask.typing import ResponseReturnValue
from flask_security import (
    current_user,
    password_changed,
    password_reset,
    tf_disabled,
    tf_profile_changed,
    user_confirmed,
    user_failed_authn,
    user_registered,
    wan_deleted,
    wan_registered,
)

from grafient import audit
from grafient.audit import Wanted
from grafient.days import ONE_DAY, Period
from grafient.extensions import client, db
from grafient.models import User, utc_now
from grafient.states import Action, Role
from grafient.views import access, addresses, csv
from grafient.views.addresses import BadPeriod

blueprint = Blueprint("audit", __name__)

EARLIEST = date(2000, 1, 1)
COLUMNS = ("number", "at", "actor", "address", "action", "subject", "hash")


def register(app: Flask) -> None:
    """Have entries say where a request came from, and what Flask-Security does be noted."""
    app.before_request(_set_actor)
    user_failed_authn.connect(_failed, app)
    user_registered.connect(_registered, app)
    for signal, action in _NOTED.items():
        signal.connect(_noting(action), app, weak=False)


def _set_actor() -> None:
    """Who is signed in says so when they are asked for, see ``access.enforce``."""
    audit.set_actor("", client())


def _failed(_app: Flask, user: User, auth_type: str = "", **_how: Any) -> None:
    """Of an account that there is; what else was typed may be anything, a password included, and is not kept.

    ``auth_type``: what was wrong, such as ``password`` or ``code``."""
    audit.note(Action.SIGN_IN_FAILED, user.workspace_id, auth_type, actor=user.email)
    db.session.commit()


def _registered(_app: Flask, user: User, **_how: Any) -> None:
    audit.note(Action.REGISTERED, user.workspace_id, actor=user.email)
    db.session.commit()


_NOTED = {
    password_changed: Action.PASSWORD_CHANGED,
    password_reset: Action.PASSWORD_RESET,
    user_confirmed: Action.EMAIL_CONFIRMED,
    tf_profile_changed: Action.CODES_ON,
    tf_disabled: Action.CODES_OFF,
    wan_registered: Action.PASSKEY_ADDED,
    wan_deleted: Action.PASSKEY_REMOVED,
}


def _noting(action: Action) -> Callable[..., None]:
    def note(_app: Flask, user: User, **more: Any) -> None:
        subject = f"{user.email} {more['name']}" if "name" in more else user.email
        audit.note(action, user.workspace_id, subject, actor=user.email if has_request_context() else None)

    return note


@blueprint.get("/account/audit")
@access.needs(Role.OWNER)
def index() -> ResponseReturnValue:
    """A page of entries, the latest first."""
    wanted, wrong = _wanted()
    found = audit.entries(current_user.workspace_id, wanted, addresses.page())
    return render_template(
        "accounts/audit.html", found=found, wanted=wanted, wrong=wrong, actions=sorted(Action), args=_args(wanted)
    )


@blueprint.get("/account/audit.csv")
@access.needs(Role.OWNER, recent=True)
def file() -> ResponseReturnValue:
    """All entries that are asked for, oldest first."""
    wanted, _wrong = _wanted()
    return csv.download("audit", wanted.period, COLUMNS, _rows(current_user.workspace_id, wanted))


def _rows(workspace_id: int, wanted: Wanted) -> Iterator[list[object]]:
    for one in audit.every(workspace_id, wanted):
        yield [one.number, one.at.isoformat(), one.actor, one.address, one.action, one.subject, one.hash.hex()]


def _wanted() -> tuple[Wanted, str]:
    """What the address asks for, and what is wrong with its period, if anything."""
    args = request.args
    action = args.get("action", "")
    period, wrong = None, ""
    if args.get("from") or args.get("to"):
        try:
            last = addresses.day(args["to"]) if args.get("to") else utc_now().date()
            first = addresses.day(args["from"]) if args.get("from") else last - (addresses.MAX_DAYS - 1) * ONE_DAY
            period = addresses.between(max(first, EARLIEST).isoformat(), last.isoformat())
        except BadPeriod as error:
            wrong = str(error)
    actor = args.get("actor", "").strip()[:255]
    return Wanted(
        period, Action(action) if action in set(Action) else None, actor if actor.isprintable() else ""
    ), wrong


def _args(wanted: Wanted) -> dict[str, str]:
    """What links keep of the address."""
    period: Period | None = wanted.period
    found = {"action": wanted.action or "", "actor": wanted.actor}
    if period is not None:
        found |= {"from": period.first.isoformat(), "to": period.last.isoformat()}
    return {name: value for name, value in found.items() if value}

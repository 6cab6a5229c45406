"""One module an area: parse the form, call one domain function, render."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app, g, render_template, request
from flask.typing import ResponseReturnValue
from flask_limiter import RateLimitExceeded
from flask_security import current_user
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm.exc import ObjectDeletedError
from werkzeug.exceptions import HTTPException

from grafient import database, disk, trouble
from grafient.config import Settings
from grafient.days import in_words
from grafient.extensions import client, db, limiter
from grafient.members import Deleted
from grafient.views import (
    access,
    accounts,
    addresses,
    alerts,
    assets,
    audit,
    changes,
    channels,
    costs,
    days,
    delivery,
    formats,
    guard,
    health,
    integrations,
    kept,
    leaving,
    lives,
    members,
    operations,
    sample,
    sessions,
    single_sign_on,
)
from grafient.views.addresses import BadPeriod
from grafient.web import HEADERS

log = logging.getLogger(__name__)


def register(app: Flask, settings: Settings) -> None:
    """Give the app its pages."""
    guard.register(app)
    app.before_request(_read_or_write)
    app.teardown_request(_may_write_again)
    app.after_request(_headers)
    audit.register(app)
    accounts.register(app, settings)
    single_sign_on.register(app, settings)
    access.register(app)
    for area in (
        costs,
        changes,
        days,
        lives,
        integrations,
        alerts,
        sample,
        accounts,
        sessions,
        members,
        audit,
        leaving,
        channels,
        health,
        operations,
    ):
        app.register_blueprint(area.blueprint)
    formats.register(app)
    assets.register(app)
    kept.register(app)
    app.context_processor(lambda: _on_each_page(settings))
    app.register_error_handler(HTTPException, _error_page)
    app.register_error_handler(guard.UnknownHost, _unknown_host)
    app.register_error_handler(CSRFError, _stale_form)
    app.register_error_handler(Deleted, _deleted)
    app.register_error_handler(ObjectDeletedError, _gone)
    app.register_error_handler(DBAPIError, _database_error)
    app.register_error_handler(BadPeriod, lambda error: _page(400, "This period can't be shown", str(error)))


def _read_or_write() -> None:
    database.reading.set(request.method in ("GET", "HEAD", "OPTIONS"))


def _may_write_again(_error: BaseException | None) -> None:
    database.reading.set(False)


def _headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    if request.endpoint in ("security.logout", "sessions.end", "leaving.workspace", "leaving.account"):
        response.headers["Clear-Site-Data"] = '"cache"'  # the costs that a browser kept are not the next user's
    delivery.keep(response)
    delivery.compress(response)
    return response


_SENTENCES = {
    400: ("Bad request", "Go back, check what you entered, and try again."),
    403: ("Access denied", "You don't have access to this page."),
    404: ("Page not found", "This page doesn't exist, or it isn't yours. Start from the dashboard."),
    405: ("Method not allowed", "This address doesn't accept that kind of request."),
    413: ("Too large", "What was sent is larger than anything Grafient asks for."),
    415: ("Not a form", "Grafient takes forms, and this was something else."),
}


def _error_page(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None or error.code is None or error.code < 400:
        return error
    if error.code in _REFUSED:
        _note_refusal(error.code)
    if error.code == 500:  # whatever broke may break a page too, such as a database that is away
        return (Path(current_app.static_folder or "") / "500.html").read_text(), 500
    if isinstance(error, RateLimitExceeded) and limiter.current_limit:
        limit = limiter.current_limit
        wait = math.ceil(limit.reset_at - time.time())  # Redis rounds up what is left, by up to a second
        wait = min(max(1, wait), limit.limit.get_expiry())
        page, code = _page(429, "Too many attempts", f"Try again in {in_words(wait)}.")
        return page, code, {"Retry-After": str(wait)}
    title, sentence = _SENTENCES.get(error.code, (error.name, error.description or ""))
    return _page(error.code, title, sentence)


_REFUSED = (400, 403, 413, 415, 429)


def _note_refusal(code: int) -> None:
    """What no form of ours sends, and too many tries, are for the log. An address may have a token in it, the name of
    its route has none."""
    log.warning("web: refused (%s) %s %s from %s", code, request.method, request.endpoint, client())


def _unknown_host(_error: guard.UnknownHost) -> ResponseReturnValue:
    _note_refusal(421)
    return _page(421, "Unknown address", guard.unknown_host())


def _stale_form(error: CSRFError) -> ResponseReturnValue:
    _note_refusal(400)
    if "referrer" in (error.description or ""):
        return _page(400, "This form can't be accepted", guard.referrer())
    return _page(400, "This form has expired", "Open the page again and resend the form. Nothing was changed.")


def _deleted(_error: Deleted) -> ResponseReturnValue:
    """Of two who change a workspace that one of them deletes, the other is told what everybody is from then on."""
    access.ask_anew()
    return render_template("accounts/no_workspace.html"), 403


def _gone(error: ObjectDeletedError) -> ResponseReturnValue:
    """Who deletes their account while a key is checked in another tab is signed out there, too."""
    access.ask_anew()
    refusal = access.enforce()
    if refusal is None:
        raise error
    return refusal


def _database_error(error: DBAPIError) -> ResponseReturnValue:
    """A full disk gets a page that says so; any other fault of the database is ours, with a traceback in the log."""
    if not disk.is_why(error):
        raise error
    log.error(disk.FULL)
    db.session.rollback()
    database.reading.set(True)  # the page reads who is signed in, and must not want to write
    return _page(507, "The disk is full", f"{disk.FULL} Your costs are safe; nothing was changed.")


def _on_each_page(settings: Settings) -> dict[str, Any]:
    return {
        "version": current_app.extensions["version"],
        "disk_full": _disk_full(settings),
        "shows_sample": sample.is_shown,
        "kept_in_navigation": _kept_in_navigation,
        "find_trouble": lambda: trouble.of(current_user.workspace_id or 0),
        "workspace_name": lambda: g.get("workspace_name") or "",
    }


def _kept_in_navigation() -> addresses.Address:
    """What the links to the pages of costs keep of the address of one of them: its period and its filters."""
    if request.blueprint not in ("costs", "changes", "days", "lives"):
        return {}
    try:
        found = addresses.kept()
    except HTTPException:  # an address that can't be answered; this is its error page
        return {}
    return {name: value for name, value in found.items() if name not in ("measure", "by", "view", "columns", "find")}


def _disk_full(settings: Settings) -> str:
    return disk.FULL if disk.is_full(settings.data_dir) else ""


def _page(code: int, title: str, sentence: str) -> tuple[str, int]:
    return render_template("error.html", code=code, title=title, sentence=sentence), code

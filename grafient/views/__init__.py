"""One module an area: parse the form, call one domain function, render."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, current_app, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException

from grafient import database
from grafient.config import Settings
from grafient.views import accounts, costs, formats, health, integrations
from grafient.views.addresses import BadPeriod

_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def register(app: Flask, settings: Settings) -> None:
    """Give the app its pages."""
    app.before_request(_read_or_write)
    app.teardown_request(_may_write_again)
    app.after_request(_headers)
    accounts.register(app, settings)
    for area in (costs, integrations, accounts, health):
        app.register_blueprint(area.blueprint)
    formats.register(app)
    app.context_processor(lambda: {"version": app.extensions["version"]})
    app.register_error_handler(HTTPException, _error_page)
    app.register_error_handler(CSRFError, _stale_form)
    app.register_error_handler(BadPeriod, lambda error: _page(400, "That period can't be shown", str(error)))


def _read_or_write() -> None:
    database.reading.set(request.method in ("GET", "HEAD", "OPTIONS"))


def _may_write_again(_error: BaseException | None) -> None:
    database.reading.set(False)


def _headers(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", _CONTENT_SECURITY_POLICY)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


_SENTENCES = {
    400: ("That request can't be read", "Go back, check what was entered, and try again."),
    403: ("Not allowed", "This page is not open to you."),
    404: ("Nothing here", "There is no such page, or it is not yours. Start from the dashboard."),
    405: ("Not that way", "This address exists, but not for that kind of request."),
    413: ("Too much at once", "What was sent is larger than anything Grafient asks for."),
    429: ("Too many tries", "Wait a minute, then try again."),
}


def _error_page(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None or error.code is None or error.code < 400:
        return error
    if error.code == 500:  # whatever broke may break a page too, such as a database that is away
        return (Path(current_app.static_folder or "") / "500.html").read_text(), 500
    title, sentence = _SENTENCES.get(error.code, (error.name, error.description or ""))
    return _page(error.code, title, sentence)


def _stale_form(_error: CSRFError) -> ResponseReturnValue:
    return _page(400, "The form has expired", "Open the page again, and send the form once more. Nothing was changed.")


def _page(code: int, title: str, sentence: str) -> ResponseReturnValue:
    return render_template("error.html", code=code, title=title, sentence=sentence), code

"""What a request may be at all, whatever page it is for: cookies in ASCII, and bodies that are small plain forms.

Grafient's pages take forms and nothing else. Flask-Security also takes JSON, and passes what it finds to code that
expects text: a list, a file or a password of 5,000 characters became an error of ours.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import flask
from flask import Flask, abort, request
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.utils import cached_property

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
MOST_CHARACTERS = 4096
"""Of one field. argon2 takes no longer passwords; everything else that a form asks for is far shorter."""


class Request(flask.Request):
    """A request without cookies that are not ASCII. Nothing here sets such a one, but a page on a sibling domain can,
    and Flask-Login compares it in a way that fails: whoever had it was locked out until they deleted it."""

    @cached_property
    def cookies(self) -> ImmutableMultiDict[str, str]:
        found = super().cookies
        return ImmutableMultiDict((name, value) for name, value in found.items(multi=True) if value.isascii())


def register(app: Flask) -> None:
    """Look at every request before any page does."""
    app.request_class = Request
    app.before_request_funcs.setdefault(None, []).insert(0, _check)


def _check() -> None:
    if request.mimetype not in ("", *FORMS) and request.content_length:
        abort(415)
    if request.files:
        abort(400)
    if any(len(value) > MOST_CHARACTERS for _, value in request.form.items(multi=True)):
        abort(413)
    for values in (request.args, request.form):
        if "next" in values and not _is_address(values["next"]):
            abort(400)


def _is_address(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True

"""What a request may be at all, whatever page it is for: cookies in ASCII, and bodies that are small plain forms.

Grafient's pages take forms and nothing else. Flask-Security also takes JSON, and passes what it finds to code that
expects text: a list, a file or a password of 5,000 characters became an error of ours.
"""

from __future__ import annotations

from itertools import chain
from urllib.parse import urlsplit

import flask
from flask import Flask, abort, request
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.utils import cached_property

from grafient.extensions import settings

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


class UnknownHost(HTTPException):
    """The request was for a name that this Grafient does not have."""

    code = 421


def _check() -> None:
    """A page elsewhere whose name is made to lead to this machine (DNS rebinding) would be let in by a browser that is
    signed in here as what it is not: of the same origin. Only ``/healthz``, which says nothing, answers to any name,
    since platforms ask it by an address of their own.
    """
    if request.endpoint != "health.healthz" and not _is_ours(_name()):
        raise UnknownHost
    if request.mimetype not in ("", *FORMS) and request.content_length:
        abort(415)
    if request.files or None in request.form:  # a part that says no name has none, and Flask-WTF wants one
        abort(400)
    for value in chain.from_iterable(request.form.listvalues()):
        if len(value) > MOST_CHARACTERS:
            abort(413)
        if "\x00" in value:  # PostgreSQL can't store it
            abort(400)
    for values in (request.args, request.form):
        if "next" in values and not _is_address(values["next"]):
            abort(400)


def _name() -> str:
    """The Host without its port: ``costs.example.com``, ``[::1]``."""
    host = request.host.lower()
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _is_ours(name: str) -> bool:
    return any(name == one or (one.startswith(".") and f".{name}".endswith(one)) for one in settings.hosts)


def unknown_host() -> str:
    """What to say of a name that is not ours, and how to make it so."""
    name = _name()
    return (
        f"This Grafient doesn't go by the name {name}. If it should, whoever runs it has to add the name to its "
        f"settings: GRAFIENT_HOSTS={name}"
    )


def referrer() -> str:
    """What to say where a form did not come from a page of this host: only with TLS does Flask-WTF look at that."""
    if not request.referrer or not _is_address(request.referrer):
        return "Your browser didn't say which page this form was on. Allow it to send the Referer to this site."
    return (
        f"This page was opened at {urlsplit(request.referrer).netloc}, but Grafient was asked for {request.host}. A "
        "proxy in front of it has to pass on the Host that browsers send (in nginx: proxy_set_header Host $host)."
    )


def _is_address(text: str) -> bool:
    try:
        urlsplit(text)
    except ValueError:
        return False
    return True

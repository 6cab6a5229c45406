"""Who is signed in: the session's cookie, the row behind it, and the page on which sessions are ended.

Flask-Security signs people in and out; what it puts into the cookie counts as long as the session has a row (see
``grafient.sessions``). Its "remember" cookie, which has none, is not used: to stay logged in is a cookie that lasts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Blueprint, Flask, Response, flash, g, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask.typing import ResponseReturnValue
from flask_login import user_logged_in, user_logged_out
from flask_security import current_user, logout_user, password_changed, password_reset
from flask_security.utils import set_request_attr
from sqlalchemy.orm import make_transient_to_detached

from grafient import audit, sessions
from grafient.extensions import client, db
from grafient.models import User
from grafient.states import Action
from grafient.views import access

blueprint = Blueprint("sessions", __name__)

_CSRF = "csrf_token"


class Cookie(SecureCookieSessionInterface):
    """The session's cookie. Wherever there is TLS it travels over TLS alone, and its name begins with ``__Host-``, so
    that no other site below the same domain can set it (https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#name-the-__host-prefix).
    ``make run`` has no TLS on this machine.
    """

    digest_method = staticmethod(hashlib.sha256)

    def get_cookie_name(self, app: Flask) -> str:
        return "__Host-session" if request.is_secure else "session"

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """A static file is the same for everybody. Flask-Login looks at the session with each request, for which Flask
        would add ``Vary: Cookie``, and a browser would load all files anew after each log-in.
        """
        if request.endpoint not in ("static", "favicon"):
            super().save_session(app, session, response)


def register(app: Flask) -> None:
    """Have Flask-Login find people by their session's row; after Flask-Security has been bound."""
    app.session_interface = Cookie()
    app.config.update(
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_HTTPONLY=True,
        PERMANENT_SESSION_LIFETIME=sessions.ABSOLUTE,
        SESSION_REFRESH_EACH_REQUEST=False,  # the row says how long it lasts
    )
    app.login_manager.user_loader(_load)  # type: ignore[attr-defined]
    user_logged_in.connect(_begin, app)
    user_logged_out.connect(_end, app)
    password_changed.connect(_end_others, app)
    password_reset.connect(_end_all, app)
    app.after_request(_note)
    for endpoint in ("security.verify", "security.wan_verify_response"):
        app.view_functions[endpoint] = _renewing(app.view_functions[endpoint])


def _load(name: str) -> User | None:
    """Who is signed in with this session, under the name that the cookie has for them; None if it has ended."""
    row = g.pop("signed_in", None)
    if row is not None:  # read in this request already, see ``views.kept``
        user = User(**{column.key: row._mapping[column] for column in User.__table__.columns})
        make_transient_to_detached(user)
        user = db.session.merge(user, load=False)
    else:
        found = sessions.find(session[sessions.TOKEN]) if sessions.TOKEN in session else None
        if found is None:
            return None
        user, *g.session = found[:3]
        g.role, g.workspace_name = found[3:]
    if user.fs_uniquifier != name:
        return None
    set_request_attr("fs_authn_via", "session")
    set_request_attr("fs_paa", session.get("fs_paa", 0))
    return user


def _begin(_app: Flask, user: Any) -> None:
    """A new session with a new token and another CSRF token: what was known of this browser before is worth nothing."""
    if sessions.TOKEN in session:
        sessions.end(session[sessions.TOKEN])
    device = _device()
    session[sessions.TOKEN] = sessions.begin(user, device, client() or "unknown")
    audit.note(Action.SIGNED_IN, user.workspace_id, device, actor=user.email)
    stays = session.pop("_remember", None) or (request.endpoint == "security.change_password" and session.permanent)
    session.permanent = bool(stays)
    session.pop(_CSRF, None)
    g.pop(_CSRF, None)


def _renewing(view: Callable[..., Any]) -> Callable[..., Any]:
    """The session of who has said once more who they are gets another token: a copy of its cookie must not come to be
    trusted with what asks for that."""

    @wraps(view)
    def renewed(*args: Any, **named: Any) -> Any:
        before = session.get("fs_paa")
        answer = view(*args, **named)
        if session.get("fs_paa") != before:
            session[sessions.TOKEN] = sessions.renewed(session[sessions.TOKEN])
            db.session.commit()
        return answer

    return renewed


def _end(_app: Flask, user: Any) -> None:
    if sessions.TOKEN in session:
        sessions.end(session.pop(sessions.TOKEN))
        audit.note(Action.SIGNED_OUT, user.workspace_id, actor=user.email)
        db.session.commit()
    session.permanent = False


def _end_others(_app: Flask, user: Any) -> None:
    """A new password ends every session but the one in which it was chosen."""
    sessions.end_of(user.id, but=session.get(sessions.TOKEN, "") if user == current_user else "")


def _end_all(_app: Flask, user: Any) -> None:
    """Who had to have a link sent may have been robbed of the password: nobody stays signed in with the old one."""
    sessions.end_of(user.id)


def _note(response: Response) -> Response:
    """Note that the session is in use, with what only reads: anything else has a transaction of its own to end."""
    if "session" in g and request.method in ("GET", "HEAD"):
        sessions.seen(*g.session)
    return response


def _device() -> str:
    """The browser and the system that it says it is and runs on."""
    from ua_parser import parse  # its table of browsers is 6 MB, and wanted when somebody signs in

    found = parse(request.user_agent.string[:300])
    browser = found.user_agent.family if found.user_agent else "An unknown browser"
    return f"{browser} on {found.os.family}" if found.os else browser


@blueprint.get("/account/sessions")
@access.signed_in
def index() -> ResponseReturnValue:
    """Where one is signed in."""
    here = sessions.hashed(session[sessions.TOKEN])
    return render_template("accounts/sessions.html", sessions=sessions.of(current_user.id), here=here)


@blueprint.get("/account/sessions/end")
@access.signed_in
def sent() -> ResponseReturnValue:
    """Where the form was sent to, for who had to say who they are in between."""
    return redirect(url_for(".index"))


@blueprint.post("/account/sessions/end")
@access.needs(None, recent=True)
def end() -> ResponseReturnValue:
    """End one session, or all of them; whoever ends their own is led to log in."""
    chosen = request.form.get("session", "")
    one = int(chosen) if chosen.isascii() and chosen.isdigit() and len(chosen) < 10 else None
    if one is None:
        sessions.end_of(current_user.id)
        audit.note(Action.SESSIONS_ENDED, current_user.workspace_id)
        logout_user()
        flash("You are logged out everywhere.", "success")
        return redirect(url_for("security.login"), 303)
    if sessions.end_of(current_user.id, one):
        audit.note(Action.SESSION_ENDED, current_user.workspace_id)
        db.session.commit()
        flash("That session has ended.", "success")
    else:
        flash("That session had ended already.", "success")
    return redirect(url_for("sessions.index"), 303)

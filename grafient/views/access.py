"""Who may ask for what: a rule at each route, enforced in one place.

Every view says who it is for (``needs``, ``signed_in``, ``public``), and ``enforce`` looks before it runs. A view that
says nothing is refused to everybody, so that a rule can't be forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from flask import Flask, abort, current_app, g, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_security import auth_required, current_user
from flask_security.utils import check_and_update_authn_fresh

from grafient import audit, members
from grafient.extensions import client, db
from grafient.states import Role
from grafient.views.htmx import is_htmx

log = logging.getLogger(__name__)
_View = TypeVar("_View", bound=Callable[..., Any])

RECENT = timedelta(minutes=30)
"""How long after signing in, or confirming who one is, something can be done that can't be undone."""


@dataclass(frozen=True)
class Rule:
    """``role``: what somebody needs to be in the workspace that they are looking at; None for who needs only to be
    signed in. ``recent``: whether they have to have said who they are in the last half hour."""

    is_public: bool = False
    role: Role | None = None
    recent: bool = False


PUBLIC, SIGNED_IN, RECENT_ONLY = Rule(is_public=True), Rule(), Rule(recent=True)
OTHERS = {
    "static": PUBLIC,
    "favicon": PUBLIC,
    "security.static": PUBLIC,
    "security.login": PUBLIC,
    "security.register": PUBLIC,
    "security.logout": PUBLIC,
    "security.verify": SIGNED_IN,
    "security.change_password": SIGNED_IN,
    "security.forgot_password": PUBLIC,
    "security.reset_password": PUBLIC,
    "security.send_confirmation": PUBLIC,
    "security.confirm_email": PUBLIC,
    "security.two_factor_setup": RECENT_ONLY,
    "security.two_factor_setup_validate": SIGNED_IN,
    "security.two_factor_token_validation": PUBLIC,
    "security.two_factor_rescue": PUBLIC,
    "security.tf_select": PUBLIC,
    "security.mf_recovery": PUBLIC,
    "security.mf_recovery_codes": RECENT_ONLY,
    "security.wan_signin": PUBLIC,
    "security.wan_signin_response": PUBLIC,
    "security.wan_register": RECENT_ONLY,
    "security.wan_register_response": SIGNED_IN,
    "security.wan_delete": RECENT_ONLY,
    "security.wan_verify": SIGNED_IN,
    "security.wan_verify_response": SIGNED_IN,
}
"""The rules of views that are not ours."""


def public(view: _View) -> _View:
    """For everybody."""
    return _with(view, PUBLIC)


def signed_in(view: _View) -> _View:
    """For who is signed in, whatever workspace they belong to, if any."""
    return _with(view, SIGNED_IN)


def needs(role: Role | None, *, recent: bool = False) -> Callable[[_View], _View]:
    """For members of the workspace with this role, or one that includes it; None for everybody who is signed in."""
    return lambda view: _with(view, Rule(role=role, recent=recent))


def rule_of(endpoint: str) -> Rule | None:
    """The rule of an endpoint; None if it has none."""
    if endpoint in OTHERS:
        return OTHERS[endpoint]
    found: Rule | None = getattr(current_app.view_functions[endpoint], "access", None)
    return found


def may(role: str) -> bool:
    """Whether who is signed in may do what that role may; for templates, which leave out what nobody may press."""
    mine = current_role() if current_user.is_authenticated else None
    return mine is not None and mine.includes(Role(role))


def current_role() -> Role | None:
    """The role of who is signed in, in the workspace that they are looking at; None if they belong to none."""
    if "role" not in g:
        g.role = members.role_of(current_user)
    found: Role | None = g.role
    return found


def register(app: Flask) -> None:
    """Look at every request that leads to a view; a page that is kept looks by itself, see ``views.kept``."""
    app.before_request(lambda: None if _is_kept() else enforce())
    app.add_template_global(may)


def enforce() -> ResponseReturnValue | None:
    """What to answer instead of what was asked for; None for who may have it."""
    if request.endpoint is None or request.routing_exception is not None:
        return None  # there is no such page, for anybody
    rule = rule_of(request.endpoint)
    if rule is None:
        abort(403)
    if rule.is_public:
        return None
    if (refusal := _SIGNED_IN()) is not None:
        return refusal
    audit.set_actor(current_user.email, client())
    if rule.role is not None:
        role = current_role()
        if role is None:
            return make_response(render_template("accounts/no_workspace.html"), 403)
        if not role.includes(rule.role):
            log.warning(
                "access: a %s (user %s) asked for %s, from %s", role, current_user.id, request.endpoint, client()
            )
            return make_response(render_template("accounts/not_allowed.html", role=role, needed=rule.role), 403)
    if rule.recent and not check_and_update_authn_fresh(RECENT, timedelta(0), "session"):
        again = url_for(
            "security.verify", next=request.path if request.method == "POST" else request.full_path.rstrip("?")
        )
        return make_response("", 200, {"HX-Redirect": again}) if is_htmx() else redirect(again, 303)
    return None


def ask_anew() -> None:
    """End the transaction and forget who is signed in: a page that is shown next asks for them again, and they may be
    gone, such as from another tab while a provider was asked."""
    db.session.rollback()
    g.pop("_login_user", None)


_SIGNED_IN: Callable[[], ResponseReturnValue | None] = auth_required("session")(lambda: None)


def _is_kept() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return getattr(view, "is_kept", False)


def _with(view: _View, rule: Rule) -> _View:
    view.access = rule  # type: ignore[attr-defined]
    return view

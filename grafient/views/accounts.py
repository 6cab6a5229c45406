"""Register, log in, log out, change the password: Flask-Security's views, under Grafient's rules."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    after_this_request,
    has_request_context,
    make_response,
    redirect,
    render_template,
    request,
    session,
)
from flask.typing import ResponseReturnValue
from flask_login import user_logged_in
from flask_security import current_user, url_for_security
from itsdangerous import BadData, URLSafeTimedSerializer

from grafient import members
from grafient.accounts import Datastore, first_is_wanted, is_operator, is_setup_token, one_at_a_time, registration_open
from grafient.config import Settings
from grafient.extensions import limiter, security, settings
from grafient.models import User
from grafient.passwords import Passwords
from grafient.plans import PLANS
from grafient.views import access, sessions

blueprint = Blueprint("accounts", __name__)

_MESSAGES = {
    "UNAUTHENTICATED": ("Please log in to continue.", "info"),
    "LOGIN": ("Please log in to continue.", "info"),
    "GENERIC_AUTHN_FAILED": ("Email or password is wrong.", "error"),
    "DISABLED_ACCOUNT": ("This account is disabled.", "error"),
    "EMAIL_NOT_PROVIDED": ("Enter your email address.", "error"),
    "INVALID_EMAIL_ADDRESS": ("Enter a valid email address.", "error"),
    "EMAIL_ALREADY_ASSOCIATED": ("There is already an account with this email address.", "error"),
    "PASSWORD_NOT_PROVIDED": ("Enter a password.", "error"),
    "PASSWORD_INVALID_LENGTH": ("Use at least %(length)s characters, and no more than 128.", "error"),
    "RETYPE_PASSWORD_MISMATCH": ("The passwords do not match.", "error"),
    "PASSWORD_MISMATCH": ("The passwords do not match.", "error"),
    "INVALID_PASSWORD": ("This password is wrong.", "error"),
    "PASSWORD_IS_THE_SAME": ("Choose a password that is different from the old one.", "error"),
    "PASSWORD_CHANGE": ("Your password was changed.", "success"),
    "REAUTHENTICATION_REQUIRED": ("Please log in again to continue.", "info"),
    "REFRESH": ("Please log in again to continue.", "info"),
    "REAUTHENTICATION_SUCCESSFUL": ("Thanks, you can continue.", "info"),
}
"""Flask-Security's messages, worded like ours."""

TRIES = "10 per minute; 100 per hour"
"""From one address."""
ACCOUNT_TRIES = "20 per hour; 60 per day"
"""For one account from everywhere, but for devices on which its owner has logged in before, which count by themselves.
So guesses from many addresses don't pass, and don't keep the owner out."""
_DEVICE = "device"
_DEVICE_SECONDS = 365 * 86400


def register(app: Flask, settings: Settings) -> None:
    """Bind Flask-Security, the rule of who may register, and the limit on guesses."""
    app.config.update(
        SECURITY_REGISTERABLE=True,
        SECURITY_CHANGEABLE=True,
        SECURITY_CHANGE_URL="/account/password",
        SECURITY_POST_CHANGE_VIEW="/account",
        SECURITY_POST_LOGOUT_VIEW="/login",
        SECURITY_PASSWORD_HASH="argon2",  # noqa: S106 - the name of an algorithm
        SECURITY_PASSWORD_SCHEMES=["argon2"],
        SECURITY_PASSWORD_SINGLE_HASH=True,  # argon2 salts by itself; SECRET_KEY may change without locking people out
        SECURITY_SEND_REGISTER_EMAIL=False,
        SECURITY_SEND_PASSWORD_CHANGE_EMAIL=False,
        SECURITY_EMAIL_VALIDATOR_ARGS={"check_deliverability": False},
        SECURITY_LOGOUT_CSRF=True,
        SECURITY_API_ENABLED_METHODS=["session"],  # no tokens in headers, no Basic: a session is the only way in
        SECURITY_CACHE_CONTROL={},  # its own is "no-store=True", which no browser knows; views.delivery says it instead
        **{f"SECURITY_MSG_{name}": message for name, message in _MESSAGES.items()},
        SECURITY_JOIN_USER_ROLES=False,
        SECURITY_RETURN_GENERIC_RESPONSES=True,  # the login does not tell who has an account
    )
    datastore = Datastore()
    datastore.default_plan = settings.default_plan
    datastore.invitation_of = lambda: str(session.get("invitation", "")) if has_request_context() else ""
    security.init_app(app, datastore)
    security._password_util = Passwords(app)  # init_app ignores the class that Security() itself would take
    security.principal.identity_loaders.clear()  # there are no roles, and a static file needs no database
    app.config.update(
        RATELIMIT_STORAGE_URI="memory://" if settings.redis_url is None else "redis://",
        RATELIMIT_STORAGE_OPTIONS={}
        if settings.redis_url is None
        else {"connection_pool": app.extensions["redis"].connection_pool},
        RATELIMIT_IN_MEMORY_FALLBACK_ENABLED=True,
    )
    limiter.init_app(app)
    sessions.register(app)
    app.before_request(_only_if_open)
    security.login_context_processor(lambda: {"registration_open": _open()})
    user_logged_in.connect(_know_device, app)
    by_account: Any = limiter.limit(ACCOUNT_TRIES, key_func=_account, methods=["POST"])
    app.view_functions["security.login"] = by_account(app.view_functions["security.login"])
    for endpoint in ("security.login", "security.register", "security.change_password", "security.verify"):
        limited: Any = limiter.limit(TRIES, methods=["POST"])(app.view_functions[endpoint])
        app.view_functions[endpoint] = limited


def _account() -> str:
    """Whom a limit of guesses counts for: a device that the account's owner has used, or the account as typed."""
    email = _name_of(request.form.get("email", ""))
    try:
        owner, device = _devices().loads(request.cookies.get(_device_cookie(), ""), max_age=_DEVICE_SECONDS)
    except (BadData, ValueError, TypeError):
        owner, device = "", ""
    return f"device {device}" if owner == email else f"account {email}"


def _know_device(_app: Flask, user: User) -> None:
    known = _devices().dumps([_name_of(user.email), secrets.token_hex(8)])

    @after_this_request
    def remember(response: Response) -> Response:
        response.set_cookie(
            _device_cookie(), known, _DEVICE_SECONDS, secure=request.is_secure, httponly=True, samesite="Lax"
        )
        return response


def _name_of(email: str) -> str:
    """What tells an account from others: a hash of its address as Flask-Security looks for it. A domain in full-width
    letters is the same account, and was a new one to the limit for each letter that was changed."""
    with contextlib.suppress(ValueError):  # of no address: nobody has it, and all who type it count together
        email = security.mail_util.normalize(email.strip())
    return hashlib.sha256(email.casefold().encode("utf-8", "replace")).hexdigest()


def _device_cookie() -> str:
    return f"__Host-{_DEVICE}" if request.is_secure else _DEVICE


def _devices() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(settings.secret_key or "", salt="grafient-device")


def _only_if_open() -> ResponseReturnValue | None:
    """Close the form when nobody may register, and lead to it when somebody has to."""
    if request.endpoint == "security.login" and request.method == "GET" and first_is_wanted():
        session.pop("_flashes", None)  # nobody can log in yet, so nobody has to be told to
        return redirect(url_for_security("register")) if _open() else None
    if request.endpoint != "security.register":
        return None
    if request.method == "POST":
        one_at_a_time()
    if _lacks_link():
        return make_response(render_template("accounts/set_up.html"), 403)
    return None if _open() else make_response(render_template("accounts/closed.html"), 403)


def _lacks_link() -> bool:
    """Whether this is about the first account, and the set-up link, which whoever deployed this has, is not known.

    On a public address whoever came first owned everything that was connected later.
    """
    if not settings.setup_link or not first_is_wanted():
        return False
    if "setup" in request.args:
        session["setup"] = request.args["setup"]
    return not is_setup_token(settings.secret_key or "", session.get("setup", ""))


def _open() -> bool:
    token = session.get("invitation")
    if token and members.invited(token, for_update=request.method == "POST") is not None:
        return True
    return registration_open(settings.registration)


@blueprint.get("/account")
@access.signed_in
def index() -> ResponseReturnValue:
    """Who is signed in, and on which plan."""
    plan = PLANS[current_user.workspace.plan] if current_user.workspace else None
    operator = is_operator(current_user, settings.operators)
    places, here = members.places(current_user.id), current_user.workspace_id
    return render_template(
        "accounts/index.html", user=current_user, plan=plan, is_operator=operator, places=places, here=here
    )

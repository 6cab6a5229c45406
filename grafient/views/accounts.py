"""Signing in, and all about it: Flask-Security's views, under Grafient's rules."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
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
from flask_security import WebauthnUtil, current_user, login_user, url_for_security, user_registered
from itsdangerous import BadData, URLSafeTimedSerializer
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from grafient import mail, members, second_factor
from grafient.accounts import Datastore, first_is_wanted, is_operator, is_setup_token, one_at_a_time, registration_open
from grafient.config import Settings
from grafient.extensions import client, limiter, security, settings
from grafient.models import User, utc_now
from grafient.passwords import Passwords
from grafient.plans import PLANS
from grafient.views import access, letters, sessions

log = logging.getLogger(__name__)
blueprint = Blueprint("accounts", __name__)

_MESSAGES = {
    "UNAUTHENTICATED": ("Please log in to continue.", "info"),
    "LOGIN": ("Please log in to continue.", "info"),
    "GENERIC_AUTHN_FAILED": ("Email or password is wrong.", "error"),
    "DISABLED_ACCOUNT": ("This account is disabled.", "error"),
    "CONFIRMATION_REQUEST": ("If there is something to confirm, an email with a link is on its way.", "info"),
    "CONFIRMATION_EXPIRED": ("This link is too old. Ask for another one.", "error"),
    "INVALID_CONFIRMATION_TOKEN": ("This link doesn't work. Ask for another one.", "error"),
    "EMAIL_CONFIRMED": ("Thanks, your address is confirmed. Please log in.", "success"),
    "ALREADY_CONFIRMED": ("Your address is confirmed already. Please log in.", "info"),
    "PASSWORD_RESET_EXPIRED": ("This link is too old. Ask for another one.", "error"),
    "INVALID_RESET_PASSWORD_TOKEN": ("This link doesn't work, or was used already. Ask for another one.", "error"),
    "PASSWORD_RESET_NO_LOGIN": ("Your password was changed. Please log in with it.", "success"),
    "TWO_FACTOR_INVALID_TOKEN": ("This code is wrong or too old. Enter the one that the app shows now.", "error"),
    "TWO_FACTOR_LOGIN_SUCCESSFUL": ("You are logged in.", "success"),
    "TWO_FACTOR_CHANGE_METHOD_SUCCESSFUL": ("Codes are on. From now on you need one to log in.", "success"),
    "TWO_FACTOR_DISABLED": ("Codes are off. Your password alone is enough to log in.", "success"),
    "TWO_FACTOR_SETUP_EXPIRED": ("This took too long. Start again.", "error"),
    "TWO_FACTOR_PERMISSION_DENIED": ("Please log in first.", "info"),
    "INVALID_RECOVERY_CODE": ("This recovery code is wrong, or was used already.", "error"),
    "WEBAUTHN_EXPIRED": ("This took too long. Start again.", "error"),
    "WEBAUTHN_NAME_REQUIRED": ("Give the passkey a name.", "error"),
    "WEBAUTHN_NAME_INUSE": ("You have a passkey with this name already.", "error"),
    "WEBAUTHN_NAME_NOT_FOUND": ("This passkey is gone already.", "error"),
    "WEBAUTHN_NAME_DISALLOWED_CHARACTERS": ("A name can have letters, digits, spaces, - and _.", "error"),
    "WEBAUTHN_REGISTER_SUCCESSFUL": ("The passkey was added.", "success"),
    "WEBAUTHN_CREDENTIAL_DELETED": ("The passkey was removed. Remove it from your device too.", "success"),
    "WEBAUTHN_CREDENTIAL_ID_INUSE": ("This passkey was added already.", "error"),
    "WEBAUTHN_UNKNOWN_CREDENTIAL_ID": ("This passkey isn't known here. It may have been removed.", "error"),
    "WEBAUTHN_CREDENTIAL_WRONG_USAGE": ("This passkey can't be used for that.", "error"),
    "WEBAUTHN_MISMATCH_USER_HANDLE": ("This passkey belongs to another account.", "error"),
    "WEBAUTHN_NO_VERIFY": ("The passkey could not be checked. Try again.", "error"),
    "INVALID_REDIRECT": ("This address leads to another site. Please log in here without it.", "error"),
    "API_ERROR": ("Something was missing. Start again.", "error"),
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

_TO_CONFIRM = "One more step: open the link in the email that was sent to you."
_TO_LOG_IN = (
    "Now log in. If you are new here, with the password that you just chose; if you had an account before, with the "
    "password that it had."
)

TRIES = "10 per minute; 100 per hour"
"""From one address."""
ACCOUNT_TRIES = "20 per hour; 60 per day"
"""For one account from everywhere, but for devices on which its owner has logged in before, which count by themselves.
So guesses from many addresses don't pass, and don't keep the owner out."""
LETTERS = "5 per hour"
"""To one address."""
_TRIED = (
    *("login", "register", "change_password", "verify", "forgot_password", "reset_password", "send_confirmation"),
    *("two_factor_setup_validate", "two_factor_token_validation", "mf_recovery", "wan_signin", "wan_signin_response"),
    *("wan_verify", "wan_verify_response", "wan_register_response"),
)
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
        SECURITY_DATETIME_FACTORY=utc_now,
        SECURITY_CONFIRMABLE=True,  # who need not confirm an address is confirmed from the start, see Datastore
        SECURITY_CONFIRM_EMAIL_WITHIN=timedelta(days=mail.CONFIRM_DAYS),
        SECURITY_RECOVERABLE=True,
        SECURITY_RESET_PASSWORD_WITHIN=timedelta(hours=mail.RESET_HOURS),
        SECURITY_TWO_FACTOR=True,
        SECURITY_TWO_FACTOR_ENABLED_METHODS=["authenticator"],
        SECURITY_TWO_FACTOR_AUTHENTICATOR_VALIDITY=30,  # the code before and after, for clocks that differ
        SECURITY_TWO_FACTOR_RESCUE_EMAIL=False,
        SECURITY_TWO_FACTOR_SETUP_URL="/account/codes",
        SECURITY_TWO_FACTOR_TOKEN_VALIDATION_URL="/login/code",  # noqa: S106
        SECURITY_TWO_FACTOR_RESCUE_URL="/login/rescue",
        SECURITY_TWO_FACTOR_SELECT_URL="/login/select",
        SECURITY_MULTI_FACTOR_RECOVERY_CODES=True,
        SECURITY_MULTI_FACTOR_RECOVERY_CODES_URL="/account/recovery-codes",
        SECURITY_MULTI_FACTOR_RECOVERY_URL="/login/recovery-code",
        SECURITY_TOTP_SECRETS={"0": "the encryption keys take its place, see second_factor"},
        SECURITY_TOTP_ISSUER="Grafient",
        SECURITY_WEBAUTHN=True,
        SECURITY_WAN_RP_NAME="Grafient",
        SECURITY_WAN_ALLOW_USER_HINTS=False,  # the passkey says who it is; nobody finds out who has one
        SECURITY_WAN_ALLOW_AS_VERIFY=["first"],
        SECURITY_WAN_REGISTER_URL="/account/passkeys",
        SECURITY_WAN_DELETE_URL="/account/passkeys/delete",
        SECURITY_WAN_SIGNIN_URL="/login/passkey",
        SECURITY_WAN_VERIFY_URL="/verify/passkey",
        SECURITY_FRESHNESS=access.RECENT,
        SECURITY_FRESHNESS_GRACE_PERIOD=timedelta(0),
        SECURITY_EMAIL_VALIDATOR_ARGS={"check_deliverability": False},
        SECURITY_LOGOUT_CSRF=True,
        SECURITY_API_ENABLED_METHODS=["session"],  # no tokens in headers, no Basic: a session is the only way in
        SECURITY_CACHE_CONTROL={},  # its own is "no-store=True", which no browser knows; views.delivery says it instead
        **{f"SECURITY_MSG_{name}": message for name, message in _MESSAGES.items()},
        SECURITY_MSG_CONFIRM_REGISTRATION=(_TO_CONFIRM if settings.smtp_url else _TO_LOG_IN, "info"),
        SECURITY_POST_REGISTER_VIEW="/login",
        SECURITY_JOIN_USER_ROLES=False,
        SECURITY_RETURN_GENERIC_RESPONSES=True,  # the login does not tell who has an account
    )
    datastore = Datastore()
    datastore.default_plan = settings.default_plan
    datastore.confirms_by_mail = settings.smtp_url is not None
    datastore.invitation_of = lambda: str(session.get("invitation", "")) if has_request_context() else ""
    security.init_app(app, datastore)
    security._password_util = Passwords(app)  # init_app ignores the classes that Security() itself would take
    security._mail_util = letters.Letters(app)
    security._totp_factory = second_factor.Codes("Grafient")
    security._mf_recovery_codes_util = second_factor.RecoveryCodes(app)
    security._webauthn_util = Passkeys(app)
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
    app.before_request(_only_to_log_in)
    security.login_context_processor(lambda: {"registration_open": _open()})
    security.register_context_processor(lambda: {"can_be_sent": mail.can_be_sent()})
    security.tf_setup_context_processor(lambda: {"codes_left": second_factor.codes_left(current_user)})
    user_logged_in.connect(_know_device, app)
    user_registered.connect(_come_in, app)
    by_account: Any = limiter.limit(ACCOUNT_TRIES, key_func=_account, methods=["POST"])
    app.view_functions["security.login"] = by_account(_logging_failures(app.view_functions["security.login"]))
    app.view_functions["security.forgot_password"] = letters.forgot_password
    app.view_functions["security.send_confirmation"] = letters.send_confirmation
    for endpoint in ("security.two_factor_rescue", "security.tf_select"):  # letters and text messages with codes
        app.view_functions[endpoint] = lambda: abort(404)
    by_person: Any = limiter.limit(ACCOUNT_TRIES, key_func=_person, methods=["POST"])
    for endpoint in ("security.two_factor_token_validation", "security.mf_recovery"):
        app.view_functions[endpoint] = by_person(app.view_functions[endpoint])
    by_address: Any = limiter.limit(LETTERS, key_func=_addressee, methods=["POST"])
    for endpoint in ("security.forgot_password", "security.send_confirmation"):
        app.view_functions[endpoint] = by_address(app.view_functions[endpoint])
    for endpoint in _TRIED:
        limited: Any = limiter.limit(TRIES, methods=["POST"])(app.view_functions[f"security.{endpoint}"])
        app.view_functions[f"security.{endpoint}"] = limited


def _logging_failures(view: Callable[..., Any]) -> Callable[..., Any]:
    """Each failed try is a line of the log, also where nobody has such an account, and no audit log to be noted in."""

    @wraps(view)
    def logging_them(*args: Any, **named: Any) -> Any:
        answer = view(*args, **named)
        if request.method == "POST" and isinstance(answer, str):  # the form again; all else leads elsewhere
            log.warning("accounts: a sign-in failed, from %s", client())
        return answer

    return logging_them


def _account() -> str:
    """Whom a limit of guesses counts for: a device that the account's owner has used, or the account as typed."""
    email = _name_of(request.form.get("email", ""))
    try:
        owner, device = _devices().loads(request.cookies.get(_device_cookie(), ""), max_age=_DEVICE_SECONDS)
    except (BadData, ValueError, TypeError):
        owner, device = "", ""
    return f"device {device}" if owner == email else f"account {email}"


def _person() -> str:
    """Whose second factor is being tried."""
    return f"person {session.get('tf_user_id', '')}"


def _addressee() -> str:
    return f"letters {_name_of(request.form.get('email', ''))}"


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


def _come_in(_app: Flask, user: User, **_how: Any) -> None:
    """Sign in who has just registered, if they are the first or were invited.

    Anybody else gets the answer that somebody gets whose address has an account already: to look at their mail, or,
    where there is none, to log in.
    """
    if user.is_expected:
        session.pop("_flashes", None)
        login_user(user, authn_via=["register"])


class Passkeys(WebauthnUtil):
    """Passkeys that say themselves whose they are, and ask for a finger, a face or a PIN: no password is needed."""

    def authenticator_selection(self, user: Any, usage: str) -> AuthenticatorSelectionCriteria:
        return AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        )

    def user_verification(self, user: Any, usage: list[str]) -> UserVerificationRequirement:
        return UserVerificationRequirement.REQUIRED


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


def _only_to_log_in() -> ResponseReturnValue | None:
    """Lead who is signed in away from where a code is asked for: Flask-Security logs them out there, so that a link on
    any page would."""
    if request.endpoint != "security.two_factor_token_validation" or not current_user.is_authenticated:
        return None
    return redirect(url_for_security("two_factor_setup"), 303)


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


@blueprint.get("/logout")
@access.signed_in
def log_out() -> ResponseReturnValue:
    """Where every page leads to for logging out, by a link: a form in each of them would give each one a token."""
    return render_template("security/logout_user.html")


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

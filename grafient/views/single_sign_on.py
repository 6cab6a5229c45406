"""Signing in with a company's own accounts, by OpenID Connect (https://openid.net/specs/openid-connect-core-1_0.html).

Authlib asks the identity provider and checks what it answers. Here is only who that is to Grafient: somebody who signed
in this way before, an account with the same address, somebody who has an invitation, or one whom a rule lets in.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from flask import Blueprint, Flask, current_app, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_security import current_user, login_user
from flask_security.utils import validate_redirect_url
from sqlalchemy import func, select
from wtforms import ValidationError

from grafient import audit, members
from grafient.accounts import first_is_wanted
from grafient.config import Oidc, Settings
from grafient.extensions import db, limiter, security, settings
from grafient.forms import normalized
from grafient.models import User
from grafient.states import Action, Role
from grafient.views import access
from grafient.views.accounts import TRIES

log = logging.getLogger(__name__)
blueprint = Blueprint("single_sign_on", __name__)

_TIMEOUT = 10.0
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""How an ID token may be signed, whatever the provider says: with a key of its own, and not at all is no way."""


class NotLetIn(Exception):
    """Who signed in there may not come in here. The message is a sentence for them."""


def register(app: Flask, settings: Settings) -> None:
    """Bind Authlib, if an identity provider is set up; nobody else is made to load it."""
    oidc = settings.oidc
    app.context_processor(lambda: {"sso_name": oidc.name if oidc else ""})
    if oidc is None:
        return
    from authlib.integrations.flask_client import OAuth

    app.extensions["oidc"] = OAuth(app).register(
        "idp",
        client_cls=_provider(oidc.issuer),
        client_id=oidc.client_id,
        client_secret=oidc.client_secret,
        server_metadata_url=f"{oidc.issuer}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256", "timeout": _TIMEOUT},
    )
    app.register_blueprint(blueprint)


@blueprint.get("/login/sso")
@access.public
@limiter.limit(TRIES)
def begin() -> ResponseReturnValue:
    """Lead to the identity provider. Who is signed in already has to say there once more who they are.

    Another site can't begin it: whoever is signed in over there would be signed in here without having wanted it.
    """
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return redirect(url_for("security.login"), 303)
    session["sso_next"] = request.args.get("next", "")
    again = {"prompt": "login"} if current_user.is_authenticated else {}
    try:
        answer: ResponseReturnValue = _client().authorize_redirect(
            url_for("single_sign_on.end", _external=True), **again
        )
    except _failures() as error:
        return _failed(error)
    return answer


@blueprint.get("/login/sso/done")
@access.public
@limiter.limit(TRIES)
def end() -> ResponseReturnValue:
    """Come back from there.

    What asks who one is in the last half hour counts from when that was said to the provider, if it tells: who came in
    by the provider's session of this morning has not just said it.
    """
    try:
        claims = _client().authorize_access_token(claims_options=_wanted())["userinfo"]
    except _failures() as error:
        return _failed(error)
    try:
        user = _user(claims)
    except NotLetIn as refused:
        db.session.rollback()
        flash(str(refused), "error")
        return redirect(url_for("security.login"), 303)
    login_user(user, authn_via=["sso"])
    said_at = claims.get("auth_time")
    session["fs_paa"] = min(time.time(), said_at if isinstance(said_at, int) else time.time())
    db.session.commit()
    session.pop("invitation", None)
    wanted = session.pop("sso_next", "")
    is_within = wanted.startswith("/") and "\\" not in wanted and validate_redirect_url(wanted)
    return redirect(wanted if is_within else url_for("costs.dashboard"), 303)


def _provider(issuer: str) -> type[Any]:
    """Authlib's client for one provider and no other: it follows no redirect with what it sends, and the metadata have
    to be of the issuer that the settings name."""
    from authlib.integrations.flask_client import FlaskOAuth2App
    from authlib.integrations.requests_client import OAuth2Session

    class Session(OAuth2Session):  # type: ignore[misc]
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.max_redirects = 0

    class Provider(FlaskOAuth2App):  # type: ignore[misc]
        client_cls = Session

        def load_server_metadata(self) -> Any:
            found = super().load_server_metadata()
            if str(found.get("issuer")).rstrip("/") != issuer:
                raise ValueError("the metadata is of another issuer")
            return found | {"id_token_signing_alg_values_supported": _ALGORITHMS}

    return Provider


def _wanted() -> dict[str, Any]:
    """What an ID token has to say: that it is of this provider, and for this Grafient."""
    client = _client()
    return {
        "iss": {"essential": True, "value": client.load_server_metadata()["issuer"]},
        "aud": {"essential": True, "value": client.client_id},
    }


def _user(claims: Any) -> User:
    """Whose account it is, made if need be. Does not commit; raises NotLetIn."""
    oidc = _settings()
    subject = f"{claims['iss']} {claims['sub']}"[:512]
    user = db.session.execute(select(User).where(User.oidc_subject == subject)).scalar_one_or_none()
    if user is None:
        email = _email(claims)
        user = db.session.execute(select(User).where(func.lower(User.email) == email.lower())).scalar_one_or_none()
        if user is None:
            user = _new(email, _role(email, claims))
        elif user.oidc_subject is not None:
            raise NotLetIn(f"The account {email} belongs to somebody else at {oidc.name}.")
        elif user.confirmed_at is not None and user != current_user:
            # The address may never have been shown to be theirs. Whoever typed it in must not come to share the account
            # of the person whose address it is, so who has the password has to say that both are the same.
            raise NotLetIn(
                f"There is an account for {email} already. Log in to it with its password once; then link {oidc.name} "
                "under Account."
            )
        user.oidc_subject = subject
        if user.confirmed_at is None:  # who registered never showed that the address is theirs: their password is none
            user.password, user.confirmed_at = "", user.created_at
        db.session.flush()
        audit.note(Action.SSO_LINKED, user.workspace_id, oidc.issuer, actor=user.email)
    if not user.active:
        raise NotLetIn("This account is disabled.")
    return user


def _email(claims: Any) -> str:
    """The address that the provider vouches for. One that anybody can type in there would open whoever's account has
    it here."""
    oidc = _settings()
    try:
        email = normalized(str(claims.get("email", "")))
    except ValidationError:
        raise NotLetIn(f"{oidc.name} did not tell your email address, and Grafient needs it.") from None
    if claims.get("email_verified") is not True and not oidc.trusts_emails:
        raise NotLetIn(f"{oidc.name} does not vouch for your email address, so Grafient can't tell who you are.")
    return email


def _role(email: str, claims: Any) -> Role | None:
    """As what a rule lets somebody in; None if none does."""
    groups = claims.get("groups")
    groups = groups if isinstance(groups, list) else []
    for who, role in _settings().rules:
        if who.startswith("group="):
            fits = who.removeprefix("group=") in groups
        else:
            fits = email.lower() == who.lower() or (who.startswith("*@") and email.lower().endswith(who[1:].lower()))
        if fits:
            return role
    return None


def _new(email: str, role: Role | None) -> User:
    """An account in the workspace that an invitation leads to, or in the first one."""
    if first_is_wanted():
        raise NotLetIn("Make the first account with a password; after it, others can sign in this way.")
    is_invited = members.invited(str(session.get("invitation", ""))) is not None
    if not is_invited and role is None:
        raise NotLetIn(f"There is no account for {email}. Ask for an invitation.")
    datastore: Any = security.datastore
    try:
        user: User = datastore.create_user(email=email, password="", active=True, admitted_as=role)
    except members.Refused as refused:
        raise NotLetIn(str(refused)) from None
    audit.note(Action.REGISTERED, user.workspace_id, _settings().issuer, actor=email)
    return user


def _failures() -> tuple[type[Exception], ...]:
    from authlib.common.errors import AuthlibBaseError
    from joserfc.errors import JoseError
    from requests import RequestException

    return AuthlibBaseError, JoseError, RequestException, KeyError, ValueError


def _failed(error: Exception) -> ResponseReturnValue:
    """What went wrong is for the log, as it may have anything in it; what to do is for the page."""
    log.warning("sign-on: %s (%s)", type(error).__name__, error)
    flash(f"Signing in with {_settings().name} did not work. Try again, or log in with your password.", "error")
    return redirect(url_for("security.login"), 303)


def _client() -> Any:
    return current_app.extensions["oidc"]


def _settings() -> Oidc:
    oidc = settings.oidc
    assert oidc is not None  # or the pages would not be there
    return oidc

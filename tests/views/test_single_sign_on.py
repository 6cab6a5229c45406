"""Signing in with a company's own accounts, against an identity provider that speaks OpenID Connect over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from flask import Flask
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from grafient.extensions import db
from grafient.models import Membership, User, utc_now
from grafient.sandbox.server import _QuietHandler
from grafient.states import Role
from tests.conftest import EMAIL
from tests.pages import Pages
from tests.syncing import on_sqlite
from tests.views.test_audit import noted

pytestmark = on_sqlite
CLIENT = ("grafient", "the client's secret")


class IdentityProvider:
    """An OpenID provider. ``claims``: who signs in there. What may be wrong with one is in test_id_tokens.py."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one", "alg": "RS256", "use": "sig"})
        self.claims: dict[str, Any] = {}
        self.asked: list[dict[str, str]] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_QuietHandler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        return self._answer(Request(environ))(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.path == "/.well-known/openid-configuration":
            return _json(
                issuer=self.issuer,
                authorization_endpoint=f"{self.issuer}/authorize",
                token_endpoint=f"{self.issuer}/token",
                jwks_uri=f"{self.issuer}/keys",
                id_token_signing_alg_values_supported=["RS256"],
            )
        if request.path == "/keys":
            return _json(keys=[self.key.as_dict(private=False)])
        assert request.path == "/token"
        asked = self._codes.pop(request.form["code"])
        verifier = base64.urlsafe_b64encode(hashlib.sha256(request.form["code_verifier"].encode()).digest())
        assert asked["code_challenge"] == verifier.decode().rstrip("=")
        assert request.authorization is not None
        assert (request.authorization.username, request.authorization.password) == CLIENT
        now = int(utc_now().timestamp())
        claims = {"iss": self.issuer, "aud": CLIENT[0], "iat": now, "exp": now + 60, "nonce": asked["nonce"]}
        token = jwt.encode({"alg": "RS256", "kid": "one"}, claims | self.claims, self.key)
        return _json(access_token="unused", token_type="Bearer", expires_in=60, id_token=token)

    def sign_in(self, location: str) -> str:
        """What a person does there: where they are sent back to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        self.asked.append(asked)
        code = secrets.token_urlsafe(8)
        self._codes[code] = asked
        return f"{urlsplit(asked['redirect_uri']).path}?{urlencode({'code': code, 'state': asked['state']})}"


def _json(**values: Any) -> Response:
    return Response(json.dumps(values), mimetype="application/json")


@pytest.fixture
def idp() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()
    yield provider
    provider.close()


@pytest.fixture
def settings(settings: dict[str, str], idp: IdentityProvider) -> dict[str, str]:
    return settings | {
        "GRAFIENT_OIDC_ISSUER": idp.issuer,
        "GRAFIENT_OIDC_CLIENT_ID": CLIENT[0],
        "GRAFIENT_OIDC_CLIENT_SECRET": CLIENT[1],
        "GRAFIENT_OIDC_NAME": "Example Ltd",
        "GRAFIENT_OIDC_ALLOW": "boss@example.com:owner, group=finance:admin, *@example.com:viewer",
        "GRAFIENT_DEFAULT_PLAN": "pro",
    }


def come(idp: IdentityProvider, who: Pages, path: str = "/login/sso", **claims: Any) -> str:
    """Sign in as somebody there, and where that leads here."""
    if claims:
        idp.claims = {"email_verified": True, **claims}
    back = who.client.get(idp.sign_in(who.get(path, 302).location))
    assert back.status_code == 303
    return str(back.location)


def role_of(app: Flask, email: str) -> str | None:
    with app.app_context():
        found = db.session.query(Membership.role).join(User, User.id == Membership.user_id).filter(User.email == email)
        return found.scalar()


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"email": "boss@example.com"}, Role.OWNER),
        ({"email": "one@example.com", "groups": ["finance"]}, Role.ADMIN),
        ({"email": "Two@Example.com", "groups": "finance"}, Role.VIEWER),
    ],
)
def test_a_rule_lets_somebody_in_and_says_as_what(
    app: Flask, pages: Pages, idp: IdentityProvider, claims: dict[str, Any], role: Role
) -> None:
    who = Pages(app)
    assert "Log in with Example Ltd" in who.get("/login").text
    assert come(idp, who, sub="7", **claims) == "/"
    who.get("/account/members")
    email = str(claims["email"]).replace("Example", "example")
    assert role_of(app, email) == role
    assert (email, "registered", idp.issuer) in noted(app)
    again = Pages(app)
    come(idp, again, sub="7", email="renamed@example.org", email_verified=False)
    assert email in again.get("/account").text, "who they are is their number there, whatever their address is now"
    assert "Change password" not in again.get("/account").text


def test_who_has_no_rule_and_no_account_is_told_so(app: Flask, pages: Pages, idp: IdentityProvider) -> None:
    who = Pages(app)
    assert come(idp, who, sub="8", email="stranger@elsewhere.com") == "/login"
    assert "There is no account for stranger@elsewhere.com. Ask for an invitation." in who.get("/login").text
    who.get("/account", 302)
    with app.app_context():
        assert db.session.query(User).count() == 1


def test_who_has_an_account_links_it_and_signs_in_to_it(app: Flask, pages: Pages, idp: IdentityProvider) -> None:
    who = Pages(app)
    assert come(idp, who, sub="9", email=EMAIL.upper()) == "/login"
    refused = "Log in to it with its password once; then link Example Ltd under Account."
    assert refused in who.get("/login").text
    assert "Link Example Ltd" in pages.get("/account").text
    assert come(idp, pages, "/login/sso?next=/account", sub="9", email=EMAIL.upper()) == "/account"
    assert "Linked" in pages.get("/account").text
    come(idp, who)
    assert EMAIL in who.get("/account").text
    assert (EMAIL, "single sign-on linked", idp.issuer) in noted(app)
    other = Pages(app)
    assert come(idp, other, sub="10", email=EMAIL) == "/login"
    assert "belongs to somebody else at Example Ltd" in other.get("/login").text


@pytest.mark.parametrize("verified", [{"email_verified": False}, {"email_verified": None}, {"email_verified": "true"}])
def test_an_address_that_nobody_vouches_for_opens_no_account(
    app: Flask, pages: Pages, idp: IdentityProvider, verified: dict[str, Any]
) -> None:
    who = Pages(app)
    assert come(idp, who, sub="11", email=EMAIL, **verified) == "/login"
    assert "Example Ltd does not vouch for your email address" in who.get("/login").text
    assert come(idp, who, sub="11", email="no address") == "/login"
    assert "did not tell your email address" in who.get("/login").text


class TestTrusted:
    @pytest.fixture
    def settings(self, settings: dict[str, str]) -> dict[str, str]:
        return settings | {"GRAFIENT_OIDC_TRUST_EMAIL": "on"}

    def test_a_provider_that_verifies_all_and_does_not_say_so(
        self, app: Flask, pages: Pages, idp: IdentityProvider
    ) -> None:
        assert come(idp, pages, sub="12", email=EMAIL, email_verified=None) == "/"


def test_an_invitation_lets_somebody_in_where_it_leads(app: Flask, pages: Pages, idp: IdentityProvider) -> None:
    page = pages.post("/account/members/invite", 200, page="/account/members", role="admin", note="").text
    link = urlsplit(page.split('id="the-link"')[1].split('value="')[1].split('"')[0]).path
    who = Pages(app)
    who.get(link)
    come(idp, who, sub="13", email="new@elsewhere.com")
    assert role_of(app, "new@elsewhere.com") == Role.ADMIN
    Pages(app).get(link, 404)


def test_who_is_signed_in_confirms_it_there(app: Flask, pages: Pages, idp: IdentityProvider) -> None:
    who = Pages(app)
    come(idp, who, sub="17", email="boss@example.com")
    assert "prompt" not in idp.asked[-1]
    page = who.get("/verify?next=/account/codes").text
    assert "Confirm with Example Ltd" in page
    assert 'name="password"' not in page, "there is none"
    assert come(idp, who, "/login/sso?next=/account/codes") == "/account/codes"
    assert idp.asked[-1]["prompt"] == "login"


def test_a_provider_that_is_away_is_said(app: Flask, pages: Pages, idp: IdentityProvider) -> None:
    idp.close()
    who = Pages(app)
    assert who.get("/login/sso", 303).location == "/login"
    assert "Signing in with Example Ltd did not work." in who.get("/login").text


def test_the_first_account_needs_a_password(app: Flask, idp: IdentityProvider) -> None:
    who = Pages(app)
    assert come(idp, who, sub="18", email="boss@example.com") == "/login"
    assert "Make the first account with a password" in who.get("/register").text

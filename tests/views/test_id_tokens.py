"""What a company's identity provider says is believed only if it is signed by it, for us, now, and for this browser."""

from __future__ import annotations

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from grafient.extensions import db
from grafient.models import User
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages
from tests.syncing import on_sqlite

pytestmark = on_sqlite

OWN_KEY, ANOTHER_KEY = (RSAKey.generate_key(2048, {"kid": "1"}) for _ in range(2))


class Provider:
    """An identity provider. ``claims`` and the others are what it says next."""

    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.claims: dict[str, Any] = {}
        self.key: Any = OWN_KEY
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "1"}
        self.metadata: dict[str, Any] = {}
        self.redirects = ""
        self.asked: dict[str, str] = {}
        self.exchanged: dict[str, str] = {}

    def answer(self, path: str, body: str) -> dict[str, Any]:
        if path == "/.well-known/openid-configuration":
            ways = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
            found = {name: self.issuer + way for name, way in ways.items()}
            return (
                found
                | {"issuer": self.issuer, "id_token_signing_alg_values_supported": ["none", "HS256", "RS256"]}
                | self.metadata
            )
        if path == "/keys":
            return {"keys": [OWN_KEY.as_dict(private=False)]}
        self.exchanged = {name: values[0] for name, values in parse_qs(body).items()}
        return {"access_token": "x", "token_type": "Bearer", "id_token": self._token()}

    def _token(self) -> str:
        said = {
            "iss": self.issuer, "sub": "7", "aud": "grafient", "exp": int(time.time()) + 300, "iat": int(time.time()),
            "nonce": self.asked.get("nonce"), "email": EMAIL, "email_verified": True, **self.claims,
        }  # fmt: skip
        if self.header["alg"] == "none":
            parts = (urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (self.header, said))
            return ".".join(parts) + "."
        return jwt.encode(self.header, said, self.key)


@pytest.fixture
def idp(settings: dict[str, str]) -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            moved = self.path == provider.redirects
            said = json.dumps({} if moved else provider.answer(self.path.removesuffix("-moved"), body)).encode()
            self.send_response(307 if moved else 200)
            self.send_header("Location", f"{self.path}-moved")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_POST = do_GET  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = Provider(server.server_port)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    settings["GRAFIENT_OIDC_ISSUER"] = f"{provider.issuer}/"
    settings["GRAFIENT_OIDC_CLIENT_ID"], settings["GRAFIENT_OIDC_CLIENT_SECRET"] = "grafient", "the client's secret"
    yield provider
    server.shutdown()
    server.server_close()


@pytest.fixture
def visitor(idp: Provider, app: Flask, pages: Pages) -> Pages:
    """Somebody whose account is linked, in a browser in which they are not signed in."""
    assert is_let_in(pages, idp)
    idp.exchanged = {}
    return Pages(app)


def begin(visitor: Pages, idp: Provider) -> str:
    """Press the button; the state with which the provider sends the browser back."""
    leads = urlsplit(visitor.get("/login/sso", 302).location)
    assert f"{leads.scheme}://{leads.netloc}{leads.path}" == f"{idp.issuer}/authorize"
    idp.asked = {name: values[0] for name, values in parse_qs(leads.query).items()}
    return idp.asked["state"]


def is_let_in(visitor: Pages, idp: Provider) -> bool:
    state = begin(visitor, idp)
    back = visitor.client.get(f"/login/sso/done?code=c&state={state}")
    assert back.location in ("/", "/login")
    assert (visitor.client.get("/account").status_code == 200) == (back.location == "/")
    return back.location == "/"


def test_what_is_as_it_should_be_lets_in_and_is_known_by_the_subject(visitor: Pages, idp: Provider, app: Flask) -> None:
    assert is_let_in(visitor, idp)
    challenge = urlsafe_b64encode(sha256(idp.exchanged["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert (idp.asked["code_challenge"], idp.asked["code_challenge_method"]) == (challenge, "S256")
    with app.app_context():
        assert db.session.query(User.oidc_subject).scalar() == f"{idp.issuer} 7"
    idp.claims = {"email": "another@example.com"}
    assert is_let_in(Pages(app), idp), "the same subject is the same person"
    idp.claims = {"sub": "8"}
    assert not is_let_in(Pages(app), idp), "the same address is not"


def test_a_token_that_says_something_else_is_refused(visitor: Pages, idp: Provider) -> None:
    for idp.claims in (
        {"iss": "https://elsewhere.example"},
        {"aud": "another client"},
        {"aud": ["another client"], "azp": "grafient"},
        {"exp": int(time.time()) - 3600},
        {"nonce": "of another browser"},
        {"nonce": None},
    ):
        assert not is_let_in(visitor, idp), idp.claims


def test_a_token_that_is_not_signed_by_the_provider_is_refused(visitor: Pages, idp: Provider) -> None:
    for idp.header, idp.key in (
        ({"alg": "RS256", "kid": "1"}, ANOTHER_KEY),
        ({"alg": "RS256", "jwk": ANOTHER_KEY.as_dict(private=False)}, ANOTHER_KEY),
        ({"alg": "none"}, None),
        ({"alg": "HS256"}, OctKey.import_key("a secret of thirty-two characters")),
    ):
        assert not is_let_in(visitor, idp), idp.header


def test_what_this_browser_has_not_begun_is_refused(visitor: Pages, idp: Provider, app: Flask) -> None:
    state = begin(visitor, idp)
    for other in ("", f"&state={state}", "&state=x"):
        assert Pages(app).client.get(f"/login/sso/done?code=c{other}").location == "/login"
    assert visitor.client.get(f"/login/sso/done?code=c&state={state}").location == "/"
    assert visitor.client.get(f"/login/sso/done?code=c&state={state}").location == "/login", "it works once"


def test_metadata_of_another_issuer_are_refused(idp: Provider, app: Flask, pages: Pages) -> None:
    visitor = Pages(app)
    idp.metadata = {"issuer": "https://elsewhere.example"}
    assert visitor.get("/login/sso", 303).location == "/login"


def test_nothing_is_sent_on_to_where_a_redirect_leads(idp: Provider, app: Flask, pages: Pages) -> None:
    visitor = Pages(app)
    idp.redirects = "/.well-known/openid-configuration"
    assert visitor.get("/login/sso", 303).location == "/login"
    idp.redirects = "/token"
    assert not is_let_in(visitor, idp)
    assert idp.exchanged == {}


def test_no_token_is_kept(visitor: Pages, idp: Provider, app: Flask) -> None:
    assert is_let_in(visitor, idp)
    with visitor.client.session_transaction() as kept:
        assert not [name for name in kept if name.startswith(("_state", "sso"))]
        assert "eyJ" not in str(dict(kept))


def test_another_site_signs_nobody_in(visitor: Pages, idp: Provider) -> None:
    assert visitor.get("/login/sso", 303, Sec_Fetch_Site="cross-site").location == "/login"
    visitor.get("/login/sso", 302, Sec_Fetch_Site="same-origin")


def test_it_leads_to_no_other_site(visitor: Pages, idp: Provider) -> None:
    for elsewhere in ("//evil.example", "https://evil.example/", "/\\evil.example"):
        leads = urlsplit(visitor.client.get("/login/sso", query_string={"next": elsewhere}).location)
        idp.asked = {name: values[0] for name, values in parse_qs(leads.query).items()}
        back = visitor.client.get(f"/login/sso/done?code=c&state={idp.asked['state']}").location
        assert back in ("/", "/%5Cevil.example"), "escaped, it is a path"


def test_who_said_long_ago_who_they_are_is_asked_again(idp: Provider, app: Flask, pages: Pages) -> None:
    """The provider's session may be of this morning."""
    assert is_let_in(pages, idp)
    for minutes, asks in ((29, False), (-500, False), (31, True)):
        visitor = Pages(app)
        idp.claims = {"auth_time": int(time.time()) - minutes * 60}
        assert is_let_in(visitor, idp)
        assert (visitor.client.get("/account/audit.csv").status_code == 303) == asks, minutes
    begin(visitor, idp)
    assert idp.asked["prompt"] == "login"


def test_who_registered_with_anothers_address_does_not_share_their_account(
    visitor: Pages, idp: Provider, app: Flask
) -> None:
    """An address that was never confirmed may have been typed by anybody, whose password must not open it later."""
    with app.app_context():
        db.session.query(User).update({"confirmed_at": None, "oidc_subject": None})
        db.session.commit()
    Pages(app).post("/login", 200, email=EMAIL, password=PASSWORD)
    assert is_let_in(visitor, idp)
    Pages(app).post("/login", 200, email=EMAIL, password=PASSWORD)

"""Who may come in, and how often they may guess."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import flask_security
import pytest
import time_machine
from flask import Flask
from justhtml import JustHTML
from sqlalchemy.exc import OperationalError

from grafient import create_app
from grafient.accounts import first_is_wanted
from grafient.extensions import db
from grafient.models import User
from grafient.views import accounts
from tests.conftest import PASSWORD
from tests.pages import Pages, lint
from tests.syncing import on_sqlite


def test_the_first_account_can_be_made_and_then_no_other(app: Flask, pages: Pages) -> None:
    stranger = Pages(app)
    assert "closed" in stranger.get("/register", 403).text
    token = stranger.token("/login")
    fields = {"email": "b@example.com", "password": PASSWORD, "password_confirm": PASSWORD}
    assert stranger.client.post("/register", data={"csrf_token": token, **fields}).status_code == 403


@pytest.mark.parametrize(("policy", "status"), [("open", 200), ("closed", 403)])
def test_the_operator_decides(
    settings: dict[str, str], request: pytest.FixtureRequest, policy: str, status: int
) -> None:
    settings["GRAFIENT_REGISTRATION"] = policy
    Pages(request.getfixturevalue("app")).get("/register", status)


def test_in_and_out(app: Flask, pages: Pages) -> None:
    assert "someone@example.com" in pages.get("/account").text
    pages.post("/logout", 302, "/account")
    pages.get("/", 302)
    pages.post("/login", 200, email="someone@example.com", password="not it at all")
    pages.post("/login", 200, email="nobody@example.com", password=PASSWORD)
    pages.log_in("someone@example.com", PASSWORD)
    pages.get("/")


@pytest.mark.parametrize(
    "fields",
    [
        {"email": "no address"},
        {"password": "short", "password_confirm": "short"},
        {"password_confirm": "something else"},
        {"email": ""},
    ],
)
def test_what_makes_no_account(app: Flask, fields: dict[str, str]) -> None:
    data = {"email": "a@example.com", "password": PASSWORD, "password_confirm": PASSWORD, **fields}
    assert 'aria-invalid="true"' in Pages(app).post("/register", 200, **data).text


def test_a_new_password(app: Flask, pages: Pages) -> None:
    new = "an even better horse"
    fields = {"password": PASSWORD, "new_password": new, "new_password_confirm": new}
    pages.post("/account/password", 302, **fields)
    Pages(app).post("/login", 302, email="someone@example.com", password=new)


def test_the_login_does_not_tell_who_has_an_account(app: Flask, pages: Pages) -> None:
    stranger = Pages(app)
    answers = {
        re.sub(r'value="[^"]*"', "", stranger.post("/login", 200, email=email, password="wrong wrong").text)
        for email in ("someone@example.com", "nobody@example.com")
    }
    assert len(answers) == 1


def test_cookies_are_for_tls_where_a_proxy_has_it(settings: dict[str, str], pages: Pages) -> None:
    settings["GRAFIENT_TRUSTED_PROXIES"] = "1"
    proxied = Pages(create_app(settings))
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    page = proxied.client.get("/login", headers=headers, base_url="https://localhost")
    token = JustHTML(page.text, sanitize=False).query("input[name=csrf_token]")[0].attrs["value"]
    data = {"csrf_token": token, "email": "someone@example.com", "password": PASSWORD, "remember": "y"}
    headers["Referer"] = "https://localhost/login"
    answer = proxied.client.post("/login", data=data, headers=headers, base_url="https://localhost")
    cookies = answer.headers.getlist("Set-Cookie")
    assert {cookie.split("=")[0] for cookie in cookies} == {"__Host-session", "__Host-device"}, (
        "no other site below the domain can set it"
    )
    for cookie in cookies:
        assert "Secure" in cookie
        assert "Path=/" in cookie
        assert "Domain" not in cookie
        assert "Expires" in cookie, "it was asked to stay"
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
    with proxied.client.application.app_context():
        db.engine.dispose()
    proxied.client.application.extensions["redis"].close()


def test_a_refused_guess_says_when_to_try_again(app: Flask, pages: Pages) -> None:
    guesser = Pages(app)
    answers = [guesser.post("/login", 200, email="x@example.com", password="wrong wrong") for _ in range(10)]
    assert "Retry-After" not in answers[-1].headers
    refused = guesser.post("/login", 429, email="x@example.com", password="wrong wrong")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert f"Try again in {refused.headers['Retry-After']} second" in refused.text


def test_too_long_a_password_is_called_too_long(app: Flask) -> None:
    fields = {"email": "a@example.com", "password": "x" * 129, "password_confirm": "x" * 129}
    assert "and no more than 128" in Pages(app).post("/register", 200, **fields).text


def test_every_page_of_flask_security_looks_like_ours(pages: Pages) -> None:
    page = pages.get("/verify?next=/account").text
    assert "Confirm it's you" in page
    pages.post("/verify?next=/account", 302, page="/verify", password=PASSWORD)
    without_token = pages.client.post("/logout", data={})
    assert "app.css" in without_token.text
    assert pages.client.get("/account").status_code == 200


def test_guesses_are_limited_before_they_are_hashed(app: Flask, pages: Pages) -> None:
    guesser = Pages(app)
    token = guesser.token("/login")
    data = {"csrf_token": token, "email": "someone@example.com", "password": "wrong"}
    answers = [guesser.client.post("/login", data=data).status_code for _ in range(11)]
    assert answers == [200] * 10 + [429]


@pytest.fixture
def behind_a_proxy(settings: dict[str, str], pages: Pages) -> Iterator[Pages]:
    settings["GRAFIENT_TRUSTED_PROXIES"] = "1"
    proxied = Pages(create_app(settings))
    yield proxied
    with proxied.client.application.app_context():
        db.engine.dispose()
    proxied.client.application.extensions["redis"].close()


@pytest.mark.parametrize(
    ("sent", "others", "elsewhere"),
    [
        ("192.0.2.1:5678", ["192.0.2.1", "192.0.2.1:9999", "::ffff:192.0.2.1"], "192.0.2.2:5678"),
        ("[2001:db8:1:2::3]:443", ["2001:db8:1:2::4", "[2001:db8:1:2:3::]", "2001:db8:1:2::3%eth0"], "2001:db8:1:3::3"),
        ("::ffff:192.0.2.3", ["[::ffff:192.0.2.3]:80"], "::ffff:192.0.2.4"),
        ("unknown", ["_hidden", "a" * 300, "[", "1.2.3.4.5"], "192.0.2.5"),
    ],
)
def test_an_address_is_counted_however_a_proxy_writes_it(
    behind_a_proxy: Pages, sent: str, others: list[str], elsewhere: str
) -> None:
    token = behind_a_proxy.token("/login")

    def guess(address: str) -> int:
        data = {"csrf_token": token, "email": "someone@example.com", "password": "wrong"}
        return behind_a_proxy.client.post("/login", data=data, headers={"X-Forwarded-For": address}).status_code

    assert [guess(sent) for _ in range(10)] == [200] * 10
    assert {guess(other) for other in (sent, *others)} == {429}
    assert guess(elsewhere) == 200


def test_pages_say_what_browsers_should_refuse(pages: Pages) -> None:
    headers = pages.get("/account").headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "private, no-cache"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/integrations/999", f"/integrations/{2**31}", f"/integrations/{2**70}", "/?integration=9"],
)
def test_an_address_that_leads_nowhere_has_a_page(pages: Pages, path: str) -> None:
    assert "Page not found" in pages.get(path, 404).text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_is_away_has_a_page_too(app: Flask, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    app.testing = False

    def away(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("the server went away"))

    monkeypatch.setattr("sqlalchemy.orm.Session.execute", away)
    monkeypatch.setattr("sqlalchemy.orm.Session.scalar", away)
    assert pages.get("/healthz").status_code == 200
    pages.get("/static/app.css").close()
    answer = pages.get("/", 500)
    assert "Something broke here" in answer.text
    assert "went away" not in answer.text


def test_whoever_comes_to_sign_in_is_told_what_this_is(app: Flask) -> None:
    pages = Pages(app)
    for path in ("/register", "/login"):
        (about,) = lint(pages.get(path).text).query("aside[aria-label='What Grafient is']")
        text = " ".join(about.to_text().split())
        assert "Grafient shows what your AI provider really bills you, per day and model" in text
        assert [term.to_text() for term in about.query("dt")] == ["Exact", "Complete", "Yours"]
        if path == "/register":
            pages.register("first@example.com", PASSWORD)
            pages.post("/logout", 302, "/account")


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("password123", "This is a very common password."),
        ("iloveyou1", "common"),
        ("qwertyuiop", "common"),
        ("aaaaaaaaaaaa", "easy to guess"),
        ("Someone2026", "mostly your own name"),
        ("example.com1", "mostly your own name"),
        ("grafient-99", "mostly your own name"),
        ("a" * 128, "easy to guess"),
    ],
)
def test_a_password_that_is_easily_guessed_is_refused(app: Flask, password: str, says: str) -> None:
    fields = {"email": "someone@example.com", "password": password, "password_confirm": password}
    assert says in Pages(app).post("/register", 200, **fields).text
    with app.app_context():
        assert first_is_wanted()


def test_a_new_password_has_to_be_as_good(app: Flask, pages: Pages) -> None:
    for password in ("password123", "Someone2026"):
        fields = {"password": PASSWORD, "new_password": password, "new_password_confirm": password}
        pages.post("/account/password", 200, **fields)
    long = "several words that nobody says " * 4
    pages.post("/account/password", 302, password=PASSWORD, new_password=long, new_password_confirm=long)


def test_guesses_from_many_addresses_do_not_pass_and_do_not_keep_the_owner_out(
    app: Flask, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Pages(app)
    owner.log_in("someone@example.com", PASSWORD)
    owner.post("/logout", 302, page="/account")
    for number in range(19):  # the owner's own first try counted, too
        guesser = Pages(app)
        guesser.client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        guesser.post("/login", 200, email=" Someone@example.com", password=f"guess number {number}")
    guesser = Pages(app)
    guesser.client.environ_base["REMOTE_ADDR"] = "198.51.100.7"
    token = guesser.token("/login")
    fields = {"csrf_token": token, "email": "someone@example.com", "password": PASSWORD}
    assert guesser.client.post("/login", data=fields).status_code == 429, "the right one doesn't pass either"
    owner.log_in("someone@example.com", PASSWORD)
    other = Pages(app)
    other.client.environ_base["REMOTE_ADDR"] = "198.51.100.8"
    other.post("/login", 200, email="another@example.com", password="wrong wrong")


def test_a_device_is_known_for_its_own_account_only(app: Flask, pages: Pages) -> None:
    """Whoever has an account here can't count as the owner of another."""
    found = pages.client.get_cookie("device")
    assert found is not None

    def counts(email: str, cookie: str) -> str:
        headers = {"Cookie": f"device={cookie}"}
        with app.test_request_context("/login", method="POST", data={"email": email}, headers=headers):
            return accounts._account().split()[0]

    assert counts("someone@example.com", found.value) == "device"
    assert counts(" SOMEONE@example.com", found.value) == "device"
    assert counts("someone@ｅｘａｍｐｌｅ.com", found.value) == "device"
    assert counts("other@example.com", found.value) == "account"
    for forged in ("", "x", "a.b.c", found.value[:-1], '["x"]'):
        assert counts("someone@example.com", forged) == "account"


@pytest.mark.parametrize("spelled", ["someone@ｅxample.com", "SOMEONE@EXAMPLE.COM", "someone@example.ｃom"])
def test_another_spelling_of_an_address_is_no_other_account(app: Flask, pages: Pages, spelled: str) -> None:
    """All of these sign in as the same account, so guesses under each of them count together."""
    Pages(app).post("/login", 302, email=spelled, password=PASSWORD)
    keys = set()
    for email in (spelled, "someone@example.com"):
        with app.test_request_context("/login", method="POST", data={"email": email}):
            keys.add(accounts._account())
    assert len(keys) == 1


@on_sqlite
def test_a_password_counts_to_its_last_letter_and_as_it_was_typed(app: Flask, pages: Pages) -> None:
    long = "Several words that nobody says " * 4 + "End"
    pages.post("/account/password", 302, password=PASSWORD, new_password=long, new_password_confirm=long)
    for other in (long[:-1], long.lower(), f"{long} ", long[:72]):
        Pages(app).post("/login", 200, email="someone@example.com", password=other)
    Pages(app).log_in("someone@example.com", long)


@on_sqlite
def test_a_new_password_needs_the_old_one(app: Flask, pages: Pages) -> None:
    new = "an even better horse"
    for old in ("", "not it at all"):
        pages.post("/account/password", 200, password=old, new_password=new, new_password_confirm=new)
    Pages(app).log_in("someone@example.com", PASSWORD)


@on_sqlite
def test_a_password_is_stored_as_slowly_as_can_be_waited_for(settings: dict[str, str]) -> None:
    """OWASP asks for 19 MiB and 2 passes at least."""
    app = create_app(settings)
    with app.app_context():
        stored = flask_security.hash_password(PASSWORD)
        db.engine.dispose()
    app.extensions["redis"].close()
    memory, passes = map(int, re.match(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=\d+\$", stored).groups())
    assert (memory >= 64 * 1024, passes >= 3) == (True, True)


@on_sqlite
@pytest.mark.parametrize(("path", "most"), [("/login", 1), ("/verify", 1), ("/account/password", 3)])
def test_passwords_are_hidden_and_password_managers_find_them(app: Flask, pages: Pages, path: str, most: int) -> None:
    browser = Pages(app) if path == "/login" else pages
    fields = [field.attrs for field in lint(browser.get(path).text).query("input") if "password" in field.attrs["name"]]
    assert len(fields) == most
    for field in fields:
        assert field["type"] == "password"
        assert field["autocomplete"] in ("current-password", "new-password")
        assert "maxlength" not in field
        assert "readonly" not in field


@on_sqlite
@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x"])
def test_logging_in_leads_to_no_other_site(app: Flask, pages: Pages, elsewhere: str) -> None:
    fields = {"email": "someone@example.com", "password": PASSWORD}
    for where in (f"/login?next={elsewhere}", "/login"):
        browser = Pages(app)
        answer = browser.client.post(where, data=fields | {"csrf_token": browser.token("/login"), "next": elsewhere})
        assert answer.status_code == 200 or re.match(r"/($|%5C)", answer.location), answer.location


@on_sqlite
def test_a_form_gives_nobody_what_it_does_not_ask_for(app: Flask, pages: Pages) -> None:
    app.extensions["settings"].__dict__["registration"] = "open"
    more = {"workspace_id": "1", "admitted_as": "owner", "active": "", "id": "7", "oidc_subject": "x", "plan": "pro"}
    fields = {"email": "b@example.com", "password": PASSWORD, "password_confirm": PASSWORD}
    Pages(app).post("/register", 302, **fields, **more)
    with app.app_context():
        user = db.session.query(User).filter_by(email="b@example.com").one()
        assert (user.id, user.workspace_id, user.active, user.oidc_subject) == (2, 2, True, None)
        assert user.workspace is not None
        assert user.workspace.plan == "free"


@on_sqlite
def test_a_failed_try_is_a_line_of_the_log_without_what_was_typed(
    app: Flask, pages: Pages, caplog: pytest.LogCaptureFixture
) -> None:
    for email in ("someone@example.com", "nobody@example.com"):
        Pages(app).post("/login", 200, email=email, password="wrong wrong")
    Pages(app).log_in("someone@example.com", PASSWORD)
    assert caplog.text.count("accounts: a sign-in failed, from 127.0.0.1") == 2
    assert "nobody" not in caplog.text
    assert "wrong wrong" not in caplog.text


@on_sqlite
def test_a_browser_that_came_by_tls_is_told_to_come_by_nothing_else(behind_a_proxy: Pages) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    for path in ("/login", "/nowhere", "/static/app.css", "/healthz"):
        answer = behind_a_proxy.client.get(path, headers=headers)
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000", path
        answer.close()


class TestSetUpLink:
    """The first account belongs to whoever deployed this, and not to whoever comes first."""

    @pytest.fixture(autouse=True)
    def _public(self, settings: dict[str, str]) -> None:
        settings["GRAFIENT_SETUP_LINK"] = "on"
        settings["GRAFIENT_HOSTS"] = "costs.example.com"

    @staticmethod
    def _link(app: Flask) -> str:
        printed = app.test_cli_runner().invoke(args=["setup-link"])
        assert printed.exit_code == 0, printed.output
        return printed.output.strip()

    @pytest.mark.parametrize("policy", ["first", "open"])
    def test_nobody_makes_the_first_account_without_it(self, settings: dict[str, str], app: Flask, policy: str) -> None:
        app.extensions["settings"].__dict__["registration"] = policy
        stranger = Pages(app)
        for path in ("/register", "/register?setup=", "/register?setup=x", "/register?setup=a.b.c"):
            assert "setup-link" in stranger.get(path, 403).text
        with stranger.client.session_transaction() as session:
            session["csrf_token"] = "x"
        fields = {"email": "a@example.com", "password": PASSWORD, "password_confirm": PASSWORD}
        assert stranger.client.post("/register", data=fields).status_code in (400, 403)
        assert stranger.client.post("/register?setup=x", data=fields).status_code in (400, 403)

    def test_with_it_the_first_account_is_made_and_then_no_other(self, app: Flask) -> None:
        link = self._link(app)
        assert link.startswith("https://costs.example.com/register?setup=")
        owner, other = Pages(app), Pages(app)
        for one in (owner, other):
            one.get(link.removeprefix("https://costs.example.com"))
        owner.register("owner@example.com", PASSWORD)
        assert other.get("/register", 403).text.count("closed")
        assert other.get(link.removeprefix("https://costs.example.com"), 403).text.count("closed")
        again = app.test_cli_runner().invoke(args=["setup-link"])
        assert (again.exit_code, "there is an account" in again.output) == (1, True)

    def test_it_works_for_seven_days(self, app: Flask) -> None:
        with time_machine.travel(datetime(2026, 11, 2, 12, tzinfo=UTC)) as clock:
            link = self._link(app).removeprefix("https://costs.example.com")
            clock.shift(timedelta(days=6, hours=23))
            Pages(app).get(link)
            clock.shift(timedelta(hours=2))
            Pages(app).get(link, 403)

    def test_another_installations_link_is_none(self, app: Flask, settings: dict[str, str]) -> None:
        link = self._link(app).removeprefix("https://costs.example.com")
        app.extensions["settings"].__dict__["secret_key"] = "another secret of another Grafient"
        Pages(app).get(link, 403)

    def test_the_release_phase_prints_it(self, app: Flask) -> None:
        printed = app.test_cli_runner().invoke(args=["upgrade"])
        assert "To make the first account, open: https://costs.example.com/register?setup=" in printed.output


def test_every_message_that_is_worded_anew_is_one_of_flask_security() -> None:
    assert {*accounts._MESSAGES} <= {*flask_security.core._default_messages}

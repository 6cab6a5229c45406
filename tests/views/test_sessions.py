"""Sessions: that they end, and when; where one is logged in; and what a copied cookie or database is worth."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from grafient import sessions
from grafient.extensions import db
from grafient.models import AuditEntry, User, UserSession
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages, lint
from tests.syncing import on_sqlite

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Mobile/15E148 Safari/604.1"
)


def another(app: Flask, agent: str = FIREFOX, email: str = EMAIL, **more: str) -> Pages:
    """The same account, logged in on another device."""
    device = Pages(app)
    device.client.environ_base["HTTP_USER_AGENT"] = agent
    device.post("/login", 302, email=email, password=PASSWORD, **more)
    return device


def is_in(pages: Pages) -> bool:
    """Whether it is signed in: a page that is kept, and one that is not, say the same."""
    answers = [pages.client.get(path).status_code for path in ("/", "/account")]
    assert answers in ([200, 200], [302, 302])
    return answers == [200, 200]


def cookie(pages: Pages) -> str:
    found = pages.client.get_cookie("session")
    assert found is not None
    return found.value


def with_cookie(app: Flask, value: str) -> Pages:
    thief = Pages(app)
    thief.client.set_cookie("session", value)
    return thief


def test_logging_out_ends_a_copied_cookie_too(app: Flask, pages: Pages) -> None:
    copied = cookie(pages)
    assert is_in(with_cookie(app, copied))
    pages.post("/logout", 302, page="/account")
    assert not is_in(with_cookie(app, copied))
    assert not is_in(pages)


def test_a_cookie_that_stays_is_no_longer_worth_anything_after_logging_out(app: Flask, pages: Pages) -> None:
    device = another(app, remember="y")
    copied = cookie(device)
    assert is_in(with_cookie(app, copied))
    assert device.client.get_cookie("remember_token") is None
    device.post("/logout", 302, page="/account")
    assert not is_in(with_cookie(app, copied))


def test_another_password_ends_all_sessions_but_this_one(app: Flask, pages: Pages) -> None:
    device = another(app)
    before = cookie(pages)
    words = "another battery of horses"
    pages.post("/account/password", 302, password=PASSWORD, new_password=words, new_password_confirm=words)
    assert is_in(pages)
    assert not is_in(device)
    assert not is_in(with_cookie(app, before)), "this one has another token"


def test_a_password_changed_by_a_command_ends_all_sessions(app: Flask, pages: Pages) -> None:
    changed = app.test_cli_runner().invoke(
        args=["users", "change_password", EMAIL, "--password", "horses and batteries"]
    )
    assert changed.exit_code == 0, changed.output
    assert not is_in(pages)
    with app.app_context():
        assert not db.session.execute(select(UserSession)).all()


@pytest.mark.parametrize(
    ("visits", "stays"),
    [([13, 26, 39], True), ([15], False), ([*range(13, 90, 13)], True), ([*range(13, 90, 13), 91], False)],
)
def test_it_ends_after_14_idle_days_and_after_90_in_any_case(app: Flask, visits: list[int], stays: bool) -> None:
    with time_machine.travel(datetime(2026, 11, 2, 12, tzinfo=UTC)) as clock:
        pages = Pages(app)
        pages.register(EMAIL, PASSWORD)
        start = datetime.now(UTC)
        *before, last = visits
        for day in before:
            clock.move_to(start + timedelta(days=day))
            assert is_in(pages)
        clock.move_to(start + timedelta(days=last))
        assert is_in(pages) == stays


def test_signing_in_begins_anew(app: Flask, pages: Pages) -> None:
    """A session that was put upon a browser before, and its CSRF token, are not those of who signs in there."""
    device = Pages(app)
    before = device.token("/login")
    with device.client.session_transaction() as planted:
        assert "token" not in planted
        planted["token"] = "planted"
    device.log_in(EMAIL, PASSWORD)
    with device.client.session_transaction() as own:
        assert own["token"] != "planted"
    assert device.token("/account") != before
    refused = device.client.post("/logout", data={"csrf_token": before})
    assert is_in(device), refused.status_code


def test_a_session_is_of_whom_it_was_made_for(app: Flask, pages: Pages) -> None:
    with app.app_context():
        db.session.add(User(workspace_id=1, email="o@example.com", password="x", active=True, fs_uniquifier="other"))
        db.session.commit()
    with pages.client.session_transaction() as own:
        own["_user_id"] = "other"
    assert not is_in(pages)


def test_a_stolen_database_opens_no_session(app: Flask, pages: Pages) -> None:
    """Even for who can sign cookies: what is stored of a token is not the token."""
    with app.app_context():
        stored = db.session.execute(select(UserSession.token_hash)).scalar_one()
        rows = [str(row) for table in db.metadata.sorted_tables for row in db.session.execute(select(table))]
    with pages.client.session_transaction() as own:
        real = own["token"]
    assert not any(real in row for row in rows)
    for guess in (stored.hex(), b64encode(stored).decode(), stored.decode("latin-1")):
        with pages.client.session_transaction() as own:
            own["token"] = guess
        assert not is_in(pages)
    with pages.client.session_transaction() as own:
        own["token"] = real
    assert is_in(pages)


def rows(answer: TestResponse) -> list[str]:
    return [row.to_text() for row in lint(answer.text).query("main .rows li")]


def test_the_page_lists_them_and_ends_one(app: Flask, pages: Pages) -> None:
    phone, other = another(app, PHONE), another(app, FIREFOX)
    listed = rows(other.get("/account/sessions"))
    assert len(listed) == 3
    assert listed[0].startswith("Firefox on Linux")
    assert "(here)" in listed[0]
    assert "127.0.0.1" in listed[1]
    assert "Mobile Safari on iOS" in listed[1]
    assert listed[2].startswith("An unknown browser") or "Werkzeug" in listed[2]
    with app.app_context():
        found = db.session.execute(
            select(UserSession.id).where(UserSession.device == "Mobile Safari on iOS")
        ).scalar_one()
    other.post("/account/sessions/end", page="/account/sessions", session=str(found))
    assert "That session has ended." in other.get("/account/sessions").text
    assert not is_in(phone)
    assert is_in(other)
    assert is_in(pages)


def test_logging_out_everywhere(app: Flask, pages: Pages) -> None:
    phone = another(app, PHONE)
    answer = pages.post("/account/sessions/end", page="/account/sessions")
    assert answer.location == "/login"
    assert "You are logged out everywhere." in pages.get("/login").text
    assert not is_in(phone)
    assert not is_in(pages)


def test_nobody_ends_anothers(app: Flask, pages: Pages, settings: dict[str, str]) -> None:
    with app.app_context():
        mine = db.session.execute(select(UserSession.id)).scalar_one()
    app.extensions["settings"].__dict__["registration"] = "open"
    stranger = Pages(app)
    stranger.register("stranger@example.com", PASSWORD)
    stranger.post("/account/sessions/end", page="/account/sessions", session=str(mine))
    assert is_in(pages)
    for nonsense in ("0", "-1", "x", "9" * 30, "²"):
        stranger.client.post(
            "/account/sessions/end", data={"session": nonsense, "csrf_token": Pages.token(pages, "/account")}
        )
        assert is_in(pages)


def test_only_a_session_that_was_there_is_noted_as_ended(app: Flask, pages: Pages) -> None:
    pages.post("/account/sessions/end", page="/account/sessions", session="4711")
    assert "That session had ended already." in pages.get("/account/sessions").text
    with app.app_context():
        assert "session ended" not in db.session.execute(select(AuditEntry.action)).scalars().all()


def test_its_last_use_is_noted_to_ten_minutes(app: Flask, pages: Pages) -> None:
    def seen() -> datetime:
        with app.app_context():
            return db.session.execute(select(UserSession.seen_at)).scalar_one()

    first = seen()
    pages.get("/account")
    assert seen() == first
    for path in ("/", "/account"):
        with app.app_context():
            db.session.execute(update(UserSession).values(seen_at=first - timedelta(minutes=11)))
            db.session.commit()
        pages.get(path)
        assert seen() >= first


def test_there_are_fifty_at_most_and_the_one_not_used_for_longest_goes(app: Flask, pages: Pages) -> None:
    with app.app_context():
        user = db.session.get_one(User, 1)
        for number in range(sessions.MOST + 5):
            sessions.begin(user, f"device {number}", "192.0.2.1")
        db.session.commit()
        found = [one.device for one in sessions.of(1)]
    assert len(found) == sessions.MOST
    assert found[0] == f"device {sessions.MOST + 4}"
    assert "device 4" not in found
    assert not is_in(pages), "it was the first"


def test_saying_who_one_is_gives_the_session_another_token(app: Flask, pages: Pages) -> None:
    """Who has copied the cookie is out, and is not trusted with what asks for the password."""
    copied = cookie(pages)
    pages.post("/verify", 200, password="not it at all")
    assert is_in(with_cookie(app, copied))
    pages.post("/verify", 302, password=PASSWORD)
    assert not is_in(with_cookie(app, copied))
    assert is_in(pages)
    assert len(rows(pages.get("/account/sessions"))) == 1


@on_sqlite
def test_ending_sessions_asks_who_one_is(app: Flask, pages: Pages) -> None:
    other = another(app)
    with pages.client.session_transaction() as own:
        own["fs_paa"] -= 31 * 60
    asked = pages.post("/account/sessions/end", 303, page="/account/sessions")
    assert asked.location == "/verify?next=/account/sessions/end"
    assert is_in(other)
    back = pages.post(asked.location, 302, page="/verify", password=PASSWORD)
    assert pages.get(back.location, 302).location == "/account/sessions"
    pages.post("/account/sessions/end", 303, page="/account/sessions")
    assert not is_in(other)


def test_an_operator_ends_the_sessions_of_one_and_of_everybody(app: Flask, pages: Pages) -> None:
    app.extensions["settings"].__dict__["registration"] = "open"
    other = Pages(app)
    other.register("other@example.com", PASSWORD)

    def end(*what: str) -> str:
        return app.test_cli_runner().invoke(args=["members", "log-out", *what]).output

    assert "Name one account" in end()
    assert "Name one account" in end(EMAIL, "--everybody")
    assert is_in(pages)
    assert end(EMAIL) == "Sessions ended: 1.\n"
    assert (is_in(pages), is_in(other)) == (False, True)
    assert end("--everybody") == "Sessions ended: 1.\n"
    assert not is_in(other)


@on_sqlite
def test_a_disabled_account_is_out_at_once(app: Flask, pages: Pages) -> None:
    with app.app_context():
        db.session.execute(update(User).values(active=False))
        db.session.commit()
    assert not is_in(pages)
    pages.post("/login", 200, email=EMAIL, password=PASSWORD)


@on_sqlite
def test_what_is_signed_is_signed_with_sha_256(app: Flask, pages: Pages) -> None:
    device = pages.client.get_cookie("device")
    assert device is not None
    reset = app.test_cli_runner().invoke(args=["members", "reset-link", EMAIL]).output.strip()
    for signed in (cookie(pages), device.value, pages.token("/account"), reset):
        assert len(signed.rpartition(".")[2]) == 43, signed  # 32 bytes; SHA-1 has 20, which are 27 letters


@on_sqlite
def test_every_page_leads_to_logging_out(app: Flask, pages: Pages) -> None:
    for path in ("/", "/account", "/integrations/new", "/account/sessions", "/nowhere"):
        (link,) = lint(pages.get(path, 404 if path == "/nowhere" else 200).text).query("footer a[href='/logout']")
        assert link.to_text() == "Log out"
    page = pages.get("/logout")
    assert is_in(pages), "a link alone ends nothing"
    assert lint(page.text).query("main form[action='/logout']")
    pages.post("/logout", 302)
    assert not is_in(pages)


@on_sqlite
def test_no_link_logs_out(app: Flask, pages: Pages) -> None:
    """Flask-Security took who is signed in and comes to where a code is asked for as an attack, and logged them out."""
    assert pages.get("/login/code", 303).location == "/account/codes"
    assert is_in(pages)

"""A page that is kept says what a page made anew would say, whatever happened in between; and nobody else sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from grafient import disk, sessions, totals
from grafient.extensions import db
from grafient.models import DayTotal, Membership, User
from grafient.sandbox import Sandbox
from grafient.states import Role
from grafient.views import kept
from tests.pages import Pages
from tests.statements import asked
from tests.syncing import NOON, a_day, at, later, on_sqlite
from tests.views.test_integrations import connected, run_due

ADDRESSES = ("/", "/?days=7", "/?group=key", "/breakdown", "/breakdown?group=host&q=gpt")


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def lively(app: Flask, pages: Pages, sandbox: Sandbox) -> Pages:
    connected(app, pages, sandbox)
    pages.get("/account")  # says that the integration was added
    return pages


def test_a_page_that_is_asked_for_again_takes_one_statement(app: Flask, lively: Pages) -> None:
    for address in ADDRESSES:
        first = lively.get(address)
        with asked(app) as statements:
            again = lively.get(address)
        assert len(statements) == 1
        assert (again.data, again.headers["ETag"]) == (first.data, first.headers["ETag"])
        assert again.content_type == "text/html; charset=utf-8"
        assert again.headers["Cache-Control"] == "private, no-cache"


def test_a_browser_that_has_it_is_told_so_in_a_few_bytes(app: Flask, lively: Pages) -> None:
    etag = lively.get("/").headers["ETag"]
    answer = lively.client.get("/", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", etag)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert lively.client.get("/?days=7", headers={"If-None-Match": etag}).status_code == 200


def without_token(answer: TestResponse) -> str:
    """The page without what protects its forms, which has the second in it at which it was made."""
    return re.sub(r'name="csrf_token" value="[^"]*"', "", answer.text)


def mark_seen(pages: Pages) -> None:
    pages.get("/integrations/1")


CHANGES: dict[str, Callable[[Pages], object]] = {
    "a sync": lambda pages: pages.post("/integrations/1/sync", 303, "/integrations"),
    "paused": lambda pages: pages.post("/integrations/1/pause", 303, "/integrations/1"),
    "removed, history kept": lambda pages: pages.post("/integrations/1/delete", 303, "/integrations/1", history="keep"),
    "removed": lambda pages: pages.post("/integrations/1/delete", 303, "/integrations/1", history="delete"),
    "renamed": lambda pages: pages.post("/integrations/1/rename", 303, "/integrations/1", label="Another"),
    "what changed was seen": mark_seen,
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_happens_it_says_what_a_new_page_says(
    app: Flask, lively: Pages, sandbox: Sandbox, change: str
) -> None:
    with later(2):
        lively.post("/integrations/1/sync", 303, "/integrations")
        run_due(app)
    with later(3):
        sandbox.restate("lively", a_day(sandbox), "1.5")
        lively.post("/integrations/1/sync", 303, "/integrations")
        run_due(app)
        before = {address: lively.get(address).data for address in ADDRESSES}
        assert b"changed since you last looked" in before["/"]
        sandbox.restate("lively", a_day(sandbox, ago=7), "2.5")
        CHANGES[change](lively)
        run_due(app)
        lively.get("/account")  # shows what was to be said, which a page that is kept can't
        for address in ADDRESSES:
            shown = without_token(lively.get(address))
            app.extensions["kept_pages"] = kept.KeptPages()
            assert shown == without_token(lively.get(address)), address
        differ = {address for address in ADDRESSES if lively.get(address).data != before[address]}
        assert "/" in differ


def is_kept(app: Flask) -> bool:
    """Whether any page is."""
    pages: kept.KeptPages = app.extensions["kept_pages"]
    return bool(pages._bodies)


def test_a_message_for_one_request_is_not_kept(app: Flask, lively: Pages) -> None:
    lively.post("/integrations/1/delete", 303, "/integrations/1", history="keep")
    told = lively.get("/")
    assert "Its costs were kept" in told.text
    assert not is_kept(app)
    assert "Its costs were kept" not in lively.get("/").text
    assert is_kept(app)


def test_a_first_sync_is_watched(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    pages.connect(sandbox.key("lively"))
    pages.get("/account")
    pages.get("/")
    assert not is_kept(app)
    run_due(app)
    pages.get("/")
    assert is_kept(app)


@pytest.mark.parametrize("moment", ["23:59:59", "00:29:59", "05:59:59"])
def test_the_clock_makes_another_page(lively: Pages, moment: str) -> None:
    """At midnight there is another today, half an hour later a day is settled, and at six it is due."""
    hours, minutes, seconds = map(int, moment.split(":"))
    start = NOON.replace(hour=hours, minute=minutes, second=seconds) + timedelta(days=1)
    with time_machine.travel(start, tick=False) as clock:
        etag = lively.get("/").headers["ETag"]
        assert lively.get("/").headers["ETag"] == etag
        clock.shift(2)
        assert lively.get("/").headers["ETag"] != etag


def test_nobody_gets_anothers_page(app: Flask, lively: Pages, sandbox: Sandbox, settings: dict[str, str]) -> None:
    etag, mine = lively.get("/").headers["ETag"], lively.get("/").data
    with app.app_context():
        one = db.session.get_one(User, 1)
        db.session.add(
            User(workspace_id=one.workspace_id, email="other@example.com", password="x", active=True, fs_uniquifier="o")
        )
        other_user = db.session.execute(select(User).where(User.id != 1)).scalar_one()
        db.session.add(Membership(workspace_id=1, user_id=other_user.id, role=Role.VIEWER))
        token = sessions.begin(other_user, "x", "127.0.0.1")
        db.session.commit()
    other = Pages(app)
    with other.client.session_transaction() as cookie, lively.client.session_transaction() as own:
        cookie.update(own)
        cookie["_user_id"], cookie["token"] = "o", token
    answer = other.client.get("/", headers={"If-None-Match": etag})
    assert answer.status_code == 200
    assert b"other<wbr>@example.com" in answer.data
    assert b"someone<wbr>@example.com" not in answer.data
    assert b"someone<wbr>@example.com" in mine
    signed_out = Pages(app).client.get("/", headers={"If-None-Match": etag})
    assert signed_out.status_code == 302


DEPARTURES: dict[str, dict[str, object]] = {
    "disabled": {"active": False},
    "another password": {"fs_uniquifier": "another"},
}


@pytest.mark.parametrize("departure", DEPARTURES)
def test_who_is_signed_in_is_asked_each_time(app: Flask, lively: Pages, departure: str) -> None:
    """Flask-Security gives a user another ``fs_uniquifier`` with another password, so that sessions elsewhere end."""
    etag = lively.get("/").headers["ETag"]
    with app.app_context():
        db.session.execute(update(User).values(**DEPARTURES[departure]))
        db.session.commit()
    for headers in ({}, {"If-None-Match": etag}):
        answer = lively.client.get("/", headers=headers)
        assert (answer.status_code, answer.location) == (302, "/login?next=/")
        assert "ETag" not in answer.headers


def test_a_session_that_nobody_signed_gets_nothing(app: Flask, lively: Pages) -> None:
    lively.get("/")
    with lively.client.session_transaction() as cookie:
        who = cookie["_user_id"]
    forged = Flask("forged")
    forged.secret_key = "another secret"
    value = forged.session_interface.get_signing_serializer(forged).dumps({"_user_id": who})  # type: ignore[attr-defined]
    stranger = app.test_client()
    stranger.set_cookie("session", value)
    assert stranger.get("/").status_code == 302


def test_logging_out_empties_what_the_browser_kept(lively: Pages) -> None:
    answer = lively.post("/logout", 302, "/account")
    assert answer.headers["Clear-Site-Data"] == '"cache"'


def test_totals_that_were_mended_are_shown(app: Flask, lively: Pages) -> None:
    right = lively.get("/").data
    with app.app_context():
        db.session.execute(update(DayTotal).values(usage_usd=Decimal(1)))
        db.session.commit()
        app.extensions["kept_pages"] = kept.KeptPages()
        wrong = lively.get("/").data
        totals.repair()
        db.session.commit()
    assert wrong != right
    assert lively.get("/").data == right


@on_sqlite
def test_a_full_disk_is_said_on_pages_that_were_kept(lively: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    lively.get("/")
    monkeypatch.setattr(disk, "is_full", lambda _folder: True)
    assert disk.FULL in lively.get("/").text


def test_what_is_kept_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES", 100)
    pages = kept.KeptPages()
    for number in range(30):
        pages.keep(str(number), b"x" * 10)
    assert [number for number in range(30) if pages.get(str(number))] == [*range(20, 30)]
    pages.keep("huge", b"x" * 101)
    assert pages.get("huge") is None
    assert pages.get("29")

"""What somebody has to do is said at the top of pages of costs, kept or not, and counted in the navigation of all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import time_machine
from flask import Flask
from sqlalchemy import delete, select

from grafient import trouble
from grafient.extensions import db
from grafient.models import CoveredDay, Integration
from grafient.sandbox import Sandbox
from grafient.states import Problem
from tests.conftest import PASSWORD
from tests.pages import Pages, lint
from tests.statements import asked, scanned
from tests.stored import ago
from tests.syncing import NOON, at, later, on_sqlite
from tests.views.test_integrations import connected, run_due
from tests.views.test_many import change, fill, run

EARLIER = NOON - timedelta(hours=4)
PAGES = ("/", "/breakdown")


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


def banner(pages: Pages, path: str = "/") -> list[str]:
    """What it says, one sentence or two for an integration."""
    found = lint(pages.get(path).text).query("section.trouble li, section.trouble .trouble-more")
    return [re.sub(r" (?=[.,:])", "", " ".join(one.to_text().split())) for one in found]


def mark(pages: Pages, path: str = "/") -> str:
    (link,) = lint(pages.get(path).text).query("nav a[href='/integrations']")
    return " ".join(link.to_text().split())


def actions(pages: Pages) -> list[str]:
    return [str(link.attrs["href"]) for link in lint(pages.get("/").text).query("section.trouble a")]


SAID = (
    (
        {"problem": Problem.NEEDS_KEY, "problem_since": EARLIER, "problem_detail": "Unknown."},
        "Account 0001 needs a new key: OpenRouter has rejected the stored one since 20 Nov 2026, 08:00 UTC. Replace "
        "the key of Account 0001",
        "/integrations/1#key",
    ),
    (
        {"problem": Problem.API_CHANGED, "problem_since": EARLIER, "problem_detail": "Unknown shape."},
        "Account 0001 has not been read since 20 Nov 2026, 08:00 UTC: OpenRouter changed its API, and Grafient needs "
        "an update. See what happened to Account 0001",
        "/integrations/1",
    ),
    (
        {"last_success_at": NOON - timedelta(hours=27)},
        "Account 0001 was last read on 19 Nov 2026, 09:00 UTC, more than a day ago. See what happened to Account 0001",
        "/integrations/1",
    ),
    (
        {"last_success_at": None},
        "Account 0001 has never been read, though it was added more than a day ago. See what happened to Account 0001",
        "/integrations/1",
    ),
    (
        {"problem": Problem.FAULT, "problem_since": EARLIER, "problem_detail": "OpenRouter could not be reached."},
        "Syncs of Account 0001 have been failing since 20 Nov 2026, 08:00 UTC, and are being retried. OpenRouter could "
        "not be reached. See what happened to Account 0001",
        "/integrations/1",
    ),
    (
        {"key_expires_at": NOON + timedelta(days=13)},
        "The key of Account 0001 expires 3 Dec 2026, 12:00 UTC. Replace it with another before then. Replace the key "
        "of Account 0001",
        "/integrations/1#key",
    ),
    (
        {"key_expires_at": NOON - timedelta(hours=1)},
        "The key of Account 0001 expires 20 Nov 2026, 11:00 UTC. Replace it with another before then. Replace the key "
        "of Account 0001",
        "/integrations/1#key",
    ),
    (
        {"paused_at": EARLIER, "last_success_at": NOON - timedelta(days=3)},
        "Account 0001 has been paused since 20 Nov 2026, 08:00 UTC, so no new days are read. Resume Account 0001",
        "/integrations/1#pause",
    ),
)


@on_sqlite
@pytest.mark.parametrize(("columns", "said", "link"), SAID)
def test_each_says_what_it_is_since_when_and_what_to_do(
    app: Flask, pages: Pages, columns: dict[str, object], said: str, link: str
) -> None:
    ids = fill(app, 2)
    change(app, ids[0], **columns)
    for path in PAGES:
        assert banner(pages, path) == [said]
    assert actions(pages) == [link]
    for path in (*PAGES, "/statement", "/integrations", "/integrations/2", "/integrations/new", "/account"):
        assert mark(pages, path) == "Integrations 1 needs attention"
    for path in ("/integrations", "/account", "/statement"):
        assert banner(pages, path) == []


@on_sqlite
@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"key_expires_at": NOON + timedelta(days=15)},
        {"key_expires_at": NOON + timedelta(days=1), "removed_at": EARLIER},
        {"last_success_at": NOON - timedelta(hours=25)},
        {"problem": Problem.FAULT, "problem_since": NOON - timedelta(hours=1), "problem_detail": "Down."},
        {"problem_detail": "A note on a success."},
        {"last_success_at": None, "created_at": NOON - timedelta(hours=1)},
        {"removed_at": EARLIER, "problem": Problem.NEEDS_KEY, "paused_at": EARLIER},
    ],
)
def test_what_needs_nobody_is_not_mentioned(app: Flask, pages: Pages, columns: dict[str, object]) -> None:
    change(app, fill(app, 1)[0], **columns)
    assert banner(pages) == []
    assert mark(pages) == "Integrations"


def test_the_most_urgent_come_first_and_no_more_than_five(app: Flask, pages: Pages) -> None:
    ids = fill(app, 11)
    for number, (columns, _, _) in enumerate(reversed(SAID)):
        change(app, ids[number], **columns)
    change(app, ids[8], paused_at=EARLIER)
    found = banner(pages)
    assert [words.split("Account ")[1][:4] for words in found[:5]] == ["0008", "0007", "0005", "0006", "0004"]
    assert found[5:] == ["And 4 more"]
    assert mark(pages) == "Integrations 9 need attention"
    assert "11 integrations, 9 of them need attention" in " ".join(
        lint(pages.get("/integrations").text).to_text().split()
    )


@on_sqlite
def test_days_that_will_soon_be_out_of_reach_are_said(app: Flask, pages: Pages) -> None:
    ids = fill(app, 2)
    with app.app_context():
        missing = CoveredDay.integration_id == ids[0], CoveredDay.day.in_([ago(28), ago(26)])
        db.session.execute(delete(CoveredDay).where(*missing))
        db.session.get_one(Integration, ids[0]).changed()
        db.session.commit()
    days = "2 days are missing; OpenRouter reports the oldest in full until 22 Nov 2026."
    assert banner(pages) == [f"Account 0001 is incomplete. {days} Sync it now: Account 0001"]
    change(app, ids[0], paused_at=EARLIER)
    paused = "Account 0001 has been paused since 20 Nov 2026, 08:00 UTC, so no new days are read."
    assert banner(pages) == [f"{paused} {days} Resume Account 0001"]


def test_what_is_being_done_about_it_is_given_ten_minutes(app: Flask, pages: Pages) -> None:
    ids = fill(app, 1)
    change(app, ids[0], last_success_at=NOON - timedelta(days=9))
    with time_machine.travel(NOON + timedelta(minutes=1), tick=False) as clock:
        assert len(banner(pages)) == 1
        run(app, ids[0], created_at=NOON, next_attempt_at=NOON)
        assert banner(pages) == []
        clock.shift(timedelta(minutes=10))
        assert len(banner(pages)) == 1


@pytest.mark.parametrize(
    ("columns", "moment"),
    [
        ({}, NOON + timedelta(hours=20, minutes=-1)),
        (
            {"problem": Problem.FAULT, "problem_since": NOON, "problem_detail": "Down."},
            NOON + timedelta(hours=3, minutes=-1),
        ),
    ],
)
def test_the_clock_alone_brings_it_to_a_page_that_is_kept(
    app: Flask, pages: Pages, columns: dict[str, object], moment: datetime
) -> None:
    change(app, fill(app, 1)[0], **columns)
    with time_machine.travel(moment, tick=False) as clock:
        assert banner(pages) == []
        with asked(app) as statements:
            before = pages.get("/").headers["ETag"]
        assert len(statements) == 1, "a page that is kept costs what it did"
        clock.shift(timedelta(minutes=2))
        assert len(banner(pages)) == 1
        assert pages.get("/").headers["ETag"] != before


def test_a_rejected_key_is_said_on_a_kept_page_until_it_is_replaced(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    pages.get("/account")
    assert banner(pages) == []
    assert "ETag" in pages.get("/").headers
    with later(1):
        pages.post("/verify", 302, password=PASSWORD)
        sandbox.fault("lively", "revoked")
        pages.post("/integrations/1/sync", 303, "/integrations")
        run_due(app)
        assert banner(pages)[0].startswith(
            "OpenRouter needs a new key: OpenRouter has rejected the stored one since 21 Nov"
        )
        sandbox.fault("lively", None)
        pages.post("/integrations/1/key", 303, "/integrations/1", api_key=sandbox.key("lively-again"))
        run_due(app)
        assert banner(pages) == []


@on_sqlite
def test_nobody_reads_of_anothers(app: Flask, pages: Pages) -> None:
    change(app, fill(app, 1)[0], problem=Problem.NEEDS_KEY, problem_since=EARLIER)
    app.extensions["settings"].__dict__["registration"] = "open"
    other = Pages(app)
    other.register("other@example.com", "another fine password")
    assert mark(other) == "Integrations"
    assert mark(pages) == "Integrations 1 needs attention"


def test_1000_in_trouble_take_two_statements_and_no_whole_table(app: Flask, pages: Pages) -> None:
    ids = fill(app, 1000)
    with app.app_context():
        for one in db.session.execute(select(Integration)).scalars():
            one.last_success_at = NOON - timedelta(days=2)
        db.session.commit()
        db.session.rollback()
        with asked(app) as statements:
            found = trouble.of(1)
    assert len(statements) == 2
    assert not scanned(app, statements)
    assert (found.found, found.left_out, len(ids)) == (1000, 995, 1000)


@on_sqlite
@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, []),
        ({"problem": Problem.NEEDS_KEY, "paused_at": EARLIER}, ["Needs a new key"]),
        ({"problem": Problem.API_CHANGED}, ["Provider changed its API"]),
        ({"problem": Problem.FAULT}, ["Retrying"]),
        ({"problem": Problem.FAULT, "paused_at": EARLIER}, ["Paused"]),
        ({"paused_at": EARLIER, "removed_at": EARLIER}, []),
    ],
)
def test_a_card_of_the_dashboard_says_when_its_integration_is_not_read(
    app: Flask, pages: Pages, columns: dict[str, object], said: list[str]
) -> None:
    change(app, fill(app, 1)[0], **columns)
    found = lint(pages.get("/").text).query("section[aria-labelledby=providers] .badge")
    assert [one.to_text() for one in found] == said

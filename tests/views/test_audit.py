"""The audit log: everything is noted with who, when and from where; nothing secret; and a change of it is found."""

from __future__ import annotations

import csv
import io
import threading

import pytest
from flask import Flask
from sqlalchemy import delete, select, text, update

from grafient import audit, members
from grafient.extensions import db
from grafient.models import AuditEntry
from grafient.sandbox import Sandbox
from grafient.states import Action, Role
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages, lint
from tests.syncing import on_sqlite
from tests.views.test_integrations import connected
from tests.views.test_members import OTHER, joined, link


@pytest.fixture(autouse=True)
def _room(settings: dict[str, str]) -> None:
    settings["GRAFIENT_DEFAULT_PLAN"] = "pro"


def noted(app: Flask, chain: int = 1) -> list[tuple[str, str, str]]:
    """Who did what to what, oldest first."""
    with app.app_context():
        entries = db.session.execute(select(AuditEntry).where(AuditEntry.chain == chain).order_by(AuditEntry.number))
        return [(entry.actor, entry.action, entry.subject) for entry in entries.scalars()]


def test_what_people_do_is_noted_with_who_did_it_and_from_where(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    other = joined(app, pages, "viewer")
    before = len(noted(app))
    pages.post("/account/members/2/role", page="/account/members", role="admin")
    other.post("/integrations/1/pause", page="/integrations/1")
    other.post("/integrations/1/resume", page="/integrations/1")
    other.post("/integrations/1/rename", page="/integrations/1", label="Books")
    other.post("/integrations/1/key", page="/integrations/1", api_key=sandbox.key("lively-again"))
    other.get("/ledger.csv?days=7")
    other.get("/breakdown.csv")
    pages.post("/account/workspace", page="/account/members", name="The workspace")
    Pages(app).post("/login", 200, email=OTHER, password="wrong wrong")
    pages.post("/account/members/2/remove", page="/account/members")
    pages.post("/integrations/1/delete", page="/integrations/1", history="keep")
    words = "another battery of horses"
    pages.post("/account/password", 302, password=PASSWORD, new_password=words, new_password_confirm=words)
    pages.post("/logout", 302, page="/account")
    found = noted(app)[before:]
    assert [(who, what) for who, what, _ in found] == [
        (EMAIL, "role changed"),
        (OTHER, "integration paused"),
        (OTHER, "integration resumed"),
        (OTHER, "integration renamed"),
        (OTHER, "key replaced"),
        (OTHER, "exported"),
        (OTHER, "exported"),
        (EMAIL, "workspace renamed"),
        (OTHER, "sign-in failed"),
        (EMAIL, "member removed"),
        (EMAIL, "integration removed"),
        (EMAIL, "signed in"),
        (EMAIL, "password changed"),
        (EMAIL, "signed out"),
    ]
    assert found[0][2] == f"{OTHER} from viewer to admin"
    assert found[3][2].endswith(" to Books")
    assert found[5][2].startswith("ledger, 2026-")
    with app.app_context():
        assert set(db.session.execute(select(AuditEntry.address)).scalars()) == {"127.0.0.1"}


def test_how_an_account_began_is_noted(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    joined(app, pages, "member")
    connected(app, pages, sandbox)
    assert [(who, what) for who, what, _ in noted(app)] == [
        (EMAIL, "registered"),
        (EMAIL, "signed in"),
        (EMAIL, "invited"),
        (OTHER, "joined"),
        (OTHER, "registered"),
        (OTHER, "signed in"),
        (EMAIL, "integration added"),
    ]


def test_a_command_is_noted_as_one(app: Flask, pages: Pages) -> None:
    ran = app.test_cli_runner().invoke(args=["plans", "set", EMAIL, "free"])
    assert ran.exit_code == 0, ran.output
    assert noted(app)[-1] == ("command", "plan changed", "free")
    ran = app.test_cli_runner().invoke(args=["users", "change_password", EMAIL, "--password", "horses and batteries"])
    assert noted(app)[-1] == ("command", "password changed", EMAIL)
    app.test_cli_runner().invoke(args=["keys", "rotate"])
    assert noted(app, 0)[-1] == ("command", "command", "keys rotate: 0 to test")


def test_what_was_refused_is_not_noted_as_done(app: Flask, pages: Pages) -> None:
    before = noted(app)
    pages.post("/account/members/1/role", 409, page="/account/members", role="viewer")
    pages.post("/account/leave", 409, page="/account/members")
    assert noted(app) == before


def test_nothing_secret_and_nothing_that_breaks_a_line_is_noted(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    key = sandbox.key("lively")
    pages.connect(key, label=key)
    secret = link(pages).rpartition("/")[2]
    with app.app_context():
        audit.note(Action.EXPORTED, 1, f"a\nb\x1b[2J {key} {'x' * 400}")
        db.session.commit()
        entries = db.session.execute(select(AuditEntry)).scalars().all()
    for entry in entries:
        assert key not in entry.subject
        assert secret not in entry.subject
        assert PASSWORD not in entry.subject
        assert entry.subject.isprintable()
    assert entries[-1].subject.startswith("a\\nb\\x1b[2J sk-… ")


def test_entries_that_come_at_once_are_one_chain(app: Flask, pages: Pages) -> None:
    start = len(noted(app))

    def note() -> None:
        with app.app_context():
            for _ in range(5):
                audit.note(Action.EXPORTED, 1, "x")
                db.session.commit()
            db.session.remove()

    threads = [threading.Thread(target=note) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(noted(app)) == start + 30
    with app.app_context():
        broken, heads = audit.verify()
    assert broken == []
    assert heads[1][0] == start + 30


CHANGES = {
    "a changed entry": update(AuditEntry)
    .where(AuditEntry.chain == 1, AuditEntry.number == 3)
    .values(actor="x@y.example"),
    "an entry taken out": delete(AuditEntry).where(AuditEntry.chain == 1, AuditEntry.number == 3),
    "the first entries taken out": delete(AuditEntry).where(AuditEntry.chain == 1, AuditEntry.number < 3),
    "two that changed places": text(
        "UPDATE audit_entry SET number = CASE number WHEN 3 THEN -1 ELSE number END WHERE chain = 1"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_it_is_found_and_named(app: Flask, pages: Pages, change: str) -> None:
    for number in range(4):
        link(pages, note=f"number {number}")
    verified = app.test_cli_runner().invoke(args=["audit", "verify"])
    assert verified.exit_code == 0
    assert verified.output.startswith("workspace 1: 6 entries, the last hash is ")
    with app.app_context():
        db.session.execute(CHANGES[change])
        db.session.commit()
    verified = app.test_cli_runner().invoke(args=["audit", "verify"])
    assert verified.exit_code == 1
    named = {"an entry taken out": "entry 4", "two that changed places": "entry -1"}.get(change, "entry 3")
    assert f"The first entry that is not what it was: workspace 1, {named}" in verified.output


def rows(pages: Pages, query: str = "") -> list[str]:
    return [row.to_text() for row in lint(pages.get(f"/account/audit{query}").text).query("main tbody tr")]


def test_owners_read_filter_and_take_it_along(app: Flask, pages: Pages) -> None:
    other = joined(app, pages, "admin")
    other.get("/account/audit", 403)
    assert len(rows(pages)) == 6
    assert "Signed in" in rows(pages)[0]
    assert OTHER in rows(pages)[0]
    assert len(rows(pages, "?actor=other")) == 3
    assert len(rows(pages, "?action=signed+in")) == 2
    assert len(rows(pages, "?action=signed+in&actor=other")) == 1
    assert rows(pages, "?from=2000-01-01&to=2000-01-02") == []
    for odd in ("?from=x", "?to=x", "?to=2026-13-01", "?from=0000-00-00", "?to=²²²²-11-01"):
        page = pages.get(f"/account/audit{odd}").text
        assert "must look like 2026-06-03" in page
        assert "literal" not in page
    assert len(rows(pages, "?to=2040-02-29")) == 6
    assert len(rows(pages, "?from=2024-02-29")) == 6
    assert len(rows(pages, "?actor=%25&action=nonsense")) == 0
    file = list(csv.reader(io.StringIO(pages.get("/account/audit.csv?actor=other").text)))
    assert file[0] == ["number", "at", "actor", "address", "action", "subject", "hash"]
    assert [row[4] for row in file[1:]] == ["joined", "registered", "signed in"]
    assert all(len(row[6]) == 64 for row in file[1:])


def test_it_comes_in_pages(app: Flask, pages: Pages) -> None:
    with app.app_context():
        for number in range(audit.PAGE + 20):
            audit.note(Action.EXPORTED, 1, f"file {number}")
        db.session.commit()
    assert len(rows(pages)) == audit.PAGE
    assert len(rows(pages, "?page=2")) == 22
    assert rows(pages, "?page=99") == rows(pages, "?page=2")
    pages.get("/account/audit?page=x", 404)


@on_sqlite
def test_nobody_reads_anothers(app: Flask, pages: Pages) -> None:
    app.extensions["settings"].__dict__["registration"] = "open"
    stranger = Pages(app)
    stranger.register(OTHER, PASSWORD)
    assert all(EMAIL not in row for row in rows(stranger))
    with app.app_context():
        _, token = members.invite(1, Role.OWNER, "")
        db.session.commit()
    stranger.get(f"/invitations/{token}")
    stranger.post(f"/invitations/{token}", page=f"/invitations/{token}")
    assert any(EMAIL in row for row in rows(stranger))

"""Sample data: there in one click, gone in one click, and never beside anything real."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest
from flask import Flask
from sqlalchemy import func, select

from grafient import integrations, sample
from grafient.extensions import db, providers
from grafient.integrations import Refused
from grafient.models import DayTotal, Integration, Workspace
from grafient.sandbox import Sandbox
from tests import syncing
from tests.conftest import PASSWORD
from tests.pages import Pages, lint
from tests.syncing import at, later

BAR = "You are looking at sample data."
EMPTY = "Look around with sample data"
PAGES = ("/", "/breakdown", "/integrations", "/statement", "/account", "/integrations/new", "/days-that-are-not")


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


def run_due(app: Flask) -> int:
    with app.app_context():
        return syncing.run_due()


def rows(app: Flask) -> dict[str, int]:
    """How many rows each table has."""
    with app.app_context():
        return {
            table.name: db.session.execute(select(func.count()).select_from(table)).scalar_one()
            for table in db.metadata.sorted_tables
            if table.name != "audit_entry"  # who looked around, and when, is no figure and stays
        }


def shown(pages: Pages, path: str, status: int = 200) -> str:
    tree = lint(pages.get(path, status).text)
    return " ".join(tree.query("main")[0].to_text().split())


def total(pages: Pages) -> Decimal:
    return Decimal(lint(pages.get("/").text).query(".figure-value data")[0].attrs["value"])


class TestPages:
    def test_an_empty_grafient_offers_it(self, pages: Pages) -> None:
        for path in ("/", "/breakdown", "/integrations"):
            text = shown(pages, path)
            assert "Nothing is connected yet" in text
            assert "Add Integration" in text
            assert EMPTY in text
            assert BAR not in text

    def test_one_click_and_a_sync_later_every_page_has_figures_and_says_what_they_are(
        self, app: Flask, pages: Pages, sandbox: Sandbox
    ) -> None:
        pages.post("/sample", page="/")
        assert BAR in shown(pages, "/")
        assert run_due(app) == 1
        for path in PAGES:
            assert BAR in shown(pages, path, 404 if path == "/days-that-are-not" else 200), path
        assert total(pages) == syncing.truth(sandbox)
        assert "Verified" in shown(pages, "/")
        assert "Up to date" in shown(pages, "/integrations")
        assert sandbox.state.log() == [], "nothing was asked over HTTP"

    def test_it_has_neither_key_nor_history_to_keep(self, app: Flask, pages: Pages) -> None:
        pages.post("/sample", page="/")
        run_due(app)
        text = shown(pages, "/integrations/1")
        assert "Replace key" not in text
        assert "What happens to the history" not in text
        assert sample.KEY[-4:] not in text
        pages.post("/integrations/1/delete", page="/integrations/1", history="keep")
        assert rows(app)["integration"] == 0

    def test_nothing_of_it_is_left_in_any_table(self, app: Flask, pages: Pages) -> None:
        before = rows(app)
        pages.post("/sample", page="/")
        run_due(app)
        pages.get("/integrations/1")
        assert rows(app)["line"] > 100
        pages.post("/sample/remove", page="/")
        assert rows(app) == before
        text = shown(pages, "/")
        assert "The sample data was removed." in text
        assert EMPTY in text
        assert BAR not in text

    def test_it_can_be_removed_while_its_first_sync_waits(self, app: Flask, pages: Pages) -> None:
        before = rows(app)
        pages.post("/sample", page="/")
        pages.post("/sample/remove", page="/")
        assert run_due(app) == 0
        assert rows(app) == before

    def test_a_real_integration_takes_its_place(self, app: Flask, pages: Pages, sandbox: Sandbox) -> None:
        pages.post("/sample", page="/")
        run_due(app)
        assert "Adding an integration removes the sample data." in shown(pages, "/integrations/new")
        pages.post("/integrations", 422, "/integrations/new", provider="openrouter", api_key=sandbox.key("revoked"))
        assert BAR in shown(pages, "/"), "a key that is no good removes nothing"
        pages.connect(sandbox.key("other"))
        run_due(app)
        assert BAR not in shown(pages, "/")
        assert total(pages) == syncing.truth(sandbox, "other")
        with app.app_context():
            assert db.session.execute(select(Integration.provider)).scalars().all() == ["openrouter"]

    @pytest.mark.parametrize("removed", [False, True])
    def test_it_is_refused_where_anything_real_is(
        self, app: Flask, pages: Pages, sandbox: Sandbox, removed: bool
    ) -> None:
        token = pages.token("/")
        pages.connect(sandbox.key("lively"))
        run_due(app)
        if removed:
            pages.post("/integrations/1/delete", page="/integrations/1", history="keep")
        before = rows(app)
        pages.client.post("/sample", data={"csrf_token": token})
        assert rows(app) == before
        assert "Sample data can only be shown while nothing is connected" in shown(pages, "/")

    def test_it_is_not_offered_in_the_form(self, pages: Pages) -> None:
        options = lint(pages.get("/integrations/new").text).query("select[name=provider] option")
        assert [option.attrs["value"] for option in options] == ["openrouter"]
        assert "Sample provider" not in shown(pages, "/integrations/new")
        pages.post("/integrations", 422, "/integrations/new", provider="sample", api_key=sample.KEY)

    def test_the_forms_are_of_the_session_that_gets_them(self, app: Flask, pages: Pages) -> None:
        """A page that was kept for another session of the user would have that one's token."""
        other = Pages(app)
        other.log_in("someone@example.com", PASSWORD)
        for browser in (pages, other, pages, other):
            browser.get("/")
        other.post("/sample", page="/")
        run_due(app)
        for browser in (pages, other):
            browser.get("/breakdown")
        other.post("/sample/remove", page="/breakdown")
        assert rows(app)["integration"] == 0

    def test_other_workspaces_have_none_of_it(self, app: Flask, pages: Pages) -> None:
        pages.post("/sample", page="/")
        run_due(app)
        with app.app_context():
            other = Workspace(plan="free")
            db.session.add(other)
            db.session.commit()
            assert not integrations.has_sample(other.id)
            integrations.remove_sample(other.id)
            assert db.session.execute(select(Integration.id)).scalars().all() == [1]

    def test_who_is_not_signed_in_is_asked_to(self, app: Flask) -> None:
        client = Pages(app)
        token = client.token("/register")
        for path in ("/sample", "/sample/remove"):
            assert client.client.post(path, data={"csrf_token": token}).status_code == 302
        assert rows(app)["integration"] == 0

    def test_files_are_named_after_it(self, app: Flask, pages: Pages) -> None:
        pages.post("/sample", page="/")
        run_due(app)
        for path in ("/breakdown.csv", "/ledger.csv"):
            assert "filename=grafient-sample-" in pages.get(path).headers["Content-Disposition"]


class TestData:
    def test_it_is_a_year_that_stays_current(self, workspace: Workspace) -> None:
        workspace.plan = "ultimate"
        db.session.commit()
        integrations.add_sample(workspace.id)
        assert syncing.run_due() == 1
        days = select(func.count(), func.max(DayTotal.day))
        count, last = db.session.execute(days).one()
        assert count > 300
        integration = db.session.execute(select(Integration)).scalar_one()
        assert (integration.problem, integration.no_history, integration.no_keys) == (None, None, None)
        with later(3):
            syncing.again(integration)
            assert db.session.execute(days).one()[1] > last

    def test_two_at_once_make_one(self, app: Flask, workspace: Workspace) -> None:
        workspace_id, faults = workspace.id, []
        db.session.remove()
        ready = threading.Barrier(4)

        def click() -> None:
            with app.app_context():
                ready.wait()
                try:
                    integrations.add_sample(workspace_id)
                except Exception as error:  # noqa: BLE001 - for the test's own thread
                    faults.append(error)

        threads = [threading.Thread(target=click) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        assert rows(app)["integration"] == rows(app)["sync_run"] == 1
        integrations.remove_sample(workspace_id)
        integrations.remove_sample(workspace_id)
        assert rows(app)["integration"] == 0

    def test_a_sample_and_a_real_one_at_once_are_never_both_there(
        self, app: Flask, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        workspace_id = workspace.id
        db.session.remove()
        ready = threading.Barrier(2)

        def add() -> None:
            with app.app_context():
                ready.wait()
                try:
                    integrations.add_sample(workspace_id)
                except Refused:
                    db.session.rollback()

        def connect() -> None:
            with app.app_context():
                ready.wait()
                integrations.connect(workspace_id, "openrouter", "", sandbox.key("other"))

        threads = [threading.Thread(target=one) for one in (add, connect)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert db.session.execute(select(Integration.provider)).scalars().all() == ["openrouter"]

    def test_a_real_key_is_not_one_of_the_samples(self, context: Flask) -> None:
        with pytest.raises(Exception, match="does not know this key"):
            providers["sample"].check_key("sk-or-v1-" + "0" * 64)

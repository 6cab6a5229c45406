"""A workspace of many integrations: every list has a bound, says how many there are, and loses none on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import event, insert, select

from grafient.extensions import db
from grafient.models import Integration, SyncRun, Workspace
from grafient.states import Problem, RunStatus, Trigger
from grafient.status import CARDS_A_PAGE
from tests.pages import Pages, lint
from tests.syncing import NOON, at


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


def fill(app: Flask, number: int, name: str = "Account") -> list[int]:
    """So many integrations in the only workspace, all of them up to date."""
    with app.app_context():
        workspace_id = db.session.execute(select(Workspace.id)).scalar_one()
        own = {"workspace_id": workspace_id, "provider": "openrouter", "key_hint": "abcd"}
        own |= {"created_at": NOON - timedelta(days=90), "last_success_at": NOON - timedelta(hours=6)}
        rows = [own | {"label": f"{name} {n:04}"} for n in range(1, number + 1)]
        ids = db.session.execute(insert(Integration).returning(Integration.id), rows).scalars().all()
        db.session.commit()
        return sorted(ids)


@contextmanager
def statements(app: Flask) -> Iterator[list[str]]:
    """What the database is asked meanwhile."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith("BEGIN"):
            asked.append(statement)

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", note)


def words(html: str) -> str:
    return " ".join(lint(html).to_text().split())


def labels(html: str) -> list[str]:
    return [one.to_text().strip() for one in lint(html).query("h2.card-title")]


def links(html: str, name: str) -> list[str]:
    found = [link for link in lint(html).query("a[href]") if " ".join(link.to_text().split()) == name]
    return [str(link.attrs["href"]) for link in found]


def change(app: Flask, integration_id: int, **columns: object) -> None:
    with app.app_context():
        for name, value in columns.items():
            setattr(db.session.get(Integration, integration_id), name, value)
        db.session.commit()


def run(app: Flask, integration_id: int, status: RunStatus = RunStatus.DUE, **columns: object) -> None:
    """An open run."""
    with app.app_context():
        columns = {"trigger": Trigger.MANUAL, "next_attempt_at": NOON, "created_at": NOON} | columns
        db.session.add(SyncRun(integration_id=integration_id, status=status, **columns))
        db.session.commit()


class TestIntegrations:
    def test_from_page_to_page_each_is_shown_once_in_the_order_of_labels(self, app: Flask, pages: Pages) -> None:
        fill(app, 2 * CARDS_A_PAGE + 7)
        html, found = pages.get("/integrations").text, list[str]()
        assert "107 integrations" in words(html)
        assert "need attention" not in words(html)
        for number, said in ((1, "1 to 50 of 107"), (2, "51 to 100 of 107"), (3, "101 to 107 of 107")):
            assert said in words(html)
            (current,) = lint(html).query("nav.pages a[aria-current=page]")
            assert current.to_text() == f"Page {number}"
            found += labels(html)
            following = links(html, "Next →")
            html = pages.get(following[0]).text if following else html
        assert following == []
        assert found == [f"Account {n:04}" for n in range(1, 108)]
        assert links(html, "← Previous") == ["/integrations?page=2"]
        assert labels(pages.get("/integrations?page=99").text) == labels(html), "integrations were removed meanwhile"
        for page in ("0", "-1", "x", "1.5", "²", "9" * 30):
            pages.get(f"/integrations?page={page}", 404)

    def test_a_page_that_has_them_all_has_no_search_and_no_pages(self, app: Flask, pages: Pages) -> None:
        fill(app, CARDS_A_PAGE)
        html = pages.get("/integrations").text
        assert len(labels(html)) == CARDS_A_PAGE
        assert lint(html).query("[role=search], nav.pages") == []

    def test_those_that_need_a_person_come_first(self, app: Flask, pages: Pages) -> None:
        """The database sorts by what the cards say, so the two must not differ."""
        ids = fill(app, 60)
        ago = timedelta(minutes=3)
        for number, state, columns, run_of in (
            (20, "Provider changed its API", {"problem": Problem.API_CHANGED}, None),
            (21, "Overdue", {"last_success_at": NOON - timedelta(hours=27)}, None),
            (22, "Overdue", {"last_success_at": None}, None),
            (23, "Retrying", {"problem": None}, {"attempt": 1, "next_attempt_at": NOON + timedelta(hours=1)}),
            (24, "Syncing", {}, {"next_attempt_at": NOON - ago}),
            (25, "Syncing", {}, {"status": RunStatus.RUNNING, "attempt": 1, "lease_until": NOON - ago}),
            (30, "Needs a new key", {"problem": Problem.NEEDS_KEY}, None),
            (31, "Needs a new key", {"problem": Problem.NEEDS_KEY, "paused_at": NOON}, None),
            (40, "Backfilling", {"last_success_at": None}, {"trigger": Trigger.BACKFILL}),
            (41, "Backfilling", {"last_success_at": None}, {}),
            (5, "Syncing", {"problem": Problem.NEEDS_KEY}, {}),
            (6, "Paused", {"paused_at": NOON, "last_success_at": NOON - timedelta(days=9)}, None),
        ):
            change(app, ids[number - 1], **columns)
            if run_of is not None:
                run(app, ids[number - 1], **run_of)
            assert state in pages.get(f"/integrations/{ids[number - 1]}/card").text
        html = pages.get("/integrations").text
        first = [int(label[-4:]) for label in labels(html)]
        assert first[:10] == [30, 31, 20, 21, 22, 23, 24, 25, 40, 41]
        assert first[10:17] == [1, 2, 3, 4, 5, 6, 7]
        assert "60 integrations, 8 of them need attention" in words(html)
        late = [card.to_text() for card in lint(html).query("article.card")[3:8]]
        assert all("verdue" in card or "Retrying" in card for card in late)

    def test_a_label_is_found_by_a_part_of_it_over_several_pages(self, app: Flask, pages: Pages) -> None:
        fill(app, 5, "100%_Production")
        fill(app, 60)
        (form,) = lint(pages.get("/integrations").text).query("form[role=search]")
        assert [field.attrs["name"] for field in form.query("input")] == ["q"]
        html = pages.get("/integrations?q=%25_prod").text
        assert labels(html) == [f"100%_Production {n:04}" for n in range(1, 6)]
        assert "5 of 65 integrations have “%_prod” in their labels." in words(html)
        assert links(html, "Show all") == ["/integrations"]
        html = pages.get("/integrations?q=account&page=2").text
        assert len(labels(html)) == 10
        assert links(html, "← Previous") == ["/integrations?page=1&q=account"]
        html = pages.get("/integrations?q=nobody").text
        assert "No integration has “nobody” in its label." in words(html)
        assert "1 of 65 integrations has “account 0007” in its label." in words(
            pages.get("/integrations?q=account+0007").text
        )
        pages.get("/integrations?q=%00", 400)

    def test_without_scripts_force_sync_leads_back_to_the_page_one_was_on(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 60)
        (form, *_) = lint(pages.get("/integrations?page=2&q=acc").text).query("article.card form")
        assert form.attrs["action"] == f"/integrations/{ids[50]}/sync?page=2&q=acc"
        answer = pages.post(str(form.attrs["action"]), 303, "/integrations")
        assert answer.headers["Location"] == "/integrations?page=2&q=acc"

    @pytest.mark.parametrize("syncing", [0, 3, 120])
    def test_a_page_asks_for_what_is_syncing_with_one_request(self, app: Flask, pages: Pages, syncing: int) -> None:
        ids = fill(app, 120)
        for one in ids[:syncing]:
            run(app, one)
        asking = lint(pages.get("/integrations").text).query("[hx-get]")
        assert [one.attrs["hx-trigger"] for one in asking] == (["every 2s"] if syncing else [])
        watched = [int(one) for node in asking for one in re.findall(r"id=(\d+)", str(node.attrs["hx-get"]))]
        assert watched == ids[: min(syncing, CARDS_A_PAGE)]

    def test_what_has_ended_is_not_asked_for_again(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 3)
        run(app, ids[0])
        run(app, ids[1])
        (asking,) = lint(pages.get("/integrations").text).query("[hx-get]")
        with app.app_context():
            for ended in db.session.execute(select(SyncRun).where(SyncRun.integration_id == ids[0])).scalars():
                ended.status = RunStatus.DONE
            db.session.commit()
        news = lint(pages.get(str(asking.attrs["hx-get"])).text)
        assert [one.attrs["id"] for one in news.query("[hx-swap-oob]")] == [f"card-{one}" for one in ids[:2]]
        (still,) = news.query("[hx-get]")
        assert (still.attrs["id"], still.attrs["hx-get"]) == ("watch", f"/integrations/cards?id={ids[1]}")

    def test_only_a_page_of_ones_own_integrations_can_be_asked_for(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 60)
        query = "&".join(f"id={one}" for one in ids)
        pages.get(f"/integrations/cards?{query}", 400)
        pages.get(f"/integrations/cards?id={ids[0]}&id={2**40}")
        pages.get("/integrations/cards?id=9999", 404)
        change(app, ids[0], removed_at=NOON)
        pages.get(f"/integrations/cards?id={ids[0]}", 404)
        with app.app_context():
            other = Workspace(plan="free")
            db.session.add(other)
            db.session.commit()
            other_id = other.id
        change(app, ids[1], workspace_id=other_id)
        pages.get(f"/integrations/cards?id={ids[1]}", 404)
        assert "58 integrations" in words(pages.get("/integrations").text)

    def test_1000_take_as_many_statements_as_10(self, app: Flask, pages: Pages) -> None:
        counts = []
        for more in (10, 990):
            fill(app, more, f"Team {more}")
            with statements(app) as asked:
                size = len(pages.get("/integrations").data)
            counts.append(len(asked))
            assert size < 200_000
        assert counts[0] == counts[1] <= 7
        assert "1,000 integrations" in words(pages.get("/integrations").text)

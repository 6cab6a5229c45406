"""Many integrations and API keys: every list has a bound, says how many there are, and loses none on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from urllib.parse import urlencode

import pytest
from flask import Flask
from sqlalchemy import func, insert, select

from grafient.extensions import db
from grafient.models import (
    ApiKey,
    CoveredDay,
    Integration,
    KeyPart,
    KeyReading,
    Restatement,
    Series,
    SyncRun,
    Workspace,
)
from grafient.providers import BilledLine
from grafient.states import DayState, Problem, RunStatus, Source, Trigger
from grafient.status import CARDS_A_PAGE
from tests.pages import Pages, lint
from tests.statements import asked
from tests.stored import ago, cover, put
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
        own = {"state": DayState.NO_USAGE, "source": Source.ACTIVITY, "first_run_id": 1, "changed_at": NOON}
        leaving = [ago(days) for days in range(20, 31)]  # missing, they would be warned of
        db.session.execute(
            insert(CoveredDay), [own | {"integration_id": one, "day": day} for one in ids for day in leaving]
        )
        db.session.commit()
        return sorted(ids)


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
            (26, "Retrying", {"problem": Problem.FAULT, "problem_detail": "Down."}, None),
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
        assert first[:12] == [30, 31, 20, 21, 22, 23, 24, 25, 26, 6, 40, 41]
        assert first[12:18] == [1, 2, 3, 4, 5, 7]
        assert "60 integrations, 7 of them need attention" in words(html), (
            "not those that are retried, or late by minutes"
        )
        late = [card.to_text() for card in lint(html).query("article.card")[3:9]]
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
        """One of them asks whether the page is of sample data, and two are for the checks of the last 30 days."""
        counts = []
        for more in (10, 990):
            fill(app, more, f"Team {more}")
            with asked(app) as statements:
                size = len(pages.get("/integrations").data)
            counts.append(len(statements))
            assert size < 200_000
        assert counts[0] == counts[1] <= 11
        assert "1,000 integrations" in words(pages.get("/integrations").text)


def keys(app: Flask, integration_id: int, number: int, name: str = "Service") -> None:
    """So many API keys of an integration, each of which spent as many dollars yesterday as its number says."""
    with app.app_context():
        integration = db.session.get(Integration, integration_id)
        assert integration is not None
        own = {"integration_id": integration_id, "read_at": NOON, "disabled": False}
        rows = [own | {"key_hash": f"{n:08x}{name}", "name": f"{name} {n:04}"} for n in range(1, number + 1)]
        added = db.session.execute(insert(ApiKey).returning(ApiKey.key_hash, ApiKey.id), rows)
        stored = {row.key_hash: row.id for row in added}
        whole = number * (number + 1) // 2
        cover(integration, [ago(1)], usd=whole + 5)
        series = db.session.execute(select(Series.id).where(Series.integration_id == integration_id)).scalar_one()
        parts = {"day": ago(1), "series_id": series}
        spent = [(stored[row["key_hash"]], Decimal(n)) for n, row in enumerate(rows, 1)]
        db.session.execute(insert(KeyPart), [parts | {"key_id": one, "usage_usd": usd} for one, usd in spent])
        read = {"integration_id": integration_id, "first_day": ago(1), "last_day": ago(1)}
        db.session.execute(insert(KeyReading), [read | {"key_hash": one} for one in stored])
        db.session.commit()


def offered(html: str, what: str) -> dict[str, bool]:
    """What can be chosen of one filter, by its name, and whether it is."""
    options = lint(html).query(f"#pick-{what} .pick-options label")
    return {option.to_text().strip(): "checked" in option.query("input")[0].attrs for option in options}


def asks_for_a_name(html: str, what: str) -> bool:
    return bool(lint(html).query(f"#pick-{what} input[name={what}_name]"))


class TestFilters:
    def test_up_to_100_are_chosen_and_more_are_named(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 100)
        keys(app, ids[0], 100)
        for path in ("/", "/breakdown"):
            html = pages.get(path).text
            assert [len(offered(html, name)) for name in ("integration", "model", "host", "key")] == [100, 1, 1, 101]
            assert not any(asks_for_a_name(html, name) for name in ("integration", "model", "host", "key"))
        fill(app, 1, "One more")
        keys(app, ids[1], 1, "Another")
        for path in ("/", "/breakdown", "/?group=key", "/breakdown?group=key", "/statement?month=2026-11"):
            html = pages.get(path).text
            assert html.count("<option") + html.count("checkbox") <= 4, path
            if "statement" not in path:
                names = ("integration", "model", "host", "key")
                assert [asks_for_a_name(html, name) for name in names] == [True, False, False, True]

    def test_addresses_of_before_are_what_they_were(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 150)
        keys(app, ids[4], 150)
        hash_ = f"{7:08x}Service"
        for path in ("/", "/breakdown"):
            html = pages.get(f"{path}?integration={ids[4]}&key={hash_}&host=h").text
            chips = [chip.to_text() for chip in lint(html).query("a.chip strong")]
            assert chips == ["Account 0005", "h", "Service 0007"]
            assert "$7.00" in words(html)
            assert offered(html, "integration") == {"Account 0005": True}
            assert offered(html, "key") == {"Service 0007": True}
            assert offered(pages.get(f"{path}?key=unattributed").text, "key") == {"Unattributed": True}
        pages.get("/?integration=007", 404)
        pages.get(f"/?integration={2**33}", 404)

    def test_a_name_leads_to_the_address_of_what_has_it(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 150)
        keys(app, ids[4], 150)

        def leads(query: str) -> str:
            return pages.get(f"/breakdown?{query}", 302).headers["Location"]

        assert leads("days=7&integration=&integration_name=+0005") == f"/breakdown?days=7&integration={ids[4]}"
        assert leads("integration_name=Account+0011&key_name=service+0020") == (
            f"/breakdown?integration={ids[10]}&key={20:08x}Service"
        )
        assert leads("key_name=unattrib") == "/breakdown?key=unattributed"
        kept = f"integration={ids[4]}&integration_name=Account+0005&key={7:08x}Service&key_name=Service+0009"
        both = f"key={7:08x}Service&key={9:08x}Service"
        assert leads(kept) == f"/breakdown?integration={ids[4]}&{both}", "beside what was chosen before"
        assert leads(f"integration={ids[4]}&integration_name=&host=h&host_name=h&q=m") == (
            f"/breakdown?q=m&integration={ids[4]}&host=h"
        )
        pages.get("/breakdown?key_name=%00", 400)
        assert pages.get("/statement?month=2026-11&integration_name=0005", 302).headers["Location"] == (
            f"/statement?month=2026-11&integration={ids[4]}"
        )

    def test_a_whole_name_is_meant_though_others_have_it_in_theirs(self, app: Flask, pages: Pages) -> None:
        fill(app, 1, "Account 0001 of")
        ids = fill(app, 150)
        location = pages.get("/?integration_name=Account+0001", 302).headers["Location"]
        assert location == f"/?integration={ids[0]}"

    def test_of_several_one_is_chosen_and_nothing_is_shown_before(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 230)
        html = pages.get("/?days=7&integration_name=account+00").text
        assert "Which integration?" in words(html)
        assert "99 integrations have “account 00” in their names." in words(html)
        assert lint(html).query("data") == [], "no figures: of what would they be?"
        found = lint(html).query("ul.choices a")
        assert [one.to_text() for one in found] == [f"Account {n:04}" for n in range(1, 100)]
        assert str(found[1].attrs["href"]) == f"/?days=7&integration={ids[1]}"
        pages.get(str(found[1].attrs["href"]))
        html = pages.get("/breakdown?integration_name=account").text
        assert "230 integrations have “account” in their names. The first 100 are below; type more" in words(html)
        assert len(lint(html).query("ul.choices a")) == 100

    def test_what_nothing_has_is_said(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 150)
        keys(app, ids[0], 150)
        for what, said in (
            ("integration", "No integration has"),
            ("model", "No model has"),
            ("host", "No host has"),
            ("key", "No API key has"),
        ):
            html = pages.get(f"/breakdown?days=7&{what}_name=nobody%25").text
            assert f"{said} “nobody%” in its name." in words(html)
            (crumb,) = lint(html).query(".crumb a")
            assert str(crumb.attrs["href"]) == "/breakdown?days=7"
        html = pages.get(f"/?integration={ids[0]}&host=a&host=b&model_name=nobody").text
        (form,) = lint(html).query("form.finder")
        kept = [(one.attrs["name"], one.attrs["value"]) for one in form.query("input[type=hidden]")]
        assert kept == [("integration", str(ids[0])), ("host", "a"), ("host", "b")]

    def test_keys_of_one_name_are_told_apart(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 2)
        keys(app, ids[0], 120)
        with app.app_context():
            for n in (8, 9):
                row = db.session.execute(select(ApiKey).where(ApiKey.key_hash == f"{n:08x}Service")).scalar_one()
                row.name, row.gone_at = "Twin", NOON if n == 9 else None
            db.session.commit()
        html = pages.get("/?key_name=twin").text
        found = [" ".join(one.to_text().split()) for one in lint(html).query("ul.choices li")]
        assert found == ["Twin 00000008", "Twin 00000009 (deleted)"]
        html = pages.get(f"/?key={9:08x}Service").text
        (name,) = offered(html, "key")
        assert name == "Twin 00000009 (deleted)"
        for query in ({"key_name": name}, {"key_name": name, "key": f"{9:08x}Service"}):
            assert pages.get(f"/?{urlencode(query)}", 302).headers["Location"] == f"/?key={9:08x}Service"

    def test_nobody_finds_what_is_someone_elses(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 2)
        keys(app, ids[0], 2)
        app.extensions["settings"].__dict__["registration"] = "open"
        other = Pages(app)
        other.register("other@example.com", "another fine password")
        for what, text in (("integration", "account"), ("host", "h"), ("key", "service")):
            assert "No " in words(other.get(f"/?{what}_name={text}").text)
        for name in ("/?key_name=service", "/statement?integration_name=x", "/breakdown.csv?integration_name=x"):
            assert "/login" in Pages(app).get(name, 302).headers["Location"]


class TestLists:
    def test_the_statement_and_a_day_list_the_dearest_keys_and_add_up_to_the_whole(
        self, app: Flask, pages: Pages
    ) -> None:
        ids = fill(app, 1)
        keys(app, ids[0], 230)
        for path in ("/statement?month=2026-11", f"/integrations/{ids[0]}/days/{ago(1)}"):
            html = pages.get(path).text
            (section,) = lint(html).query("section[aria-labelledby=by-key]")
            rows = section.query("tbody tr")
            amounts = [Decimal(str(one.query("data")[0].attrs["value"])) for one in rows]
            assert len(rows) == 202
            assert rows[0].to_text().split("$")[0].strip() == "Service 0230"
            assert [one.to_text().split("$")[0].strip() for one in rows[-2:]] == ["Unattributed", "30 other API keys"]
            assert sum(amounts) == Decimal(str(section.query("tfoot data")[0].attrs["value"])) == 26_570
            assert "one by one; all of them are in the table of API keys (CSV)" in words(html)
            (file,) = [link for link in links(html, "the table of API keys (CSV)") if "group=key" in link]
            assert pages.get(file).text.count("\n") == 232

    def test_the_statement_lists_the_dearest_models_and_the_rest_as_one(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 1)
        with app.app_context():
            integration = db.session.get(Integration, ids[0])
            assert integration is not None
            cover(integration, [ago(1)], usd=None)
            put(integration, *(BilledLine(ago(1), f"p{n}", "e", "h", f"m{n}", Decimal(n)) for n in range(1, 211)))
            db.session.commit()
        html = pages.get("/statement?month=2026-11").text
        (section,) = lint(html).query("section[aria-labelledby=by-model]")
        rows = section.query("tbody tr")
        assert (len(rows), rows[0].query("th")[0].to_text()) == (201, "m210")
        assert rows[-1].to_text().startswith("10 other models")
        assert sum(Decimal(str(row.query("data")[0].attrs["value"])) for row in rows) == 210 * 211 // 2
        assert "All 210 are in" in words(html)

    def test_the_dashboard_shows_the_largest_integrations_and_what_the_others_cost(
        self, app: Flask, pages: Pages
    ) -> None:
        ids = fill(app, 25)
        with app.app_context():
            for n, one in enumerate(ids[:-1], 1):
                integration = db.session.get(Integration, one)
                assert integration is not None
                cover(integration, [ago(1)], usd=n)
            db.session.commit()
        html = pages.get("/").text
        names = [one.to_text() for one in lint(html).query("section[aria-labelledby=providers] h3")]
        assert names == [f"Account {n:04}" for n in range(24, 4, -1)]
        assert "Providers, the first 20 of 25 integrations" in words(html)
        assert "5 more integrations cost $10.00 together, as far as is known." in words(html)

    def test_what_changed_in_many_integrations_is_said_of_five(self, app: Flask, pages: Pages) -> None:
        ids = fill(app, 8)
        with app.app_context():
            for one in ids:
                integration = db.session.get(Integration, one)
                assert integration is not None
                cover(integration, [ago(1)])
                integration.last_restated_at = NOON
                db.session.add(SyncRun(integration_id=one, trigger=Trigger.DAILY, status=RunStatus.DONE))
                db.session.flush()
                run_id = db.session.execute(select(func.max(SyncRun.id))).scalar_one()
                what = {"day": ago(1), "permaslug": "m", "endpoint_id": "e", "host": "h", "changed_at": NOON}
                what |= {"usage_before_usd": Decimal(1), "usage_after_usd": Decimal(10)}
                db.session.add(Restatement(integration_id=one, run_id=run_id, **what))
            db.session.commit()
        html = pages.get("/").text
        assert len(links(html, "See what changed in Account 0001")) == 1
        assert html.count("#restatements") == 5
        assert "Days of 3 more integrations changed since you last looked." in words(html)

    @pytest.mark.parametrize("path", ["/", "/breakdown?group=key", "/statement?month=2026-11", "/integrations/1"])
    def test_pages_of_1000_take_as_many_statements_as_those_of_101(self, app: Flask, pages: Pages, path: str) -> None:
        counts, ids = [], fill(app, 101)
        for more, name in ((101, "Service"), (899, "More")):
            keys(app, ids[0] if name == "Service" else fill(app, more)[0], more, name)
            with asked(app) as statements:
                size = len(pages.get(path.replace("/1", f"/{ids[0]}")).data)
            counts.append(len(statements))
            assert size < 500_000
        assert counts[0] == counts[1] <= 17

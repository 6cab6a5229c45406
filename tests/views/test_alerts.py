"""The page Alerts, its forms, the links in messages, and the number in the navigation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from grafient.alerts import board, preview, rules
from grafient.days import Period
from grafient.extensions import db
from grafient.models import (
    AlertWatch,
    ApiKey,
    AuditEntry,
    Budget,
    Channel,
    Incident,
    IncidentEvent,
    Integration,
    Workspace,
    utc_now,
)
from grafient.states import AlertKind, BudgetPeriod, ChannelKind, DayState, Happened, Role, Source
from grafient.views import alerts
from tests.pages import Pages, lint
from tests.stored import TODAY, add, ago, cover, key_id
from tests.syncing import NOON, at, later
from tests.views.test_members import joined

TITLE = "Acme has not been read since 20 November 2026, 06:01 UTC"
FACTS = {"label": "Acme", "since": "2026-11-20T06:01:00+00:00"}
FORM = {"amount_usd": "300", "period": "month", "actual": "50, 80, 100", "forecast": "100"}


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def filled(app: Flask, pages: Pages) -> Pages:
    """$10 on each of 200 days, and $4 of today so far."""
    with app.app_context():
        one = add(db.session.get_one(Workspace, 1), "Acme", last_success_at=NOON)
        cover(one, Period(ago(200), ago(1)), usd=10, key="k1")
        cover(one, [TODAY], usd=4, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        db.session.add(AlertWatch(workspace_id=1, next_at=NOON + timedelta(days=1), turn=5))
        db.session.commit()
    return pages


def happened(app: Flask, subject: str = "1", ago_days: int = 1, **more: Any) -> int:
    """An incident's id."""
    with app.app_context():
        then = NOON - timedelta(days=ago_days)
        columns = {"kind": AlertKind.NO_SYNC, "facts": FACTS, "opened_at": then, "told_at": then} | more
        one = Incident(workspace_id=1, subject=subject, marks=[], **columns)
        one.events = [IncidentEvent(what=Happened.OPENED, at=then, facts=FACTS, marks=[])]
        db.session.add(one)
        db.session.commit()
        return one.id


def text(answer: Any) -> str:
    return re.sub(r"\s+([.,;:)])", r"\1", " ".join(lint(answer.text).to_text().split()))


def looks(app: Flask) -> tuple[int, bool]:
    """How often the workspace was looked at, or is to be again, and whether another look is due."""
    with app.app_context():
        row = db.session.get_one(AlertWatch, 1)
        return row.turn, row.next_at <= utc_now()


def noted(app: Flask) -> list[tuple[str, str, str]]:
    with app.app_context():
        rows = select(AuditEntry.actor, AuditEntry.action, AuditEntry.subject).where(AuditEntry.chain == 1)
        return [tuple(row) for row in db.session.execute(rows.order_by(AuditEntry.number))]


class TestIncidents:
    def test_without_any_the_page_says_so(self, filled: Pages) -> None:
        page = filled.get("/alerts")
        assert "Nothing needs attention." in page.text
        assert "Incidents that are over are listed here." in page.text
        assert "nav-mark" not in page.text
        order = [page.text.index(f'id="{name}"') for name in ("open", "budgets", "rules", "channels", "history")]
        assert order == sorted(order)

    def test_what_is_open_and_what_is_over(self, app: Flask, filled: Pages) -> None:
        happened(app)
        happened(app, "2", 3, resolved_at=NOON - timedelta(days=2), acknowledged_by="me@example.com")
        page = text(filled.get("/alerts"))
        assert f"1 open incident {TITLE} No new data. Since 19 Nov 2026, 12:00 UTC." in page
        assert f"{TITLE} 17 Nov 2026, 12:00 UTC 18 Nov 2026, 12:00 UTC me@example.com" in page
        one = text(filled.get("/alerts/incidents/1"))
        assert f"Opened, 19 Nov 2026, 12:00 UTC {TITLE}" in one
        over = filled.get("/alerts/incidents/2")
        assert "over since 18 Nov 2026, 12:00 UTC" in text(over)
        assert "/acknowledge" not in over.text
        filled.get("/alerts/incidents/3", 404)

    def test_where_the_figures_are(self, app: Flask, filled: Pages) -> None:
        happened(app, integration_id=1)
        happened(app, "2", kind=AlertKind.UNUSUAL_DAY, integration_id=1, facts={"day": "2026-11-18"})
        filled.post("/alerts/budgets", page="/alerts/budgets/new", **FORM)
        happened(app, "3", kind=AlertKind.BUDGET, budget_id=1)
        for number, address in ((1, "/integrations/1"), (2, "/days/2026-11-18?integration=1"), (3, "/alerts#budget-1")):
            assert f'href="{address}"' in filled.get(f"/alerts/incidents/{number}").text

    def test_acknowledged(self, app: Flask, filled: Pages) -> None:
        happened(app)
        answer = filled.post("/alerts/incidents/1/acknowledge", page="/alerts")
        assert (answer.location, looks(app)) == ("/alerts", (6, True))
        page = filled.get("/alerts")
        assert f"Acknowledged: {TITLE}." in page.text
        assert "Acknowledged by someone@example.com, 20 Nov 2026, 12:00 UTC." in text(page)
        assert "/acknowledge" not in page.text
        with later(1):
            filled.post("/alerts/incidents/1/acknowledge", page="/alerts", back="incident")
        assert noted(app)[-1] == ("someone@example.com", "incident acknowledged", TITLE)
        assert [action for _, action, _ in noted(app)].count("incident acknowledged") == 1, "who said so first stays"

    @pytest.mark.parametrize(("days", "until"), [(1, "21 Nov"), (7, "27 Nov"), (30, "20 Dec")])
    def test_snoozed(self, app: Flask, filled: Pages, days: int, until: str) -> None:
        happened(app)
        answer = filled.post("/alerts/incidents/1/snooze", page="/alerts", days=days, back="incident")
        assert answer.location == "/alerts/incidents/1"
        assert f"Snoozed until {until} 2026, 12:00 UTC." in text(filled.get("/alerts/incidents/1"))
        assert noted(app)[-1][2] == f"{TITLE}, for {'1 day' if days == 1 else f'{days} days'}"
        assert looks(app) == (6, True)
        filled.post("/alerts/incidents/1/snooze", 400, "/alerts", days=2)
        filled.post("/alerts/incidents/1/snooze", 400, "/alerts")

    def test_history_comes_in_pages(self, app: Flask, filled: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(board, "PAGE", 2)
        for number in range(5):
            happened(app, str(number), resolved_at=NOON, facts=FACTS | {"label": f"No. {number}"})
        page = text(filled.get("/alerts?page=3"))
        assert "No. 0 has" in page
        assert "No. 1 has" not in page
        assert "5 to 5 of 5" in page
        filled.get("/alerts?page=4", 404)
        filled.get("/alerts?page=x", 404)


class TestNavigation:
    def test_a_kept_dashboard_shows_the_new_number(self, app: Flask, filled: Pages) -> None:
        def mark() -> str:
            return " ".join(re.findall(r'nav-mark">(\d+)<span class="visually-hidden"> open', filled.get("/").text))

        assert mark() == ""
        etag = filled.get("/").headers["ETag"]
        assert filled.client.get("/", headers={"If-None-Match": etag}).status_code == 304
        happened(app)
        assert filled.client.get("/", headers={"If-None-Match": etag}).status_code == 200
        assert mark() == "1"
        happened(app, "2")
        assert mark() == "2"
        with app.app_context():
            for one in db.session.query(Incident):
                one.resolved_at = NOON
            db.session.commit()
        assert mark() == ""


class TestBudgets:
    def set_(self, pages: Pages, **more: Any) -> None:
        pages.post("/alerts/budgets", page="/alerts/budgets/new", **FORM | more)

    def test_one_against_time(self, app: Flask, filled: Pages) -> None:
        self.set_(filled, name="All of it")
        assert looks(app) == (6, True)
        page = text(filled.get("/alerts"))
        assert "Budget “All of it” added." in page
        assert "All of it Everything · November 2026 Within $194.00 of $300.00" in page
        assert (
            "64.7% of the sum after 63.3% of the month; $106.00 left. $4.00 of it is provisional,"
            " as of 20 Nov 2026, 12:00 UTC." in page
        )
        assert "Forecast: $300. It is expected to be used up on 30 Nov 2026." in page
        assert "Told at 50, 80, 100% of the sum and a forecast of 100%" in page
        assert noted(app)[-1] == ("someone@example.com", "budget added", "All of it: $300 a month")

    def test_over_and_above(self, filled: Pages) -> None:
        self.set_(filled, name="Too small", amount_usd="$150")
        self.set_(filled, name="Will be", amount_usd="250")
        page = text(filled.get("/alerts"))
        assert "Too small Everything · November 2026 Over $194.00 of $150.00" in page
        assert "129.3% of the sum after 63.3% of the month; $44.00 over." in page
        assert "Used up on 15 Nov 2026." in page
        assert "Will be Everything · November 2026 Forecast above it" in page
        assert "It is expected to be used up on 25 Nov 2026." in page

    def test_a_missing_day_makes_it_at_least(self, app: Flask, filled: Pages) -> None:
        with app.app_context():
            db.session.execute(db.text("DELETE FROM covered_day WHERE day = :day"), {"day": stored(ago(3))})
            db.session.execute(db.text("DELETE FROM day_total WHERE day = :day"), {"day": stored(ago(3))})
            db.session.commit()
        self.set_(filled)
        page = text(filled.get("/alerts"))
        assert "All costs Everything · November 2026 Days missing at least $184.00 of $300.00" in page
        assert "At least 61.3% of the sum after 63.3% of the month; at most $116.00 left." in page
        assert "No forecast: 1 day is missing, from 17 Nov 2026 on." in page

    def test_what_is_unknown_is_no_zero(self, app: Flask, pages: Pages) -> None:
        with app.app_context():
            add(db.session.get_one(Workspace, 1), "never read")
            db.session.commit()
        self.set_(pages)
        page = text(pages.get("/alerts"))
        assert "All costs Everything · November 2026 Unknown — unknown of $300.00" in page
        assert "Nothing of this month is known yet." in page
        assert "$0.00" not in page

    def test_the_form_has_what_the_address_filters_by(self, filled: Pages) -> None:
        for page in ("/?model=m&byok=1", "/breakdown?model=m&byok=1", "/models/m?byok=1"):
            [link] = re.findall(r'href="/alerts/budgets/new\?([^"]+)"', filled.get(page).text)
            assert sorted(link.split("&amp;")) == ["byok=1", "model=m"], page
        assert 'href="/alerts/budgets/new?key=k1"' in filled.get("/?key=k1").text
        assert "Set a budget" not in filled.get("/?q=m").text, "a part of a name can't be asked for"
        form = filled.get("/alerts/budgets/new?model=m&byok=1&key=unattributed&key=k1").text
        checked = re.findall(r'name="(\w+)" (?:type="checkbox" )?value="([^"]+)" checked', form)
        assert sorted(checked) == [("byok", "1"), ("key", "k1"), ("key", "unattributed"), ("model", "m")]

    def test_what_is_chosen_is_stored_and_shown_again(self, app: Flask, filled: Pages) -> None:
        self.set_(filled, model="m", host="h", key=["unattributed", "k1"], integration="1", byok="1", name="")
        with app.app_context():
            one = db.session.get_one(Budget, 1)
            assert one.filters == {"integration": [1], "model": ["m"], "host": ["h"], "key": ["", "k1"]}
            assert (one.name, one.byok) == ("Acme, m, h, Unattributed, k1", True)
        form = filled.get("/alerts/budgets/1").text
        assert len(re.findall(r'value="[^"]+" checked', form)) == 6
        assert 'value="300"' in form
        assert "Integration “Acme”; model m; host h; API keys “Unattributed”, “k1”, with BYOK" in text(
            filled.get("/alerts")
        )

    def test_changed_and_deleted(self, app: Flask, filled: Pages) -> None:
        self.set_(filled, name="One")
        with later(1):
            filled.post("/alerts/budgets/1", page="/alerts/budgets/1", **FORM | {"name": "Two", "period": "year"})
            with app.app_context():
                one = db.session.get_one(Budget, 1)
                assert (one.name, one.period, one.since.day) == ("Two", BudgetPeriod.YEAR, 21)
            filled.post("/alerts/budgets/1/delete", page="/alerts/budgets/1")
            assert "Budget “Two” deleted." in filled.get("/alerts").text
            filled.get("/alerts/budgets/1", 404)
        assert looks(app)[0] == 8
        assert [action for _, action, _ in noted(app)[-3:]] == ["budget added", "budget changed", "budget deleted"]

    def test_what_is_wrong_stands_at_its_field_and_what_was_typed_stays(self, app: Flask, filled: Pages) -> None:
        sent = FORM | {"amount_usd": "0", "actual": "80, 50", "model": ["m", "x"], "name": "Mine"}
        page = filled.post("/alerts/budgets", 422, "/alerts/budgets/new", **sent).text
        for sentence in (
            "Enter an amount of more than $0.",
            "Each percentage must be larger than the one before it.",
            "“x” was never used here. Choose another model, or none.",
        ):
            assert sentence in page
        assert 'aria-describedby="set-amount_usd-error" aria-invalid="true"' in page
        assert 'value="Mine"' in page
        assert "Error: Set a budget" in page
        with app.app_context():
            assert db.session.query(Budget).count() == 0
        assert looks(app) == (5, False)

    def test_what_is_named_in_place_of_being_chosen(self, app: Flask, filled: Pages) -> None:
        with app.app_context():
            cover(db.session.get_one(Integration, 1), [ago(1)], model="many/1")
            cover(db.session.get_one(Integration, 1), [ago(1)], model="many/2")
            db.session.commit()
        page = filled.post("/alerts/budgets", 422, "/alerts/budgets/new", **FORM, model_name="many").text
        assert "2 models have “many” in their names: many/1, many/2. Enter all of one name." in page
        page = filled.post("/alerts/budgets", 422, "/alerts/budgets/new", **FORM, model_name="zz").text
        assert "No model has “zz” in its name." in page
        self.set_(filled, model_name="m")
        with app.app_context():
            assert db.session.get_one(Budget, 1).filters["model"] == ["m"]

    def test_no_more_than_there_is_room_for(self, filled: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("grafient.alerts.budgets.MOST_BUDGETS", 0)
        page = filled.post("/alerts/budgets", 409, "/alerts/budgets/new", **FORM).text
        assert "A workspace can have up to 0 budgets. Delete one to add another." in page


class TestCaps:
    def test_where_the_provider_stops_keys(self, app: Flask, filled: Pages) -> None:
        assert "Limits of API keys" not in filled.get("/alerts").text
        with app.app_context():
            for name, limit, left, reset in (
                ("Production API", 2000, "1312.40", "monthly"),
                ("Once", 5, None, ""),
                ("Odd", 7, "-1", "hourly"),
            ):
                key = db.session.get_one(ApiKey, key_id(db.session.get_one(Integration, 1), name))
                key.limit_usd, key.limit_left_usd = Decimal(limit), None if left is None else Decimal(left)
                key.limit_reset, key.limit_read_at = reset, NOON
            db.session.commit()
        page, read = text(filled.get("/alerts")), ", as of 20 Nov 2026, 12:00 UTC"
        assert f"Key “Production API”: stops at $2,000.00 a month, $1,312.40 left{read}" in page
        assert f"Key “Once”: stops at $5.00 in all{read}" in page
        assert f"Key “Odd”: stops at $7.00 (hourly), −$1.00 left{read}" in page
        with app.app_context():
            db.session.get_one(Integration, 1).removed_at = NOON
            db.session.commit()
        assert "Production API" not in filled.get("/alerts").text


class TestPreview:
    FIRED = "20 Oct 2026: 80% of $250 used in October 2026: $200.00"

    def test_a_page_without_javascript_a_fragment_with_it(self, app: Flask, filled: Pages) -> None:
        sent = FORM | {"kind": "budget", "amount_usd": "250", "actual": "80", "forecast": ""}
        page = filled.post("/alerts/preview", 200, "/alerts/budgets/new", **sent)
        assert "2 alerts in the last 90 days" in page.text
        assert self.FIRED in text(page)
        assert 'value="250"' in page.text
        fragment = filled.post("/alerts/preview", 200, "/alerts/budgets/new", htmx=True, **sent)
        assert self.FIRED in text(fragment)
        assert "<h1" not in fragment.text
        assert "HX-Request" in fragment.headers["Vary"]
        with app.app_context():
            assert db.session.query(Budget).count() == 0

    def test_of_one_that_there_is_the_form_stays_its_own(self, filled: Pages) -> None:
        filled.post("/alerts/budgets", page="/alerts/budgets/new", **FORM)
        sent = FORM | {"kind": "budget", "budget": "1"}
        page = filled.post("/alerts/preview", 200, "/alerts/budgets/1", **sent).text
        assert 'action="/alerts/budgets/1"' in page
        filled.post("/alerts/preview", 404, "/alerts/budgets/1", **sent | {"budget": "2"})

    def test_what_is_wrong_first(self, filled: Pages) -> None:
        sent = FORM | {"kind": "budget", "amount_usd": "x"}
        fragment = filled.post("/alerts/preview", 200, "/alerts/budgets/new", htmx=True, **sent)
        assert "Enter an amount in USD, such as 250 or 99.50." in text(fragment)
        filled.post("/alerts/preview", 422, "/alerts/budgets/new", **sent)

    def test_what_is_left_out_is_said(self, filled: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preview, "MOST_ACCOUNTS", 0)
        for htmx in (True, False):
            page = filled.post("/alerts/preview", 200, "/alerts/rules/new", htmx=htmx, kind="new", least_usd="5")
            said = "Only the first 0 of 1 integrations were looked at. New hosts are left out."
            assert f"This is from what is known of these days today. {said}" in text(page)

    def test_more_than_are_listed(self, filled: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preview, "MOST_FIRED", 1)
        monkeypatch.setitem(alerts._PREVIEW, "most_fired", 1)
        sent = FORM | {"kind": "budget", "amount_usd": "250", "actual": "80", "forecast": ""}
        assert "At least 1 alert in" in text(filled.post("/alerts/preview", 200, "/alerts/budgets/new", **sent))

    def test_nothing_would_have_been_said(self, filled: Pages) -> None:
        sent = FORM | {"kind": "budget", "amount_usd": "90000"}
        page = filled.post("/alerts/preview", 200, "/alerts/budgets/new", **sent).text
        assert "No alert in the last 90 days" in page
        filled.post("/alerts/preview", 400, "/alerts/budgets/new", **FORM | {"kind": "silent"})


class TestRules:
    def test_settings_in_a_sentence(self, filled: Pages) -> None:
        page = text(filled.get("/alerts"))
        assert "At least $1 and 30% off; at least $10 for one model or API key." in page
        assert "Less than $10, or fewer days than 7." in page
        assert "For 26 hours." in page

    def test_set(self, app: Flask, filled: Pages) -> None:
        form = filled.get("/alerts/rules/credits").text
        assert 'value="10"' in form
        filled.post("/alerts/rules/credits", page="/alerts/rules/credits", left_usd="1,250.50", days="")
        with app.app_context():
            found = rules.of(1)[AlertKind.CREDITS]
            assert (found.is_on, found["left_usd"], found["days"]) == (False, Decimal("1250.50"), None)
        page = text(filled.get("/alerts"))
        assert "“Credits running out” saved." in page
        assert "Credits running out Off" in page
        assert "Less than $1,250.50. Edit" in page
        assert noted(app)[-1] == (
            "someone@example.com",
            "alert rule changed",
            "Credits running out: off, less than $1,250.50",
        )
        assert looks(app) == (6, True)
        assert 'value="1,250.50"' in filled.get("/alerts/rules/credits").text

    def test_what_can_not_be(self, app: Flask, filled: Pages) -> None:
        page = filled.post("/alerts/rules/new", 422, "/alerts/rules/new", least_usd="nothing", is_on="1").text
        assert "Enter an amount in USD, such as 250 or 99.50." in page
        assert 'value="nothing"' in page
        page = filled.post("/alerts/rules/no_sync", 422, "/alerts/rules/no_sync", hours="3").text
        assert "Enter a whole number from 25 to 720." in page
        filled.get("/alerts/rules/budget", 404)
        assert looks(app) == (5, False)

    def test_each_has_a_form(self, filled: Pages) -> None:
        for kind in rules.KINDS:
            assert rules.KINDS[kind].label in text(filled.get(f"/alerts/rules/{kind}"))


def test_a_viewer_sees_all_and_has_no_buttons(app: Flask, filled: Pages) -> None:
    happened(app)
    filled.post("/alerts/budgets", page="/alerts/budgets/new", **FORM)
    viewer = joined(app, filled, role=Role.VIEWER)
    for path in ("/alerts", "/alerts/incidents/1"):
        page = viewer.get(path).text
        assert TITLE in page
        main = page[page.index("<main") : page.index("</main")]
        assert "<form" not in main
        assert "Edit" not in main
    assert "$194.00" in text(viewer.get("/alerts"))
    assert "Set a budget" not in viewer.get("/").text
    viewer.get("/alerts/budgets/new", 403)


class TestLinks:
    @pytest.fixture
    def token(self, app: Flask, filled: Pages) -> str:
        happened(app)
        with app.app_context():
            channel = Channel(workspace_id=1, kind=ChannelKind.SLACK, name="#costs", shown={}, topics=[])
            db.session.add(channel)
            db.session.commit()
            return board.answer_token(1, channel.id)

    def test_whoever_has_it_can_say_that_they_know(self, app: Flask, token: str) -> None:
        anybody, address = Pages(app), f"/alerts/answer/{token}"
        page = text(anybody.get(address))
        assert TITLE in page
        assert "Dashboard" not in page
        anybody.post(address, what="acknowledge")
        page = anybody.get(address)
        assert "Acknowledged by link in channel #costs, 20 Nov 2026, 12:00 UTC." in text(page)
        assert 'value="acknowledge"' not in page.text
        assert noted(app)[-1] == ("link in channel #costs", "incident acknowledged", TITLE)
        anybody.post(address, days="1")
        assert "Snoozed until 21 Nov 2026, 12:00 UTC." in text(anybody.get(address))
        anybody.post(address, 400, days="9")
        assert looks(app) == (7, True)

    def test_looking_changes_nothing(self, app: Flask, token: str) -> None:
        before = noted(app), looks(app)
        Pages(app).get(f"/alerts/answer/{token}")
        answer = Pages(app).client.post(f"/alerts/answer/{token}", data={"what": "acknowledge"})
        assert answer.status_code == 400, "without the form's token"
        assert (noted(app), looks(app)) == before

    def test_what_is_over_needs_nothing(self, app: Flask, token: str) -> None:
        with app.app_context():
            db.session.get_one(Incident, 1).resolved_at = NOON
            db.session.commit()
        page = Pages(app).get(f"/alerts/answer/{token}")
        assert "It is over. Nothing has to be done." in page.text
        assert "<form" not in page.text[page.text.index("<main") : page.text.index("</main")]

    @pytest.mark.parametrize("what", ["old", "another", "cut", "incident", "channel", "workspace", "deleted"])
    def test_one_that_does_not_work_says_so(self, app: Flask, token: str, what: str) -> None:
        days = 0
        with app.app_context():
            if what == "incident":
                db.session.delete(db.session.get_one(Incident, 1))
            elif what == "channel":
                db.session.delete(db.session.get_one(Channel, 1))
            elif what == "deleted":
                db.session.get_one(Workspace, 1).deleted_at = NOON
            elif what == "workspace":
                other = Workspace(plan="free")
                db.session.add(other)
                db.session.flush()
                db.session.get_one(Channel, 1).workspace_id = other.id
            db.session.commit()
        if what == "old":
            days = 31
        tampered = {"another": token[:-2] + ("AA" if token[-2:] != "AA" else "BB"), "cut": token[:20]}.get(what, token)
        with later(days):
            page = Pages(app).get(f"/alerts/answer/{tampered}", 404).text
            assert "This link doesn't work" in page or "This link doesn&#39;t work" in page
            assert "Acme" not in page

    def test_it_works_for_thirty_days(self, app: Flask, token: str) -> None:
        with later(29):
            assert TITLE in Pages(app).get(f"/alerts/answer/{token}").text


def stored(day: date) -> Any:
    """A day as the database has it."""
    return day.toordinal() if db.engine.dialect.name == "sqlite" else day

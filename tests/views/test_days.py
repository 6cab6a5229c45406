"""The page of one UTC day over all integrations, against what the sandbox knows to be true."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal

import pytest
from flask import Flask
from sqlalchemy import delete, select

from grafient.extensions import db
from grafient.models import CoveredDay, Integration, Workspace
from grafient.sandbox import Sandbox
from grafient.states import DayState, Source
from grafient.views.formats import day as written
from grafient.views.formats import usd_exact
from tests.pages import Pages, lint
from tests.statements import asked, scanned
from tests.stored import add, ago, cover
from tests.syncing import NOON, a_day, at, by_day
from tests.views.test_costs import links, synced, text
from tests.views.test_integrations import connected

TODAY = NOON.date()


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def lively(app: Flask, pages: Pages, sandbox: Sandbox) -> Pages:
    connected(app, pages, sandbox)
    return pages


def words(html: str) -> str:
    (main,) = lint(html).query("main")
    return re.sub(r" (?=[.,:;)])", "", " ".join(main.to_text().split()))


def total(html: str) -> Decimal:
    return Decimal(str(lint(html).query(".sum data")[0].attrs["value"]))


def figures(html: str, section: str) -> dict[str, Decimal]:
    """What a section's table says, by the text of each row's head; the first figure."""
    rows = lint(html).query(f"section[aria-labelledby={section}] tbody tr")
    return {row.query("th")[0].to_text().strip(): Decimal(str(row.query("data")[0].attrs["value"])) for row in rows}


def test_a_day_is_the_truth_to_the_last_digit_and_so_is_what_it_is_made_of(lively: Pages, sandbox: Sandbox) -> None:
    day = a_day(sandbox)
    page = lively.get(f"/days/{day}").text
    rows = sandbox.truth("lively", day, day).rows
    models: dict[str, Decimal] = defaultdict(Decimal)
    hosts: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        models[row.model] += row.usage
        hosts[row.provider_name] += row.usage
    keys: dict[str, Decimal] = defaultdict(Decimal)
    for part in sandbox.state.slices(sandbox.account("lively"), day):
        keys[part.key.name] += part.usage
    assert total(page) == sum(models.values())
    assert len(rows) > len(models) > 5, "endpoints of a model are one row"
    assert figures(page, "by-models") == models
    assert figures(page, "by-hosts") == hosts
    assert sum(figures(page, "by-keys").values()) == total(page)
    assert figures(page, "by-integrations") == {"OpenRouter": total(page)}
    assert f"{written(day)}, the whole UTC day" in words(page)


def test_every_name_leads_to_its_page_with_the_days_before(lively: Pages, sandbox: Sandbox) -> None:
    day = a_day(sandbox)
    page = lively.get(f"/days/{day}").text
    period = f"?from={day - timedelta(days=29)}&to={day}"
    for what in ("models", "keys", "hosts"):
        found = links(page, f"/{what}/")
        assert found
        assert all(link.endswith(period) for link in found)
        assert written(day) in words(lively.get(found[0]).text)
    (own,) = links(page, "/integrations/")[-1:]
    assert own == f"/integrations/1/days/{day}"


def test_days_lead_to_the_days_beside_them(lively: Pages, sandbox: Sandbox) -> None:
    day = a_day(sandbox)
    tree = lint(lively.get(f"/days/{day}?integration=1&host=OpenAI").text)
    found = {str(link.attrs["rel"]): str(link.attrs["href"]) for link in tree.query("a[rel]")}
    assert found == {
        "prev": f"/days/{day - timedelta(days=1)}?integration=1&host=OpenAI",
        "next": f"/days/{day + timedelta(days=1)}?integration=1&host=OpenAI",
    }
    assert not lint(lively.get(f"/days/{TODAY}").text).query("a[rel=next]")
    assert not lint(lively.get("/days/2000-01-01").text).query("a[rel=prev]")


def test_a_new_key_or_a_sync_is_advised_only_for_days_that_a_sync_can_still_read(app: Flask, pages: Pages) -> None:
    with app.app_context():
        add(db.session.get_one(Workspace, 1), "Never read")
        db.session.commit()

    def advice(path: str) -> bool:
        return "one may need a new key, or a Force Sync" in words(pages.get(path).text)

    for back, advised in ((1, True), (30, True), (31, False), (-1, False)):
        day = ago(back)
        assert advice(f"/days/{day}") is advised
        assert advice(f"/?from={day}&to={day}") is advised
    for last, advised in ((1, True), (30, True), (31, False)):
        assert advice(f"/changes?from={ago(last)}&to={ago(last)}") is advised
    assert not advice(f"/changes?from={ago(-9)}&to={ago(-9)}")
    assert [advice(f"/statement?month=2026-{month}") for month in ("11", "10", "09")] == [True, True, False]


def test_days_of_every_kind_say_what_they_are(lively: Pages, sandbox: Sandbox) -> None:
    def day(back: int) -> str:
        return words(lively.get(f"/days/{ago(back)}").text)

    assert "Final: complete" in day((TODAY - a_day(sandbox)).days)
    assert "So far" in day(0)
    assert "Provisional: known so far" in day(0)
    assert "as of 20 Nov 2026, 12:00 UTC" in day(0)
    assert "The day is not complete yet." in day(0)
    assert "Missing: not read" in day(100)
    assert "No sync has read this day" in day(100)
    assert "This day has not begun" in day(-3)
    assert "Upcoming" in day(-3)
    for unknown in (100, -3):
        assert "$" not in day(unknown)
        assert "—" in day(unknown)
    empty = next(back for back in range(1, 31) if not sandbox.truth("lively", ago(back), ago(back)).rows)
    assert "No usage: the provider reported no usage." in day(empty)
    assert "That is a known zero." in day(empty)
    lively.get("/days/2026-02-30", 400)
    lively.get("/days/yesterday", 400)


def test_an_integration_that_misses_the_day_is_named(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    connected(app, pages, sandbox, "byok")
    day = a_day(sandbox)
    with app.app_context():
        one, two = db.session.execute(select(Integration).order_by(Integration.id)).scalars()
        one.label, two.label = "First", "Second"
        spent = by_day(one)[day]
        mine = CoveredDay.integration_id == two.id, CoveredDay.day == day
        db.session.execute(delete(CoveredDay).where(*mine))
        two.changed()
        db.session.commit()
    page = pages.get(f"/days/{day}").text
    assert "Incomplete: missing for some of the integrations." in words(page)
    assert "Second has no data for this day, so the total is of the others." in words(page)
    assert "1 of 2 integrations" in words(page)
    rows = lint(page).query("section[aria-labelledby=by-integrations] tbody tr")
    assert " ".join(rows[0].to_text().split()) == "Second Missing — unknown"
    assert total(page) == spent
    assert f"/integrations/2/days/{day}" in page


def test_a_restatement_is_said_first_with_the_whole_days_amounts(app: Flask, lively: Pages, sandbox: Sandbox) -> None:
    day = a_day(sandbox)
    before = sandbox.truth("lively", day, day).usage
    assert "Restated" not in words(lively.get(f"/days/{day}").text)
    sandbox.restate("lively", day, 2)
    synced(app, lively)
    page = lively.get(f"/days/{day}").text
    after = sandbox.truth("lively", day, day).usage
    assert total(page) == after
    assert f"was{usd_exact(before)},now{usd_exact(after)}since20Nov2026,12:0" in text(page)
    sections = [str(one.attrs["aria-labelledby"]) for one in lint(page).query("main section")]
    assert sections[0] == "restated"


def test_what_is_usual_and_what_changed_is_said(app: Flask, pages: Pages) -> None:
    with app.app_context():
        one = add(db.session.execute(select(Workspace)).scalar_one(), "one")
        for weeks, usd in enumerate((50, 10, 11, 12, 13)):
            cover(one, [ago(1 + 7 * weeks)], usd=usd, model="dear")
        cover(one, [ago(2)], usd=20, model="cheap")
        db.session.commit()
    page = words(pages.get(f"/days/{ago(1)}").text)
    assert "Usual for a Thursday $11.00 to $12.00 This day cost more than usual." in page
    assert "From the 4 Thursdays in the 8 weeks before" in page
    assert "Compared with the day before +$30.00 (+150.0%) 18 Nov 2026 cost $20.00." in page
    (why,) = lint(pages.get(f"/days/{ago(1)}").text).query("section[aria-labelledby=why]")
    said = re.sub(r" (?=[.,:)])", "", " ".join(why.to_text().split()))
    assert "Costs rose by $30.00 (+150.0%), from $20.00 on 18 Nov 2026 to $50.00 on 19 Nov 2026." in said
    assert "The largest changes by model: dear +$50.00 (new), cheap −$20.00 (gone)." in said
    drawn = [one.to_text() for one in why.query("text.waterfall-amount")]
    assert drawn == ["$20.00", "$0.00", "$0.00", "$0.00", "+$50.00", "−$20.00", "$50.00"]
    exact = [Decimal(str(one.attrs["value"])) for one in why.query("table.parts tbody data")]
    assert exact == [20, 0, 0, 0, 50, -20, 50]
    (further,) = [str(a.attrs["href"]) for a in why.query("a") if a.to_text() == "By model, host and key"]
    assert "Costs rose by $30.00 (+150.0%), from $20.00 on 18 Nov 2026" in words(pages.get(further).text)
    page = words(pages.get(f"/days/{ago(2)}").text)
    assert "Fewer than 4 of the Wednesdays in the 8 weeks before are complete." in page
    assert "No integration is complete on both days." in page


def test_filters_narrow_the_day_and_can_be_left(lively: Pages, sandbox: Sandbox) -> None:
    day = a_day(sandbox)
    whole = lively.get(f"/days/{day}").text
    model, amount = next(iter(figures(whole, "by-models").items()))
    page = lively.get(f"/days/{day}?model={model}").text
    assert total(page) == amount
    assert f"Only: Model {model}" in words(page)
    assert f"/days/{day}" in links(page, "/days/")
    nothing = lively.get(f"/days/{day}?model={model}&host=nobody").text
    assert "No matching usage on this day" in words(nothing)
    for query in ("q=gpt", "key=unattributed", "key=nobody", "byok=1", "integration=1"):
        lively.get(f"/days/{day}?{query}")
    lively.get(f"/days/{day}?integration=9", 404)
    lively.get(f"/days/{day}?model=%00", 400)


def test_a_day_of_analytics_alone_tells_no_hosts_and_no_keys(app: Flask, pages: Pages) -> None:
    with app.app_context():
        one = add(db.session.execute(select(Workspace)).scalar_one(), "one")
        cover(one, [ago(40)], usd=3, source=Source.ANALYTICS, state=DayState.FINAL)
        db.session.commit()
    page = pages.get(f"/days/{ago(40)}").text
    assert total(page) == 3
    assert "m" in figures(page, "by-models")
    whole = words(pages.get(f"/days/{ago(40)}?host=h").text)
    assert "No sync has read this day for what you filtered by" in whole
    assert "$" not in whole


def test_without_integrations_it_shows_the_way(pages: Pages) -> None:
    assert "Nothing is connected yet" in words(pages.get(f"/days/{TODAY}").text)


def test_nobody_sees_it_without_signing_in(app: Flask, lively: Pages) -> None:
    assert Pages(app).get("/days/2026-11-19", 302).headers["Location"].startswith("/login")


def test_a_day_takes_few_statements(app: Flask, lively: Pages, sandbox: Sandbox) -> None:
    day: date = a_day(sandbox)
    with asked(app) as statements:
        lively.get(f"/days/{day}?key=unattributed&integration=1")
    with asked(app) as plain:
        lively.get(f"/days/{day}")
    assert len(statements) <= 9, "\n\n".join(one.text for one in statements)
    assert len(plain) <= 9, "\n\n".join(one.text for one in plain)
    assert not scanned(app, statements + plain)

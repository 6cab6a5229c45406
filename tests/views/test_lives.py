"""The pages of models, hosts and API keys, against what the sandbox knows to be true, and the links to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from urllib.parse import quote, unquote, urlsplit

import pytest
from flask import Flask
from justhtml import JustHTML
from sqlalchemy import select

from grafient.extensions import db
from grafient.models import Workspace
from grafient.sandbox import Sandbox
from tests.conftest import PASSWORD
from tests.pages import Pages, lint
from tests.statements import asked, scanned
from tests.stored import add, ago, cover
from tests.syncing import NOON, at
from tests.views.test_costs import by_key, links
from tests.views.test_days import figures, words
from tests.views.test_integrations import connected

TODAY = NOON.date()
NASTY = (
    "vendor/<script>alert(1)</script>",
    "a/b//c/",
    "100%25/of%2Fit?x=1#y",
    "модель/ü ñ 模型",
    "  spaced  ",
    "a\\b\"c'd",
    "/begins/with",
    "a/../b",
    "two\nlines",
    "..",
)


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def lively(app: Flask, pages: Pages, sandbox: Sandbox) -> Pages:
    connected(app, pages, sandbox)
    return pages


def total(html: str) -> Decimal:
    return Decimal(str(lint(html).query(".figure data")[0].attrs["value"]))


def heading(html: str) -> str:
    return str(lint(html).query("h1")[0].to_text()).strip()


def truth(sandbox: Sandbox, days: int, name: str) -> dict[str, Decimal]:
    """What each model or host (``name``: of the field) really cost."""
    last = sandbox.today - timedelta(days=1)
    found: dict[str, Decimal] = defaultdict(Decimal)
    for row in sandbox.truth("lively", last - timedelta(days=days - 1), last).rows:
        found[getattr(row, name)] += row.usage
    return found


def chart_sum(html: str) -> Decimal:
    rows: list[JustHTML] = lint(html).query("table[data-chart] tbody tr")
    cells = [row.query("td")[0] for row in rows]
    return sum((Decimal(str(one.attrs["data-value"])) for one in cells if "data-value" in one.attrs), Decimal(0))


@pytest.mark.parametrize(("what", "field"), [("models", "model"), ("hosts", "provider_name")])
def test_each_has_a_page_with_what_it_really_cost(lively: Pages, sandbox: Sandbox, what: str, field: str) -> None:
    group = {"models": "model", "hosts": "host"}[what]
    found = links(lively.get(f"/breakdown?group={group}&days=7").text, f"/{what}/")
    costs = truth(sandbox, 7, field)
    assert {unquote(urlsplit(link).path).removeprefix(f"/{what}/") for link in found} == set(costs)
    for link in found:
        assert link.endswith("?days=7")
        page = lively.get(link).text
        name = heading(page)
        assert total(page) == chart_sum(page) == costs[name]
        assert sum(figures(page, "by-hosts" if group == "model" else "by-models").values()) == costs[name]


def test_each_key_has_a_page_with_what_it_really_spent(lively: Pages, sandbox: Sandbox) -> None:
    spent = by_key(sandbox)
    for key_hash, amount in spent.items():
        page = lively.get(f"/keys/{key_hash}").text
        assert total(page) == amount
        assert sum(figures(page, "by-models").values()) == sum(figures(page, "by-hosts").values()) == amount
        assert heading(page) in {key.name for key in sandbox.account("lively").keys(sandbox.today)}
    rest = lively.get("/keys/unattributed").text
    assert heading(rest) == "Unattributed"
    whole = sum(truth(sandbox, 30, "model").values())
    listed = {urlsplit(link).path.split("/")[2] for link in links(lively.get("/breakdown?group=key").text, "/keys/")}
    assert {key_hash for key_hash, amount in spent.items() if amount} <= listed
    totals = [total(lively.get(f"/keys/{key_hash}").text) for key_hash in listed]
    assert sum(totals) == whole


def test_a_permaslug_is_an_address_too(lively: Pages, sandbox: Sandbox) -> None:
    last = sandbox.today - timedelta(days=1)
    rows = sandbox.truth("lively", last - timedelta(days=29), last).rows
    row = next(row for row in rows if row.model_permaslug != row.model)
    named, slugged = (lively.get(f"/models/{name}").text for name in (row.model, row.model_permaslug))
    assert heading(named) == heading(slugged) == row.model
    assert total(named) == total(slugged)


def test_what_is_not_the_workspaces_is_not_found(app: Flask, sandbox: Sandbox) -> None:
    pages = Pages(app)
    pages.register("someone@example.com", PASSWORD)
    connected(app, pages, sandbox)
    page = pages.get("/").text
    model, key = links(page, "/models/")[0], next(iter(by_key(sandbox)))
    host = links(pages.get("/breakdown?group=host").text, "/hosts/")[0]
    with app.app_context():
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.flush()
        cover(add(other, "theirs"), [ago(1)], model="their/model", key="theirkey")
        db.session.commit()
    for path in (model, f"/keys/{key}", host):
        pages.get(path)
    for path in ("/models/their/model", "/keys/theirkey", "/models/no/such", "/keys/no", "/hosts/no", "/models/"):
        assert "Page not found" in pages.get(path, 404).text
    pages.get(f"{model}&integration=99" if "?" in model else f"{model}?integration=99", 404)
    pages.get("/models/a%00b", 404)
    html = pages.get(f"{urlsplit(model).path}?from=2026-11-19&to=2026-11-13", 400).text
    (alert,) = lint(html).query("form [role=alert]")
    assert "“From” must be on or before “To”. The last 30 days are shown." in " ".join(alert.to_text().split())
    pages.get(f"{urlsplit(model).path}?from=nonsense", 400)
    assert Pages(app).get(model, 302).headers["Location"].startswith("/login")


def test_names_of_any_kind_have_pages_or_links_that_work(app: Flask, pages: Pages) -> None:
    with app.app_context():
        one = add(db.session.execute(select(Workspace)).scalar_one(), "one")
        for number, name in enumerate(NASTY, 1):
            cover(one, [ago(1)], usd=number, model=name)
        db.session.commit()
    page = pages.get("/breakdown").text
    found = [str(link.attrs["href"]) for link in lint(page).query("tbody th a")]
    assert len(found) == len(NASTY)
    for number, name in enumerate(NASTY, 1):
        fits = not name.startswith("/") and ".." not in name and "\n" not in name
        if fits:
            assert f"/models/{name}" in map(unquote, found)
        link = f"/models/{quote(name)}" if fits else f"/?model={quote(name)}"
        answer = pages.get(link).text
        assert "<script>alert" not in answer
        assert total(answer) == number
        if fits:
            assert heading(answer) == name.strip()
    for link in found:
        pages.get(link)


def test_hostile_names_break_nothing(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "hostile")
    day = sandbox.today - timedelta(days=1)
    for path in (f"/days/{day}", *(f"/breakdown?group={group}" for group in ("model", "host", "key"))):
        page = pages.get(path).text
        assert "<script>alert" not in page
        found = [link for kind in ("models", "hosts", "keys") for link in links(page, f"/{kind}/")]
        assert found
        for link in found:
            assert "<script>alert" not in pages.get(link).text


def test_links_keep_the_period_and_lead_on(lively: Pages) -> None:
    week = "days=7&integration=1"
    for path in (f"/?{week}&against=none", f"/breakdown?{week}&q=gpt", f"/breakdown?group=host&{week}"):
        found = links(lively.get(path).text, "/models/") + links(lively.get(path).text, "/hosts/")
        assert found
        assert all(link.endswith("?days=7&integration=1") for link in found)
    page = lively.get(found[0]).text
    host = unquote(urlsplit(found[0]).path).removeprefix("/hosts/")
    on = links(page, "/breakdown?")
    assert f"/breakdown?{week}&host={quote(host)}" in on
    assert f"/breakdown?{week}&host={quote(host)}&group=key" in on
    assert not [link for link in on if "host=" in link and link.endswith("group=host")]
    for link in on:
        lively.get(link)
    days = links(page, "/days/")
    assert len(days) == 7
    assert all(f"host={quote(host)}" in link for link in days)
    lively.get(days[0])


def test_every_period_has_its_page_and_says_its_coverage(lively: Pages) -> None:
    link = urlsplit(links(lively.get("/").text, "/models/")[0]).path
    for query in ("days=7", "days=365", "period=all", "period=yesterday", f"from={ago(3)}&to={ago(1)}", "byok=1"):
        lively.get(f"{link}?{query}")
    page = words(lively.get(f"{link}?days=365").text)
    assert "30 of 365 days" in page
    unknown = words(lively.get(f"{link}?from=2020-01-01&to=2020-01-31").text)
    assert "No data for these days" in unknown
    assert "Total — unknown 1–31 Jan 2020, 0 of 31 days" in unknown


def test_what_other_pages_filter_by_changes_nothing_here(lively: Pages) -> None:
    link = urlsplit(links(lively.get("/").text, "/models/")[0]).path
    assert total(lively.get(f"{link}?host=nobody&model=other&key=none&q=x").text) == total(lively.get(link).text) > 0


def test_statement_and_day_of_an_integration_lead_to_them(lively: Pages, sandbox: Sandbox) -> None:
    statement = lively.get("/statement?month=2026-11").text
    assert all(link.endswith("from=2026-11-01&to=2026-11-30") for link in links(statement, "/models/"))
    assert links(statement, "/models/")
    assert links(statement, "/keys/")
    day = lively.get(f"/integrations/1/days/{ago(1)}").text
    for what in ("models", "hosts", "keys"):
        (link, *_) = links(day, f"/{what}/")
        assert "integration=1" in link
        assert ago(1).isoformat() in link
        lively.get(link)


def test_prices_and_their_changes_are_said(app: Flask, pages: Pages) -> None:
    with app.app_context():
        one = add(db.session.execute(select(Workspace)).scalar_one(), "one")
        cover(one, [ago(back) for back in range(1, 15)], usd=None)
        cover(one, [ago(10)], usd=2, model="a", prompt_tokens=1_000_000, completion_tokens=0, requests=0)
        cover(one, [ago(3)], usd=3, model="a", prompt_tokens=500_000, completion_tokens=500_000, requests=3)
        db.session.commit()
    page = words(pages.get("/models/a").text)
    assert "USD per million tokens $2.50" in page
    assert "+50.0% from $2.00 in 9–15 Nov 2026" in page
    assert "USD per request $1.67" in page
    assert "differs by more than 5% from the week before it" in page
    rows = lint(pages.get("/models/a").text).query("section[aria-labelledby=prices] tbody tr")
    (week,) = [row for row in rows if "9–15 Nov 2026" in row.query("th")[0].to_text()]
    assert "not available" in week.query("td")[3].to_text(), "no requests"


@pytest.mark.parametrize("what", ["model", "host", "key"])
def test_a_page_takes_few_statements(app: Flask, lively: Pages, what: str) -> None:
    """One asks who is signed in and whether the page is kept, and one who needs attention."""
    (path, *_) = links(lively.get(f"/breakdown?group={what}&days=90").text, f"/{what}s/")
    with asked(app) as statements:
        lively.get(path)
    assert len(statements) <= 9, "\n\n".join(one.text for one in statements)
    assert not scanned(app, statements)
    with asked(app) as statements:
        lively.get(path)
    assert len(statements) == 1, "it is kept"

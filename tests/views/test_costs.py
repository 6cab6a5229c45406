"""Dashboard, Breakdown, statements, day pages and exports say what the sandbox knows to be true."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal

import pytest
from flask import Flask
from justhtml import JustHTML
from sqlalchemy import select, update

from grafient.extensions import db
from grafient.models import Line, ModelTotal, Workspace
from grafient.money import usd
from grafient.providers.openrouter import _Pace
from grafient.query import Group, Measure
from grafient.reports.breakdown import DERIVED, FIGURES
from grafient.reports.chart import Step
from grafient.reports.ledger import COLUMNS
from grafient.sandbox import Sandbox
from grafient.views.formats import usd_exact
from tests import stored
from tests.conftest import EMAIL, PASSWORD
from tests.pages import Pages, lint
from tests.statements import asked, scanned
from tests.syncing import MICRO, NOON, a_day, at, later
from tests.views.test_integrations import connected, run_due

TODAY = NOON.date()


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def lively(app: Flask, pages: Pages, sandbox: Sandbox) -> Pages:
    connected(app, pages, sandbox)
    return pages


@pytest.fixture
def a_year(settings: dict[str, str]) -> None:
    """New accounts are on a plan that reads all there is; ask for it before anything else."""
    settings["GRAFIENT_DEFAULT_PLAN"] = "ultimate"


def truth(sandbox: Sandbox, days: int = 30, name: str = "lively") -> Decimal:
    last = sandbox.today - timedelta(days=1)
    return sandbox.truth(name, last - timedelta(days=days - 1), last).usage


def so_far(sandbox: Sandbox, name: str = "lively") -> Decimal:
    """Today until now, as analytics tells it: per model, at 6 decimals."""
    models: dict[str, Decimal] = defaultdict(Decimal)
    for part in sandbox.account(name).slices_so_far(sandbox.today):
        models[part.model_permaslug] += part.usage
    return sum((amount.quantize(MICRO) for amount in models.values()), Decimal(0))


def by_key(sandbox: Sandbox, name: str = "lively", days: int = 30) -> dict[str, Decimal]:
    """What each key that still exists spent."""
    account, spent = sandbox.account(name), defaultdict[str, Decimal](Decimal)
    for ago in range(1, days + 1):
        for part in sandbox.state.slices(account, sandbox.today - timedelta(days=ago)):
            spent[part.key.hash] += part.usage
    return {key.hash: spent[key.hash] for key in account.keys(sandbox.today)}


def synced(app: Flask, pages: Pages, integration_id: int = 1) -> None:
    """Force Sync, done."""
    pages.post(f"/integrations/{integration_id}/sync", 303, "/integrations")
    run_due(app)


def rows(pages: Pages, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(pages.get(path).text)))


def cents(amount: Decimal) -> str:
    return f"{amount:,.2f}"


def text(html: str) -> str:
    return re.sub(r"\s+", "", lint(html).to_text())


def total(html: str) -> Decimal:
    """The figure that a dashboard calls its total."""
    return Decimal(str(lint(html).query(".figure data")[0].attrs["value"]))


def tables(html: str) -> list[tuple[list[list[Decimal | None]], list[Decimal | None]]]:
    """The figures of each table that has a foot: those of its rows, and of the foot; None where there is none."""
    found = []
    for table in lint(html).query("table"):
        if table.query("tfoot"):
            body = [_figures(row) for row in table.query("tbody tr")]
            found.append((body, _figures(table.query("tfoot tr")[0])))
    return found


def _figures(row: JustHTML) -> list[Decimal | None]:
    cells = [cell.query("data") for cell in row.query("td.number")]
    return [Decimal(str(data[0].attrs["value"])) if data else None for data in cells]


def links(html: str, beginning: str) -> list[str]:
    found = [str(link.attrs["href"]) for link in lint(html).query("a[href]")]
    return [link for link in found if link.startswith(beginning)]


@pytest.mark.parametrize("days", [7, 30])
def test_the_total_is_the_truth_to_the_cent(lively: Pages, sandbox: Sandbox, days: int) -> None:
    assert cents(truth(sandbox, days)) in text(lively.get(f"/?days={days}").text)
    assert cents(truth(sandbox, days)) in text(lively.get(f"/breakdown?days={days}").text)


def test_a_period_that_is_not_all_covered_says_so(lively: Pages) -> None:
    assert "30of90days" in text(lively.get("/?days=90").text)
    assert "30of30days" in text(lively.get("/?days=30").text)


def test_before_anything_is_known_nothing_is_zero(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    assert "$0.00" not in text(pages.get("/").text)
    pages.connect(sandbox.key("lively"))
    page = pages.get("/").text
    assert "$0.00" not in text(page)
    assert "every 1s" in page


def test_days_of_which_nothing_is_known_are_no_zeros(lively: Pages, sandbox: Sandbox) -> None:
    long_ago = (sandbox.today - timedelta(days=200)).isoformat()
    page = text(lively.get(f"/?from={long_ago}&to={long_ago}").text)
    assert "$0.00" not in page
    assert "0of1day" in page


def test_the_ledger_has_every_line_to_the_last_digit(lively: Pages, sandbox: Sandbox) -> None:
    ledger = rows(lively, "/ledger.csv?days=30")
    assert tuple(ledger[0]) == COLUMNS
    assert sum(Decimal(row["usage_usd"]) for row in ledger) == truth(sandbox)
    assert {row["state"] for row in ledger} == {"final"}
    assert not any("E" in row["usage_usd"] for row in ledger)
    last = sandbox.today - timedelta(days=1)
    assert len(ledger) == len(sandbox.truth("lively", last - timedelta(days=29), last).rows)


def test_the_breakdown_and_its_file_agree(lively: Pages, sandbox: Sandbox) -> None:
    found = rows(lively, "/breakdown.csv")
    assert tuple(found[0]) == (
        "model",
        *FIGURES,
        "days_covered",
        "days_asked",
        "integrations_covered",
        "integrations_asked",
        *DERIVED,
    )
    assert {(row["days_covered"], row["days_asked"]) for row in found} == {("30", "30")}
    assert sum(Decimal(row["usage_usd"]) for row in found) == truth(sandbox)
    page = text(lively.get("/breakdown").text)
    for row in found:
        assert row["model"] in page


@pytest.mark.parametrize("sort", ["model", *FIGURES, *DERIVED])
def test_every_column_sorts_both_ways_with_the_unknown_last(lively: Pages, sort: str) -> None:
    up, down = (rows(lively, f"/breakdown.csv?sort={sort}&dir={direction}") for direction in ("asc", "desc"))
    values = [row[sort] if sort == "model" else Decimal(row[sort]) for row in up if row[sort]]
    assert values == sorted(values)
    assert [row[sort] for row in down if row[sort]] == [row[sort] for row in up if row[sort]][::-1]
    assert "aria-sort" in lively.get(f"/breakdown?sort={sort}").text


def test_filters_narrow_pages_and_files_alike(lively: Pages) -> None:
    everything = rows(lively, "/ledger.csv")
    host = everything[0]["host"]
    model = everything[0]["model"]
    assert {row["host"] for row in rows(lively, f"/ledger.csv?host={host}")} == {host}
    assert {row["model"] for row in rows(lively, f"/breakdown.csv?q={model[3:9].upper()}")} >= {model}
    assert rows(lively, "/breakdown.csv?q=no%25such_model") == []
    lively.get("/breakdown?q=no%25such_model")


def test_two_integrations_are_added_and_can_be_told_apart(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    connected(app, pages, sandbox, "other")
    both = truth(sandbox) + truth(sandbox, name="other")
    assert cents(both) in text(pages.get("/").text)
    assert cents(truth(sandbox, name="other")) in text(pages.get("/?integration=2").text)


@pytest.mark.parametrize(
    "query",
    ["days=8", "days=abc", "from=2026-01-01", "from=2026-02-30&to=2026-03-01", "from=2026-03-01&to=2026-02-01",
     "from=2000-01-01&to=2026-01-01", "period=fortnight", "from=0001-01-01&to=0001-01-02", "from=20260101&to=20260102"],
)  # fmt: skip
def test_a_period_that_is_none_gets_a_sentence(pages: Pages, query: str) -> None:
    assert "This period can't be shown" in lint(pages.get(f"/ledger.csv?{query}", 400).text).to_text()
    for path in ("/", "/breakdown"):
        (alert,) = lint(pages.get(f"{path}?{query}", 400).text).query("main [role=alert]:not([hidden])")
        assert alert.to_text().startswith("“") or alert.to_text().startswith("A period")


def test_a_wrong_period_is_said_beside_its_fields_and_the_last_30_days_are_shown(
    lively: Pages, sandbox: Sandbox
) -> None:
    page = lint(lively.get("/?from=2026-03-02&to=2026-03-01&host=Azure", 400).text)
    (alert,) = page.query("#wrong-period")
    assert alert.to_text() == "“From” must be on or before “To”. The last 30 days are shown."
    for name, day in (("from", "2026-03-02"), ("to", "2026-03-01")):
        (field,) = page.query(f"input[name={name}][type=date]")
        assert (field.attrs["value"], field.attrs["aria-describedby"]) == (day, "wrong-period"), "what was typed"
    page = lively.get("/?from=2026-03-02&to=2026-03-01", 400).text
    assert total(page) == truth(sandbox)


@pytest.mark.parametrize(
    ("name", "said"),
    [("yesterday", "19 Nov 2026"), ("month", "1–19 Nov 2026"), ("last-month", "1–31 Oct 2026"),
     ("year", "1 Jan – 19 Nov 2026"), ("all", "21 Oct – 19 Nov 2026")],
)  # fmt: skip
def test_periods_go_by_their_names(lively: Pages, sandbox: Sandbox, name: str, said: str) -> None:
    page = lively.get(f"/?period={name}").text
    assert f"<title>Dashboard, {said} ·" in page
    (link,) = lint(page).query("nav a[aria-current=true], .pick-list a[aria-current=true]")[:1]
    assert link.to_text() == {"yesterday": "Yesterday", "month": "This month", "last-month": "Last month",
                              "year": "This year", "all": "All time"}[name]  # fmt: skip


def test_of_several_values_any_will_do(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    connected(app, pages, sandbox, "other")
    both = truth(sandbox) + truth(sandbox, name="other")
    assert total(pages.get("/?integration=1&integration=2").text) == both
    lines = rows(pages, "/ledger.csv?integration=1")
    hosts = sorted({line["host"] for line in lines})[:2]
    of_hosts = sum(Decimal(line["usage_usd"]) for line in lines if line["host"] in hosts and line["state"] == "final")
    page = pages.get(f"/?integration=1&host={hosts[0]}&host={hosts[1]}").text
    assert total(page) == of_hosts
    chips = {chip.to_text(): str(chip.attrs["href"]) for chip in lint(page).query("a.chip")}
    assert chips[f"Host {hosts[0]} × , remove"] == f"/?integration=1&host={hosts[1]}"
    keys = [key for key, amount in by_key(sandbox).items() if amount][:2]
    spent = sum(by_key(sandbox)[key] for key in keys)
    assert total(pages.get(f"/?integration=1&key={keys[0]}&key={keys[1]}").text) == spent
    models = sorted({line["model"] for line in lines})[:2]
    of_models = sum(
        Decimal(line["usage_usd"]) for line in lines if line["model"] in models and line["state"] == "final"
    )
    assert total(pages.get(f"/?integration=1&model={models[0]}&model={models[1]}").text) == of_models
    pages.get("/?integration=1&integration=3", 404)
    pages.get("/?" + "&".join(f"host={n}" for n in range(101)), 400)


@pytest.mark.parametrize(
    "query",
    [
        "sort=usage",
        "sort=__class__",
        "dir=up",
        "group=hour",
        "sort=model&group=key",
        "columns=hour",
        "columns=model",
        "group=day&columns=day",
        "measure=days",
        "against=week",
    ],
)
def test_a_sort_that_is_none_is_refused(pages: Pages, query: str) -> None:
    pages.get(f"/breakdown?{query}", 400)


def test_hostile_names_are_shown_and_exported_as_text(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "hostile")
    day = sandbox.today - timedelta(days=1)
    paths = [f"{path}?group={group}&byok=1" for path in ("/", "/breakdown") for group in Group]
    pairs = [
        f"/breakdown?group={one}&columns={other}"
        for one, other in (("model", "key"), ("host", "model"), ("day", "host"))
    ]
    for path in (*paths, *pairs, "/integrations/1", f"/integrations/1/days/{day}", "/statement?month=2026-11"):
        page = pages.get(path).text
        assert "<script>alert" not in page
        for attribute in ("id", "class", "for"):
            assert "alert" not in " ".join(re.findall(rf' {attribute}="([^"]*)"', page))
    assert "&lt;script&gt;alert" in pages.get("/breakdown").text
    ledger = rows(pages, "/ledger.csv")
    texts = [row[name] for row in ledger for name in ("model", "permaslug", "host", "endpoint_id")]
    assert not [value for value in texts if value.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [value for value in texts if value.startswith("'=")]
    heads = next(csv.reader(io.StringIO(pages.get("/breakdown.csv?group=host&columns=model").text)))
    assert not [value for value in heads if value.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [value for value in heads if value.startswith("'=")]
    last = sandbox.today - timedelta(days=1)
    whole = sandbox.truth("hostile", last - timedelta(days=29), last)
    assert sum(Decimal(row["usage_usd"]) for row in ledger) == usd(whole.usage)


def test_byok_is_a_figure_of_its_own(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "byok")
    last = sandbox.today - timedelta(days=1)
    estimate = sandbox.truth("byok", last - timedelta(days=29), last).byok_usage_inference
    page = text(pages.get("/").text)
    assert cents(estimate) in page
    assert "estimate" in page.lower()


def test_unknown_is_empty_in_files_and_a_dash_on_pages(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "fewer-fields")
    assert {row["cached_tokens"] for row in rows(pages, "/ledger.csv")} == {""}
    assert {row["cached_tokens"] for row in rows(pages, "/breakdown.csv")} == {""}
    assert "—" in pages.get("/breakdown").text


def test_pages_of_a_large_account_are_bounded(
    app: Flask, pages: Pages, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year, ten thousand rows in its last month, 250 keys."""
    monkeypatch.setattr(_Pace, "wait", lambda self: None)
    connected(app, pages, sandbox, "large")
    assert len(pages.get("/?days=365").data) < 1_000_000
    assert len(rows(pages, "/ledger.csv")) > 9_000
    found = rows(pages, "/breakdown.csv?group=key")
    first, second = (lint(pages.get(f"/breakdown?group=key&page={page}").text) for page in (1, 2))
    assert len(first.query("main tbody tr")) == 200
    assert len(first.query("main tbody tr")) + len(second.query("main tbody tr")) == len(found) > 200
    amounts = [
        str(row.query("data")[0].attrs["value"]) for page in (first, second) for row in page.query("main tbody tr")
    ]
    assert [Decimal(one) for one in amounts] == [Decimal(row["usage_usd"]) for row in found]
    assert first.query("main tfoot")[0].to_text() == second.query("main tfoot")[0].to_text()
    pages.get("/breakdown?group=key&page=3", 404)
    pages.get("/breakdown?page=x", 404)
    for page in ("columns=host", "group=host&columns=model", "columns=day&days=7", "group=day&columns=model"):
        answer = pages.get(f"/breakdown?{page}")
        assert len(answer.data) < 1_000_000
        assert len(lint(answer.text).query("main thead th")) <= 33
    assert "other models" in pages.get("/breakdown?group=host&columns=model").text
    day = TODAY - timedelta(days=1)
    page = pages.get(f"/integrations/1/days/{day}")
    assert f"{len(sandbox.truth('large', day, day).rows)} cost lines" in page.text
    assert len(page.data) < 1_000_000
    assert len(pages.get("/statement?month=2026-11").data) < 1_000_000


@pytest.mark.parametrize(
    "query", ["host=%00", "q=a%00b", "host=" + "x" * 3000, "q=%F0%9F%A6%99%25_%27", "days=30&days=7"]
)
def test_filters_of_any_kind_break_nothing(lively: Pages, query: str) -> None:
    status = 400 if "%00" in query else 200
    for path in ("/", "/breakdown", "/breakdown.csv", "/ledger.csv"):
        lively.get(f"{path}?{query}", status)
        lively.get(f"{path}?{query}&key={query[-2000:]}&group=key&byok=1", status)


def test_a_download_that_stalls_keeps_no_writer_out(app: Flask, lively: Pages) -> None:
    stalled = lively.client.get("/ledger.csv", buffered=False)
    next(stalled.iter_encoded())
    with app.app_context():
        db.session.add(Workspace(plan="free"))
        db.session.commit()
    stalled.close()


def test_counts_beyond_64_bits_are_added_up(app: Flask, lively: Pages) -> None:
    most = 2**63 - 1
    with app.app_context():
        db.session.execute(update(Line).values(prompt_tokens=most))
        db.session.execute(update(ModelTotal).values(prompt_tokens=most, prompt_tokens_known=ModelTotal.lines))
        db.session.commit()
    found, totals = rows(lively, "/breakdown.csv"), {(r["day"], r["model"]) for r in rows(lively, "/ledger.csv")}
    assert sum(int(row["prompt_tokens"]) for row in found) == most * len(totals)


@pytest.mark.parametrize("group", Group)
def test_by_whatever_it_is_grouped_it_is_the_same_money(lively: Pages, sandbox: Sandbox, group: str) -> None:
    found = rows(lively, f"/breakdown.csv?group={group}")
    assert sum(Decimal(row["usage_usd"]) for row in found) == truth(sandbox)
    page = lively.get(f"/breakdown?group={group}").text
    ((body, foot),) = tables(page)
    assert foot[0] == truth(sandbox)
    for column in (0, 4, 5, 6, 7, 8, 9):
        assert sum(row[column] or 0 for row in body) == foot[column]
    dashboard = lively.get(f"/?group={group}").text
    assert total(dashboard) == truth(sandbox)
    drawn = [row.query("td[data-value]") for row in lint(dashboard).query("table.days tbody tr")]
    for row in drawn:
        amounts = [Decimal(str(cell.attrs["data-value"])) for cell in row]
        assert amounts[0] == sum(amounts[1:], Decimal(0))
    assert dict(zip(Group, ("Model", "Host", "API key", "Integration"), strict=True))[group].replace(" ", "") in text(
        page
    )
    assert 'aria-current="true"' in page


@pytest.mark.parametrize("step", Step)
def test_days_weeks_and_months_add_up_to_the_same_money(lively: Pages, sandbox: Sandbox, step: str) -> None:
    found = rows(lively, f"/breakdown.csv?group={step}")
    assert sum(Decimal(row["usage_usd"]) for row in found) == truth(sandbox)
    assert {row[step] for row in found} >= {
        "day": {"2026-10-21", "2026-11-19"}, "week": {"2026-10-21", "2026-11-16"}, "month": {"2026-10", "2026-11"},
    }[step]  # fmt: skip
    page = lively.get(f"/breakdown?group={step}").text
    ((body, foot),) = tables(page)
    assert foot[0] == truth(sandbox) == sum(row[0] or 0 for row in body)
    names = [name.to_text() for name in lint(page).query("tbody th")]
    assert names[0] == {"day": "19 Nov 2026", "week": "16–19 Nov 2026", "month": "1–19 Nov 2026"}[step], "the latest"


def test_a_day_is_compared_with_the_day_before_it(lively: Pages, sandbox: Sandbox) -> None:
    day = a_day(sandbox)
    found = {row["day"]: row for row in rows(lively, "/breakdown.csv?group=day")}
    amounts = [sandbox.truth("lively", one, one).usage for one in (day - timedelta(days=1), day)]
    assert Decimal(found[day.isoformat()]["change_usd"]) == amounts[1] - amounts[0]
    assert found["2026-10-21"]["change_usd"] == "", "the day before it was not read"
    of_month = {row["day"]: row for row in rows(lively, "/breakdown.csv?group=day&against=year")}
    assert {row["change_usd"] for row in of_month.values()} == {""}
    (none,) = lint(lively.get("/breakdown?against=none").text).query("main")
    assert "Change" not in none.to_text()


@pytest.mark.parametrize(
    ("group", "columns"),
    [
        ("model", "host"),
        ("host", "model"),
        ("key", "week"),
        ("day", "model"),
        ("host", "month"),
        ("integration", "day"),
    ],
)
@pytest.mark.parametrize("measure", Measure)
def test_rows_and_columns_add_up_on_the_page_and_in_the_file(
    lively: Pages, sandbox: Sandbox, group: str, columns: str, measure: str
) -> None:
    address = f"group={group}&columns={columns}&measure={measure}"
    html = lively.get(f"/breakdown?{address}").text
    ((body, foot),) = tables(html)
    last = sandbox.today - timedelta(days=1)
    used = sandbox.truth("lively", last - timedelta(days=29), last)
    tokens = sum(row.prompt_tokens + row.completion_tokens for row in used.rows)
    whole = {"usd": used.usage, "requests": sum(row.requests for row in used.rows), "tokens": tokens}[measure]
    assert foot[0] == whole
    for line in (*body, foot):
        assert line[0] == sum(one or 0 for one in line[1:])
    for column, amount in enumerate(foot):
        assert sum(line[column] or 0 for line in body) == (amount or 0)
    file = list(csv.reader(io.StringIO(lively.get(f"/breakdown.csv?{address}").text)))
    first, end = file[0].index("total"), file[0].index("days_covered")
    assert end == first + 1
    amounts = [[Decimal(one or 0) for one in line[first - len(foot) + 1 : end]] for line in file[1:]]
    assert sorted(amounts) == sorted([[*(one or Decimal(0) for one in (*line[1:], line[0]))] for line in body])
    names = [head.to_text() for head in lint(html).query("table.pivot thead th")[2:]]
    if columns in ("host", "model"):
        assert file[0][first - len(foot) + 1 : first] == names


def test_what_has_no_room_for_its_columns_says_what_has(lively: Pages) -> None:
    page = lively.get("/breakdown?days=90&columns=day").text
    assert "Thisperiodhas90days,andatablehasroomfor31columns.Chooseashorterperiod,orweeksormonthsascolumns." in text(
        page
    )
    assert not tables(page)
    assert "/breakdown.csv" not in page
    for by in ("week", "month"):
        (link,) = [one for one in links(page, "/breakdown?") if f"columns={by}" in one and "#" not in one]
        assert len(tables(lively.get(link).text)) == 1
    assert "up to 31 columns" in lively.get("/breakdown.csv?days=90&columns=day", 400).text
    assert "weeks" not in text(lively.get("/breakdown?days=365&columns=week").text).split("Choose")[-1]


def test_rows_are_searched_by_whatever_they_are_called(lively: Pages, sandbox: Sandbox) -> None:
    key = next(one for one in sandbox.account("lively").keys(sandbox.today) if by_key(sandbox)[one.hash])
    page = lively.get(f"/breakdown?group=key&find={key.name[1:6].upper()}").text
    names = [name.to_text() for name in lint(page).query("tbody th")]
    assert key.name in names
    assert all(key.name[1:6].lower() in name.lower() for name in names)
    ((body, foot),) = tables(page)
    assert foot[0] == sum(row[0] or 0 for row in body)
    assert "find=" not in "".join(link for link in links(page, "/breakdown?") if "group=host" in link)
    assert [row["host"] for row in rows(lively, "/breakdown.csv?group=host&find=azu")] == ["Azure"]
    assert "Nothing matches" in lively.get("/breakdown?group=host&find=<b>").text
    lively.get("/breakdown?group=host&find=%00", 400)


def test_a_switch_of_groups_keeps_the_filters_and_not_a_sort_that_is_none(lively: Pages) -> None:
    page = lively.get("/breakdown?days=7&host=Azure&group=host&sort=host&byok=1").text
    (link,) = [link for link in links(page, "/breakdown?") if "group=key" in link]
    assert all(part in link for part in ("days=7", "host=Azure", "byok=1"))
    assert "sort=" not in link
    page = lively.get("/breakdown?sort=requests&group=host").text
    (link,) = [link for link in links(page, "/breakdown?") if "group=key" in link]
    assert "sort=requests" in link


def test_each_api_key_has_what_it_spent_and_unattributed_the_rest(lively: Pages, sandbox: Sandbox) -> None:
    spent = by_key(sandbox)
    assert any(spent.values())
    found = {row["key_hash"]: Decimal(row["usage_usd"]) for row in rows(lively, "/breakdown.csv?group=key")}
    assert {key: amount for key, amount in found.items() if key} == {key: one for key, one in spent.items() if one}
    rest = truth(sandbox) - sum(spent.values())
    assert found[""] == rest > 0
    for key, amount in (*((key, one) for key, one in spent.items() if one), ("unattributed", rest)):
        page = lively.get(f"/?key={key}").text
        assert total(page) == amount
        assert sum(Decimal(row["usage_usd"]) for row in rows(lively, f"/ledger.csv?key={key}")) == amount
        assert "Showeverything" in text(page)
    names = {key.hash: key.name for key in sandbox.account("lively").keys(sandbox.today)}
    page = lively.get("/breakdown?group=key").text
    for link in links(page, "/breakdown?key="):
        lively.get(link)
    for key in spent:
        assert names[key] in page


def test_a_key_that_is_gone_is_still_called_by_its_name(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    account = sandbox.account("lively")
    trials = ((ago, key) for ago in range(40) for key in account.keys(TODAY + timedelta(days=ago)))
    ago, trial = next((ago, key) for ago, key in trials if key.deleted)
    assert trial.deleted is not None
    with later(ago + 2):
        connected(app, pages, sandbox)
        assert trial.name in pages.get("/?group=key").text
    with later((trial.deleted - TODAY).days + 1):
        pages.log_in(EMAIL, PASSWORD)
        synced(app, pages)
        for path in ("/?group=key", "/breakdown?group=key", f"/statement?month={trial.deleted:%Y-%m}"):
            assert f"{trial.name} (deleted)" in pages.get(path).text


def test_what_is_filtered_is_said_with_one_way_out(lively: Pages, sandbox: Sandbox) -> None:
    key = sandbox.account("lively").keys(sandbox.today)[0]
    page = lively.get(f"/?days=7&group=host&host=Anthropic&key={key.hash}&q=claude").text
    chips = [chip.to_text() for chip in lint(page).query("a.chip")]
    assert chips == [
        f"{one} × , remove" for one in ("Host Anthropic", f"API key {key.name}", "Models containing claude")
    ]
    (out,) = [link for link in lint(page).query("a[href]") if link.to_text() == "Show everything"]
    assert str(out.attrs["href"]) == "/?days=7&group=host"
    assert "Show everything" not in lively.get("/?days=7&group=host").text


def test_days_that_tell_no_keys_are_missing_where_a_key_is_asked_for(
    a_year: None, app: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    connected(app, pages, sandbox)
    assert "90of90days" in text(pages.get("/?days=90").text)
    key = next(key for key, amount in by_key(sandbox).items() if amount)
    for filter_ in (f"key={key}", "host=Anthropic"):
        page = pages.get(f"/?days=90&{filter_}").text
        assert "30of90days" in text(page)
        assert "Todaysofar" not in text(page)
        assert "analytics only" in page
    assert "90of90days" in text(pages.get("/?days=90&key=unattributed").text)
    assert "Host unknown" in pages.get("/breakdown?days=90&group=host").text


def test_today_is_provisional_and_in_no_total(lively: Pages, sandbox: Sandbox) -> None:
    amount = so_far(sandbox)
    assert amount > 0
    for path in ("/", "/breakdown?to=2026-11-20&from=2026-11-01"):
        assert f"Todaysofar${cents(amount)},provisional,asof12:00UTC" in text(lively.get(path).text)
    page = lively.get("/").text
    assert total(page) == truth(sandbox)
    days = lint(page).query("table.days tbody tr")
    assert len(days) == 31
    assert days[-1].attrs["data-state"] == "provisional"
    assert "Provisional" in days[-1].to_text()
    assert Decimal(str(days[-1].query("td[data-value]")[0].attrs["data-value"])) == amount
    ledger = rows(lively, f"/ledger.csv?from={TODAY}&to={TODAY}")
    assert {row["state"] for row in ledger} == {"provisional"}
    assert sum(Decimal(row["usage_usd"]) for row in ledger) == amount
    alone = text(lively.get(f"/?from={TODAY}&to={TODAY}").text)
    assert "0of1day,1provisional" in alone
    assert "Todaysofar" in alone
    assert "Nodata" not in alone


def test_with_byok_every_amount_says_so(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "byok")
    last = sandbox.today - timedelta(days=1)
    whole = sandbox.truth("byok", last - timedelta(days=29), last)
    off, on = pages.get("/").text, pages.get("/?byok=1").text
    assert total(off) == whole.usage
    assert "with BYOK estimate" not in off
    assert total(on) == whole.usage + whole.byok_usage_inference
    assert "TotalwithBYOKestimate" in text(on)
    heads = [head.to_text() for head in lint(on).query("thead th.number")]
    assert [head for head in heads if "BYOK" in head] == ["Total with BYOK estimate", "USD with BYOK estimate"]
    assert "estimate" in text(on)
    breakdown = pages.get("/breakdown?byok=1").text
    ((_, foot),) = tables(breakdown)
    assert foot[0] == whole.usage + whole.byok_usage_inference
    assert foot[4] == whole.byok_usage_inference
    assert "USDwithBYOKestimate" in text(breakdown)
    statement = pages.get("/statement?month=2026-11&byok=1").text
    month = sandbox.truth("byok", date(2026, 11, 1), last)
    assert tables(statement)[0][1][:2] == [month.usage, month.byok_usage_inference]


def test_where_nothing_runs_on_own_keys_there_is_no_switch(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "hostile")
    assert "byok=1" not in pages.get("/").text


def test_what_analytics_agrees_with_is_verified(lively: Pages) -> None:
    page = text(lively.get("/").text)
    assert "Verified" in page
    assert "30of30daysagreewithOpenRouter'sanalytics" in page
    assert "EachdayagreeswithOpenRouter'sanalytics" in page


def test_nothing_checks_a_filtered_total_or_the_byok_estimate_so_it_has_no_badge(
    app: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    connected(app, pages, sandbox, "byok")
    assert badge(pages, "/") == ("good", "Verified")
    assert badge(pages, "/?integration=1") == ("good", "Verified"), "all of an account is checked"
    for address, said in (
        ("/?host=Anthropic", "Wholedaysarechecked,whateverthefilters"),
        ("/?q=gpt", "Wholedaysarechecked,whateverthefilters"),
        ("/?key=unattributed", "Wholedaysarechecked,whateverthefilters"),
        ("/?byok=1", "thereisnothingtocomparetheBYOKestimatewith"),
    ):
        assert badge(pages, address) is None, address
        assert said in text(pages.get(address).text)


def test_what_differs_is_named_with_the_days(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    sandbox.fault("lively", "analytics-off")
    connected(app, pages, sandbox)
    page = pages.get("/").text
    last = sandbox.today - timedelta(days=1)
    used = {row.date for row in sandbox.truth("lively", last - timedelta(days=29), last).rows if row.usage}
    assert badge(pages, "/") == ("bad", f"Differs by ${cents(truth(sandbox) / 2)} on {len(used)} days")
    days = sorted(set(links(page, "/integrations/1/days/")))
    assert len(days) >= 3
    day = text(pages.get(days[0]).text)
    assert "Differsby$" in day
    statement = text(pages.get("/statement?month=2026-11").text)
    assert "Differsby$" in statement
    assert "daysdifferfromtheprovider'sanalytics" in statement


def test_days_that_no_second_count_exists_of_are_no_cause_for_alarm(
    a_year: None, app: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    connected(app, pages, sandbox)
    for path in ("/?days=365", "/?from=2025-11-20&to=2026-11-19"):
        assert badge(pages, path) == ("neutral", "30 of 365 days cross-checked")
    assert "335areknownfromanalyticsonly" in text(pages.get("/?days=365").text)
    assert badge(pages, "/?days=30") == ("good", "Verified")
    assert badge(pages, f"/integrations/1/days/{a_day(sandbox, ago=60)}") == ("neutral", "Not cross-checked")
    assert badge(pages, f"/integrations/1/days/{a_day(sandbox)}") == ("good", "Agrees")


def test_a_period_with_missing_days_is_never_green(app: Flask, lively: Pages) -> None:
    assert badge(lively, "/?days=90") == ("neutral", "30 of 90 days cross-checked")


def test_a_second_count_that_should_exist_and_does_not_is_a_warning(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    sandbox.fault("lively", "analytics-down")
    connected(app, pages, sandbox)
    assert badge(pages, "/") == ("warn", "30 of 30 days not cross-checked")
    assert badge(pages, "/integrations/1") == ("warn", "30 of 30 days not cross-checked")
    assert badge(pages, f"/integrations/1/days/{a_day(sandbox)}") == ("warn", "Not cross-checked")
    assert "30havenothingtocomparewith" in text(pages.get("/").text)


def badge(pages: Pages, path: str) -> tuple[str, str] | None:
    """The tone and the words of what a page says about the check of its figures."""
    tree = lint(pages.get(path).text)
    panels = tree.query(".figure") or tree.query("section[aria-labelledby=worth]") or tree.query(".lines")
    found = [one for panel in panels for one in panel.query(".badge")]
    if not found:
        return None
    (one,) = found
    return str(one.attrs["class"]).split("badge-")[1], one.to_text().strip()


def test_what_cannot_be_verified_says_why(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "no-analytics")
    page = text(pages.get("/").text)
    assert badge(pages, "/") == ("neutral", "0 of 30 days cross-checked")
    assert "doesnotofferanalytics" in page
    assert "Whyolderdaysaremissing" not in page
    assert "Whyolderdaysaremissing:OpenRouterdoesnotofferanalytics" in text(pages.get("/?days=90").text)


def test_two_readings_of_the_credits_are_held_against_the_days_between(
    app: Flask, lively: Pages, sandbox: Sandbox
) -> None:
    with later(3):
        synced(app, lively)
        page = text(lively.get("/?days=7").text)
        assert "andthecreditsagreewiththedays" in page
        first, last = TODAY, TODAY + timedelta(days=2)
        between = sandbox.truth("lively", first, last).usage
        statement = lively.get("/statement?month=2026-11").text
        assert usd_exact(between)[:9] in text(statement)
        assert "20–22Nov2026" in text(statement)


def test_a_statement_is_the_truth_to_the_last_digit(a_year: None, app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    for month, first, last in (
        ("2026-11", date(2026, 11, 1), TODAY - timedelta(days=1)),
        ("2026-10", date(2026, 10, 1), date(2026, 10, 31)),
    ):
        page = pages.get(f"/statement?month={month}").text
        window = sandbox.truth("lively", max(first, TODAY - timedelta(days=30)), last)
        days, models, keys = tables(page)
        for body, foot in (days, models, keys):
            for column, whole in enumerate(foot):
                assert sum(row[column] or 0 for row in body) == whole
        assert days[1][0] == models[1][0] == keys[1][0]
        assert usd_exact(days[1][0]) in text(page)
        if month == "2026-11":
            assert days[1][0] == window.usage
            assert days[1][-1] == sum(row.requests for row in window.rows)
            assert "StatusOpen" in text(page)
            assert "19of30days" in text(page)
            assert f"Provisional,notinthetotal{usd_exact(so_far(sandbox))}" in text(page)
            assert len(days[0]) == 30
            assert days[0][-1][0] is None
        else:
            assert abs((days[1][0] or 0) - sandbox.truth("lively", first, last).usage) < Decimal("0.01")
            assert "StatusClosed" in text(page)
        assert "printed" in page.lower()
        (ledger,) = links(page, "/ledger.csv")
        settled = [row for row in rows(pages, ledger) if row["state"] != "provisional"]
        assert sum(Decimal(row["usage_usd"]) for row in settled) == days[1][0]


def test_statements_lead_from_month_to_month_and_to_each_integration(
    app: Flask, lively: Pages, sandbox: Sandbox
) -> None:
    connected(app, lively, sandbox, "other")
    by_default = lively.get("/statement").text
    assert "StatementofOctober2026" in text(by_default)
    assert {"month=2026-09", "month=2026-11"} <= {link.split("?")[1] for link in links(by_default, "/statement?")}
    assert "month=2026-12" not in lively.get("/statement?month=2026-11").text
    both = tables(lively.get("/statement?month=2026-11").text)[0][1][0]
    single = [tables(lively.get(f"/statement?month=2026-11&integration={i}").text)[0][1][0] for i in (1, 2)]
    assert sum(one or 0 for one in single) == both
    unknown = text(lively.get("/statement?month=2026-02").text)
    assert "Nodataforthismonth" in unknown
    assert "$0.00" not in unknown
    for month in ("2026-13", "11-2026", "x", "1999-12"):
        lively.get(f"/statement?month={month}", 400)
    lively.get("/statement?integration=77", 404)


def test_what_changed_is_said_until_it_was_looked_at(app: Flask, lively: Pages, sandbox: Sandbox) -> None:
    assert "since you last looked" not in lively.get("/").text
    days = [a_day(sandbox, ago=5), a_day(sandbox, ago=9)]
    before = [sandbox.truth("lively", day, day).usage for day in days]
    for day in days:
        sandbox.restate("lively", day, "1.5")
    synced(app, lively)
    page = lively.get("/").text
    assert f"2dayschangedsinceyoulastlooked:+${cents(sum(before) / 2)}." in text(page)
    (link,) = links(page, "/integrations/1#restatements")
    seen = lively.get(link).text
    for day in days:
        assert f"/integrations/1/days/{day}" in seen
    assert "since you last looked" not in lively.get("/").text


def test_a_restated_day_shows_each_line_before_and_after(app: Flask, lively: Pages, sandbox: Sandbox) -> None:
    day = a_day(sandbox)
    before = sandbox.truth("lively", day, day)
    sandbox.remove_row("lively", day, 0)
    synced(app, lively)
    sandbox.restate("lively", day, 2)
    synced(app, lively)
    page = lively.get(f"/integrations/1/days/{day}").text
    after = sandbox.truth("lively", day, day)
    models, lines, keys = tables(page)
    by_model = defaultdict[str, Decimal](Decimal)
    for row in after.rows:
        by_model[row.model_permaslug] += row.usage
    assert [row[0] for row in models[0]] == sorted(map(usd, by_model.values()), reverse=True)
    assert len(models[0]) < len(lines[0])
    assert models[1][0] == sum((row[0] or 0 for row in models[0]), Decimal(0)) == after.usage
    assert [row[0] for row in lines[0]] == sorted((usd(row.usage) for row in after.rows), reverse=True)
    assert lines[1][0] == sum((row[0] or 0 for row in lines[0]), Decimal(0)) == after.usage
    assert keys[1][0] == sum((row[0] or 0 for row in keys[0]), Decimal(0)) == after.usage
    changes = lint(page).query("section[aria-labelledby=changes] tbody tr")
    figures = [_figures(row)[:2] for row in changes]
    assert figures.count([before.rows[0].usage, None]) == 1
    assert all(pair[1] == 2 * (pair[0] or 0) for pair in figures if pair[1] is not None)
    assert len(figures) == 1 + sum(1 for row in after.rows if row.usage)
    found = text(page)
    assert "Removed" in found
    assert "Amountonly" in found
    assert "Restated:" in found
    assert "sync2" in found
    assert "sync3" in found
    assert f"/integrations/1/days/{day + timedelta(days=1)}" in page
    assert f"/integrations/1/days/{day - timedelta(days=1)}" in page


def test_days_of_every_kind_have_a_page_that_says_what_they_are(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)

    def day(ago: int) -> str:
        return text(pages.get(f"/integrations/1/days/{TODAY - timedelta(days=ago)}").text)

    assert "Final:" in day((TODAY - a_day(sandbox)).days)
    assert "Agrees" in day((TODAY - a_day(sandbox)).days)
    assert "Provisional:" in day(0)
    assert usd_exact(so_far(sandbox)) in day(0)
    assert "Nosynchasreadthisday" in day(100)
    assert "$0.00" not in day(100)
    assert "Thisdayhasnotbegun" in day(-3)
    empty = next(n for n in range(1, 31) if not sandbox.truth("lively", *[TODAY - timedelta(days=n)] * 2).rows)
    assert "Nousage:" in day(empty)
    assert "knownzero" in day(empty)
    pages.get("/integrations/1/days/2026-02-30", 400)
    pages.get("/integrations/9/days/2026-02-03", 404)


def test_a_day_of_analytics_alone_says_so(a_year: None, app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    page = text(pages.get(f"/integrations/1/days/{a_day(sandbox, ago=60)}").text)
    assert "roundedto6decimals" in page
    assert "knownfromanalyticsonly" in page
    calendar = pages.get("/integrations/1").text
    assert len(links(calendar, "/integrations/1/days/")) == 366
    assert "365of365completeddays" in text(calendar)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-analytics", "does not offer analytics"),
        ("no-keys", "does not list this account's API keys"),
        ("no-credits", "does not report this account's credits"),
    ],
)
def test_what_is_not_offered_is_said_where_it_is_missed(
    app: Flask, pages: Pages, sandbox: Sandbox, name: str, why: str
) -> None:
    connected(app, pages, sandbox, name)
    (panel,) = lint(pages.get("/integrations/1").text).query("section[aria-labelledby=worth]")
    assert why in panel.to_text()
    assert total(pages.get("/").text) == truth(sandbox, name=name)


@pytest.mark.parametrize(("restated", "most"), [(False, 13), (True, 14)])
def test_a_dashboard_of_a_year_needs_few_statements(
    a_year: None, app: Flask, pages: Pages, sandbox: Sandbox, restated: bool, most: int
) -> None:
    """One asks who is signed in and whether the page is kept, one who needs attention, three are for the headline, and
    one for what makes up the change; once a day was restated, one asks what changed."""
    connected(app, pages, sandbox)
    if restated:
        sandbox.restate("lively", a_day(sandbox), "1.5")
    with later(2):
        synced(app, pages)
        with asked(app) as statements:
            page = pages.get("/?days=365").text
    assert "Sumofdays" in text(page)
    assert ("changedsinceyoulastlooked" in text(page)) is restated
    assert len(statements) <= most, "\n\n".join(one.text for one in statements)
    assert not scanned(app, statements)


def test_the_running_total_has_its_table_and_ends_at_the_total(
    a_year: None, app: Flask, lively: Pages, sandbox: Sandbox
) -> None:
    lively.get("/?days=7")  # a page that was opened before has what it needs in memory
    with asked(app) as bars:
        lively.get("/?days=7&measure=requests")
    with asked(app) as statements:
        page = lively.get("/?days=7&view=cumulative").text
    assert len(statements) <= len(bars) + 1
    table = lint(page).query("table[data-view=cumulative]")[0]
    rows = [[cell.attrs.get("data-value") for cell in row.query("td.number")] for row in table.query("tbody tr")]
    assert len(rows) == 7
    assert Decimal(str(rows[-1][0])) == truth(sandbox, 7) == total(page)
    assert Decimal(str(rows[-1][1])) == truth(sandbox, 14) - truth(sandbox, 7)
    first = TODAY - timedelta(days=7)
    assert str(table.query("tbody th a")[0].attrs["href"]).startswith(f"/days/{first}")
    assert any("view=cumulative" in link and "measure=tokens" in link for link in links(page, "/?"))
    assert "has no line" not in page
    assert "ends before" not in page
    early = lively.get("/?days=7&view=cumulative&against=2020-01-01/2020-01-07").text
    assert "1–7 Jan 2020 has no line: not all of its first day is known." in early
    lively.get("/?view=upside-down", 400)


@pytest.mark.parametrize(
    ("asked_for", "leads_to"),
    [
        ("/?q=&host=", "/"),
        ("/?host=&host=Anthropic&host=OpenAI&days=7&from=", "/?host=Anthropic&host=OpenAI&days=7"),
        ("/breakdown?q=&sort=requests&model=", "/breakdown?sort=requests"),
        ("/statement?month=2026-10&integration=", "/statement?month=2026-10"),
    ],
)
def test_empty_parameters_are_no_part_of_an_address(lively: Pages, asked_for: str, leads_to: str) -> None:
    answer = lively.get(asked_for, 302)
    assert answer.headers["Location"] == leads_to
    lively.get(leads_to)


def test_a_file_with_empty_parameters_is_that_file(lively: Pages) -> None:
    assert lively.get("/ledger.csv?host=&q=").data == lively.get("/ledger.csv").data


@pytest.mark.parametrize(
    ("query", "most"),
    [("", 8), ("group=day", 8), ("group=integration", 8), ("group=key", 10), ("columns=month", 8), ("columns=host", 9),
     ("group=key&columns=model", 11), ("q=claude&host=Anthropic", 8)],
)  # fmt: skip
def test_a_breakdown_of_a_year_needs_few_statements(
    a_year: None, app: Flask, pages: Pages, sandbox: Sandbox, query: str, most: int
) -> None:
    connected(app, pages, sandbox)
    with asked(app) as statements:
        pages.get(f"/breakdown?days=365&{query}")
    assert len(statements) <= most, "\n\n".join(one.text for one in statements)
    assert not scanned(app, statements)


def test_a_statement_opens_and_closes_with_the_credits_that_were_used(
    app: Flask, lively: Pages, sandbox: Sandbox
) -> None:
    assert "Creditswerefirstreadon20Nov2026,12:00UTC." in text(lively.get("/statement?month=2026-11").text)
    (october,) = lint(lively.get("/statement?month=2026-10").text).query("section[aria-labelledby=credits]")
    assert "Credits were first read on 20 Nov 2026" in october.to_text()
    assert "$" not in october.to_text()
    with later(11):
        synced(app, lively)
        (november,) = lint(lively.get("/statement?month=2026-11").text).query("section[aria-labelledby=credits]")
        figures = (Decimal(str(one.attrs["value"])) for one in november.query("td data"))
        opening, closing, between, bought, left = figures
        used = sandbox.truth("lively", TODAY, date(2026, 11, 30)).usage
        assert abs(between - used) < 20 * MICRO
        assert closing - opening == between
        assert bought > 0
        assert (bought % 50, (left + closing) % 50) == (0, 0), "it is bought $50 at a time"
        assert "20 Nov 2026, 00:00 UTC" in november.to_text()
        assert "1 Dec 2026, 00:00 UTC" in november.to_text()
        (december,) = lint(lively.get("/statement?month=2026-12").text).query("section[aria-labelledby=credits]")
        assert Decimal(str(december.query("td data")[0].attrs["value"])) == closing
        assert "first read" not in december.to_text()


def test_statements_are_in_the_navigation_and_name_their_account(lively: Pages) -> None:
    assert "/statement" in links(lively.get("/").text, "/statement")
    page = lint(lively.get("/statement?month=2026-11").text)
    (current,) = page.query("nav a[aria-current=page]")
    assert current.to_text() == "Statements"
    head = text(lively.get("/statement?month=2026-11").text)
    assert "AccountOpenRouterProviderOpenRouter" in head
    (foot,) = page.query(".page-foot")
    assert foot.to_text() == "Grafient · Statement of November 2026 · OpenRouter"


def test_whatever_is_stored_each_pair_of_rows_and_columns_has_a_page_and_a_file(app: Flask, pages: Pages) -> None:
    """Names with markup, refunds and nothing at all, on one day of history; beside it an account never read."""
    with app.app_context():
        workspace = db.session.execute(select(Workspace)).scalar_one()
        one = stored.add(workspace, "<b>one</b>", last_success_at=NOON)
        stored.cover(one, [stored.ago(1)], usd=-3, model="<i>refund</i>", key="<u>key</u>")
        stored.cover(one, [stored.ago(1)], usd=0, model="", requests=0, prompt_tokens=0, completion_tokens=0)
        stored.add(workspace, "unread")
        db.session.commit()
    ways = [*Group, *Step]
    for period in ("days=7", "period=yesterday", "period=all", f"from={TODAY}&to={TODAY}"):
        for group, columns in [(one, other) for one in ways for other in (*ways, "") if one != other]:
            address = f"{period}&group={group}&measure=tokens&against=month" + (
                f"&columns={columns}" if columns else ""
            )
            html = pages.get(f"/breakdown?{address}").text
            assert not {"<b>one", "<i>refund", "<u>key"} & set(re.findall("<[biu]>[a-z]+", html))
            pages.get(f"/breakdown.csv?{address}")
    page = lint(pages.get("/breakdown?days=7&group=integration").text)
    read, unread = (row.to_text() for row in page.query("main tbody tr"))
    assert read.startswith("<b>one</b> −$3.00")
    assert unread.startswith("unread")
    assert not re.search(r"[0-9$%]", unread)
    assert "1 of 2 integrations" in page.to_text()
    assert "nan" not in page.to_text().lower().split()

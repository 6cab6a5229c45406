"""Dashboard, Breakdown and exports say what the sandbox knows to be true."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from decimal import Decimal

import pytest
from flask import Flask
from sqlalchemy import update

from grafient.extensions import db
from grafient.models import CostLine, Workspace
from grafient.money import usd
from grafient.reports import LEDGER_COLUMNS, SORTS
from grafient.sandbox import Sandbox
from tests.pages import Pages, lint
from tests.views.test_integrations import connected


@pytest.fixture
def lively(app: Flask, pages: Pages, sandbox: Sandbox) -> Pages:
    connected(app, pages, sandbox)
    return pages


def truth(sandbox: Sandbox, days: int = 30, name: str = "lively") -> Decimal:
    last = sandbox.today - timedelta(days=1)
    return sandbox.truth(name, last - timedelta(days=days - 1), last).usage


def rows(pages: Pages, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(pages.get(path).text)))


def cents(amount: Decimal) -> str:
    return f"{amount:,.2f}"


def text(html: str) -> str:
    return re.sub(r"\s+", "", lint(html).to_text())


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
    assert "every 2s" in page


def test_days_of_which_nothing_is_known_are_no_zeros(lively: Pages, sandbox: Sandbox) -> None:
    long_ago = (sandbox.today - timedelta(days=200)).isoformat()
    page = text(lively.get(f"/?from={long_ago}&to={long_ago}").text)
    assert "$0.00" not in page
    assert "0of1day" in page


def test_the_ledger_has_every_line_to_the_last_digit(lively: Pages, sandbox: Sandbox) -> None:
    ledger = rows(lively, "/ledger.csv?days=30")
    assert tuple(ledger[0]) == LEDGER_COLUMNS
    assert sum(Decimal(row["usage_usd"]) for row in ledger) == truth(sandbox)
    assert {row["state"] for row in ledger} == {"final"}
    assert not any("E" in row["usage_usd"] for row in ledger)
    last = sandbox.today - timedelta(days=1)
    assert len(ledger) == len(sandbox.truth("lively", last - timedelta(days=29), last).rows)


def test_the_breakdown_and_its_file_agree(lively: Pages, sandbox: Sandbox) -> None:
    found = rows(lively, "/breakdown.csv")
    assert tuple(found[0]) == (*SORTS, "days_covered", "days_asked")
    assert {(row["days_covered"], row["days_asked"]) for row in found} == {("30", "30")}
    assert sum(Decimal(row["usage_usd"]) for row in found) == truth(sandbox)
    page = text(lively.get("/breakdown").text)
    for row in found:
        assert row["model"] in page


@pytest.mark.parametrize("sort", SORTS)
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
     "from=2020-01-01&to=2026-01-01", "from=0001-01-01&to=0001-01-02", "from=20260101&to=20260102"],
)  # fmt: skip
def test_a_period_that_is_none_gets_a_sentence(pages: Pages, query: str) -> None:
    for path in ("/", "/breakdown", "/ledger.csv"):
        assert "period" in pages.get(f"{path}?{query}", 400).text


@pytest.mark.parametrize("query", ["sort=usage", "sort=__class__", "dir=up"])
def test_a_sort_that_is_none_is_refused(pages: Pages, query: str) -> None:
    pages.get(f"/breakdown?{query}", 400)


def test_hostile_names_are_shown_and_exported_as_text(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "hostile")
    for path in ("/", "/breakdown", "/integrations/1"):
        page = pages.get(path).text
        assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in pages.get("/breakdown").text
    ledger = rows(pages, "/ledger.csv")
    texts = [row[name] for row in ledger for name in ("model", "permaslug", "host", "endpoint_id")]
    assert not [value for value in texts if value.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [value for value in texts if value.startswith("'=")]
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


def test_a_year_and_ten_thousand_rows_are_bounded(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox, "large")
    assert len(pages.get("/?days=365").data) < 1_000_000
    assert len(rows(pages, "/ledger.csv")) > 9_000
    page = pages.get("/breakdown").text
    assert page.count("<tr") <= 510


@pytest.mark.parametrize(
    "query", ["host=%00", "q=a%00b", "host=" + "x" * 3000, "q=%F0%9F%A6%99%25_%27", "days=30&days=7"]
)
def test_filters_of_any_kind_break_nothing(lively: Pages, query: str) -> None:
    status = 400 if "%00" in query else 200
    for path in ("/", "/breakdown", "/breakdown.csv", "/ledger.csv"):
        lively.get(f"{path}?{query}", status)


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
        db.session.execute(update(CostLine).values(prompt_tokens=most))
        db.session.commit()
    found = rows(lively, "/breakdown.csv")
    assert sum(int(row["prompt_tokens"]) for row in found) == most * len(rows(lively, "/ledger.csv"))

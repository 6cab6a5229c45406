"""From an empty folder to figures that can be trusted, as somebody goes who was never here before."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from grafient.sandbox import Sandbox
from tests.e2e import steps
from tests.e2e.product import Product
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser

SECONDS_TO_FIRST_COSTS = 5.0


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    """A first start: nobody has an account yet."""
    with Sandbox() as sandbox:
        product = Product(tmp_path, sandbox)
        product.start()
        yield product
        product.end()


def test_the_whole_way(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    _a_newcomer_makes_an_account(page)
    _an_empty_dashboard_says_how_to_begin(page)
    _keys_are_tested_before_anything_is_saved(tab, sandbox)
    _the_first_costs_are_there_within_seconds(page, sandbox)
    _figures_are_the_provider_s_to_the_last_digit(page, sandbox)
    _the_breakdown_sorts_by_its_headers(page)
    _downloads_add_up_to_the_truth(page, sandbox)
    _a_restated_day_comes_in_with_force_sync(page, sandbox)
    _the_same_account_again_is_refused(tab, sandbox)
    _another_key_takes_the_place_of_the_first(page, sandbox)
    _what_is_removed_keeps_its_history(page, sandbox)
    _logging_out_closes_the_door(page)


def _a_newcomer_makes_an_account(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Create an account")
    page.get_by_label("Email").fill("newcomer@example.com")
    page.get_by_label("Password", exact=True).fill(steps.PASSWORD)
    page.get_by_label("Password again").fill(steps.PASSWORD)
    page.get_by_role("button", name="Create account").click()


def _an_empty_dashboard_says_how_to_begin(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")
    expect(page.get_by_role("main").get_by_role("link", name="Add Integration")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("$0")
    page.get_by_role("link", name="Integrations").click()
    page.get_by_role("link", name="Add Integration").click()


def _keys_are_tested_before_anything_is_saved(tab: Tab, sandbox: Sandbox) -> None:
    page = tab.page
    tab.expect_refusal("/integrations/test")
    expect(page.get_by_role("heading", level=1)).to_have_text("Add Integration")
    page.evaluate("window.loadedOnce = true")

    page.get_by_label("Management key").fill(sandbox.key("inference"))
    result = steps.tested(page)
    expect(result).to_contain_text(steps.INFERENCE_KEY)
    expect(result.get_by_role("link", name="Create a Management key")).to_have_attribute("href", steps.KEY_PAGE)

    page.get_by_label("Management key").fill(sandbox.key("revoked"))
    expect(steps.tested(page)).to_contain_text("OpenRouter does not know this key")

    page.get_by_label("Management key").fill(sandbox.key("lively"))
    good = steps.tested(page).locator(".result-good")
    expect(good).to_have_text("Connection works")
    expect(good.locator("svg")).to_be_visible()
    assert page.evaluate("window.loadedOnce") is True, "Test Connection loaded the page anew"


def _the_first_costs_are_there_within_seconds(page: Page, sandbox: Sandbox) -> None:
    dashboard = page.context.new_page()
    page.get_by_label("Label").fill("")
    started = time.monotonic()
    page.get_by_role("button", name="Add Integration").click()
    page.wait_for_url("**/integrations")
    dashboard.goto("/")
    steps.expect_amount(steps.total(dashboard), steps.truth(sandbox, "lively").usage)
    seconds = time.monotonic() - started
    assert seconds < SECONDS_TO_FIRST_COSTS, f"the first costs took {seconds:.1f} seconds"
    dashboard.close()
    steps.expect_state(steps.card(page, "OpenRouter"), "Up to date")


def _figures_are_the_provider_s_to_the_last_digit(page: Page, sandbox: Sandbox) -> None:
    page.get_by_role("link", name="Dashboard").click()
    steps.expect_amount(steps.total(page), steps.truth(sandbox, "lively").usage)
    expect(page.locator("canvas")).to_be_visible()
    page.locator(".bar summary", has_text="30 days").click()
    page.get_by_role("link", name="Last 7 days").click()
    expect(page).to_have_url("/?days=7")
    steps.expect_amount(steps.total(page), steps.truth(sandbox, "lively", days=7).usage)


def _the_breakdown_sorts_by_its_headers(page: Page) -> None:
    page.get_by_role("link", name="Breakdown").click()
    table = page.locator("table.breakdown")
    expect(table.get_by_role("columnheader", name="USD")).to_have_attribute("aria-sort", "descending")
    for direction in ("descending", "ascending"):
        table.get_by_role("link", name="Requests").click()
        expect(table.get_by_role("columnheader", name="Requests")).to_have_attribute("aria-sort", direction)
        requests = _values(table.locator("tbody tr td:nth-child(7) data"))
        assert len(requests) > 3
        assert requests == sorted(requests, reverse=direction == "descending")


def _values(figures: Locator) -> list[Decimal]:
    return [Decimal(value) for value in figures.evaluate_all("all => all.map(one => one.getAttribute('value'))")]


def _downloads_add_up_to_the_truth(page: Page, sandbox: Sandbox) -> None:
    """Of the 7 days that were chosen on the dashboard: the navigation keeps them."""
    truth = steps.truth(sandbox, "lively", days=7)
    lines = _download(page, "every cost line (CSV)")
    assert sum(Decimal(line["usage_usd"]) for line in lines) == truth.usage
    assert len(lines) == len(truth.rows)
    assert {line["integration"] for line in lines} == {"OpenRouter"}
    assert sum(Decimal(line["usage_usd"]) for line in _download(page, "this table (CSV)")) == truth.usage


def _download(page: Page, name: str) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.get_by_role("link", name=name).click()
    with Path(download.value.path()).open(newline="") as file:
        return list(csv.DictReader(file))


def _a_restated_day_comes_in_with_force_sync(page: Page, sandbox: Sandbox) -> None:
    before = steps.truth(sandbox, "lively")
    day = max(row.date for row in before.rows[: len(before.rows) // 2])
    sandbox.restate("lively", day, 2)
    sandbox.settings.slow_seconds = 1.0
    sandbox.fault("lively", "slow", times=1, path="/activity")  # long enough to be seen
    page.get_by_role("link", name="Integrations").click()
    page.evaluate("window.loadedOnce = true")
    card = steps.card(page, "OpenRouter")
    card.get_by_role("button", name="Force Sync").click()
    steps.expect_state(card, "Syncing")
    steps.expect_state(card, "Up to date")
    assert page.evaluate("window.loadedOnce") is True, "Force Sync loaded the page anew"

    card.get_by_role("link", name="OpenRouter", exact=True).click()
    row = page.get_by_role("region", name="Restatements").locator(f"tr:has(time[datetime='{day}'])")
    of_the_day = sum((line.usage for line in before.rows if line.date == day), Decimal(0))
    steps.expect_amount(row.locator("data").first, of_the_day)
    steps.expect_amount(row.locator("data").last, 2 * of_the_day)
    expect(page.locator("td.day-restated")).to_contain_text(f"{_written(day)}: Restated")

    page.get_by_role("link", name="Dashboard").click()
    steps.expect_amount(steps.total(page), before.usage + of_the_day)
    assert before.usage + of_the_day == steps.truth(sandbox, "lively").usage


def _written(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _the_same_account_again_is_refused(tab: Tab, sandbox: Sandbox) -> None:
    page = tab.page
    tab.expect_refusal("/integrations")
    page.goto("/integrations/new")
    steps.fill_in(page, sandbox.key("lively-again"))
    page.get_by_role("button", name="Add Integration").click()
    expect(page.get_by_role("alert").filter(has_text="already connected")).to_contain_text("“OpenRouter”")
    expect(page.get_by_label("Management key")).to_be_empty()
    page.get_by_role("link", name="Integrations").first.click()
    expect(page.get_by_role("article")).to_have_count(1)


def _another_key_takes_the_place_of_the_first(page: Page, sandbox: Sandbox) -> None:
    page.get_by_role("link", name="OpenRouter", exact=True).click()
    page.get_by_label("Management key").fill(sandbox.key("lively-again"))
    page.get_by_role("button", name="Replace key").click()
    expect(page.get_by_role("status").filter(has_text="The new key works")).to_be_visible()
    expect(page.locator("#key")).to_contain_text(f"ends in {sandbox.key('lively-again')[-4:]}")
    steps.expect_state(steps.card(page, "OpenRouter"), "Up to date")
    assert "lively-again" in {request.key for request in sandbox.requests() if request.path.endswith("/activity")}


def _what_is_removed_keeps_its_history(page: Page, sandbox: Sandbox) -> None:
    page.get_by_role("link", name="Integrations").first.click()
    steps.card(page, "OpenRouter").get_by_role("link", name="Remove").click()
    expect(page.get_by_label("Keep its costs")).to_be_checked()
    page.get_by_role("button", name="Remove OpenRouter").click()
    expect(page.get_by_role("status").filter(has_text="was removed")).to_contain_text("costs were kept")
    expect(page.get_by_role("article")).to_have_count(0)
    page.get_by_role("link", name="Dashboard").click()
    steps.expect_amount(steps.total(page), steps.truth(sandbox, "lively").usage)


def _logging_out_closes_the_door(page: Page) -> None:
    page.get_by_role("link", name="Account").click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    expect(page.get_by_role("link", name="Create one")).to_have_count(0)

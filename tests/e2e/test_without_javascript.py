"""The same pages in a browser that runs no scripts: slower to look at, and nothing is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from grafient.days import last_due
from grafient.models import utc_now
from tests.e2e import steps
from tests.e2e.product import Product, until
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(browser: Browser, product: Product) -> Iterator[Tab]:
    """A tab without JavaScript."""
    with Tab.of(browser, product.url, java_script_enabled=False) as tab:
        yield tab


def test_keys_can_be_tested_added_synced_and_removed(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    steps.register(page, "no-scripts@example.com")
    expect(page.locator("body")).not_to_contain_text("$0")

    page.goto("/integrations/new")
    tab.expect_refusal("/integrations/test")
    steps.fill_in(page, sandbox.key("inference"), "Everything")
    result = steps.tested(page)
    expect(result).to_contain_text(steps.INFERENCE_KEY)
    expect(result.get_by_role("link", name="Create a Management key")).to_have_attribute("href", steps.KEY_PAGE)
    expect(page.get_by_label("Label")).to_have_value("Everything")
    expect(page.get_by_label("Management key")).to_be_empty()

    page.get_by_label("Management key").fill(sandbox.key("lively"))
    expect(steps.tested(page).locator(".result-good")).to_have_text("Connection works")

    page.get_by_label("Management key").fill(sandbox.key("lively"))
    with page.expect_navigation():
        page.get_by_role("button", name="Add Integration").click()
    card = steps.card(page, "Everything")
    steps.look_again_until(page, card, "Up to date")
    _costs_are(page, product)

    page.goto("/integrations")
    requests = len(sandbox.requests())
    with page.expect_navigation():
        card.get_by_role("button", name="Force Sync").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Integrations")
    until(lambda: len(sandbox.requests()) > requests, "a request to the provider")
    steps.look_again_until(page, card, "Up to date")

    card.get_by_role("link", name="Remove").click()
    page.get_by_role("button", name="Remove Everything").click()
    expect(page.get_by_role("status")).to_contain_text("was removed")
    expect(page.get_by_role("article")).to_have_count(0)
    _costs_are(page, product)


def _costs_are(page: Page, product: Product) -> None:
    page.goto("/")
    steps.expect_amount(steps.total(page), steps.truth(product.sandbox, "lively").usage)
    now = utc_now()
    expect(page.locator("table.days")).to_be_visible()
    expect(page.locator(".chart")).to_be_hidden()
    expect(page.locator("table.days tbody tr")).to_have_count(30 + (now.date() - last_due(now)).days)  # until today

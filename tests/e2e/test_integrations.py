"""Adding an integration, renaming it, and being told on the dashboard when it needs somebody."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.sync_api import expect

from grafient.views.formats import usd
from tests.e2e import steps
from tests.e2e.product import Product
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser


def test_a_connection_test_shows_what_it_found_before_anything_is_saved(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    tab.expect_refusal("/integrations/test")
    steps.register(page, "tests@example.com")
    page.goto("/integrations/new")
    steps.fill_in(page, sandbox.key("lively"))
    result = steps.tested(page)
    expect(result.locator(".result-good")).to_be_visible()
    last = sandbox.today - timedelta(days=1)
    lately = sandbox.truth("lively", last - timedelta(days=13), last).usage
    expect(result).to_contain_text(usd(lately))
    expect(result).to_contain_text("Management key")
    expect(result).to_contain_text("of 30 days")
    expect(result.get_by_role("link", name="OpenRouter's own activity page")).to_be_visible()
    page.get_by_label("Management key").fill(sandbox.key("revoked"))
    expect(result, "it was about another key").to_be_empty()
    expect(steps.tested(page).locator(".result-bad")).to_be_visible()
    expect(result).not_to_contain_text(usd(lately))
    page.goto("/integrations")
    expect(page.get_by_role("heading", name="Nothing is connected yet")).to_be_visible()


def test_a_backfill_leads_to_its_costs_and_the_integration_can_be_renamed(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    steps.register(page, "renames@example.com")
    steps.add(page, sandbox.key("lively"), "Before")
    card = steps.card(page, "Before")
    steps.expect_state(card, "Up to date")
    expect(card).to_contain_text("30 days, $")
    card.get_by_role("link", name="See your costs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")
    expect(page.get_by_role("link", name="Integration Before")).to_be_visible()
    page.get_by_role("link", name="Before", exact=True).click()
    page.get_by_label("Label").fill("After")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("After")
    page.get_by_role("link", name="Dashboard").click()
    expect(page.get_by_role("link", name="After", exact=True)).to_be_visible()


def test_a_sync_is_listed_on_the_page_where_it_was_asked_for(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    steps.register(page, "lists@example.com")
    steps.add(page, sandbox.key("lively"), "Listed")
    steps.expect_state(steps.card(page, "Listed"), "Up to date")
    steps.card(page, "Listed").get_by_role("link", name="Listed", exact=True).click()
    syncs = page.locator("#syncs tbody tr")
    expect(syncs).to_have_count(1)
    page.get_by_label("Label").fill("Half a na")
    steps.force_sync(page, page.locator(".card"))
    expect(syncs).to_have_count(2)
    expect(syncs.first).to_contain_text("Done in")
    expect(page.get_by_label("Label"), "what is typed stays").to_have_value("Half a na")


def test_the_first_costs_come_with_the_headline_and_the_filters(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    steps.register(page, "first@example.com")
    sandbox.settings.slow_seconds = 2.0
    sandbox.fault("lively", "slow", path="/activity")
    try:
        steps.add(page, sandbox.key("lively"))
        page.get_by_role("link", name="Dashboard").click()
        expect(page.get_by_role("heading", name="Reading the history")).to_be_visible()
        expect(page.locator(".headline, .bar")).to_have_count(0)
        page.evaluate("document.body.dataset.stayed = 'yes'")
    finally:
        sandbox.fault("lively", None)
    expect(page.locator(".headline")).to_be_visible()
    expect(page.locator("#pick-model")).to_be_visible()
    expect(page.locator(".chart canvas")).to_be_visible()
    assert page.evaluate("document.body.dataset.stayed") == "yes"


def test_a_rejected_key_is_said_on_the_dashboard_and_leads_to_where_it_is_replaced(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    steps.register(page, "trouble@example.com")
    steps.add(page, sandbox.key("other"), "Production")
    card = steps.card(page, "Production")
    steps.expect_state(card, "Up to date")
    page.goto("/")
    banner = page.get_by_role("region", name="Needs attention")
    expect(banner).not_to_be_attached()
    sandbox.fault("other", "revoked")
    try:
        page.goto("/integrations")
        steps.force_sync(page, card)
        steps.expect_state(card, "Needs a new key")
    finally:
        sandbox.fault("other", None)
    page.goto("/")
    expect(banner).to_contain_text("Production needs a new key: OpenRouter has rejected the stored one since")
    expect(page.get_by_role("navigation", name="Main")).to_contain_text("1 needs attention")
    banner.get_by_role("link", name="Replace the key").click()
    key = page.get_by_label("Management key")
    expect(key).to_be_in_viewport()
    key.fill(sandbox.key("other"))
    page.get_by_role("button", name="Replace key").click()
    expect(page.get_by_text("The new key works.")).to_be_visible()
    steps.expect_state(card, "Up to date")
    page.goto("/")
    expect(banner).not_to_be_attached()
    expect(page.get_by_role("navigation", name="Main")).not_to_contain_text("attention")


def test_a_day_on_a_telephone_shows_dollars_beside_the_model(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    steps.register(page, "telephone-day@example.com")
    steps.add(page, sandbox.key("lively"), "Lively")
    steps.expect_state(steps.card(page, "Lively"), "Up to date")
    page.get_by_role("link", name="Lively", exact=True).click()
    page.set_viewport_size({"width": 360, "height": 740})
    day = sandbox.today - timedelta(days=2)
    page.goto(f"{page.url}/days/{day}")
    models = page.get_by_role("group", name="models")
    figure = models.locator("tbody tr").first.locator("td").first
    expect(figure).to_contain_text("$")
    box = figure.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 360
    page.get_by_text("by host and endpoint").click()
    lines = page.get_by_role("group", name="Cost lines")
    name = lines.locator("tbody tr").first.locator("th")
    before = name.bounding_box()
    lines.evaluate("one => { one.scrollLeft = 200 }")
    assert name.bounding_box() == before, "the name went out of view"
    assert lines.locator("tbody tr").count() == len(sandbox.truth("lively", day, day).rows)

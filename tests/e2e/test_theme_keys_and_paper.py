"""Sample data, the theme, keyboard shortcuts, the reader's own time, and paper: in a real browser."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e import steps
from tests.e2e.product import Product, until
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser

WHITE, BLACK = "rgb(255, 255, 255)", "rgb(0, 0, 0)"
DARK_PAGE = "rgb(20, 23, 26)"


def look_around(page: Page, email: str) -> None:
    """A new account with sample data, on its dashboard with figures."""
    steps.register(page, email)
    page.get_by_role("button", name="Look around with sample data").click()
    expect(page.locator("#days-chart")).to_be_visible()


def press(page: Page, *keys: str) -> None:
    """Press keys on a page whose scripts have run."""
    page.wait_for_load_state()
    for key in keys:
        page.keyboard.press(key)


def colour(page: Page, selector: str, name: str = "background-color") -> str:
    return str(page.locator(selector).first.evaluate(f"e => getComputedStyle(e).getPropertyValue('{name}')"))


def axis_colour(page: Page) -> Any:
    return page.evaluate("Chart.getChart('days-chart').options.scales.x.ticks.color")


def test_sample_data_is_one_click_away_and_one_click_gone(product: Product, page: Page) -> None:
    product.sandbox.state.clear_log()
    look_around(page, "curious@example.com")
    for path in ("/", "/breakdown", "/integrations", "/account"):
        page.goto(path)
        expect(page.get_by_role("note")).to_contain_text("You are looking at sample data.")
    assert product.sandbox.state.log() == [], "it asked a provider"
    page.get_by_role("button", name="Remove it").click()
    expect(page.get_by_text("The sample data was removed.")).to_be_visible()
    expect(page.get_by_role("heading", name="Nothing is connected yet")).to_be_visible()


def test_the_theme_is_the_systems_until_another_is_chosen(browser: Browser, product: Product) -> None:
    with Tab.of(browser, product.url, color_scheme="dark") as tab:
        page = tab.page
        page.goto("/login")
        assert colour(page, "body") == DARK_PAGE
        page.get_by_role("radio", name="Auto").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("radio", name="Light")).to_be_checked()
        assert colour(page, "body") == WHITE

        look_around(page, "theme@example.com")
        expect(page.get_by_role("radio", name="Light")).to_be_checked()
        assert colour(page, "body") == WHITE
        head = page.locator("head script[src*='theme.js']")
        assert head.evaluate("s => [s.async, s.defer]") == [False, False], "it would flash in the other theme"

        assert axis_colour(page) == colour(page, ":root", "--muted")
        light = axis_colour(page)
        other = tab.context.new_page()
        other.goto("/account")
        other.get_by_text("Dark", exact=True).click()
        expect(page.get_by_role("radio", name="Dark")).to_be_checked()
        assert colour(page, "body") == DARK_PAGE
        until(lambda: axis_colour(page) != light, "the chart is drawn anew", 15)
        assert axis_colour(page) == colour(page, ":root", "--muted") != light, "the chart was not drawn anew"

        page.get_by_text("Auto", exact=True).click()
        page.emulate_media(color_scheme="light")
        assert colour(page, "body") == WHITE
        until(lambda: axis_colour(page) == light, "the chart is drawn anew", 15)


def test_without_javascript_there_is_no_switch(browser: Browser, product: Product) -> None:
    with Tab.of(browser, product.url, color_scheme="dark", java_script_enabled=False) as tab:
        tab.page.goto("/login")
        expect(tab.page.get_by_role("heading", name="Log in", exact=True)).to_be_visible()
        expect(tab.page.get_by_role("radio")).to_have_count(0)


def test_keys_lead_where_the_sheet_says(page: Page) -> None:
    look_around(page, "keys@example.com")
    heading = page.get_by_role("heading", level=1)
    for keys, title in (("gb", "Breakdown"), ("gi", "Integrations"), ("gd", "Dashboard")):
        press(page, *keys)
        expect(heading).to_have_text(title)
    press(page, "/")
    expect(page.locator(".bar summary").first).to_be_focused()

    page.goto("/integrations")
    page.get_by_role("article").get_by_role("link").first.click()
    days = page.locator("table.calendar a")
    days.nth(days.count() - 4).click()
    expect(heading).not_to_have_text("Sample data")
    day = heading.text_content()
    press(page, "ArrowLeft")
    expect(heading).not_to_have_text(day or "")
    press(page, "ArrowRight")
    expect(heading).to_have_text(day or "")
    page.locator(".scroll").first.focus()
    press(page, "ArrowLeft")
    page.wait_for_timeout(300)
    expect(heading).to_have_text(day or "")


def test_the_sheet_of_keys(page: Page) -> None:
    steps.register(page, "sheet@example.com")
    sheet = page.get_by_role("dialog", name="Keyboard shortcuts")
    opener = page.get_by_role("button", name="Keyboard shortcuts")
    press(page, "?")
    expect(sheet).to_be_visible()
    press(page, "g", "b")
    press(page, "Escape")
    expect(sheet).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")

    opener.click()
    sheet.get_by_role("button", name="Close").click()
    expect(sheet).to_be_hidden()
    expect(opener).to_be_focused()

    pages = ("b", "Breakdown"), ("c", "Changes"), ("s", "Statement"), ("i", "Integrations"), ("a", "Account")
    for key, title in pages:
        press(page, "g", key)
        expect(page).to_have_title(re.compile(title))

    page.goto("/integrations/new")
    page.get_by_label("Label").focus()
    page.keyboard.type("?gb/")
    expect(page.get_by_label("Label")).to_have_value("?gb/")
    expect(sheet).to_be_hidden()


def test_keys_can_be_switched_off(page: Page) -> None:
    steps.register(page, "nokeys@example.com")
    press(page, "?")
    page.get_by_label("Use keyboard shortcuts in this browser").uncheck()
    press(page, "Escape")
    page.goto("/account")
    press(page, *"?gb")
    page.wait_for_timeout(300)
    expect(page.get_by_role("heading", level=1)).to_have_text("Account")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_who_points_at_a_moment_is_told_their_own_time(browser: Browser, product: Product) -> None:
    with Tab.of(browser, product.url, timezone_id="Asia/Tokyo") as tab:
        page = tab.page
        look_around(page, "tokyo@example.com")
        page.goto("/integrations")
        expect(page.locator("article .card-by .badge"), "a card that is not swapped").to_have_text("Up to date")
        moment = page.locator("article time[datetime*=T]").first
        expect(moment).to_contain_text("UTC")
        moment.hover()
        own = page.evaluate(
            "iso => new Date(iso).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'long' })",
            moment.get_attribute("datetime"),
        )
        expect(moment).to_have_attribute("title", f"{own}, your time")
        assert "GMT+9" in own
        expect(moment).to_contain_text("UTC")


def test_paper_has_the_figures_and_nothing_that_is_used_on_a_screen(page: Page) -> None:
    look_around(page, "paper@example.com")
    page.get_by_text("Dark", exact=True).click()
    page.emulate_media(media="print")
    for gone in (".side", ".foot", ".filters", "#dashboard nav", ".sample-bar button", "summary"):
        expect(page.locator(gone).first).to_be_hidden()
    for kept in (".figures", "#days-chart", ".legend", "table.models"):
        expect(page.locator(kept)).to_be_visible()
    expect(page.get_by_role("note")).to_contain_text("sample data")
    assert (colour(page, "body"), colour(page, "body", "color")) == (WHITE, BLACK)
    assert axis_colour(page) == BLACK
    assert colour(page, ":root", "color-scheme") == "light", "series and fields would be drawn for a dark page"
    assert colour(page, "main a", "text-decoration-line") == "none"
    page.goto("/breakdown")
    assert colour(page, ".scroll", "overflow-x") == "visible"
    assert colour(page, "h1", "break-after") == "avoid"


def test_with_the_systems_colours_the_legend_keeps_its_own(browser: Browser, product: Product) -> None:
    with Tab.of(browser, product.url, forced_colors="active", color_scheme="dark") as tab:
        page = tab.page
        look_around(page, "forced@example.com")
        assert colour(page, ".legend .swatch-2") == colour(page, ":root", "--series-2")
        assert axis_colour(page) == colour(page, "body", "color")

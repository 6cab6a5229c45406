"""Filters apply by themselves, and what they show is what the figures are of, also after Back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.product import Product
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(browser: Browser, product: Product, with_costs: Any) -> Iterator[Tab]:
    """A tab of theirs."""
    with Tab.of(browser, product.url, storage_state=with_costs) as tab:
        yield tab


def _pick(page: Page, what: str) -> Locator:
    return page.locator(f"#pick-{what}")


def _open(page: Page, what: str) -> None:
    _pick(page, what).locator("summary").click()


def _choose(page: Page, what: str, name: str) -> None:
    _pick(page, what).get_by_label(name, exact=True).click()


@pytest.mark.parametrize("path", ["/", "/breakdown"])
def test_a_choice_applies_by_itself_and_the_panel_stays_open(page: Page, path: str) -> None:
    page.goto(path)
    _open(page, "host")
    expect(_pick(page, "host").get_by_role("button", name="Apply")).to_be_hidden()
    _choose(page, "host", "Anthropic")
    page.wait_for_url(f"**{path}?host=Anthropic")
    box = _pick(page, "host").get_by_label("Anthropic", exact=True)
    expect(box).to_be_visible()
    expect(box).to_be_checked()
    expect(box).to_be_focused()
    page.keyboard.press("Space")
    page.wait_for_url(f"**{path}")
    expect(box).to_be_visible()
    expect(box).not_to_be_checked()


def test_a_panel_that_closes_applies_at_once(page: Page) -> None:
    page.add_init_script("window.setTimeout = () => 0")  # nothing applies because a moment has passed
    page.goto("/?days=7")
    _open(page, "host")
    _choose(page, "host", "Anthropic")
    _choose(page, "host", "OpenAI")
    page.keyboard.press("Escape")
    page.wait_for_url("**/?days=7&host=Anthropic&host=OpenAI")
    expect(_pick(page, "host").get_by_label("OpenAI", exact=True)).to_be_hidden()
    expect(_pick(page, "host").locator("summary")).to_be_focused()
    expect(_pick(page, "host").locator(".count")).to_have_text("2")
    page.get_by_role("link", name="Host OpenAI").click()
    page.wait_for_url("**/?days=7&host=Anthropic")


@pytest.mark.parametrize(("nav", "name"), [("What the chart shows", "Tokens"), ("Costs by", "Host")])
def test_a_switch_of_the_chart_leaves_the_page_where_it_was(page: Page, nav: str, name: str) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.goto("/")
    switch = page.get_by_role("navigation", name=nav).get_by_role("link", name=name)
    switch.scroll_into_view_if_needed()
    page.evaluate("window.scrollBy(0, 40)")
    before = page.evaluate("window.scrollY")
    switch.focus()
    page.keyboard.press("Enter")
    expect(switch).to_have_attribute("aria-current", "true")
    expect(switch).to_be_focused()
    assert page.evaluate("window.scrollY") == before > 0
    assert "#" not in page.url


def test_the_next_page_of_a_table_begins_with_its_first_row(page: Page) -> None:
    page.goto("/breakdown?group=day&days=365")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Next").click()
    page.wait_for_url(re.compile(r"page=2.*#rows$"))
    expect(page.locator("#rows")).to_be_in_viewport()


def test_one_panel_is_open_at_a_time_and_a_click_elsewhere_closes_it(page: Page) -> None:
    page.goto("/")
    _open(page, "model")
    _open(page, "host")
    expect(page.locator(".pick[open]")).to_have_count(1)
    page.mouse.click(20, 500)  # beside the menu, where nothing takes the focus
    expect(page.locator(".pick[open]")).to_have_count(0)
    _open(page, "host")
    page.keyboard.press("Escape")
    expect(page.locator(".pick[open]")).to_have_count(0)
    assert page.url.endswith("/")


def test_a_long_list_is_narrowed_by_typing_and_that_is_no_part_of_the_address(page: Page) -> None:
    page.goto("/breakdown")
    _open(page, "model")
    options = _pick(page, "model").locator(".pick-options label")
    assert options.count() > 12
    find = _pick(page, "model").get_by_role("searchbox", name="Find in Model")
    find.fill("HAIKU")
    expect(options.filter(has_text="haiku").first).to_be_visible()
    expect(options.filter(has_text="gpt").first).to_be_hidden()
    find.press("Enter")
    find.fill("nothing is called so")
    find.press("Tab")
    page.wait_for_timeout(1200)
    assert page.url.endswith("/breakdown")


def test_days_apply_once_both_are_others(page: Page) -> None:
    page.goto("/?group=host")
    page.locator(".pick summary").first.click()
    first, last = page.get_by_label("From", exact=True), page.get_by_label("To", exact=True)
    expect(page.get_by_role("button", name="Show these days")).to_be_hidden()
    first.fill("2026-01-05")
    page.wait_for_timeout(1200)
    assert page.url.endswith("/?group=host"), "the other day is being thought about"
    last.fill("2026-01-09")
    page.wait_for_url("**/?group=host&from=2026-01-05&to=2026-01-09")
    expect(last).to_be_focused()
    last.fill("2026-01-10")
    page.keyboard.press("Escape")
    page.wait_for_url("**/?group=host&from=2026-01-05&to=2026-01-10")


def test_what_is_searched_has_no_empty_parameters(page: Page) -> None:
    page.goto("/breakdown?q=gpt")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    page.get_by_label("Find", exact=True).fill("")
    page.keyboard.press("Enter")
    page.wait_for_url("**/breakdown")
    assert not [url for url in sent if "q=" in url]


@pytest.mark.parametrize("path", ["/", "/breakdown"])
def test_after_back_the_filters_show_what_the_figures_are_of(page: Page, path: str) -> None:
    page.goto(path)
    _open(page, "host")
    _choose(page, "host", "Anthropic")
    page.wait_for_url(f"**{path}?host=Anthropic")
    expect(page.get_by_role("link", name="Host Anthropic")).to_be_visible()
    page.go_back()
    page.wait_for_url(f"**{path}")
    expect(page.get_by_role("link", name="Host Anthropic")).not_to_be_attached()
    expect(_pick(page, "host").locator("input:checked")).to_have_count(0)
    page.go_forward()
    expect(_pick(page, "host").locator("input:checked")).to_have_count(1)


class TestOnATelephone:
    @pytest.fixture(autouse=True)
    def _telephone(self, page: Page) -> None:
        page.set_viewport_size({"width": 360, "height": 740})

    def test_filters_are_folded_and_the_page_keeps_its_width(self, page: Page) -> None:
        page.goto("/?host=Anthropic&host=OpenAI")
        fold = page.locator(".fold > summary")
        expect(fold).to_have_text("Filters (2)")
        expect(_pick(page, "host")).to_be_hidden()
        fold.click()
        _open(page, "host")
        _choose(page, "host", "OpenAI")
        page.wait_for_url("**/?host=Anthropic")
        expect(_pick(page, "host").get_by_label("OpenAI", exact=True)).to_be_focused()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0

    def test_with_room_the_filters_are_always_there(self, page: Page) -> None:
        page.set_viewport_size({"width": 1440, "height": 900})
        page.goto("/")
        expect(page.locator(".fold > summary")).to_be_hidden()
        expect(_pick(page, "host").locator("summary")).to_be_visible()
        tops = page.locator(".bar summary:visible").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().top)"
        )
        assert max(tops) - min(tops) < 2, "one line"

    @pytest.mark.parametrize("path", ["/?days=7&view=cumulative", "/?days=7", "/breakdown"])
    def test_the_first_column_stays_and_the_second_is_the_figure(self, page: Page, path: str) -> None:
        page.goto(path)
        if not path.startswith("/breakdown"):
            page.locator("#days-details > summary").click()
        scroll = page.locator(".scroll:visible").first
        head = scroll.locator("tbody tr:first-child > :first-child")
        before = head.bounding_box()
        scroll.evaluate("one => (one.scrollLeft = 60)")
        after = head.bounding_box()
        assert before is not None
        assert after is not None
        assert after["x"] == before["x"]
        assert "$" in scroll.locator("tbody tr:first-child > :nth-child(2)").inner_text()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0

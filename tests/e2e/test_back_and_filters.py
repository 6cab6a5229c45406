"""What the filters show is what the figures are of, also after Back."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e import steps
from tests.e2e.product import Product
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("path", ["/", "/breakdown"])
def test_after_back_the_filters_show_what_the_figures_are_of(product: Product, tab: Tab, path: str) -> None:
    page = tab.page
    steps.register(page, f"back-{len(path)}@example.com")
    steps.add(page, product.sandbox.key("lively"))
    steps.look_again_until(page, steps.card(page, "OpenRouter"), "Up to date")
    page.goto(path)
    page.get_by_label("Host").select_option("Anthropic")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("Only the host Anthropic")).to_be_visible()
    expect(page.get_by_label("Host")).to_have_value("Anthropic")
    page.go_back()
    expect(page.get_by_text("Only the host Anthropic")).not_to_be_attached()
    expect(page.get_by_label("Host")).to_have_value("")
    page.go_forward()
    expect(page.get_by_label("Host")).to_have_value("Anthropic")

"""Without a mouse, and on a telephone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.e2e import steps
from tests.e2e.product import Product
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser

TELEPHONE: ViewportSize = {"width": 360, "height": 740}


def test_add_integration_needs_no_mouse(product: Product, tab: Tab) -> None:
    page, sandbox = tab.page, product.sandbox
    tab.expect_refusal("/integrations/test")
    steps.register(page, "keyboard@example.com")
    page.goto("/integrations/new")
    _tab_to(page, "Provider")
    _tab_to(page, "Label")
    page.keyboard.type("By hand")
    _tab_to(page, "Management key")
    page.keyboard.type(sandbox.key("revoked"))
    _tab_to(page, "Test Connection")
    page.keyboard.press("Enter")
    expect(page.locator("#test-result")).to_contain_text("OpenRouter does not know this key")
    assert _focused(page) == "Test Connection"

    page.keyboard.press("Shift+Tab")
    assert _focused(page) == "Management key"
    page.keyboard.press("Control+a")
    page.keyboard.type(sandbox.key("lively"))
    _tab_to(page, "Test Connection")
    page.keyboard.press("Enter")
    expect(page.locator("#test-result")).to_contain_text("Connection works")

    _tab_to(page, "Add Integration")
    page.keyboard.press("Enter")
    card = steps.card(page, "By hand")
    steps.expect_state(card, "Up to date")
    _tab_to(page, "Force Sync")
    with page.expect_response("**/card"):  # it changed to one that asks again
        page.keyboard.press("Enter")
    steps.expect_state(card, "Up to date")
    assert _focused(page) == "Force Sync", "the keyboard lost its place when the card changed"


def _tab_to(page: Page, name: str) -> None:
    """Press Tab until the control of that name has the focus."""
    passed = []
    while _focused(page) != name:
        page.keyboard.press("Tab")
        passed.append(_focused(page))
        assert len(passed) < 40, f"Tab does not lead to {name!r}, but to {passed}"


def _focused(page: Page) -> str:
    """What the focused control is called."""
    name = page.evaluate(
        "(document.activeElement.labels?.[0] ?? document.activeElement)"
        "[document.activeElement === document.body ? 'nodeName' : 'textContent'].trim()"
    )
    return str(name)


def test_nothing_is_wider_than_a_telephone(product: Product, tab: Tab) -> None:
    page = tab.page
    page.set_viewport_size(TELEPHONE)
    wide = []
    for path in ("/login", "/register"):
        page.goto(path)
        wide += _too_wide(page)
    steps.register(page, "telephone@example.com")
    wide += _too_wide(page)
    steps.add(page, product.sandbox.key("organization"), "A label that goes on and on, as some people's labels do")
    card = page.get_by_role("article")
    steps.look_again_until(page, card, "Up to date")
    wide += _too_wide(page)
    card.get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Days covered")).to_be_visible()
    wide += _too_wide(page)
    dashboards = ("/", "/?days=365", "/?view=cumulative", "/?host=OpenAI&against=year")
    for path in (*dashboards, "/breakdown", "/changes", "/integrations/new", "/account", "/account/password"):
        page.goto(path)
        wide += _too_wide(page)
    assert not wide, f"these scroll sideways: {wide}"


def _too_wide(page: Page) -> list[str]:
    width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return [f"{page.url}: {width} in {room}"] if width > room else []

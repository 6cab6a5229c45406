"""Passkeys in a real browser, with an authenticator that Chromium plays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e import steps
from tests.e2e.product import Product
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(browser: Browser, product: Product) -> Iterator[Tab]:
    """By a name: a passkey belongs to one, and 127.0.0.1 is none."""
    with Tab.of(browser, product.url.replace("127.0.0.1", "localhost")) as tab:
        devices = tab.context.new_cdp_session(tab.page)
        devices.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        devices.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        yield tab


def test_a_passkey_is_added_logs_in_confirms_and_is_removed(page: Page) -> None:
    email = "passkeys@example.com"
    steps.register(page, email)
    page.goto("/account")
    page.get_by_role("link", name="Passkeys").click()
    page.get_by_label("Name").fill("My laptop")
    page.get_by_role("button", name="Add passkey").click()
    expect(page.get_by_text("The passkey was added.")).to_be_visible()
    expect(page.get_by_role("button", name="Remove My laptop")).to_be_visible()
    log_out(page)
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")
    page.goto("/account")
    expect(page.get_by_text(email, exact=True)).to_be_visible()
    page.goto("/verify?next=/account/codes")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Codes from an app")
    page.goto("/account/passkeys")
    page.get_by_role("button", name="Remove My laptop").click()
    expect(page.get_by_text("The passkey was removed.")).to_be_visible()
    log_out(page)
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page.get_by_text("This passkey isn't known here.")).to_be_visible()
    page.goto("/login")
    steps.log_in(page, email)


def log_out(page: Page) -> None:
    page.goto("/account")
    page.get_by_role("main").get_by_role("button", name="Log out").click()


def test_who_has_none_is_told_what_to_do(page: Page) -> None:
    page.goto("/login/passkey")
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page.get_by_text("No passkey was used.")).to_be_visible()
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.get_by_role("link", name="Use your password instead").click()
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Log in with a passkey")


def test_at_an_ip_address_it_says_why_there_are_none(page: Page, product: Product) -> None:
    page.goto(f"{product.url}/login/passkey")
    page.get_by_role("button", name="Log in with a passkey").click()
    expect(page.get_by_text("Passkeys don't work at an IP address.")).to_be_visible()

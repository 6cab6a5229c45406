"""What people do on the pages, and what they then see; by the words on them, not by their making."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from playwright.sync_api import Locator, Page, expect

from grafient.days import last_due
from grafient.sandbox import Sandbox, Truth
from tests.e2e.product import until

PASSWORD = "correct horse battery"
INFERENCE_KEY = "This is a regular inference key. Grafient needs a Management key"
KEY_PAGE = "https://openrouter.ai/settings/management-keys"


def register(page: Page, email: str) -> None:
    """Make an account, and be on the empty dashboard.

    The tests share one product, which lets ten accounts a minute be made from one address: the eleventh waits.
    """
    heading, tries = page.get_by_role("heading", level=1), 15
    for number in range(tries):
        page.goto("/register")
        page.get_by_label("Email").fill(email)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password again").fill(PASSWORD)
        page.get_by_role("button", name="Create account").click()
        expect(heading).to_have_text(re.compile("Dashboard|Log in|Too many attempts"))
        if heading.text_content() == "Log in":  # all but the first
            log_in(page, email)
        if heading.text_content() == "Dashboard":
            return
        assert number < tries - 1, "still too many attempts"
        page.wait_for_timeout(5000)


def log_in(page: Page, email: str) -> None:
    """With the password, and be on the dashboard."""
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")


def add(page: Page, key: str, label: str = "") -> None:
    """Add Integration, and be on the list of them."""
    page.goto("/integrations/new")
    fill_in(page, key, label)
    page.get_by_role("button", name="Add Integration").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Integrations")


def fill_in(page: Page, key: str, label: str = "") -> None:
    """The form of Add Integration."""
    page.get_by_label("Label").fill(label)
    page.get_by_label("Management key").fill(key)


def tested(page: Page) -> Locator:
    """Test Connection; where the answer is going to be."""
    page.get_by_role("button", name="Test Connection").click()
    return page.locator("#test-result")


def card(page: Page, label: str) -> Locator:
    """The card of an integration."""
    return page.get_by_role("article", name=label, exact=True)


def expect_state(card: Locator, state: str) -> None:
    """Wait until the card says so."""
    expect(card.locator(".card-by .badge")).to_have_text(state)


def look_again_until(page: Page, card: Locator, state: str) -> None:
    """Load the page until the card says so, where its own pace or scripts are not what matters."""

    def seen() -> bool:
        page.reload()
        return card.locator(".card-by .badge").text_content() == state

    until(seen, f"a card that says {state}")


def force_sync(page: Page, card: Locator) -> None:
    """Press Force Sync, and wait until it was received."""
    with page.expect_response("**/sync"):
        card.get_by_role("button", name="Force Sync").click()


def total(page: Page) -> Locator:
    """The dashboard's total."""
    return page.locator(".figure").filter(has=page.get_by_text("Total", exact=True)).locator("data")


def expect_amount(figure: Locator, amount: Decimal) -> None:
    """The figure is this one: to the cent where people read it, exact where machines do."""
    exact = f"{amount.normalize():f}"
    dollars, _, cents = exact.partition(".")
    expect(figure).to_have_attribute("value", exact)
    expect(figure).to_have_attribute("title", f"${int(dollars):,}.{cents:0<2}")
    expect(figure).to_have_text(f"${amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,f}")


def truth(sandbox: Sandbox, account: str, days: int = 30) -> Truth:
    """What the provider really billed an account for the last days that are due, as far back as /activity reaches.

    Before 06:00 UTC yesterday is not due, so that the period begins a day earlier: with a day that a new account on the
    free plan never read.
    """
    last = last_due(datetime.now(UTC))
    return sandbox.truth(account, _first(sandbox, last, days), last)


def _first(sandbox: Sandbox, last: date, days: int) -> date:
    return max(last - timedelta(days=days - 1), sandbox.today - timedelta(days=30))

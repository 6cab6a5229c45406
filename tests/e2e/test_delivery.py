"""What travels between server and browser: little the first time, next to nothing the second, and nothing on Back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserType, Page, expect

from tests import browser_setup
from tests.audit.site import EMAIL, PASSWORD, Site
from tests.e2e.conftest import ARGUMENTS

pytestmark = pytest.mark.browser

MOST_COLD = 150_000
MOST_WARM = 30_000
YEAR = "/?days=365"


@pytest.fixture(scope="module")
def restoring(browser_type: BrowserType) -> Iterator[Browser]:
    """A browser that restores pages on Back, as people's do; Playwright has that switched off."""
    browser = browser_type.launch(
        executable_path=browser_setup.find(),
        args=ARGUMENTS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield browser
    browser.close()


@pytest.fixture
def page(restoring: Browser, site: Site) -> Iterator[Page]:
    """A tab of a browser that is signed in and was never here before."""
    context = restoring.new_context(base_url=site.url)
    context.add_cookies([{"name": name, "value": value, "url": site.url} for name, value in site.cookies.items()])
    yield context.new_page()
    context.close()


def travelled(page: Page, path: str) -> dict[str, int]:
    """The bytes of each answer, heads included, that the server sent for a page and all that it loads."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    addresses: dict[str, str] = {}
    sizes: dict[str, int] = {}

    def answered(event: dict[str, Any]) -> None:
        addresses[event["requestId"]] = event["response"]["url"]

    def finished(event: dict[str, Any]) -> None:
        address = addresses.get(event["requestId"], "")
        sizes[address] = sizes.get(address, 0) + int(event["encodedDataLength"])

    session.on("Network.responseReceived", answered)
    session.on("Network.loadingFinished", finished)
    page.goto(path, wait_until="networkidle")
    session.detach()
    return {address: size for address, size in sizes.items() if size}


def test_a_year_s_dashboard_is_light(page: Page, site: Site) -> None:
    cold = travelled(page, YEAR)
    assert len(cold) >= 5, "the page, its style, two scripts or more, and icons"
    assert sum(cold.values()) <= MOST_COLD, cold
    assert cold[f"{site.url}{YEAR}"] <= MOST_WARM, "what is loaded again when a figure has changed"
    page.goto("/integrations/new")
    warm = travelled(page, YEAR)
    assert warm.keys() == {f"{site.url}{YEAR}"}, "all that the page loads is kept"
    assert sum(warm.values()) <= 1000, "and the page too, as long as nothing has changed"


@pytest.mark.parametrize("path", ["/", YEAR, "/breakdown", "/integrations/1", "/account"])
def test_back_shows_the_page_as_it_was(page: Page, path: str) -> None:
    page.add_init_script("addEventListener('pageshow', (event) => { window.restored = event.persisted })")
    page.goto(path)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Integrations").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Integrations")
    page.go_back(wait_until="commit")
    expect(page.get_by_role("heading", level=1)).not_to_have_text("Integrations")
    assert page.evaluate("window.restored")


@pytest.mark.parametrize("restores", [True, False], ids=["restored", "from the cache"])
@pytest.mark.parametrize("host", ["127.0.0.1", "grafient.test"])
def test_after_logging_out_back_shows_no_costs(
    browser_type: BrowserType, site: Site, host: str, restores: bool
) -> None:
    """Back finds none in memory, where app.js looks, and none in the cache: Clear-Site-Data empties it where there is
    TLS or on this machine, and elsewhere another cookie makes it another page (``Vary``).
    """
    browser = browser_type.launch(
        executable_path=browser_setup.find(),
        args=[*ARGUMENTS, "--host-resolver-rules=MAP grafient.test 127.0.0.1"],
        ignore_default_args=["--disable-back-forward-cache"] if restores else [],
    )
    page = browser.new_page(base_url=site.url.replace("127.0.0.1", host))
    page.goto("/login")
    page.get_by_label("Email").fill(EMAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")
    page.goto("/breakdown")
    page.goto("/account")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    for _ in range(3):
        page.go_back(wait_until="commit")
        expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    browser.close()

"""The whole product, a real browser, and an eye on what goes wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserType, Page, expect, sync_playwright

from grafient.sandbox import Sandbox
from tests import browser_setup
from tests.audit import site as audit
from tests.audit.site import Site
from tests.e2e import steps
from tests.e2e.product import Product, until
from tests.e2e.tab import Tab

expect.set_options(timeout=15_000)

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LONGEST_TEST = timedelta(minutes=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and begin with them: they share a product, which is slow to start."""
    for item in items:
        if "e2e" in item.path.parts:
            site = "site" in getattr(item, "fixturenames", ())  # which is slow to start too, and the same for all
            item.add_marker(pytest.mark.xdist_group("site" if site else item.path.stem))
            item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def _one_utc_day() -> None:
    """Let midnight pass first if it is near: the figures on the pages are of the days before today."""
    tomorrow = (datetime.now(UTC) + LONGEST_TEST).date()
    if tomorrow != datetime.now(UTC).date():
        until(lambda: datetime.now(UTC).date() == tomorrow, "midnight", 2 * LONGEST_TEST.total_seconds())


@pytest.fixture(scope="package")
def browser_type() -> Iterator[BrowserType]:
    """Chromium, to be started. Without one the tests are skipped, and where CI=true they fail."""
    path = browser_setup.find()
    if path is None and browser_setup.is_required():
        pytest.fail(browser_setup.MISSING)
    if path is None:
        pytest.skip(browser_setup.MISSING)
    with sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="package")
def browser(browser_type: BrowserType) -> Iterator[Browser]:
    """Chromium."""
    browser = browser_type.launch(executable_path=browser_setup.find(), args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture(scope="package")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A running product for several tests, each with an account of its own."""
    with Sandbox() as sandbox:
        product = Product(tmp_path_factory.mktemp("product"), sandbox, GRAFIENT_REGISTRATION="open")
        product.start()
        yield product
        product.end()


@pytest.fixture(autouse=True)
def _tries_are_forgotten(request: pytest.FixtureRequest) -> None:
    """All tests come from one address, and more than ten in a minute would be too many who make an account."""
    if "product" in request.fixturenames:
        request.getfixturevalue("product").forget_tries()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A product with something to show on each of its pages."""
    with audit.site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def with_costs(request: pytest.FixtureRequest, browser: Browser, product: Product) -> Any:
    """The cookies of somebody with 30 days of costs, of the module's own."""
    product.sandbox.reset()
    with Tab.of(browser, product.url) as tab:
        steps.register(tab.page, f"{request.path.stem}@example.com")
        steps.add(tab.page, product.sandbox.key("lively"))
        steps.look_again_until(tab.page, steps.card(tab.page, "OpenRouter"), "Up to date")
        return tab.context.storage_state()


@pytest.fixture
def tab(browser: Browser, product: Product) -> Iterator[Tab]:
    """A tab of a browser that was never here before, and that has to have nothing to complain about."""
    with Tab.of(browser, product.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Tab) -> Page:
    """What the tab shows."""
    return tab.page

"""axe finds nothing to mend on any page, light, dark, and on a telephone, and none of them scrolls sideways there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.audit.addresses import SIGNED_IN, SIGNED_OUT
from tests.audit.site import Site

pytestmark = pytest.mark.browser

(AXE,) = (Path(__file__).resolve().parents[1] / "vendor").glob("axe-core@*/axe.min.js")
RUN = "async (rules) => (await axe.run(document, rules ? { runOnly: rules } : {})).violations"
DESK = {"width": 1440, "height": 900}
TELEPHONE = {"width": 360, "height": 740}


@pytest.fixture(params=["signed in", "signed out"], scope="module")
def visitor(request: pytest.FixtureRequest, browser: Browser, site: Site) -> Iterator[tuple[Page, tuple[str, ...]]]:
    """A tab, and the pages to open in it."""
    context = browser.new_context(base_url=site.url)
    if request.param == "signed in":
        context.add_cookies([{"name": name, "value": value, "url": site.url} for name, value in site.cookies.items()])
    yield context.new_page(), SIGNED_IN if request.param == "signed in" else SIGNED_OUT
    context.close()


def test_axe_finds_nothing_and_everything_fits(visitor: tuple[Page, tuple[str, ...]], site: Site) -> None:
    """In the dark, only the colours can differ."""
    page, addresses = visitor
    axe = AXE.read_text()
    found: list[str] = []
    for address in addresses:
        page.set_viewport_size(DESK)
        page.emulate_media(color_scheme="light")
        page.goto(site.path(address))
        page.locator("details").evaluate_all("(all) => { for (const one of all) one.open = true }")
        page.evaluate(axe)
        found += violations(page, f"{address}, light")
        page.emulate_media(color_scheme="dark")
        found += violations(page, f"{address}, dark", ["color-contrast", "link-in-text-block"])
        page.set_viewport_size(TELEPHONE)
        page.emulate_media(color_scheme="light")
        found += violations(page, f"{address}, 360 px")
        width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        if width > room:
            found.append(f"{address}: {width} px wide, of {room}")
    assert not found, "\n".join(found)


def violations(page: Page, where: str, rules: list[str] | None = None) -> list[str]:
    """What axe has to say, and of which elements."""
    found: list[dict[str, Any]] = page.evaluate(RUN, rules)
    return [
        f"{where}: {one['id']}, {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}" for one in found
    ]

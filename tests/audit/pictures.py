"""``make pictures``: the README's pictures, of a Grafient with a year of the sandbox's costs."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from tests import browser_setup
from tests.audit.site import Site, site

FOLDER = Path(__file__).parents[2] / "docs/pictures"


@dataclass(frozen=True)
class Picture:
    name: str
    address: str
    width: int
    height: int
    scheme: Literal["light", "dark"] = "light"


PICTURES = (
    Picture("dashboard", "/", 1280, 800),
    Picture("changes", "/changes?period=last-month", 1280, 800, "dark"),
    Picture("phone", "/", 390, 844),
)


def main() -> None:
    path = browser_setup.find()
    if path is None:
        sys.exit(browser_setup.MISSING)
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as name,
        site(Path(name), troubled=False) as found,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=path)
        for picture in PICTURES:
            _take(browser, found, picture)
            print(FOLDER / f"{picture.name}.png")
        browser.close()


def _take(browser: Browser, found: Site, picture: Picture) -> None:
    size = {"width": picture.width, "height": picture.height}
    context = browser.new_context(viewport=size, color_scheme=picture.scheme, device_scale_factor=1.5)  # type: ignore[arg-type]
    context.add_cookies([{"name": name, "value": value, "url": found.url} for name, value in found.cookies.items()])
    page = context.new_page()
    page.goto(found.url + picture.address, wait_until="networkidle")
    page.screenshot(path=FOLDER / f"{picture.name}.png")
    context.close()


if __name__ == "__main__":
    main()

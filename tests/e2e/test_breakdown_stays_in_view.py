"""However far a large table is scrolled, what its figures are of and what they add up to stay in view."""

from __future__ import annotations

import pytest

from tests.e2e import steps
from tests.e2e.product import Product
from tests.e2e.tab import Tab

pytestmark = pytest.mark.browser


def test_the_head_the_totals_and_the_names_stay_in_view(product: Product, tab: Tab) -> None:
    page = tab.page
    steps.register(page, "large-table@example.com")
    steps.add(page, product.sandbox.key("lively"))
    steps.look_again_until(page, steps.card(page, "OpenRouter"), "Up to date")
    for width in (360, 1440):
        page.set_viewport_size({"width": width, "height": 500})
        for address in ("/breakdown?group=day", "/breakdown?columns=day"):
            page.goto(address)
            sheet = page.locator(".sheet")
            sheet.evaluate("sheet => sheet.scrollTo(9999, 9999)")
            box, name = sheet.bounding_box(), sheet.locator("tbody th").last.bounding_box()
            head, foot = (sheet.locator(f"{part} th").first.bounding_box() for part in ("thead", "tfoot"))
            assert box, address
            assert name, address
            assert head, address
            assert foot, address
            assert box["height"] <= 500
            assert sheet.evaluate("sheet => sheet.scrollTop + sheet.scrollLeft") > 0
            for one in (head, foot, name):
                assert abs(one["x"] - box["x"]) < 2, (width, address)
            assert abs(head["y"] - box["y"]) < 2
            below = box["y"] + box["height"] - foot["y"] - foot["height"]
            assert -2 < below < 20, "at most a scroll bar is below the totals"

"""The chart in a browser: what is pointed at is read out, what is opened is right, and nothing on the page moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

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


@pytest.fixture
def dashboard(page: Page) -> Page:
    """Seven days and today so far."""
    page.goto("/?days=7")
    _chart(page).scroll_into_view_if_needed()
    return page


def _chart(page: Page) -> Locator:
    return page.locator(".chart")


def _readout(page: Page) -> Locator:
    return page.locator(".chart-readout")


def _rows(page: Page) -> list[dict[str, Any]]:
    """The rows of the table that the chart is drawn from."""
    found: list[dict[str, Any]] = page.locator("table[data-chart] tbody tr").evaluate_all(
        """rows => rows.map(row => ({
          first: row.cells[0].dataset.first, name: row.cells[0].textContent, total: row.cells[1].textContent,
          state: row.cells[2].textContent, href: row.querySelector("a").getAttribute("href"),
          parts: [...row.cells].slice(3).map((cell, at) => ({
            name: row.closest("table").tHead.rows[0].cells[at + 3].textContent,
            value: cell.dataset.value ?? null, text: cell.textContent,
          })),
        }))"""
    )
    return found


def _at(page: Page, index: int) -> tuple[float, float]:
    """Where a bar is in the window."""
    x, y = page.evaluate(
        """index => { const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
          return [box.left + Chart.getChart(canvas).scales.x.getPixelForValue(index), box.top + box.height / 2]; }""",
        index,
    )
    return x, y


def _expect_read_out(page: Page, row: dict[str, Any]) -> None:
    """The period, state and total of a row, and its biggest parts in order."""
    known = sorted((one for one in row["parts"] if float(one["value"] or 0)), key=lambda one: -float(one["value"]))
    said = [row["name"], row["state"], row["total"], *(f"{one['name']} {one['text']}" for one in known[:3])]
    expect(_readout(page)).to_have_text(re.compile(r"\s*".join(map(re.escape, said))))
    expect(_readout(page).locator(".chart-part .swatch")).to_have_count(len(known[:3]))


def _range(page: Page) -> tuple[list[str], list[str]]:
    query = parse_qs(urlsplit(page.url).query)
    return query["from"], query["to"]


def test_what_is_pointed_at_is_read_out_and_a_click_opens_it(dashboard: Page) -> None:
    rows = _rows(dashboard)
    for index in (2, 5, len(rows) - 1):
        dashboard.mouse.move(*_at(dashboard, index))
        _expect_read_out(dashboard, rows[index])
    assert rows[-1]["state"] == "Provisional"
    dashboard.mouse.move(0, 0)
    expect(_readout(dashboard)).to_be_empty()
    dashboard.mouse.click(*_at(dashboard, 3))
    dashboard.wait_for_url(f"**{rows[3]['href']}")


def test_by_keyboard_each_bar_is_read_out_and_enter_opens_it(dashboard: Page) -> None:
    rows = _rows(dashboard)
    _chart(dashboard).focus()
    for key, index in (("ArrowRight", 0), ("ArrowRight", 1), ("End", -1), ("ArrowRight", -1), ("ArrowLeft", -2)):
        dashboard.keyboard.press(key)
        _expect_read_out(dashboard, rows[index])
    dashboard.keyboard.press("Home")
    _expect_read_out(dashboard, rows[0])
    dashboard.keyboard.press("Escape")
    expect(_readout(dashboard)).to_be_empty()
    dashboard.keyboard.press("ArrowLeft")
    _expect_read_out(dashboard, rows[-1])
    dashboard.keyboard.press("Enter")
    dashboard.wait_for_url(f"**{rows[-1]['href']}")


def test_shift_with_an_arrow_picks_a_period_and_enter_shows_it(dashboard: Page) -> None:
    rows, address = _rows(dashboard), dashboard.url
    _chart(dashboard).focus()
    for key in ("Home", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight"):
        dashboard.keyboard.press(key)
    expect(_readout(dashboard)).to_contain_text("3 days")
    dashboard.keyboard.press("Escape")
    _expect_read_out(dashboard, rows[3])
    assert dashboard.url == address
    dashboard.keyboard.press("Shift+ArrowLeft")
    expect(_readout(dashboard)).to_contain_text("2 days")
    dashboard.keyboard.press("Enter")
    dashboard.wait_for_url("**/?*from=*")
    assert _range(dashboard) == ([rows[2]["first"]], [rows[3]["first"]])


def test_a_drag_across_bars_shows_their_days_unless_escape_is_pressed(dashboard: Page) -> None:
    rows, address = _rows(dashboard), dashboard.url
    dashboard.mouse.move(*_at(dashboard, 4))
    dashboard.mouse.down()
    dashboard.mouse.move(*_at(dashboard, 2), steps=5)
    expect(_readout(dashboard)).to_contain_text("3 days")
    dashboard.keyboard.press("Escape")
    expect(_readout(dashboard)).to_be_empty()
    dashboard.mouse.move(*_at(dashboard, 1), steps=5)
    dashboard.mouse.up()
    assert dashboard.url == address
    dashboard.mouse.move(*_at(dashboard, 4))
    dashboard.mouse.down()
    dashboard.mouse.move(*_at(dashboard, 2), steps=5)
    dashboard.mouse.up()
    dashboard.wait_for_url("**/?*from=*")
    assert _range(dashboard) == ([rows[2]["first"]], [rows[4]["first"]])
    assert "days=" not in dashboard.url


def test_a_tap_reads_out_and_a_second_tap_opens(browser: Browser, product: Product, with_costs: Any) -> None:
    size: Any = {"width": 390, "height": 844}
    options = {"storage_state": with_costs, "has_touch": True, "is_mobile": True, "viewport": size}
    with Tab.of(browser, product.url, **options) as tab:
        page = tab.page
        page.goto("/?days=7")
        _chart(page).scroll_into_view_if_needed()
        rows, address = _rows(page), page.url
        for index in (1, 3):
            page.touchscreen.tap(*_at(page, index))
            _expect_read_out(page, rows[index])
        assert page.url == address
        page.touchscreen.tap(*_at(page, 3))
        page.wait_for_url(f"**{rows[3]['href']}")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_moves_while_it_is_drawn_and_read_out(tab: Tab, width: int) -> None:
    page = tab.page
    page.set_viewport_size({"width": width, "height": 800})
    page.add_init_script(
        "window.moved = 0; new PerformanceObserver(list => list.getEntries().forEach(one => window.moved += one.value))"
        ".observe({ type: 'layout-shift', buffered: true });"
    )
    page.route("**/chart.js*", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.goto("/?days=7")
    undrawn = _chart(page).bounding_box()
    assert undrawn is not None
    assert undrawn["height"] > 200, "it has its height before the script runs"
    page.unroute("**/chart.js*")
    page.reload()
    assert _chart(page).bounding_box() == undrawn
    legend = page.locator(".legend")
    before = legend.bounding_box()
    assert before is not None
    _chart(page).focus()
    page.evaluate("window.scrollTo(0, 0)")
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
        assert legend.bounding_box() == before
    assert page.evaluate("window.moved") < 0.01


def test_cumulative_has_lines_and_says_both_running_totals(tab: Tab) -> None:
    page = tab.page
    page.goto("/?days=7")
    page.get_by_role("link", name="Cumulative").click()
    expect(page.get_by_role("heading", name="Cost, cumulative")).to_be_visible()
    rows = _rows(page)
    assert len(rows) == 7
    _chart(page).focus()
    page.keyboard.press("End")
    expect(_readout(page)).to_contain_text(f"so far {rows[-1]['total']}")
    expect(_readout(page)).to_contain_text(f"in its first 7 days {rows[-1]['parts'][0]['text']}")
    page.get_by_role("link", name="Per day").click()
    expect(page.get_by_role("heading", name="Cost per day and model")).to_be_visible()


@pytest.mark.parametrize(
    "path", ["/?days=30&measure=tokens&by=week&group=host", "/?days=90&group=key", "/?view=cumulative&measure=requests"]
)
def test_any_measure_and_step_can_be_read_out(tab: Tab, path: str) -> None:
    page = tab.page
    page.goto(path)
    row = _rows(page)[-1]
    _chart(page).focus()
    page.keyboard.press("End")
    expect(_readout(page)).to_contain_text(row["name"])
    expect(_readout(page)).to_contain_text(row["total"])

"""What the dashboard says first, against what the sandbox knows to be true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from flask import Flask

from grafient.sandbox import Sandbox
from tests.pages import Pages, lint
from tests.syncing import NOON, at, later
from tests.views.test_costs import cents, synced
from tests.views.test_integrations import connected


@pytest.fixture(autouse=True)
def _noon(settings: dict[str, str]) -> Iterator[None]:
    settings["GRAFIENT_DEFAULT_PLAN"] = "ultimate"
    with at():
        yield


def words(pages: Pages, path: str = "/") -> str:
    (section,) = lint(pages.get(path).text).query("section.headline")
    return (
        re.sub(r"\s+", " ", section.to_text())
        .replace("$ ", "$")
        .replace(" ,", ",")
        .replace(" :", ":")
        .replace(" .", ".")
    )


def usage(sandbox: Sandbox, days_ago: int) -> Decimal:
    day = NOON.date() - timedelta(days=days_ago)
    return sandbox.truth("lively", day, day).usage


def test_yesterday_is_said_first_with_what_is_usual_and_what_made_the_change(
    app: Flask, pages: Pages, sandbox: Sandbox
) -> None:
    connected(app, pages, sandbox)
    said = words(pages)
    assert said.startswith("Yesterday, 19 Nov 2026 $")
    assert cents(usage(sandbox, 1)) in said
    thursdays = sorted(usage(sandbox, 1 + 7 * weeks) for weeks in range(1, 9))
    low, high = (f"${amount.quantize(Decimal(1))}" for amount in (thursdays[1], thursdays[-2]))
    assert f"{low} to {high}" in said
    assert "for a Thursday" in said
    assert "Most of the change since" in said
    month = sum((usage(sandbox, days) for days in range(1, 20)), Decimal(0))
    assert f"November so far ${cents(month)}" in said
    assert "Forecast for November $" in said
    assert "80% likely: $" in said
    assert "Credits left $" in said
    assert "at the current pace" in said


def test_before_six_the_headline_is_about_the_day_before(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    with at(NOON + timedelta(hours=15)):
        synced(app, pages)
        said = words(pages)
    assert said.startswith("Thursday, 19 Nov 2026 $")
    assert f"Yesterday: ${cents(usage(sandbox, 0))}" in said
    assert "Today so far: $" in said


def test_what_is_missing_is_said_and_not_zero(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    with later(3):
        said = words(pages)
        assert said.startswith("Yesterday, 22 Nov 2026 — unknown")
        assert "Not known: look at your integrations." in said
        assert "$0.00" not in said
        assert "No forecast: some days are missing" in said


def test_an_account_that_is_removed_leaves_no_headline(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    pages.post("/integrations/1/delete", 303, "/integrations/1", history="keep")
    assert not lint(pages.get("/").text).query("section.headline")


def test_a_day_that_is_known_of_some_integrations_says_of_how_many(app: Flask, pages: Pages, sandbox: Sandbox) -> None:
    connected(app, pages, sandbox)
    with later(1):
        pages.post("/integrations/1/pause", 303, "/integrations/1")
        connected(app, pages, sandbox, "other")
        said = words(pages)
    assert said.startswith("Yesterday, 20 Nov 2026 $")
    assert "Covers 1 of 2 integrations; the other is not complete for this day yet." in said

"""What is said of an incident, in the states it can be in."""

from __future__ import annotations

from typing import Any

import pytest

from grafient.alerts import wording
from grafient.alerts.wording import Said
from grafient.states import AlertKind, Happened

OPENED, WORSENED, REMINDED, RESOLVED = Happened
NOON = "2026-11-20T12:00:00+00:00"
BUDGET = {
    "name": "Team", "period": "month", "first": "2026-11-01", "last": "2026-11-30", "amount_usd": "100",
    "spent_usd": "80", "forecast_usd": None, "used_up_on": None, "missing": 0, "is_over": False, "as_of": NOON,
}  # fmt: skip
DAY = {
    "label": "one", "of": "total", "name": "", "id": "", "day": "2026-12-31", "first_day": "2026-12-30", "usd": "31",
    "expected_usd": "10",
}  # fmt: skip


def budget(what: Happened = OPENED, marks: tuple[str, ...] = ("actual 80",), **more: Any) -> Said:
    return wording.said(AlertKind.BUDGET, what, BUDGET | more, marks)


class TestBudgets:
    @pytest.mark.parametrize(("spent", "part"), [("99.6", "99%"), ("80", "80%"), ("0.4", "0%"), ("100", "100%")])
    def test_what_is_not_all_of_it_is_not_said_to_be(self, spent: str, part: str) -> None:
        assert budget(spent_usd=spent).title.startswith(f"Team: {part} spent, ")

    def test_nor_is_a_forecast(self) -> None:
        title = budget(marks=("forecast 90",), forecast_usd="99.99").title
        assert title == "Team: November 2026 is expected to end at $99.99, 99% of $100.00"

    def test_what_is_left_while_days_are_missing(self) -> None:
        said = budget(missing=1)
        assert said.lines[:2] == [
            "At most $20.00 left.",
            "1 day of it has not been read, so at least that much was spent.",
        ]
        said = budget(missing=2, spent_usd="120")
        assert said.lines[:2] == [
            "At least $20.00 over the budget.",
            "2 days of it have not been read, so at least that much was spent.",
        ]

    def test_one_that_was_changed(self) -> None:
        assert budget(RESOLVED, closed=True).title == "Team: “Budget” was closed"


class TestData:
    def test_one_day(self) -> None:
        losing = {"days": 1, "first": "2026-11-03", "until": "2026-12-02"}
        facts = {"label": "one", "losing": losing}
        said = wording.said(AlertKind.DAYS_LEAVING, OPENED, facts)
        assert said.lines[0] == "3 November is missing. The provider reports that day until 2 December."
        said = wording.said(AlertKind.DAYS_LEAVING, OPENED, facts | {"losing": losing | {"days": 3}})
        assert (
            said.lines[0]
            == "3 days are missing, the first is 3 November. The provider reports that one until 2 December."
        )

    def test_never_read(self) -> None:
        said = wording.said(AlertKind.NO_SYNC, OPENED, {"label": "one", "since": NOON, "last_read": None})
        assert said.title == "one has never been read; it was connected on 20 November 2026, 12:00 UTC"

    @pytest.mark.parametrize(("has", "verb"), [(True, "expired"), (False, "expires")])
    def test_a_key_that_ended(self, has: bool, verb: str) -> None:
        facts = {"label": "one", "problem": "expires", "expires": NOON, "has_expired": has}
        assert wording.said(AlertKind.KEY, OPENED, facts).title == f"one: its key {verb} on 20 November 2026, 12:00 UTC"

    def test_a_key_that_was_replaced_before_it_ended_never_failed(self) -> None:
        facts = {"label": "one", "problem": "expires", "expires": NOON}
        assert wording.said(AlertKind.KEY, RESOLVED, facts).title == "one: its key no longer expires soon"

    def test_what_is_nearly_the_same_does_not_agree(self) -> None:
        facts = {"label": "one", "provider": "OpenRouter", "usd": "0.90", "days": [], "count": 0}
        title = wording.said(AlertKind.DIFFERENCE, RESOLVED, facts).title
        assert title == "one: the figures no longer differ much from OpenRouter's"


class TestUnusualDays:
    def test_where_nothing_was_expected(self) -> None:
        drivers = [
            {"name": "new", "usd": "21", "expected_usd": "0.00"},
            {"name": "m", "usd": "10", "expected_usd": "9"},
        ]
        lines = wording.said(AlertKind.UNUSUAL_DAY, OPENED, DAY | {"expected_usd": "0.00", "drivers": drivers}).lines
        assert lines[0] == "Nothing was expected for Thursday, 31 December 2026, from the weeks before."
        assert lines[2] == "Mostly new ($21.00, expected nothing) and m ($10.00, expected about $9.00)."

    def test_one_that_is_followed_by_the_contrary(self) -> None:
        assert wording.said(AlertKind.UNUSUAL_DAY, RESOLVED, DAY).title.startswith("one: as expected again after ")
        title = wording.said(AlertKind.UNUSUAL_DAY, RESOLVED, DAY | {"turned": True}).title
        assert title == "one: no longer more than expected after 30 December to 31 December"

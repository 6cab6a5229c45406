"""Breakdown, statement, a day and the sums behind them, on lines that are few enough to add up by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from grafient import coverage, restatements
from grafient.days import Period
from grafient.extensions import db
from grafient.models import (
    UNATTRIBUTED,
    ApiKey,
    CreditReading,
    Integration,
    KeyReading,
    Restatement,
    SyncRun,
    User,
    Workspace,
)
from grafient.providers import BilledLine
from grafient.query import Group, Measure, Query, all_integrations
from grafient.reports import breakdown, chart, dashboard, integration_day, ledger, pivot, statement, sums
from grafient.reports.chart import Step
from grafient.reports.pivot import By
from grafient.reports.sums import Slot, Tally
from grafient.states import DayState, Source, Trigger
from grafient.views.formats import plain
from tests.stored import TODAY, add, ago, check, cover, put
from tests.syncing import NOON, at

WEEK = Period(ago(7), ago(1))
D = Decimal


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    """A week: a dear model on every day, a cheap one on two, both of keys with names; and today so far."""
    one = add(workspace, "one")
    for key, name in (("aa", "Production"), ("bb", "Trial")):
        db.session.add(ApiKey(integration_id=one.id, key_hash=key, name=name, disabled=False, read_at=NOON))
    cover(one, WEEK, usd=10, model="dear", key="aa", requests=3, prompt_tokens=100, byok_usd=D(1))
    cover(one, [ago(2), ago(1)], usd=2, model="cheap", key="bb", requests=5)
    cover(one, [TODAY], usd=4, model="dear", state=DayState.PROVISIONAL, source=Source.ANALYTICS, requests=1)
    return one


def query(one: Integration, period: Period = WEEK, **more: object) -> Query:
    return Query(one.workspace_id, period, **more)  # type: ignore[arg-type]


class TestSums:
    def test_what_lies_where_seen_from_a_period(self, one: Integration) -> None:
        cover(one, [ago(9)], usd=7)
        _, found = sums.overview(query(one, Period(ago(5), ago(3))), Group.MODEL, Period(ago(5), TODAY))
        usd = {slot: measures.usage_usd for (_, slot), measures in found.items()}
        assert usd == {Slot.PERIOD: D(30), Slot.AFTER: D(24), Slot.UNSETTLED: D(4)}

    def test_unsettled_days_before_the_period_are_nowhere(self, one: Integration) -> None:
        cover(one, [ago(9)], usd=7, state=DayState.PROVISIONAL)
        found = sums.by_integration(query(one))
        assert set(found) == {(one.id, Slot.PERIOD)}

    def test_by_day_what_is_named_and_what_is_not(self, one: Integration) -> None:
        found = sums.by_day(query(one, Period(ago(1), TODAY)), Group.MODEL, ["cheap"])
        assert {(f.day, f.name, f.settled, f.amount) for f in found} == {
            (ago(1), "cheap", True, D(2)),
            (ago(1), None, True, D(10)),
            (TODAY, None, False, D(4)),
        }

    def test_tokens_are_those_of_the_prompt_and_of_the_completion(self, one: Integration) -> None:
        cover(one, [ago(9)], usd=1, model="dear", prompt_tokens=100, completion_tokens=7)
        found = sums.by_day(query(one, Period(ago(9), ago(7))), Group.MODEL, ["dear"], Measure.TOKENS)
        assert {f.day: f.amount for f in found if f.name == "dear"} == {ago(9): D(107), ago(7): None}

    def test_filters_narrow_every_sum(self, one: Integration) -> None:
        for more, usd in (
            ({"text": "EAP"}, 4), ({"text": "dear"}, 70), ({"hosts": ("h",)}, 74), ({"hosts": ("x",)}, 0),
            ({"keys": ("bb",)}, 4), ({"integrations": (one.id,)}, 74), ({"integrations": (one.id + 1,)}, 0),
            ({"byok": True}, 81), ({"unknown": ((one.id, ago(1)),)}, 62),
        ):  # fmt: skip
            totals = sums.totals_by(query(one, **more), Group.MODEL)
            assert sum((total.usage_usd for total in totals), D(0)) == usd, more

    def test_a_part_that_is_unknown_makes_a_floor(self, one: Integration) -> None:
        found = sums.measures_by(query(one), Group.MODEL)
        assert found["dear"].prompt_tokens == Tally(700, True)
        assert found["cheap"].prompt_tokens == Tally(None, False)
        assert found["cheap"].byok_usd == Tally(None, False)
        assert (found["dear"].days, found["cheap"].days) == (7, 2)
        both = sums.added([found["dear"].prompt_tokens, found["cheap"].prompt_tokens])
        assert both == Tally(700, False)
        assert sums.added([]) == sums.tally(None, 0, 0) == Tally(0, True)
        assert sums.added([Tally(None, False)]) == Tally(None, False)
        shown = [Tally(None, False), Tally(1, True), Tally(0, True)]
        assert [one.is_worth_showing for one in shown] == [True, True, False]

    def test_a_share_is_of_a_positive_whole(self) -> None:
        assert sums.share(D(1), D(4)) == D("0.25")
        assert sums.share(D(1), D(0)) is sums.share(D(1), D(-1)) is None


class TestBreakdown:
    def test_keys_go_by_their_names_and_dear_ones_come_first(self, one: Integration) -> None:
        found = breakdown.report(query(one), Group.KEY, "usage_usd", True)
        rows = [(row.id, row.name, row.usage_usd, row.share) for row in found.rows]
        assert rows == [("aa", "Production", D(70), D(70) / 74), ("bb", "Trial", D(4), D(4) / 74)]
        assert found.totals is not None
        assert (found.totals.usage_usd, found.totals.share, found.totals.requests) == (D(74), D(1), Tally(31, True))
        assert (found.total_usd, found.found, found.left_out) == (D(74), 2, 0)

    def test_any_column_sorts_and_the_unknown_come_last(self, one: Integration) -> None:
        def order(sort: str, descending: bool) -> list[str]:
            return [row.id for row in breakdown.report(query(one), Group.MODEL, sort, descending).rows]

        assert order("usage_usd", False) == order("model", False) == order("days", False) == ["cheap", "dear"]
        assert order("model", True) == order("requests", True) == ["dear", "cheap"]
        assert order("prompt_tokens", True) == order("prompt_tokens", False) == ["dear", "cheap"]

    def test_of_more_rows_than_the_limit_the_first_are_shown_and_all_counted(self, one: Integration) -> None:
        found = breakdown.report(query(one), Group.MODEL, "usage_usd", True, limit=1)
        assert ([row.id for row in found.rows], found.found, found.left_out) == (["dear"], 2, 1)
        assert found.totals is not None
        assert found.totals.usage_usd == D(74)

    def test_without_a_settled_day_there_is_no_total(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        found = breakdown.report(query(one), Group.MODEL, "usage_usd", True)
        assert (found.total_usd, found.totals, found.rows) == (None, None, [])

    def test_what_a_row_cost_is_compared_with_before_where_both_are_complete(self, one: Integration) -> None:
        def changes(by: Group | Step = Group.MODEL, **more: Any) -> dict[str, tuple[Decimal | None, Decimal | None]]:
            found = breakdown.report(query(one), by, "usage_usd", True, **more)
            assert found.totals is not None
            return {row.id: (row.change_usd, row.change) for row in (*found.rows, found.totals)}

        unknown = (None, None)
        assert changes() == {"dear": unknown, "cheap": unknown, "": unknown}, "nothing is known of the days before"
        cover(one, Period(ago(13), ago(8)), usd=5, model="dear")
        assert changes() == {"dear": unknown, "cheap": unknown, "": unknown}, "a day is missing"
        cover(one, [ago(14)], usd=5, model="gone")
        assert changes() == {"dear": (D(40), D(40) / 30), "cheap": (D(4), None), "": (D(39), D(39) / 35)}
        assert changes(against=lambda _: None) == {"dear": unknown, "cheap": unknown, "": unknown}
        assert changes(against=lambda of: of.months_earlier(12))["dear"] == unknown
        assert changes(find="ea")["dear"] == (D(40), D(40) / 30)
        assert changes(find="ea")[""] == unknown

    def test_days_of_analytics_tell_no_hosts_to_compare_with_and_unread_days_no_keys(self, one: Integration) -> None:
        cover(one, Period(ago(14), ago(8)), usd=5, model="dear", key="aa")

        def change(by: Group) -> tuple[Decimal | None, Decimal | None]:
            found = breakdown.report(query(one), by, "usage_usd", True)
            assert found.totals is not None
            return found.rows[0].change_usd, found.totals.change_usd

        def of_key(name: str) -> Decimal | None:
            return {row.id: row for row in breakdown.report(query(one), Group.KEY, "key", True).rows}[name].change_usd

        cover(one, [ago(1)], usd=1, model="free")
        assert (change(Group.HOST), change(Group.KEY)) == ((D(40), D(40)), (None, D(40)))
        db.session.add(KeyReading(integration_id=one.id, key_hash="aa", first_day=ago(14), last_day=ago(1)))
        assert (change(Group.KEY), of_key(""), of_key("bb")) == ((D(35), D(40)), None, None)
        db.session.add(KeyReading(integration_id=one.id, key_hash="bb", first_day=ago(14), last_day=ago(1)))
        assert (change(Group.KEY), of_key(""), of_key("bb")) == ((D(35), D(40)), D(1), D(4))
        cover(one, [ago(14)], usd=None, source=Source.ANALYTICS)
        assert (change(Group.HOST), change(Group.KEY), of_key("")) == ((None, D(40)), (None, D(40)), None)
        assert change(Group.MODEL) == (D(35), D(40))

    def test_a_removed_integration_and_one_never_read_are_no_part_of_a_comparison(
        self, one: Integration, workspace: Workspace
    ) -> None:
        cover(one, Period(ago(14), ago(8)), usd=5, model="dear")
        gone = add(workspace, "gone", removed_at=NOON - timedelta(days=10))
        cover(gone, Period(ago(14), ago(12)), usd=100, model="dear")
        unread, young = add(workspace, "unread"), add(workspace, "young")
        cover(young, WEEK, usd=1, model="dear")
        found = breakdown.report(query(one), Group.INTEGRATION, "usage_usd", True)
        assert [(row.name, row.usage_usd, row.change_usd, row.requests.known) for row in found.rows] == [
            ("one", D(74), D(39), 31),
            ("young", D(7), None, None),
            ("unread", None, None, None),
        ]
        assert found.totals is not None
        assert (found.totals.usage_usd, found.totals.change_usd) == (D(81), None), "young is not complete before"
        assert found.coverage.without_data == ["unread"]
        alone = query(one, integrations=(one.id, unread.id, gone.id))
        (dear, _) = breakdown.report(alone, Group.MODEL, "usage_usd", True).rows
        assert dear.change_usd == D(35)

    def test_prices_are_of_known_counts_alone(self, one: Integration) -> None:
        cover(one, [ago(3)], usd=3, model="free", requests=0, prompt_tokens=0, completion_tokens=0)
        cover(one, [ago(3)], usd=6, model="full", requests=4, prompt_tokens=2_000_000, completion_tokens=1_000_000)
        rows = {row.id: row for row in breakdown.report(query(one), Group.MODEL, "usage_usd", True).rows}
        prices = {name: (row.usd_per_million_tokens, row.usd_per_request) for name, row in rows.items()}
        assert prices == {
            "full": (D(2), D("1.5")), "free": (None, None), "dear": (None, D(70) / 21), "cheap": (None, D(4) / 10),
        }  # fmt: skip

    def test_days_weeks_and_months_are_rows_and_what_is_unknown_is_no_zero(self, one: Integration) -> None:
        cover(one, [ago(9)], usd=None, state=DayState.NO_USAGE)
        period = Period(ago(9), TODAY)
        found = breakdown.report(query(one, period), Step.DAY, "day", False)
        assert [(row.id, row.usage_usd) for row in found.rows] == [
            (ago(9).isoformat(), D(0)),
            (ago(8).isoformat(), None),
            *((ago(n).isoformat(), D(10 if n > 2 else 12)) for n in range(7, 0, -1)),
            (TODAY.isoformat(), None),
        ]
        assert [row.coverage.provisional for row in found.rows[-2:] if row.coverage] == [0, 1]
        assert [row.days for row in found.rows[:3]] == [0, None, 1]
        assert found.rows[2].change_usd is None, "the day before it is missing"
        assert [row.change_usd for row in found.rows[-4:]] == [D(0), D(2), D(0), None][-4:]
        assert (found.total_usd, found.found) == (D(74), 10)
        weeks = breakdown.report(query(one, period), Step.WEEK, "usage_usd", True).rows
        assert [(row.id, row.usage_usd, row.days) for row in weeks] == [
            ("2026-11-16", D(44), 4),
            ("2026-11-11", D(30), 3),
        ]
        assert [(row.coverage.covered, row.coverage.asked) for row in weeks if row.coverage] == [(4, 5), (4, 5)]
        (month,) = breakdown.report(query(one, period), Step.MONTH, "month", True).rows
        assert (month.id, month.usage_usd, month.requests) == ("2026-11", D(74), Tally(31, True))

    def test_rows_are_found_by_a_part_of_their_names_and_come_in_pages(self, one: Integration) -> None:
        found = breakdown.report(query(one), Group.KEY, "usage_usd", True, find="prod")
        assert [row.name for row in found.rows] == ["Production"]
        assert found.totals is not None
        assert (found.totals.usage_usd, found.rows[0].share) == (D(70), D(70) / 74)
        second = breakdown.report(query(one), Group.KEY, "usage_usd", True, page=2, limit=1)
        assert ([row.name for row in second.rows], second.page, second.pages) == (["Trial"], 2, 2)
        assert second.totals is not None
        assert second.totals.usage_usd == D(74)
        assert breakdown.report(query(one), Group.KEY, "usage_usd", True, find="no such").rows == []

    @pytest.mark.parametrize("amount", [0, -3])
    def test_of_nothing_and_of_refunds_there_are_no_shares(self, workspace: Workspace, amount: int) -> None:
        one = add(workspace, "one")
        cover(one, Period(ago(14), ago(1)), usd=amount, requests=2)
        found = breakdown.report(query(one), Group.MODEL, "share", True)
        assert found.totals is not None
        for row in (*found.rows, found.totals):
            assert (row.usage_usd, row.share, row.change_usd, row.change) == (D(7 * amount), None, D(0), None)


class TestPivot:
    def cells(
        self, one: Integration, rows: By, columns: By, period: Period = WEEK, **more: Any
    ) -> dict[str, list[Any]]:
        """The columns' names, the amounts of each row and its total, and the columns' totals."""
        found = breakdown.report(query(one, period), rows, "usage_usd", True, columns=columns, **more)
        assert found.pivot is not None
        assert found.totals is not None
        measure, pivot = found.pivot.measure, found.pivot
        lines = {
            row.name: [*map(_said, cells), _said(total)]
            for row, cells, total in zip(found.rows, pivot.cells, pivot.row_totals, strict=True)
        }
        foot = [*map(_said, pivot.totals), _said(found.totals.amount(measure))]
        heads = [f"{column.others} others" if column.others else column.name or column.id for column in pivot.columns]
        return {"columns": heads, **lines, "total": foot}

    def test_each_pair_has_what_it_cost_and_the_totals_are_those_of_both(self, one: Integration) -> None:
        assert self.cells(one, Group.MODEL, Group.KEY) == {
            "columns": ["Production", "Trial"],
            "dear": [70, None, 70],
            "cheap": [None, 4, 4],
            "total": [70, 4, 74],
        }
        assert self.cells(one, Group.HOST, Group.INTEGRATION) == {"columns": ["one"], "h": [74, 74], "total": [74, 74]}
        assert self.cells(one, Group.MODEL, Group.HOST, measure=Measure.REQUESTS) == {
            "columns": ["h"], "dear": [21, 21], "cheap": [10, 10], "total": [31, 31],
        }  # fmt: skip

    def test_unknown_tokens_are_no_zeros(self, one: Integration) -> None:
        assert self.cells(one, Group.MODEL, Group.HOST, measure=Measure.TOKENS) == {
            "columns": ["h"], "dear": ["≥700", "≥700"], "cheap": ["?", "?"], "total": ["≥700", "≥700"],
        }  # fmt: skip

    @pytest.mark.parametrize("rows", [Group.MODEL, Group.INTEGRATION])
    def test_days_without_usage_are_empty_and_days_that_are_unknown_are_not(
        self, one: Integration, rows: Group
    ) -> None:
        cover(one, [ago(9)], usd=None, state=DayState.NO_USAGE)
        found = self.cells(one, rows, Step.DAY, Period(ago(9), TODAY))
        first = "dear" if rows == Group.MODEL else "one"
        assert found["columns"] == [day.isoformat() for day in Period(ago(9), TODAY)]
        ends = [12, 12] if rows == Group.INTEGRATION else [10, 10]
        assert found[first] == [None, "?", 10, 10, 10, 10, 10, *ends, "?", sum(ends) + 50]
        assert found["total"] == [0, "?", 10, 10, 10, 10, 10, 12, 12, "?", 74]
        if rows == Group.MODEL:
            assert found["cheap"] == [None, "?", *[None] * 5, 2, 2, "?", 4]

    def test_hosts_and_keys_are_unknown_on_days_that_do_not_tell_them(self, one: Integration) -> None:
        cover(one, [ago(8)], usd=None, source=Source.ANALYTICS, state=DayState.FINAL)
        put(one, BilledLine(ago(8), "dear", "", "", "dear", D(6)))
        cover(one, [ago(9)], usd=None, source=Source.ANALYTICS, state=DayState.NO_USAGE)
        without_usage = self.cells(one, Group.HOST, Step.DAY, Period(ago(9), ago(7)))
        assert (without_usage["h"], without_usage[""]) == ([None, "?", 10, "≥10"], [None, 6, None, 6])
        db.session.add(KeyReading(integration_id=one.id, key_hash="aa", first_day=ago(7), last_day=ago(1)))
        days = Period(ago(8), ago(1))
        assert self.cells(one, Group.HOST, Step.DAY, days) == {
            "columns": [day.isoformat() for day in days],
            "h": ["?", 10, 10, 10, 10, 10, 12, 12, "≥74"],
            "": [6, *[None] * 7, 6],
            "total": [6, 10, 10, 10, 10, 10, 12, 12, 80],
        }
        by_month = self.cells(one, Step.MONTH, Group.HOST, days)
        assert (by_month["2026-11"], by_month["total"]) == (["≥74", 6, 80], ["≥74", 6, 80])
        by_week = self.cells(one, Step.WEEK, Group.HOST, days, limit=1)
        assert (by_week["2026-11-16"], by_week["total"]) == ([44, None, 44], ["≥74", 6, 80]), "of all pages"
        keys = self.cells(one, Group.KEY, Step.WEEK, days)
        assert keys["columns"] == ["2026-11-12", "2026-11-16"]
        assert keys["Production"] == ["≥30", 40, "≥70"]
        assert keys["Trial"] == ["?", "≥4", "≥4"]
        assert keys["Unattributed"] == [6, None, 6]

    def test_an_integration_that_was_never_read_is_unknown_beside_a_complete_one(
        self, one: Integration, workspace: Workspace
    ) -> None:
        add(workspace, "unread")
        cover(add(workspace, "idle"), [ago(1)], usd=None, state=DayState.NO_USAGE)
        found = self.cells(one, Group.INTEGRATION, Step.DAY, Period(ago(2), ago(1)))
        assert found == {
            "columns": [ago(2).isoformat(), ago(1).isoformat()],
            "one": [12, 12, 24],
            "idle": ["?", None, 0],
            "unread": ["?", "?", "?"],
            "total": [12, 12, 24],
        }

    def test_of_more_columns_than_there_is_room_for_the_others_are_one(
        self, one: Integration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pivot, "MOST_COLUMNS", 2)
        cover(one, [ago(1)], usd=1, model="third")
        assert self.cells(one, Group.HOST, Group.MODEL) == {
            "columns": ["dear", "2 others"], "h": [70, 5, 75], "total": [70, 5, 75],
        }  # fmt: skip
        found = breakdown.report(query(one), Group.MODEL, "usage_usd", True, columns=Step.DAY)
        assert (found.pivot, found.too_many) == (None, 7)

    @pytest.mark.parametrize("columns", [Group.KEY, Step.WEEK])
    def test_totals_are_of_all_rows_that_were_found_on_whatever_page(self, one: Integration, columns: By) -> None:
        cover(one, [ago(1)], usd=1, model="third")
        whole = self.cells(one, Group.MODEL, columns)
        assert len(whole) == 5
        for page in (1, 2, 3):
            part = self.cells(one, Group.MODEL, columns, limit=1, page=page)
            assert len(part) == 3
            assert part.items() <= whole.items()
        found = self.cells(one, Group.MODEL, columns, limit=1, find="e")
        assert found == {
            "columns": whole["columns"],
            "dear": whole["dear"],
            "total": [(a or 0) + (b or 0) for a, b in zip(whole["dear"], whole["cheap"], strict=True)],
        }
        by_day = self.cells(one, Step.DAY, columns, limit=1, find="-1", page=2)
        at_least = [70, "≥4", 1, 75] if columns == Group.KEY else whole["total"]
        assert by_day["total"] == at_least, "Trial was not read on the days on which it has no lines"

    def test_days_can_be_both(self, one: Integration) -> None:
        found = self.cells(one, Step.WEEK, Step.DAY)
        assert found["columns"] == [day.isoformat() for day in WEEK]
        assert found["2026-11-13"] == [10, 10, 10, None, None, None, None, 30]
        assert found["2026-11-16"] == [None, None, None, 10, 10, 12, 12, 44]


def _said(cell: Tally | None) -> Any:
    """An amount; None for an empty cell, “?” for what is unknown, and “≥” before what is known of it."""
    if cell is None or cell.complete:
        return None if cell is None else cell.known
    return "?" if cell.known is None else f"≥{plain(cell.known)}"


class TestStatement:
    def test_a_month_adds_up(self, one: Integration) -> None:
        month = Period.month(TODAY)
        found = statement.report(query(one, month))
        assert (found.closed, found.total_usd) == (False, D(74))
        assert [(row.id, row.usage_usd) for row in found.models] == [("dear", D(70)), ("cheap", D(4))]
        assert [(row.name, row.usage_usd) for row in found.keys.rows] == [("Production", D(70)), ("Trial", D(4))]
        assert found.byok_usd == Tally(D(7), False)
        assert found.totals is not None
        assert found.totals.requests == Tally(31, True)
        days = {day.day: day for day in found.days}
        assert (days[ago(1)].usage_usd, days[ago(1)].requests) == (D(12), Tally(8, True))
        assert (days[ago(9)].usage_usd, days[ago(9)].to_come, days[ago(9)].byok_usd) == (
            None,
            False,
            Tally(None, False),
        )
        assert (days[TODAY].state, days[TODAY].to_come, days[TODAY].usage_usd) == (DayState.PROVISIONAL, False, None)
        assert days[TODAY + timedelta(days=1)].to_come
        (so_far,) = found.provisional
        assert (so_far.days, so_far.usage_usd, so_far.removed) == ([TODAY], D(4), False)
        assert (found.decimals, found.byok_decimals, found.restated_decimals) == (2, 2, 2)

    def test_a_month_is_closed_when_its_last_day_is_due(self, one: Integration) -> None:
        last = Period.month(TODAY).last
        for hour, closed in ((5, False), (6, True)):
            with at(NOON.replace(day=last.day, hour=hour) + timedelta(days=1)):
                assert statement.report(query(one, Period.month(last))).closed == closed

    def test_a_day_without_usage_is_a_known_zero(self, one: Integration) -> None:
        cover(one, [ago(8)], usd=None, state=DayState.NO_USAGE)
        day = next(day for day in statement.report(query(one, Period.month(TODAY))).days if day.day == ago(8))
        assert (day.usage_usd, day.requests, day.byok_usd) == (D(0), Tally(0, True), Tally(0, True))


class TestCredits:
    def read(
        self, one: Integration, at_: datetime, lifetime: int, today: int | None = 1, bought: int | None = None
    ) -> None:
        today_usd, bought_usd = (None if usd is None else D(usd) for usd in (today, bought))
        usd = {"lifetime_usd": D(lifetime), "today_usd": today_usd, "bought_usd": bought_usd}
        db.session.add(CreditReading(integration_id=one.id, read_at=at_, **usd))
        db.session.flush()

    def of(self, one: Integration, month: int) -> tuple[Any, ...]:
        (found,) = statement.report(query(one, Period.month(date(2026, month, 1)))).credits
        ends = [None if end is None else (end.usd, end.at) for end in (found.opening, found.closing)]
        return (*ends, found.used_usd)

    def test_a_month_opens_and_closes_with_what_was_used_when_its_first_and_last_day_began(
        self, one: Integration
    ) -> None:
        for day, lifetime in ((1, 101), (1, 104), (15, 150), (31, 180)):
            self.read(one, datetime(2026, 10, day, 6 + lifetime % 10, tzinfo=UTC), lifetime)
        self.read(one, datetime(2026, 11, 1, 6, tzinfo=UTC), 191, 2)
        self.read(one, datetime(2026, 11, 1, 18, tzinfo=UTC), 195, 6)
        self.read(one, datetime(2026, 11, 2, 6, tzinfo=UTC), 250, 0)
        october = (D(100), datetime(2026, 10, 1, tzinfo=UTC)), (D(189), datetime(2026, 11, 1, tzinfo=UTC)), D(89)
        assert self.of(one, 10) == october
        (found,) = statement.report(query(one, Period.month(date(2026, 10, 1)))).credits
        assert found.first_read_at is None, "nothing has to be explained"
        november = (D(189), datetime(2026, 11, 1, tzinfo=UTC)), (D(250), datetime(2026, 11, 2, 6, tzinfo=UTC)), D(61)
        assert self.of(one, 11) == november, "it goes on: closed at its last reading"

    def test_what_was_bought_and_is_left_adds_up_with_what_was_used(self, one: Integration) -> None:
        self.read(one, datetime(2026, 10, 1, 6, tzinfo=UTC), 101, bought=300)
        self.read(one, datetime(2026, 10, 15, 6, tzinfo=UTC), 150, bought=350)
        self.read(one, datetime(2026, 11, 1, 6, tzinfo=UTC), 191, 2, bought=350)
        (found,) = statement.report(query(one, Period.month(date(2026, 10, 1)))).credits
        assert (found.used_usd, found.bought_usd, found.left_usd) == (D(89), D(50), D(161))
        assert found.opening is not None
        assert found.opening.bought_usd == 300
        assert found.left_usd == D(300) - found.opening.usd + found.bought_usd - found.used_usd

    @pytest.mark.parametrize(("first", "last", "left"), [(None, 350, 150), (300, None, None), (None, None, None)])
    def test_credits_bought_at_an_unknown_time_are_unknown(
        self, one: Integration, first: int | None, last: int | None, left: int | None
    ) -> None:
        self.read(one, datetime(2026, 10, 1, 6, tzinfo=UTC), 101, bought=first)
        self.read(one, datetime(2026, 10, 15, 6, tzinfo=UTC), 200, bought=last)
        (found,) = statement.report(query(one, Period.month(date(2026, 10, 1)))).credits
        assert (found.used_usd, found.bought_usd, found.left_usd) == (D(100), None, left)

    def test_what_cannot_be_said_is_not(self, one: Integration) -> None:
        assert self.of(one, 10) == (None, None, None)
        first = datetime(2026, 11, 1, 6, tzinfo=UTC)
        self.read(one, first, 100, None)
        assert self.of(one, 10) == (None, (D(100), first), None), "of its own day nothing is known"
        assert self.of(one, 11) == ((D(100), first), None, None), "one reading alone"
        (found,) = statement.report(query(one, Period.month(date(2026, 10, 1)))).credits
        assert found.first_read_at == first


class TestDay:
    def test_it_has_its_lines_and_keys_and_its_second_count(self, one: Integration) -> None:
        check(one, [ago(1)], usd=12)
        page = integration_day.report(one, ago(1))
        assert (page.state, page.source, page.usage_usd) == (DayState.FINAL, Source.ACTIVITY, D(12))
        assert [line.model for line in page.lines] == ["dear", "cheap"]
        assert (page.found, page.lines_left_out, page.changes, page.changes_left_out) == (2, 0, [], 0)
        assert [(row.name, row.usage_usd) for row in page.by_key.rows] == [("Production", D(10)), ("Trial", D(2))]
        assert page.byok_usd == Tally(D(1), False)
        assert page.check is not None
        assert (page.check.agrees, page.check.analytics_usd) == (True, D(12))
        assert page.unchanged_since == NOON
        assert (page.decimals, page.byok_decimals, page.changed_decimals) == (2, 2, 2)

    def test_what_is_not_settled_or_from_analytics_has_no_second_count(self, one: Integration) -> None:
        cover(one, [ago(9)], source=Source.ANALYTICS)
        check(one, [TODAY, ago(9)])
        assert integration_day.report(one, TODAY).check is None
        assert integration_day.report(one, ago(9)).check is None
        assert integration_day.report(one, ago(1)).check is None, "analytics was not asked"

    def test_a_missing_day_has_no_amount(self, one: Integration) -> None:
        page = integration_day.report(one, ago(20))
        assert (page.state, page.source, page.usage_usd, page.unchanged_since) == (DayState.MISSING, None, None, None)


class TestDashboard:
    def test_series_are_named_by_what_they_cost_and_the_rest_is_one(
        self, one: Integration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chart, "MOST_SERIES", 1)
        found = dashboard.report(query(one))
        assert [(s.name, s.colour, s.is_rest) for s in found.chart.series] == [
            ("dear", "1", False),
            ("All others", "other", True),
        ]
        assert [(d.day, d.by_series) for d in found.days[-3:]] == [
            (ago(2), [D(10), D(2)]),
            (ago(1), [D(10), D(2)]),
            (TODAY, [D(4), D(0)]),
        ]
        assert (found.chart.colour_of("dear"), found.chart.colour_of("cheap")) == ("1", "other")
        assert found.top is not None
        assert (found.top.name, found.top.share) == ("dear", D(70) / 74)
        assert found.chart.has_amounts
        assert found.chart.shows(DayState.PROVISIONAL)
        assert not found.chart.shows(DayState.MISSING)

    def test_without_a_rest_there_is_no_column_for_it(self, one: Integration) -> None:
        assert [s.name for s in dashboard.report(query(one)).chart.series] == ["dear", "cheap"]
        assert not dashboard.report(query(one, Period(ago(30), ago(20)))).chart.has_amounts

    def test_tokens_that_are_unknown_are_shown_as_such(self, one: Integration) -> None:
        found = dashboard.report(query(one), measure=Measure.TOKENS).chart
        assert found.has_amounts
        assert found.has_unknown
        assert [bar.total for bar in found.bars][-4:-1] == [None, None, None]
        assert not dashboard.report(query(one), measure=Measure.REQUESTS).chart.has_unknown

    def test_after_a_period_of_the_past_there_are_no_days(self, one: Integration) -> None:
        found = dashboard.report(query(one, Period(ago(5), ago(3))))
        assert [day.day for day in found.days] == [ago(5), ago(4), ago(3)]
        assert (found.provisional, found.settled_since) == ([], [])


class TestRunningTotal:
    def test_each_day_has_what_was_billed_by_then_beside_the_period_before(self, one: Integration) -> None:
        cover(one, Period(ago(14), ago(8)), usd=5)
        running = dashboard.report(query(one), cumulative=True).running
        assert running is not None
        assert [(d.bar.day, d.total, d.before) for d in running.days if d.bar] == [
            (ago(7), D(10), D(5)),
            (ago(6), D(20), D(10)),
            (ago(5), D(30), D(15)),
            (ago(4), D(40), D(20)),
            (ago(3), D(50), D(25)),
            (ago(2), D(62), D(30)),
            (ago(1), D(74), D(35)),
        ]
        assert (running.ends, running.before_ends) == (None, None)

    def test_a_day_that_is_not_known_ends_it_and_one_without_usage_does_not(self, one: Integration) -> None:
        cover(one, [ago(14), ago(12)], usd=5)
        cover(one, [ago(13)], usd=None, state=DayState.NO_USAGE)
        running = dashboard.report(query(one, Period(ago(7), TODAY)), cumulative=True).running
        assert running is not None
        assert [d.before for d in running.days] == [None] * 8, "15 days ago is missing"
        assert running.before_ends == ago(15)
        assert [d.total for d in running.days][-2:] == [D(74), None], "today may still grow"
        assert running.ends == TODAY
        week = dashboard.report(query(one), against=lambda _: Period(ago(14), ago(10)), cumulative=True).running
        assert week is not None
        assert [d.before for d in week.days] == [D(5), D(5), D(10), None, None, None, None]
        assert week.before_ends == ago(11)

    def test_the_longer_period_goes_on_alone(self, one: Integration) -> None:
        cover(one, Period(ago(20), ago(8)), usd=5)
        running = dashboard.report(query(one), against=lambda _: Period(ago(16), ago(8)), cumulative=True).running
        assert running is not None
        assert [(d.bar is None, d.total, d.before) for d in running.days][-3:] == [
            (False, D(74), D(35)),
            (True, None, D(40)),
            (True, None, D(45)),
        ]
        alone = dashboard.report(query(one), against=lambda _: None, cumulative=True).running
        assert alone is not None
        assert [d.before for d in alone.days] == [None] * 7

    def test_it_is_of_what_is_measured_and_ends_where_a_part_is_unknown(self, one: Integration) -> None:
        cover(one, Period(ago(14), ago(8)), usd=5, requests=2, prompt_tokens=10, completion_tokens=1)
        for measure, total, before in ((Measure.REQUESTS, D(6), D(4)), (Measure.TOKENS, None, D(22))):
            running = dashboard.report(query(one), measure=measure, cumulative=True).running
            assert running is not None
            assert (running.days[1].total, running.days[1].before) == (total, before), measure

    def test_it_is_of_what_is_filtered_by(self, one: Integration) -> None:
        cover(one, Period(ago(14), ago(8)), usd=5)
        running = dashboard.report(query(one, models=("cheap",)), cumulative=True).running
        assert running is not None
        assert (running.days[-1].total, running.days[-1].before) == (D(4), D(0))

    def test_of_more_than_a_year_there_is_none_and_unasked_neither(self, one: Integration) -> None:
        assert dashboard.report(query(one, Period(ago(366), TODAY)), cumulative=True).running is None
        assert dashboard.report(query(one)).running is None


class TestAroundThePeriod:
    def test_byok_is_that_of_the_period(self, one: Integration) -> None:
        cover(one, [ago(8)], usd=1, byok_usd=D(100))
        assert dashboard.report(query(one)).byok_usd == Tally(D(7), False)

    def test_a_removed_integration_is_said_to_be(self, one: Integration, workspace: Workspace) -> None:
        gone = add(workspace, "gone", removed_at=NOON)
        cover(gone, WEEK)
        found = dashboard.report(query(one))
        assert {p.label: p.removed for p in found.providers} == {"one": False, "gone": True}
        assert {c.label: c.removed for c in found.filters.integrations} == {"one": False, "gone": True}

    def test_an_integration_with_days_and_no_lines_had_nothing_and_one_without_days_is_unknown(
        self, one: Integration, workspace: Workspace
    ) -> None:
        cover(add(workspace, "idle"), WEEK, usd=None, state=DayState.NO_USAGE)
        add(workspace, "unread")
        found = {p.label: p for p in dashboard.report(query(one)).providers}
        idle, unread = found["idle"], found["unread"]
        assert (idle.usage_usd, idle.byok_usd, idle.requests) == (D(0), Tally(D(0), True), Tally(D(0), True))
        assert (unread.usage_usd, unread.byok_usd.known, unread.requests) == (None, None, Tally(None, False))

    def test_a_day_that_is_not_settled_is_not_compared_with_analytics(self, one: Integration) -> None:
        cover(one, [ago(9)], state=DayState.PROVISIONAL)
        check(one, [ago(9), ago(7)])
        assert integration_day.report(one, ago(9)).check is None
        assert integration_day.report(one, ago(7)).check is not None

    def test_without_a_line_of_a_host_nothing_is_known_of_a_day_from_analytics(self, one: Integration) -> None:
        cover(one, [ago(9)], source=Source.ANALYTICS)
        period = Period(ago(9), ago(1))
        known = coverage.load(query(one, period, keys=(UNATTRIBUTED,)), all_integrations(one.workspace_id), Group.HOST)
        assert not known.knows_part(ago(9), Group.HOST, "x")
        assert known.knows_part(ago(9), Group.MODEL, "x")

    def test_of_what_is_to_come_today_is_no_part(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        found = statement.report(query(one, Period.month(TODAY)))
        assert [day.to_come for day in found.days if abs((day.day - TODAY).days) <= 1] == [False, False, True]


def test_the_ledger_has_every_line_with_its_state(one: Integration) -> None:
    rows = list(ledger.rows(query(one, Period(ago(1), TODAY))))
    assert [(row[0], row[2], row[6], row[-1]) for row in rows] == [
        (ago(1), "cheap", D(2), "final"),
        (ago(1), "dear", D(10), "final"),
        (TODAY, "dear", D(4), "provisional"),
    ]


class TestRestatements:
    def restate(self, one: Integration, run: SyncRun, days_ago: int, before: int | None, after: int | None) -> int:
        def line(usd: int | None) -> str | None:
            return None if usd is None else json.dumps({"model": "dear"})

        row = Restatement(
            integration_id=one.id, run_id=run.id, changed_at=NOON, day=ago(days_ago), permaslug="p", endpoint_id="",
            host="h", usage_before_usd=None if before is None else D(before),
            usage_after_usd=None if after is None else D(after), before=line(before), after=line(after),
        )  # fmt: skip
        db.session.add(row)
        one.last_restated_at = NOON
        db.session.flush()
        return row.id

    def test_they_are_counted_by_day_and_seen_by_user(self, one: Integration, monkeypatch: pytest.MonkeyPatch) -> None:
        runs = [SyncRun(integration_id=one.id, trigger=Trigger.MANUAL, status="done") for _ in range(2)]
        user, other = (
            User(workspace_id=one.workspace_id, email=name, password="x", active=True, fs_uniquifier=name)
            for name in ("a", "b")
        )
        db.session.add_all([*runs, user, other])
        db.session.flush()
        self.restate(one, runs[0], 3, 5, 8)
        self.restate(one, runs[0], 3, None, 2)
        self.restate(one, runs[1], 2, 4, None)
        db.session.commit()
        found = restatements.restated_days([one.id], None)
        assert [(f.day, f.lines, f.before_usd, f.after_usd, f.change_usd) for f in found] == [
            (ago(2), 1, D(4), D(0), D(-4)),
            (ago(3), 2, D(5), D(10), D(5)),
        ]
        assert [f.day for f in restatements.restated_days([one.id], 1)] == [ago(2)]
        assert [f.day for f in restatements.restated_days([one.id], None, Period(ago(3), ago(3)))] == [ago(3)]
        changes, number = restatements.changes_of_day(one.id, ago(3), 1)
        assert (number, [(c.model, c.change_usd, c.before) for c in changes]) == (2, [("dear", D(2), None)])
        workspace_id, user_id, other_id = one.workspace_id, user.id, other.id
        (unseen,) = restatements.with_unseen(user_id, workspace_id)[1]
        assert (unseen.integration_id, unseen.label, unseen.days) == (one.id, "one", 2)
        assert unseen.change_usd == D(1)
        restatements.mark_restatements_seen(user_id, one.id)
        restatements.mark_restatements_seen(user_id, one.id)
        assert restatements.with_unseen(user_id, workspace_id)[1] == []
        assert len(restatements.with_unseen(other_id, workspace_id)[1]) == 1, "each user looks for themselves"
        self.restate(one, runs[1], 1, 1, 3)
        db.session.commit()
        (unseen,) = restatements.with_unseen(user_id, workspace_id)[1]
        assert (unseen.days, unseen.change_usd) == (1, D(2))
        assert len(integration_day.report(one, ago(3)).changes) == 2
        monkeypatch.setattr(integration_day, "MOST_ROWS", 1)
        page = integration_day.report(one, ago(3))
        assert (len(page.changes), page.changes_found, page.changes_left_out) == (1, 2, 1)
        page = integration_day.report(one, ago(2))
        assert (len(page.lines), page.found, page.lines_left_out) == (1, 2, 1)

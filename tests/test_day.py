"""One UTC day over all integrations, on lines that are few enough to add up by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest
from flask import Flask

from grafient.days import Period
from grafient.extensions import db
from grafient.models import Integration, KeyReading, Workspace
from grafient.providers import BilledLine
from grafient.query import Query, all_integrations
from grafient.reports import day as days
from grafient.reports import headline, parts
from grafient.reports.day import Day
from grafient.states import DayState, Source
from tests.statements import asked, scanned
from tests.stored import TODAY, add, ago, cover, put, restate
from tests.syncing import NOON, at


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


def page(workspace: Workspace, day: date, **filters: object) -> Day:
    return days.report(replace(Query(workspace.id, Period(day, day)), **filters))  # type: ignore[arg-type]


def line(
    days_ago: int, model: str, usd: str, host: str = "h", endpoint_id: str = "e", permaslug: str = ""
) -> BilledLine:
    return BilledLine(ago(days_ago), permaslug or model, endpoint_id, host, model, Decimal(usd))


def amounts(found: parts.Parts) -> dict[str, Decimal]:
    return {row.id: row.usage_usd for row in found.rows}


class TestWhatItIsMadeOf:
    def test_models_keys_hosts_and_integrations_each_add_up_to_the_total(self, workspace: Workspace) -> None:
        one, two = add(workspace, "one"), add(workspace, "two")
        for integration in (one, two):
            cover(integration, [ago(1)], usd=None)
        put(one, line(1, "a", "3", "x"), line(1, "b", "4", "y"), key="k")
        put(one, line(1, "a", "1", "x", endpoint_id="other"))
        put(two, line(1, "a", "2", "x"))
        found = page(workspace, ago(1))
        assert found.total_usd == 10
        assert amounts(found.models) == {"a": 6, "b": 4}
        assert amounts(found.keys) == {"k": 7, "": 3}
        assert amounts(found.hosts) == {"x": 6, "y": 4}
        assert [(row.label, row.usage_usd) for row in found.integrations] == [("one", 8), ("two", 2)]
        assert [row.share for row in found.models.rows] == [Decimal("0.6"), Decimal("0.4")]

    def test_two_endpoints_of_a_model_are_one_row(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1)], usd=None)
        put(one, line(1, "a", "3"), line(1, "a", "1", endpoint_id="f", permaslug="a-20260101"))
        (row,) = page(workspace, ago(1)).models.rows
        assert (row.id, row.usage_usd) == ("a", 4)

    def test_past_the_limit_the_others_are_one_amount(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1)], usd=None)
        put(one, *(line(1, f"m{number:02}", str(number)) for number in range(1, 61)))
        found = page(workspace, ago(1)).models
        assert len(found.rows) == 50
        assert (found.others, found.others_usd, found.found) == (10, sum(range(1, 11)), 60)

    def test_what_has_no_name_is_listed_however_little_it_is(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1)], usd=None)
        put(one, *(line(1, "m", str(number), host=f"h{number:02}") for number in range(1, 61)), line(1, "m", "0", ""))
        found = page(workspace, ago(1)).hosts
        assert (found.has_unnamed, len(found.rows), found.others) == (True, 51, 10)

    def test_other_workspaces_and_other_integrations_are_left_out(self, workspace: Workspace) -> None:
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.flush()
        one, two = add(workspace, "one"), add(workspace, "two")
        cover(add(other, "other"), [ago(1)], usd=100, key="theirs")
        cover(one, [ago(1)], usd=5)
        cover(two, [ago(1)], usd=7)
        assert page(workspace, ago(1)).total_usd == 12
        found = page(workspace, ago(1), integrations=(two.id,))
        assert (found.total_usd, [row.label for row in found.integrations]) == (7, ["two"])
        assert amounts(found.keys) == {"": 7}

    def test_filters_narrow_it(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1)], usd=None)
        put(one, line(1, "a", "3", "x"), line(1, "b", "4", "y"), key="k")
        put(one, line(1, "c", "5", "x"))
        db.session.add(KeyReading(integration_id=one.id, key_hash="k", first_day=ago(30), last_day=ago(1)))
        db.session.flush()
        assert page(workspace, ago(1), models=("a", "c")).total_usd == 8
        assert page(workspace, ago(1), hosts=("x",)).total_usd == 8
        assert page(workspace, ago(1), keys=("k",)).total_usd == 7
        assert page(workspace, ago(1), models=("a",), hosts=("y",)).total_usd == 0


class TestStates:
    def test_a_day_that_nobody_read_is_unknown_and_not_zero(self, workspace: Workspace) -> None:
        cover(add(workspace, "one"), [ago(3)])
        found = page(workspace, ago(2))
        assert (found.state, found.total_usd, found.to_come) == (DayState.MISSING, None, False)
        assert [row.usage_usd for row in found.integrations] == [None]
        assert found.difference is None
        assert found.usual is None

    def test_a_day_without_usage_is_a_known_zero(self, workspace: Workspace) -> None:
        cover(add(workspace, "one"), [ago(1)], usd=None, state=DayState.NO_USAGE)
        found = page(workspace, ago(1))
        assert (found.state, found.total_usd, found.models.rows) == (DayState.NO_USAGE, 0, [])

    def test_a_day_in_the_future_is_to_come(self, workspace: Workspace) -> None:
        add(workspace, "one")
        found = page(workspace, TODAY + timedelta(days=1))
        assert (found.to_come, found.total_usd) == (True, None)
        assert not page(workspace, TODAY).to_come

    def test_a_provisional_day_is_what_is_known_so_far(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1)], usd=10)
        cover(one, [TODAY], usd=4, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        found = page(workspace, TODAY)
        assert (found.state, found.total_usd, found.read_at) == (DayState.PROVISIONAL, 4, NOON)
        assert (found.difference, found.usual) == (None, None)

    def test_an_integration_that_misses_the_day_is_named_and_in_no_total(self, workspace: Workspace) -> None:
        one, two = add(workspace, "one"), add(workspace, "two")
        cover(one, [ago(2), ago(1)], usd=5)
        cover(two, [ago(2)], usd=7)
        found = page(workspace, ago(1))
        assert (found.state, found.total_usd) == (DayState.PARTIAL, 5)
        assert found.coverage.without_data == ["two"]
        assert (found.coverage.counted, found.coverage.integrations) == (1, 2)
        assert [(row.label, row.usage_usd) for row in found.integrations] == [("two", None), ("one", 5)]

    def test_also_one_that_was_never_read(self, workspace: Workspace) -> None:
        cover(add(workspace, "one"), [ago(1)], usd=5)
        add(workspace, "never")
        found = page(workspace, ago(1))
        assert (found.state, found.total_usd, found.coverage.without_data) == (DayState.PARTIAL, 5, ["never"])

    def test_what_a_removed_integration_had_read_of_its_last_day_is_shown_and_not_counted(
        self, workspace: Workspace
    ) -> None:
        one = add(workspace, "one")
        gone = add(workspace, "gone", removed_at=NOON - timedelta(days=1))
        cover(one, [ago(1)], usd=5)
        cover(gone, [ago(1)], usd=3, state=DayState.PROVISIONAL)
        found = page(workspace, ago(1))
        assert (found.state, found.total_usd) == (DayState.FINAL, 5)
        assert amounts(found.models) == {"m": 5}
        assert [(row.label, row.usage_usd, row.counted) for row in found.integrations] == [
            ("one", 5, True),
            ("gone", 3, False),
        ]

    def test_days_of_analytics_do_not_tell_hosts(self, workspace: Workspace) -> None:
        cover(add(workspace, "one"), [ago(40)], usd=5, source=Source.ANALYTICS)
        assert page(workspace, ago(40)).total_usd == 5
        found = page(workspace, ago(40), hosts=("h",))
        assert (found.state, found.total_usd) == (DayState.MISSING, None)


class TestDifference:
    def test_the_models_that_changed_most_come_first(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(2), ago(1)], usd=None)
        put(one, line(2, "a", "10"), line(2, "b", "5"), line(2, "same", "1"))
        put(one, line(1, "a", "12"), line(1, "c", "8"), line(1, "same", "1"))
        found = page(workspace, ago(1)).difference
        assert found is not None
        assert (found.before_usd, found.after_usd, found.change_usd) == (16, 21, 5)
        assert found.fraction == Decimal(5) / 16
        assert [(row.id, row.before_usd, row.after_usd) for row in found.by_model.drivers] == [
            ("c", 0, 8),
            ("b", 5, 0),
            ("a", 10, 12),
        ]

    def test_only_integrations_that_are_complete_on_both_days_are_compared(self, workspace: Workspace) -> None:
        one, two = add(workspace, "one"), add(workspace, "two")
        cover(one, [ago(2), ago(1)], usd=5)
        cover(two, [ago(1)], usd=100)
        found = page(workspace, ago(1))
        assert found.total_usd == 105
        assert found.difference is not None
        assert (found.difference.change_usd, found.compared, found.coverage.integrations) == (0, 1, 2)
        assert found.difference.by_model.drivers == []

    def test_of_nothing_there_is_no_percentage(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(2)], usd=None, state=DayState.NO_USAGE)
        cover(one, [ago(1)], usd=5)
        found = page(workspace, ago(1)).difference
        assert found is not None
        assert (found.change_usd, found.fraction) == (5, None)


class TestUsual:
    def test_it_is_what_the_weekday_cost_in_the_weeks_before(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        for weeks, usd in enumerate((50, 10, 11, 12, 13), 0):
            cover(one, [ago(1 + 7 * weeks)], usd=usd)
        cover(one, [ago(2), ago(3)], usd=1000)
        found = page(workspace, ago(1))
        assert found.usual is not None
        assert (found.usual.low, found.usual.high, found.usual.days) == (11, 12, 4)
        assert found.against_usual == "above"

    def test_days_without_usage_count_and_missing_days_do_not(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1), ago(8), ago(15), ago(22)], usd=10)
        assert page(workspace, ago(1)).usual is None
        cover(one, [ago(29)], usd=None, state=DayState.NO_USAGE)
        found = page(workspace, ago(1)).usual
        assert found is not None
        assert found.days == 4

    def test_of_a_day_that_may_still_grow_nothing_is_usual(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [TODAY - timedelta(weeks=weeks) for weeks in range(1, 9)], usd=10)
        cover(one, [TODAY], usd=4, state=DayState.PROVISIONAL)
        assert page(workspace, TODAY).usual is None

    def test_what_no_total_counts_is_not_usual_either(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        gone = add(workspace, "gone", removed_at=NOON - timedelta(days=8))
        cover(one, [ago(1 + 7 * weeks) for weeks in range(6)], usd=10)
        cover(gone, [ago(8)], usd=500, state=DayState.PROVISIONAL)
        cover(gone, [ago(15)], usd=500, state=DayState.PROVISIONAL)
        found = page(workspace, ago(1)).usual
        assert found is not None
        assert (found.low, found.high) == (10, 10)

    def test_one_with_too_little_history_is_left_out_as_on_the_dashboard(self, workspace: Workspace) -> None:
        one, two = add(workspace, "one"), add(workspace, "two")
        weeks = [ago(1 + 7 * number) for number in range(9)]
        cover(one, weeks, usd=10)
        cover(two, weeks[:4], usd=90)
        day = page(workspace, ago(1))
        assert day.usual is not None
        assert (day.usual.low, day.usual.high, day.usual_usd, day.usual_of, day.against_usual) == (
            10,
            10,
            10,
            1,
            "within",
        )
        assert day.total_usd == 100
        said = headline.report(Query(workspace.id, Period(ago(30), ago(1))), all_integrations(workspace.id))
        assert said is not None
        assert (said.usual, said.usual_usd, said.compared) == (day.usual, day.usual_usd, day.usual_of)
        cover(two, weeks[4:6], usd=90)
        found = page(workspace, ago(1)).usual
        assert found is not None
        assert (found.low, found.days) == (100, 5)


class TestRestated:
    def changed(self, one: Integration, day: date, hours: int, before: str, after: str) -> None:
        restate(one, day, NOON + timedelta(hours=hours), before, after)

    def test_the_whole_day_is_told_before_and_after_each_sync(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1)], usd=None, state=DayState.RESTATED)
        put(one, line(1, "m", "42.65"), line(1, "n", "30"))
        self.changed(one, ago(1), 1, "1.00", "1.15")
        self.changed(one, ago(1), 2, "1.15", "42.65")
        found = page(workspace, ago(1))
        assert [(row.before_usd, row.after_usd) for row in found.restated] == [
            (Decimal("31.15"), Decimal("72.65")),
            (Decimal("31.00"), Decimal("31.15")),
        ]
        assert [row.changed_at for row in found.restated] == [NOON + timedelta(hours=2), NOON + timedelta(hours=1)]
        narrowed = page(workspace, ago(1), models=("n",))
        assert narrowed.total_usd == 30
        assert [row.after_usd for row in narrowed.restated][:1] == [Decimal("72.65")], "the whole day's all the same"

    def test_another_day_was_not(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1), ago(2)], state=DayState.RESTATED)
        self.changed(one, ago(2), 1, "5", "10")
        assert page(workspace, ago(1)).restated == []
        assert len(page(workspace, ago(2)).restated) == 1


def test_a_day_takes_few_statements_and_scans_nothing(app: Flask, workspace: Workspace) -> None:
    for number in range(5):
        cover(add(workspace, f"i{number}"), [ago(back) for back in range(1, 60)], key=f"k{number}")
    db.session.commit()
    query = Query(workspace.id, Period(ago(1), ago(1)))
    with asked(app) as statements:
        days.report(query)
    assert len(statements) <= 5, "\n\n".join(one.text for one in statements)
    db.session.rollback()
    assert not scanned(app, statements)

"""The headline: the last day, what is usual, the month, and what is left, on days that can be checked by eye."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest

from grafient.days import Period
from grafient.extensions import db
from grafient.forecast import Reason
from grafient.models import CreditReading, Integration, Workspace
from grafient.query import Query, all_integrations
from grafient.reports import dashboard as dashboards
from grafient.reports import headline
from grafient.reports.headline import Headline
from grafient.states import DayState, Source
from tests.statements import asked
from tests.stored import TODAY, add, ago, cover
from tests.syncing import NOON, at

D = Decimal
YESTERDAY = ago(1)  # a Thursday


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


def found(workspace: Workspace, **more: object) -> Headline:
    query = Query(workspace.id, Period(ago(30), YESTERDAY), **more)  # type: ignore[arg-type]
    report = headline.report(query, all_integrations(workspace.id))
    assert report is not None
    return report


def thursdays(*amounts: int) -> dict[int, int]:
    """What each of the Thursdays before yesterday cost, the last one first."""
    return {1 + 7 * weeks: usd for weeks, usd in enumerate(amounts, 1)}


def history(one: Integration, days: dict[int, int], model: str = "m") -> None:
    for days_ago, usd in days.items():
        cover(one, [ago(days_ago)], usd=usd, model=model)


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    return add(workspace, "one")


class TestUsual:
    @pytest.mark.parametrize(("usd", "where"), [(24, "within"), (32, "above"), (19, "below"), (20, "within")])
    def test_a_day_against_the_same_weekdays(
        self, workspace: Workspace, one: Integration, usd: int, where: str
    ) -> None:
        history(one, thursdays(22, 30, 20, 25, 500, 24, 1, 23))
        history(one, {1: usd})
        report = found(workspace)
        assert (report.day, report.usage_usd) == (YESTERDAY, D(usd))
        assert report.usual is not None
        assert (report.usual.low, report.usual.high, report.usual.days) == (D(20), D(30), 8), "no spike moves it"
        assert (report.where, report.compared, report.asked) == (where, 1, 1)

    def test_other_weekdays_are_no_history(self, workspace: Workspace, one: Integration) -> None:
        history(one, thursdays(22, 30, 20) | {days: 25 for days in range(2, 57) if days % 7 != 1} | {1: 24})
        report = found(workspace)
        assert (report.usual, report.where, report.like, report.drivers) == (None, None, None, [])
        assert report.usage_usd == D(24)

    def test_the_change_is_since_the_last_usual_one_and_its_largest_parts_are_named(
        self, workspace: Workspace, one: Integration
    ) -> None:
        history(one, thursdays(99, 0, 0, 0, 0, 20))
        cover(one, [ago(15), ago(22), ago(29), ago(36), YESTERDAY], usd=10, model="steady")
        cover(one, [ago(15), ago(22), ago(29), ago(36)], usd=12, model="left")
        cover(one, [ago(15), YESTERDAY], usd=3, model="small")
        for model, usd in (("grew", 40), ("new", 20), ("tiny", 1)):
            cover(one, [YESTERDAY], usd=usd, model=model)
        cover(one, [ago(15)], usd=1, model="grew")
        report = found(workspace)
        assert report.like == ago(15), "the day a week ago cost $99, which was not usual"
        assert report.change_usd == D(74) - D(26)
        assert [(one.name, one.change_usd, one.kind) for one in report.drivers] == [
            ("grew", D(39), "used"),
            ("new", D(20), "new"),
            ("left", D(-12), "gone"),
        ]

    def test_a_new_integration_hides_nothing_of_the_others(self, workspace: Workspace, one: Integration) -> None:
        history(one, thursdays(20, 20, 20, 20) | {1: 20})
        two = add(workspace, "two")
        cover(two, [ago(2), YESTERDAY], usd=5)
        report = found(workspace)
        assert (report.usage_usd, report.usual_usd) == (D(25), D(20))
        assert (report.where, report.compared, report.asked) == ("within", 1, 2)

    def test_a_day_that_is_missing_is_not_zero(self, workspace: Workspace, one: Integration) -> None:
        history(one, thursdays(20, 20, 20, 20))
        report = found(workspace)
        assert (report.state, report.usage_usd, report.usual, report.where) == (DayState.MISSING, None, None, None)
        assert (report.month.usage_usd, report.month.covered, report.month.is_complete) == (D(40), 2, False)

    def test_of_two_of_which_one_is_missing_the_day_is_that_of_the_other(
        self, workspace: Workspace, one: Integration
    ) -> None:
        history(one, thursdays(20, 20, 20, 20) | {1: 20})
        cover(add(workspace, "two"), [ago(2)], usd=5)
        report = found(workspace)
        assert (report.state, report.usage_usd) == (DayState.PARTIAL, D(20))
        assert (report.counted, report.asked) == (1, 2), "the page says so"
        assert (report.forecast, report.no_forecast) == (None, Reason.DAYS_MISSING)

    def test_filters_narrow_it(self, workspace: Workspace, one: Integration) -> None:
        history(one, thursdays(20, 20, 20, 20) | {1: 20})
        cover(one, [YESTERDAY], usd=7, model="other")
        report = found(workspace, models=("other",))
        assert report.usage_usd == D(7)
        assert report.usual is not None
        assert (report.usual.high, report.where, report.credits) == (D(0), "above", None)

    def test_without_a_connected_integration_there_is_none(self, workspace: Workspace) -> None:
        assert headline.report(Query(workspace.id, Period(ago(7), YESTERDAY)), []) is None
        cover(add(workspace, "one", removed_at=NOON - timedelta(days=5)), Period(ago(30), ago(6)))
        query = Query(workspace.id, Period(ago(7), YESTERDAY))
        assert headline.report(query, all_integrations(workspace.id)) is None


class TestNight:
    def test_before_six_it_is_about_the_day_before_and_yesterday_stands_beside(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, [YESTERDAY], usd=9)
        cover(one, [TODAY], usd=8)
        cover(one, [TODAY + timedelta(days=1)], usd=2, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        with at(NOON + timedelta(hours=15)):
            report = found(workspace)
        assert (report.day, report.usage_usd) == (YESTERDAY, D(9))
        assert [(day.day, day.state, day.usage_usd, day.read_at) for day in report.since] == [
            (TODAY, DayState.FINAL, D(8), None), (TODAY + timedelta(days=1), DayState.PROVISIONAL, D(2), NOON)
        ]  # fmt: skip

    def test_after_six_today_so_far_stands_beside(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY], usd=9)
        cover(one, [TODAY], usd=4, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        report = found(workspace)
        assert [(day.day, day.usage_usd) for day in report.since] == [(TODAY, D(4))]
        assert report.usage_usd == D(9)

    def test_of_a_part_it_is_the_part(self, workspace: Workspace, one: Integration) -> None:
        """And of integrations that were not removed, as where nothing is filtered."""
        gone = add(workspace, "gone", removed_at=NOON)
        cover(one, [YESTERDAY], usd=9)
        cover(one, [TODAY], usd=4, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        cover(one, [TODAY], usd=3, model="other", state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        cover(gone, [TODAY], usd=50, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        assert [day.usage_usd for day in found(workspace).since] == [D(7)]
        for filters, usd in (({"models": ("m",)}, 4), ({"models": ("nobody's",)}, 0), ({"byok": True}, 7)):
            assert [day.usage_usd for day in found(workspace, **filters).since] == [D(usd)], filters


class TestMonth:
    def test_so_far_and_the_same_days_of_the_month_before(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(60), YESTERDAY), usd=10)
        cover(one, [ago(40)], usd=40, model="other")  # 11 October
        month = found(workspace).month
        assert (month.usage_usd, month.before_usd) == (D(190), D(230))
        assert (month.before.first.isoformat(), month.before.last.isoformat()) == ("2026-10-01", "2026-10-19")
        assert month.fraction == D(-40) / 230

    def test_with_a_missing_day_it_is_a_floor_and_is_compared_with_nothing(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, [day for day in Period(ago(60), YESTERDAY) if day not in (ago(3), ago(40))], usd=10)
        report = found(workspace)
        assert (report.month.usage_usd, report.month.covered) == (D(180), 18)
        assert (report.month.before_usd, report.month.fraction) == (None, None)
        assert (report.forecast, report.no_forecast) == (None, Reason.DAYS_MISSING)

    def test_a_steady_month_ends_as_it_goes(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), YESTERDAY), usd=10)
        report = found(workspace)
        assert report.forecast is not None
        assert (report.forecast.settled, report.forecast.expected) == (D(190), D(300))
        assert (report.off, report.tried) == (D(0), 3)

    def test_with_little_history_there_is_no_forecast(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(20), YESTERDAY), usd=10)
        report = found(workspace)
        assert (report.forecast, report.no_forecast) == (None, Reason.TOO_LITTLE_HISTORY)
        assert (report.off, report.tried) == (None, 0)


class TestRemoved:
    """An account whose costs were kept: $100 a day to the 10th, when it was removed; the other goes on at $10."""

    @pytest.fixture
    def gone(self, workspace: Workspace, one: Integration) -> Integration:
        cover(one, Period(ago(200), YESTERDAY), usd=10)
        gone = add(workspace, "gone", removed_at=NOON - timedelta(days=9))
        cover(gone, Period(ago(200), ago(10)), usd=100)
        cover(gone, [ago(9)], usd=50, state=DayState.PROVISIONAL)
        return gone

    def test_the_month_has_what_it_cost_as_the_dashboard_has(self, workspace: Workspace, gone: Integration) -> None:
        report = found(workspace)
        query = Query(workspace.id, Period(TODAY.replace(day=1), YESTERDAY))
        dashboard = dashboards.report(query, against=lambda period: period.months_earlier(1))
        assert report.month.usage_usd == dashboard.total_usd == D(190 + 1000)
        assert dashboard.change is not None
        assert report.month.before_usd == dashboard.change.before_usd == D(190 + 1900)
        assert report.month.fraction == dashboard.change.fraction
        assert found(workspace, byok=True).month == report.month

    def test_the_days_to_come_are_of_the_others(self, workspace: Workspace, gone: Integration) -> None:
        report = found(workspace)
        assert (report.usage_usd, report.usual_usd, report.counted, report.asked) == (D(10), D(10), 1, 1)
        assert report.where == "within"
        assert report.forecast is not None
        assert (report.forecast.settled, report.forecast.expected) == (D(1190), D(1300))

    def test_on_the_day_it_was_removed_yesterday_is_still_of_both(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), YESTERDAY), usd=10)
        cover(add(workspace, "gone", removed_at=NOON - timedelta(hours=1)), Period(ago(200), YESTERDAY), usd=100)
        report = found(workspace)
        assert (report.usage_usd, report.usual_usd, report.counted, report.asked) == (D(110), D(110), 2, 2)
        assert report.forecast is not None
        assert (report.forecast.settled, report.forecast.expected) == (D(19 * 110), D(19 * 110 + 11 * 10))

    def test_one_that_was_read_in_part_is_in_the_month_with_what_is_known(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, Period(ago(200), YESTERDAY), usd=10)
        cover(add(workspace, "gone", removed_at=NOON - timedelta(days=9)), [ago(12)], usd=100)
        month = found(workspace).month
        assert (month.usage_usd, month.covered) == (D(290), 10)

    def test_one_that_was_removed_since_is_in_the_month_before(self, workspace: Workspace, one: Integration) -> None:
        """The month before is what it cost, not what it would have cost without the account that is gone."""
        cover(one, Period(ago(200), YESTERDAY), usd=10)
        cover(add(workspace, "gone", removed_at=NOON - timedelta(days=26)), Period(ago(100), ago(27)), usd=100)
        month = found(workspace).month
        assert (month.usage_usd, month.before_usd) == (D(190), D(2090))

    def test_one_that_failed_last_night_keeps_its_month(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(99), YESTERDAY), usd=10)
        cover(add(workspace, "failed"), Period(ago(99), ago(2)), usd=100)
        month = found(workspace).month
        assert (month.usage_usd, month.covered, month.fraction) == (D(1990), 18, None)


class TestCredits:
    def reading(self, one: Integration, hours: int, used: int, bought: int | None) -> None:
        at_ = NOON - timedelta(hours=hours)
        used_usd, bought_usd = D(used), None if bought is None else D(bought)
        db.session.add(CreditReading(integration_id=one.id, read_at=at_, lifetime_usd=used_usd, bought_usd=bought_usd))
        db.session.flush()

    def test_what_is_left_lasts_at_the_pace_of_two_weeks(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(14), YESTERDAY), usd=10)
        self.reading(one, 30, 900, 1000)
        self.reading(one, 6, 955, 1000)
        left = found(workspace).credits
        assert left is not None
        assert (left.left_usd, left.bought_usd, left.used_usd, left.days) == (D(45), D(1000), D(955), 4)
        assert (left.read_at, left.accounts, left.asked) == (NOON - timedelta(hours=6), 1, 1)

    @pytest.mark.parametrize("usd", [0, None])
    def test_where_nothing_was_spent_they_last_for_no_number_of_days(
        self, workspace: Workspace, one: Integration, usd: int | None
    ) -> None:
        cover(one, Period(ago(14), YESTERDAY), usd=usd)
        self.reading(one, 6, 955, 1000)
        left = found(workspace).credits
        assert left is not None
        assert (left.left_usd, left.days) == (D(45), None)

    def test_at_an_unknown_pace_neither(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(12), YESTERDAY), usd=10)
        self.reading(one, 6, 955, 1000)
        left = found(workspace).credits
        assert left is not None
        assert left.days is None

    def test_overdrawn_is_no_days(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(14), YESTERDAY), usd=10)
        self.reading(one, 6, 1002, 1000)
        left = found(workspace).credits
        assert left is not None
        assert (left.left_usd, left.days) == (D(-2), 0)

    def test_of_two_accounts_of_which_one_says_nothing_the_other_is_said_to_be_one(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, Period(ago(14), YESTERDAY), usd=10)
        two = add(workspace, "two")
        cover(two, Period(ago(14), YESTERDAY), usd=1000)
        self.reading(one, 6, 900, 1000)
        self.reading(two, 5, 900, None)
        left = found(workspace).credits
        assert left is not None
        assert (left.left_usd, left.days, left.accounts, left.asked) == (D(100), 10, 1, 2)

    def test_an_account_that_is_connected_twice_has_its_credits_once(
        self, workspace: Workspace, one: Integration
    ) -> None:
        one.account_ref = "org"
        twin = add(workspace, "twin", account_ref="org")
        for integration in (one, twin):
            cover(integration, Period(ago(14), YESTERDAY), usd=10)
            self.reading(integration, 6, 900, 1000)
        left = found(workspace).credits
        assert left is not None
        assert (left.left_usd, left.days, left.accounts, left.asked) == (D(100), 10, 1, 1)

    def test_without_a_reading_there_is_nothing_to_say(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY])
        assert found(workspace).credits is None


def test_it_takes_three_statements(workspace: Workspace, one: Integration) -> None:
    cover(one, Period(ago(60), YESTERDAY), usd=10)
    cover(one, [YESTERDAY], usd=1, model="new")
    from flask import current_app

    integrations = all_integrations(workspace.id)
    query = Query(workspace.id, Period(ago(30), YESTERDAY))
    with asked(current_app) as statements:
        headline.report(query, integrations)
    assert len(statements) == 3, [one.text for one in statements]

"""The chart's bars and series, and the colour that each name has for good."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafient import coverage
from grafient.days import Period
from grafient.extensions import db
from grafient.models import ApiKey, Integration, KeyReading, Workspace
from grafient.query import Group, Measure, Query, all_integrations
from grafient.reports import chart, colours, dashboard
from grafient.reports.chart import Bar, Step
from grafient.states import DayState, Source
from tests.stored import TODAY, add, ago, cover
from tests.syncing import NOON, at

D = Decimal
WEEK = Period(ago(7), ago(1))


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    return add(workspace, "one")


def page(
    workspace: Workspace, group: Group = Group.MODEL, period: Period = WEEK, **more: object
) -> dashboard.Dashboard:
    names = ("measure", "step", "against")
    query = Query(workspace.id, period, **{name: value for name, value in more.items() if name not in names})  # type: ignore[arg-type]
    return dashboard.report(query, group, **{name: more[name] for name in names if name in more})  # type: ignore[arg-type]


class TestMeasures:
    def test_requests_and_tokens_by_day(self, workspace: Workspace, one: Integration) -> None:
        cover(one, WEEK, model="a", requests=3, prompt_tokens=100, completion_tokens=20)
        cover(one, [ago(1)], model="b", requests=5, prompt_tokens=1, completion_tokens=1)
        requests = page(workspace, measure=Measure.REQUESTS).chart
        assert [bar.total for bar in requests.bars] == [3] * 6 + [8]
        assert requests.bars[-1].by_series == [3, 5]
        tokens = page(workspace, measure=Measure.TOKENS)
        assert [bar.total for bar in tokens.chart.bars] == [120] * 6 + [122]
        assert tokens.total_usd == D(80), "the figures stay in USD"
        assert [bar.total for bar in tokens.days] == [D(10)] * 6 + [D(20)]

    def test_what_is_not_counted_is_unknown_and_not_zero(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(2), ago(1)], model="a", requests=3)
        cover(one, [ago(1)], model="b", prompt_tokens=7)
        two_days = Period(ago(2), ago(1))
        requests = page(workspace, period=two_days, measure=Measure.REQUESTS).chart
        assert [bar.total for bar in requests.bars] == [3, None]
        assert requests.bars[1].by_series == [3, None]
        assert [bar.total for bar in page(workspace, period=two_days, measure=Measure.TOKENS).chart.bars] == [None] * 2


class TestIntegrations:
    def test_each_has_a_series_by_its_label(self, workspace: Workspace, one: Integration) -> None:
        two = add(workspace, "two")
        cover(one, WEEK, usd=10)
        cover(two, list(WEEK)[:5], usd=3)
        found = page(workspace, Group.INTEGRATION)
        assert [(one.name, one.colour) for one in found.chart.series] == [("one", "1"), ("two", "2")]
        assert [(row.name, row.usage_usd) for row in found.totals] == [("one", D(70)), ("two", D(15))]
        last = found.chart.bars[-1]
        assert (last.state, last.by_series) == (DayState.PARTIAL, [D(10), None]), "two was not read; that is not $0"

    def test_one_that_was_removed_before_a_day_had_nothing_on_it(self, workspace: Workspace, one: Integration) -> None:
        cover(one, WEEK, usd=10)
        two = add(workspace, "two", removed_at=NOON - timedelta(days=3))
        cover(two, list(WEEK)[:4], usd=3)
        assert page(workspace, Group.INTEGRATION).chart.bars[-1].by_series == [D(10), D(0)]


class TestSeveralKeys:
    def test_a_day_counts_only_where_each_of_them_was_read(self, workspace: Workspace, one: Integration) -> None:
        cover(one, WEEK, usd=10, key="aa", model="a")
        cover(one, WEEK, usd=2, key="bb", model="b")
        for key, last in (("aa", WEEK.last), ("bb", ago(3))):
            db.session.add(KeyReading(integration_id=one.id, key_hash=key, first_day=WEEK.first, last_day=last))
        db.session.flush()
        found = page(workspace, keys=("aa", "bb"))
        assert (found.coverage.covered, found.total_usd) == (5, D(60)), "what aa spent since is not what both spent"
        assert page(workspace, keys=("aa",)).total_usd == D(70)

    def test_a_key_of_another_account_asks_nothing_of_this_one(self, workspace: Workspace, one: Integration) -> None:
        two = add(workspace, "two")
        cover(one, WEEK, usd=10, key="aa")
        cover(two, WEEK, usd=5, key="bb")
        for integration, key in ((one, "aa"), (two, "bb")):
            reading = KeyReading(integration_id=integration.id, key_hash=key, first_day=WEEK.first, last_day=WEEK.last)
            db.session.add(reading)
        db.session.flush()
        found = page(workspace, keys=("aa", "bb"))
        assert (found.coverage.covered, found.coverage.integrations, found.total_usd) == (7, 2, D(105))


class TestSteps:
    @pytest.mark.parametrize(("days", "step"), [(1, "day"), (92, "day"), (93, "week"), (420, "week"), (421, "month")])
    def test_a_long_period_has_bars_of_weeks_or_months(self, days: int, step: str) -> None:
        assert Step.of(days) == step

    def test_weeks_begin_on_monday_and_say_what_is_missing(self, workspace: Workspace, one: Integration) -> None:
        days = Period(date(2026, 11, 4), date(2026, 11, 19))  # from a Wednesday to a Thursday
        missing = [date(2026, 11, 10), date(2026, 11, 11)]
        cover(one, [day for day in days if day not in missing], usd=10)
        cover(one, [TODAY], usd=1, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        bars = page(workspace, period=days, step=Step.WEEK).chart.bars
        assert [(bar.period.first.day, bar.period.last.day) for bar in bars] == [(4, 8), (9, 15), (16, 20)]
        assert [(bar.state, bar.total, bar.missing, bar.asked) for bar in bars] == [
            (DayState.FINAL, D(50), 0, 5),
            (DayState.PARTIAL, D(50), 2, 7),
            (DayState.PROVISIONAL, D(41), 0, 5),
        ]

    def test_a_year_is_drawn_by_week_and_averaged_by_day(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(365), ago(1)), usd=10)
        found = page(workspace, period=Period(ago(365), ago(1)))
        assert (found.chart.step, len(found.chart.bars)) == (Step.WEEK, 53)
        assert (found.daily_average_usd, len(found.days)) == (D(10), 365)

    @given(
        st.lists(st.tuples(st.sampled_from(list(DayState)), st.none() | st.integers(-5, 500)), min_size=1, max_size=70),
        st.sampled_from(list(Step)),
    )
    def test_bars_of_days_together_hold_all_that_is_known(
        self, days: list[tuple[DayState, int | None]], step: Step
    ) -> None:
        bars = [
            Bar(Period(day, day), state, None if usd is None else D(usd), [None if usd is None else D(usd)], 0, 1)
            for day, (state, usd) in zip(Period(date(2026, 1, 1), date(2026, 12, 31)), days, strict=False)
        ]
        found = chart.stepped(bars, step)
        assert [day for bar in found for day in bar.period] == [bar.day for bar in bars]
        known = [bar.total for bar in bars if bar.total is not None]
        assert sum((bar.total for bar in found if bar.total is not None), D(0)) == sum(known, D(0))
        for bar in found:
            mine = [one for one in bars if one.day in bar.period]
            assert (bar.total is None) == all(one.total is None for one in mine), "unknown is not zero"
            assert (bar.state == DayState.MISSING) == all(one.state == DayState.MISSING for one in mine)


class TestColours:
    def test_a_name_keeps_its_colour_in_every_period_and_whatever_comes_later(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, [ago(20)], usd=5, model="old")
        cover(one, WEEK, usd=10, model="dear")
        first = {series.name: series.colour for series in page(workspace).chart.series}
        assert first == {"dear": "2"}
        cover(add(workspace, "two"), WEEK, usd=99, model="newest")
        later = {one.name: one.colour for one in page(workspace, period=Period(ago(20), ago(1))).chart.series}
        assert later == {"old": "1", "dear": "2", "newest": "3"}

    def test_of_those_that_come_together_the_dearest_is_first(self, workspace: Workspace, one: Integration) -> None:
        from grafient.providers import BilledLine
        from tests.stored import put

        lines = [BilledLine(ago(1), m, "e", "h", m, D(usd)) for m, usd in (("a", 1), ("b", 9), ("c", 3), ("b2", 9))]
        put(one, *lines)
        assert colours.of(workspace.id, Group.MODEL, ["a", "b", "b2", "c"]) == {"b": "1", "b2": "2", "c": "3", "a": "4"}

    def test_there_are_24_and_then_they_come_again(self, workspace: Workspace, one: Integration) -> None:
        for number in range(26):
            cover(one, [ago(1)], usd=1, model=f"m{number:02}")
        found = colours.of(workspace.id, Group.MODEL, ["m00", "m23", "m24", "m25"])
        assert found == {"m00": "1", "m23": "24", "m24": "1", "m25": "2"}

    def test_hosts_keys_and_integrations_have_theirs_and_others_none(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, WEEK, key="aa")
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.flush()
        theirs = add(other, "theirs")
        db.session.add(ApiKey(integration_id=theirs.id, key_hash="zz", name="zz", disabled=False, read_at=NOON))
        db.session.flush()
        assert colours.of(workspace.id, Group.HOST, ["h", "nobody"]) == {"h": "1", "nobody": "other"}
        assert colours.of(workspace.id, Group.KEY, ["aa", "zz"]) == {"aa": "1", "zz": "other"}
        assert colours.of(workspace.id, Group.INTEGRATION, [str(one.id), str(theirs.id)]) == {
            str(one.id): "1",
            str(theirs.id): "other",
        }


class TestComparison:
    def test_with_the_same_days_a_month_before_though_they_overlap(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, Period(ago(100), ago(1)), usd=10)
        cover(one, [ago(10)], usd=100, model="spike")
        found = page(workspace, period=Period(ago(59), ago(1)), against=lambda of: of.months_earlier(1))
        assert found.change is not None
        assert (found.change.before.first, found.change.before.last) == (date(2026, 8, 22), date(2026, 10, 19))
        assert found.change.before_usd == D(10) * 59
        assert found.change.fraction == D(100) / 590

    def test_with_nothing(self, workspace: Workspace, one: Integration) -> None:
        cover(one, WEEK)
        found = page(workspace, against=lambda of: None)
        assert (found.change, found.before) == (None, None)

    def test_known_days_of_a_comparison_far_away_are_loaded(self, workspace: Workspace, one: Integration) -> None:
        cover(one, WEEK, usd=10)
        cover(one, [day.replace(year=2025) for day in WEEK], usd=5)
        found = page(workspace, against=lambda of: of.months_earlier(12))
        assert found.change is not None
        assert (found.change.before_usd, found.change.fraction) == (D(35), D(1))
        assert found.coverage.is_complete
        assert coverage.load(Query(workspace.id, WEEK), all_integrations(workspace.id)).coverage.covered == 7

"""The life of a model, a host or a key, on lines that are few enough to add up by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal

import pytest
from flask import Flask

from grafient.days import Period
from grafient.extensions import db
from grafient.models import UNATTRIBUTED, Integration, KeyReading, Workspace
from grafient.providers import BilledLine
from grafient.query import Group, Query
from grafient.reports import life as lives
from grafient.reports.chart import Step
from grafient.reports.life import Life, Rates
from grafient.reports.parts import Parts
from grafient.reports.sums import Measures, Tally
from grafient.states import DayState, Source
from tests.statements import asked, scanned
from tests.stored import TODAY, add, ago, cover, put
from tests.syncing import at

MONTH = Period(ago(30), ago(1))  # 21 October to 19 November 2026
MONDAY = date(2026, 11, 9)


@pytest.fixture(autouse=True)
def _noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    """An integration whose last 60 days had no usage, but for what is put there."""
    one = add(workspace, "one")
    cover(one, [ago(back) for back in range(1, 61)], usd=None)
    return one


def line(
    day: date,
    model: str,
    usd: str,
    tokens: tuple[int, int] | None = None,
    host: str = "h",
    endpoint_id: str = "e",
    permaslug: str = "",
    **measures: int,
) -> BilledLine:
    if tokens is not None:
        measures |= {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return BilledLine(day, permaslug or model, endpoint_id, host, model, Decimal(usd), **measures)


def model(workspace: Workspace, *names: str, period: Period = MONTH, **more: object) -> Life:
    return lives.report(Query(workspace.id, period, models=names, **more), Group.MODEL)  # type: ignore[arg-type]


def host(workspace: Workspace, name: str, period: Period = MONTH) -> Life:
    return lives.report(Query(workspace.id, period, hosts=(name,)), Group.HOST)


def key(workspace: Workspace, key_hash: str, period: Period = MONTH) -> Life:
    return lives.report(Query(workspace.id, period, keys=(key_hash,)), Group.KEY)


def read(one: Integration, key_hash: str, first: date, last: date) -> None:
    db.session.add(KeyReading(integration_id=one.id, key_hash=key_hash, first_day=first, last_day=last))
    db.session.flush()


def amounts(found: Parts) -> dict[str, Decimal]:
    return {row.id: row.usage_usd for row in found.rows}


class TestAModel:
    def test_what_it_cost_and_used_in_the_period_and_ever(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(50), "a", "100", (10, 0)), line(ago(20), "a", "3", (1_000_000, 500_000)))
        put(one, line(ago(3), "a", "6", (2_000_000, 1_000_000), requests=4), line(ago(3), "b", "99"))
        found = model(workspace, "a")
        assert found.measures is not None
        assert (found.measures.usage_usd, found.measures.days) == (9, 2)
        assert (found.measures.prompt_tokens, found.measures.completion_tokens) == (
            Tally(3_000_000, True),
            Tally(1_500_000, True),
        )
        assert (found.first, found.last) == (ago(20), ago(3))
        assert found.ever is not None
        assert (found.ever.usage_usd, found.ever.days, found.ever.first, found.ever.last) == (109, 3, ago(50), ago(3))
        assert found.rates is not None
        assert found.rates.usd_per_million == 2
        assert (found.coverage.covered, found.coverage.asked) == (30, 30)

    def test_what_it_is_made_of(self, workspace: Workspace, one: Integration) -> None:
        two = add(workspace, "two")
        cover(two, [ago(2)], usd=None)
        put(one, line(ago(9), "a", "1", host="x"), line(ago(4), "a", "2", host="x"), key="k")
        put(one, line(ago(4), "a", "4", host="y", endpoint_id="f", permaslug="a-2"))
        put(two, line(ago(2), "a", "8", host="x"), line(ago(2), "b", "1000", host="x"))
        found = model(workspace, "a")
        assert amounts(found.hosts) == {"x": 11, "y": 4}
        assert amounts(found.keys) == {"k": 3, UNATTRIBUTED: 12}
        assert [(row.id, row.name, row.usage_usd) for row in found.integrations.rows] == [
            (str(two.id), "two", 8),
            (str(one.id), "one", 7),
        ]
        assert [(row.name, row.note, row.usage_usd, row.first, row.last) for row in found.endpoints.rows] == [
            ("a", "e at x", 11, ago(9), ago(2)),
            ("a-2", "f at y", 4, ago(4), ago(4)),
        ]
        assert amounts(found.models) == {"a": 15}

    def test_several_names_are_one_life(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(9), "old", "1", permaslug="p"), line(ago(4), "new", "2", permaslug="p"))
        assert set(lives.models_called(workspace.id, "p")) == {"new", "old"}
        found = model(workspace, "new", "old")
        assert found.measures is not None
        assert (found.measures.usage_usd, amounts(found.models)) == (3, {"old": 1, "new": 2})

    def test_a_name_comes_before_a_permaslug(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(9), "a", "1", permaslug="b"), line(ago(4), "b", "2", permaslug="c"))
        assert lives.models_called(workspace.id, "b") == ("b",)
        assert lives.models_called(workspace.id, "c") == ("b",)
        assert lives.models_called(workspace.id, "B") == ()

    def test_another_workspaces_is_not_found(self, workspace: Workspace, one: Integration) -> None:
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.flush()
        put(one, line(ago(9), "a", "1", host="x"))
        cover(add(other, "other"), [ago(9)], usd=100, model="a")
        cover(add(other, "more"), [ago(9)], usd=100, model="theirs")
        assert lives.models_called(workspace.id, "theirs") == ()
        assert not lives.has_host(other.id, "x")
        assert lives.has_host(workspace.id, "x")
        found = model(workspace, "a")
        assert found.measures is not None
        assert found.ever is not None
        assert (found.measures.usage_usd, found.ever.usage_usd, amounts(found.keys)) == (1, 1, {UNATTRIBUTED: 1})

    def test_a_day_that_is_not_settled_is_in_the_chart_alone(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(1), "a", "5"))
        cover(one, [TODAY], usd=7, model="a", state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        found = model(workspace, "a", period=Period(ago(1), TODAY))
        assert found.measures is not None
        assert found.ever is not None
        assert (found.measures.usage_usd, found.ever.usage_usd, amounts(found.hosts)) == (5, 5, {"h": 5})
        assert [(bar.state, bar.total) for bar in found.chart.bars] == [
            (DayState.FINAL, 5),
            (DayState.PROVISIONAL, 7),
        ]

    def test_missing_days_are_unknown(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(3)], model="a")
        found = model(workspace, "a", period=Period(ago(4), ago(2)))
        assert [bar.total for bar in found.chart.bars] == [None, 10, None]
        assert (found.coverage.covered, found.coverage.asked) == (1, 3)
        none = model(workspace, "a", period=Period(ago(200), ago(190)))
        assert (none.measures, none.rates, none.first) == (None, None, None)
        assert [stretch.measures for stretch in none.stretches] == [None] * len(none.stretches)
        assert none.ever is not None

    def test_in_a_period_without_usage_it_cost_nothing_and_has_no_price(
        self, workspace: Workspace, one: Integration
    ) -> None:
        put(one, line(ago(50), "a", "5", (1, 1)))
        found = model(workspace, "a")
        assert found.measures is not None
        assert (found.measures.usage_usd, found.first) == (0, None)
        assert found.rates == Rates(None, None, None, None)

    def test_past_the_limit_the_others_are_one_amount(self, workspace: Workspace, one: Integration) -> None:
        put(one, *(line(ago(3), "a", str(number), host=f"h{number:02}") for number in range(1, 61)))
        found = model(workspace, "a").hosts
        assert (len(found.rows), found.others, found.others_usd) == (50, 10, sum(range(1, 11)))

    def test_its_colour_is_that_of_the_dashboard(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(3), "a", "1"))
        put(one, line(ago(3), "b", "1"))
        assert [model(workspace, name).chart.series[0].colour for name in ("a", "b")] == ["1", "2"]


class TestRates:
    def test_each_is_worked_out_of_what_is_known_of_it(self) -> None:
        found = Rates.of(
            measures(usd="3", requests=4, prompt=1_000_000, completion=500_000, reasoning=50_000, cached=0)
        )
        assert found == Rates(Decimal(2), Decimal("0.75"), Decimal(0), Decimal("0.1"))

    def test_of_an_unknown_part_nothing_is_worked_out(self) -> None:
        assert Rates.of(measures(usd="3", requests=4)) == Rates(None, Decimal("0.75"), None, None)
        part = Measures(Decimal(3), *[Tally(5, False)] * 6, days=1)  # type: ignore[arg-type]
        assert Rates.of(part) == Rates(None, None, None, None)

    def test_division_by_nothing_is_none(self) -> None:
        found = Rates.of(measures(usd="3", requests=0, prompt=0, completion=0, reasoning=0, cached=0))
        assert found == Rates(None, None, None, None)

    def test_what_costs_nothing_has_a_price_of_nothing(self) -> None:
        found = Rates.of(measures(usd="0", requests=4, prompt=1, completion=1, reasoning=1, cached=1))
        assert found == Rates(Decimal(0), Decimal(0), Decimal(1), Decimal(1))


def measures(usd: str, **counts: int) -> Measures:
    names = {"prompt": "prompt_tokens", "completion": "completion_tokens", "reasoning": "reasoning_tokens"}
    names |= {"cached": "cached_tokens", "requests": "requests"}
    tallies = {long: Tally(counts.get(short), short in counts) for short, long in names.items()}
    return Measures(usage_usd=Decimal(usd), byok_usd=Tally(None, False), days=1, **tallies)


class TestPrices:
    """9-15 and 16-19 November 2026 are the weeks of these days."""

    def test_weeks_begin_on_monday_and_have_their_own_price(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(MONDAY, "a", "2", (500_000, 500_000)), line(date(2026, 11, 15), "a", "4", (1_000_000, 0)))
        put(one, line(date(2026, 11, 16), "a", "9", (2_000_000, 1_000_000)))
        found = model(workspace, "a", period=Period(MONDAY, ago(1)))
        assert found.step == Step.WEEK
        assert [(one.period, one.rates and one.rates.usd_per_million) for one in found.stretches] == [
            (Period(MONDAY, date(2026, 11, 15)), 3),
            (Period(date(2026, 11, 16), ago(1)), 3),
        ]
        assert found.changes == []
        assert [one.height for one in found.stretches] == [100, 100]

    @pytest.mark.parametrize(("usd", "fraction"), [("1.05", None), ("1.06", "0.06"), ("0.95", None), ("0.5", "-0.5")])
    def test_more_than_five_percent_is_a_change(
        self, workspace: Workspace, one: Integration, usd: str, fraction: str | None
    ) -> None:
        put(one, line(MONDAY, "a", "1", (1_000_000, 0)), line(date(2026, 11, 16), "a", usd, (1_000_000, 0)))
        found = model(workspace, "a", period=Period(MONDAY, ago(1))).changes
        if fraction is None:
            assert found == []
        else:
            (stretch,) = found
            assert stretch.change is not None
            assert stretch.period.first == date(2026, 11, 16)
            assert (stretch.change.before, stretch.change.before_usd) == (Period(MONDAY, date(2026, 11, 15)), 1)
            assert stretch.change.fraction == Decimal(fraction)

    def test_where_the_hosts_of_a_week_are_unknown_nothing_is_said(
        self, workspace: Workspace, one: Integration
    ) -> None:
        put(one, line(MONDAY, "a", "1", (1_000_000, 0)), line(date(2026, 11, 16), "a", "2", (1_000_000, 0)))
        cover(one, [date(2026, 11, 10)], usd=None, source=Source.ANALYTICS)
        assert model(workspace, "a", period=Period(MONDAY, ago(1))).changes == []

    def test_a_week_without_a_price_breaks_the_comparison(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(date(2026, 11, 2), "a", "1", (1_000_000, 0)), line(date(2026, 11, 16), "a", "2", (1_000_000, 0)))
        found = model(workspace, "a", period=Period(date(2026, 11, 2), ago(1)))
        assert [one.rates and one.rates.usd_per_million for one in found.stretches] == [1, None, 2]
        assert found.changes == []

    def test_a_long_period_goes_by_months_and_what_is_before_the_last_50_is_one_row(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        first = date(2021, 1, 1)
        cover(one, [first, date(2021, 2, 1), ago(1)], usd=1, model="a", prompt_tokens=1, completion_tokens=0)
        found = model(workspace, "a", period=Period(first, ago(1)))
        assert found.step == Step.MONTH
        assert len(found.stretches) == 51
        earlier = found.stretches[0]
        assert earlier.earlier
        assert earlier.period == Period(first, date(2022, 9, 30))
        assert earlier.measures is not None
        assert earlier.measures.usage_usd == 2
        assert found.stretches[1].period.first == date(2022, 10, 1)

    def test_a_key_has_prices_and_no_marks(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(MONDAY, "a", "1", (1_000_000, 0)), line(date(2026, 11, 16), "a", "2", (1_000_000, 0)), key="k")
        read(one, "k", ago(60), ago(1))
        found = key(workspace, "k", Period(MONDAY, ago(1)))
        assert [one.rates and one.rates.usd_per_million for one in found.stretches] == [1, 2]
        assert found.changes == []


class TestAKey:
    def test_its_models_and_hosts_and_all_it_ever_cost(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(50), "a", "100"), line(ago(9), "a", "1", host="x"), line(ago(4), "b", "2"), key="k")
        put(one, line(ago(9), "c", "5"))
        read(one, "k", ago(60), ago(1))
        found = key(workspace, "k")
        assert found.measures is not None
        assert (found.measures.usage_usd, amounts(found.models), amounts(found.hosts)) == (
            3,
            {"a": 1, "b": 2},
            {"x": 1, "h": 2},
        )
        assert found.ever is not None
        assert (found.ever.usage_usd, found.ever.first) == (103, ago(50))

    def test_days_that_were_not_read_of_it_are_unknown(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(9), "a", "1"), line(ago(3), "b", "2"), key="k")
        read(one, "k", ago(10), ago(5))
        found = key(workspace, "k", Period(ago(10), ago(1)))
        assert found.coverage.covered == 6
        assert [bar.total for bar in found.chart.bars] == [0, 1, 0, 0, 0, 0, None, None, None, None]

    def test_what_no_key_explains(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(9), "a", "1"), key="k")
        put(one, line(ago(9), "b", "5"))
        read(one, "k", ago(60), ago(1))
        found = key(workspace, UNATTRIBUTED)
        assert found.measures is not None
        assert (found.measures.usage_usd, amounts(found.models), found.ever) == (5, {"b": 5}, None)


class TestAHost:
    def test_its_models(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(9), "a", "1", host="x"), line(ago(4), "b", "2", host="x"), line(ago(4), "b", "4", host="y"))
        found = host(workspace, "x")
        assert found.measures is not None
        assert (found.measures.usage_usd, amounts(found.models), found.ever) == (3, {"a": 1, "b": 2}, None)

    def test_days_of_analytics_do_not_tell_what_it_cost(self, workspace: Workspace, one: Integration) -> None:
        put(one, line(ago(9), "a", "1", host="x"))
        cover(one, [ago(8)], usd=3, source=Source.ANALYTICS)
        found = host(workspace, "x", Period(ago(10), ago(7)))
        assert [bar.total for bar in found.chart.bars] == [0, 1, None, 0]
        assert found.coverage.covered == 3


@pytest.mark.parametrize("group", [Group.MODEL, Group.HOST, Group.KEY])
def test_a_life_takes_few_statements_and_scans_nothing(app: Flask, workspace: Workspace, group: Group) -> None:
    for number in range(5):
        one = add(workspace, f"i{number}")
        cover(one, [ago(back) for back in range(1, 60)], key="k", model="a")
        read(one, "k", ago(60), ago(1))
    db.session.commit()
    find = {Group.MODEL: model, Group.HOST: host, Group.KEY: key}[group]
    assert workspace.id
    with asked(app) as statements:
        found = find(workspace, {Group.MODEL: "a", Group.HOST: "h", Group.KEY: "k"}[group])
    db.session.rollback()
    assert found.measures is not None
    assert found.measures.usage_usd == 5 * 30 * 10
    assert len(statements) <= 6, "\n\n".join(one.text for one in statements)
    assert not scanned(app, statements)

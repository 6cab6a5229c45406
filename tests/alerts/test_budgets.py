"""Where budgets stand, on days that can be checked by eye; and what a form may set. It is Friday, 20 November 2026."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from grafient.alerts import budgets, preview
from grafient.alerts.budgets import Status, label, parsed, period_of
from grafient.days import Period
from grafient.extensions import db
from grafient.forecast import Reason
from grafient.models import ApiKey, AuditEntry, Budget, Integration, Workspace
from grafient.states import BudgetPeriod, DayState, Source
from tests.statements import asked
from tests.stored import TODAY, add, ago, cover, key_id
from tests.syncing import NOON, at, on_sqlite

D = Decimal
MONTH = Period(date(2026, 11, 1), date(2026, 11, 30))
SO_FAR = Period(MONTH.first, ago(1))
"""19 days that are due."""


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    return add(workspace, "one")


def budget(
    workspace: Workspace,
    amount: int | str = 300,
    period: BudgetPeriod = BudgetPeriod.MONTH,
    filters: Mapping[str, Sequence[Any]] | None = None,
    **more: Any,
) -> Budget:
    more = {"actual": [50, 80, 100], "forecast": [100], "byok": False, "name": "all"} | more
    found = Budget(workspace_id=workspace.id, amount_usd=D(amount), period=period, filters=dict(filters or {}), **more)
    db.session.add(found)
    db.session.flush()
    return found


def stands(workspace: Workspace, now: datetime = NOON) -> Status:
    [found] = budgets.statuses(workspace.id, now)
    return found


def open_day(integration: Integration, usd: int, day: date = TODAY, **more: Any) -> None:
    cover(integration, [day], usd=usd, state=DayState.PROVISIONAL, source=Source.ANALYTICS, **more)


@pytest.mark.parametrize(
    ("kind", "day", "first", "last", "called"),
    [
        ("day", "2026-11-20", "2026-11-20", "2026-11-20", "20 November 2026"),
        ("week", "2026-11-20", "2026-11-16", "2026-11-22", "week of 16 November"),
        ("week", "2027-01-01", "2026-12-28", "2027-01-03", "week of 28 December"),
        ("month", "2028-02-29", "2028-02-01", "2028-02-29", "February 2028"),
        ("quarter", "2026-11-20", "2026-10-01", "2026-12-31", "Q4 2026"),
        ("quarter", "2026-03-31", "2026-01-01", "2026-03-31", "Q1 2026"),
        ("quarter", "2026-04-01", "2026-04-01", "2026-06-30", "Q2 2026"),
        ("year", "2028-12-31", "2028-01-01", "2028-12-31", "2028"),
    ],
)
def test_periods(kind: str, day: str, first: str, last: str, called: str) -> None:
    found = period_of(BudgetPeriod(kind), date.fromisoformat(day))
    assert (found.first.isoformat(), found.last.isoformat()) == (first, last)
    assert label(BudgetPeriod(kind), found) == called


class TestStatus:
    def test_what_is_settled_and_what_is_known_of_today(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        open_day(one, 4)
        budget(workspace)
        found = stands(workspace)
        assert (found.period, found.label) == (MONTH, "November 2026")
        assert (found.spent_usd, found.settled_usd, found.provisional_usd) == (D(194), D(190), D(4))
        assert (found.left_usd, found.part) == (D(106), D(194) / 300)
        assert found.time == D(19) / 30, "the 20th is not over"
        assert (found.missing, found.is_floor, found.read_at) == ([], False, NOON)
        assert found.forecast is not None
        assert (found.forecast.settled, found.forecast.expected, found.why_not) == (D(190), D(300), None)
        assert found.used_up_on == date(2026, 11, 30)
        assert (found.actual_marks, found.forecast_marks, found.is_over) == ([50], [100], False)
        assert (found.about, found.gone) == ("everything", [])

    def test_what_is_used_up_was_so_on_a_day(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        budget(workspace, 100)
        found = stands(workspace)
        assert (found.used_up_on, found.is_over, found.left_usd) == (date(2026, 11, 10), True, D(-90))
        assert (found.actual_marks, found.forecast_marks) == ([50, 80, 100], [100])

    def test_today_can_be_what_uses_it_up(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        open_day(one, 500)
        budget(workspace, 600)
        found = stands(workspace)
        assert (found.spent_usd, found.used_up_on, found.is_over) == (D(690), TODAY, True)
        assert found.forecast is not None
        assert found.forecast.expected == D(690), "a forecast of $300 would be less than what is spent"

    def test_what_it_will_be_used_up_on_counts_today_so_far(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        open_day(one, 60)
        budget(workspace, 280)
        assert stands(workspace).used_up_on == date(2026, 11, 23), "$250 today, and $10 on each day after it"

    def test_a_day_that_is_missing_makes_it_a_floor(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [day for day in Period(ago(200), ago(1)) if day != ago(3)], usd=10)
        budget(workspace)
        found = stands(workspace)
        assert (found.spent_usd, found.missing, found.is_floor) == (D(180), [ago(3)], True)
        assert (found.forecast, found.why_not, found.forecast_marks) == (None, Reason.DAYS_MISSING, [])
        assert found.actual_marks == [50], "at least that much is spent"

    def test_one_of_two_accounts_is_enough_for_that(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        add(workspace, "never read")
        budget(workspace)
        found = stands(workspace)
        assert (found.spent_usd, found.missing) == (D(190), list(SO_FAR))

    def test_of_what_nothing_is_known_nothing_is_said(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(40)), usd=10)
        budget(workspace)
        found = stands(workspace)
        assert (found.spent_usd, found.settled_usd, found.left_usd, found.part) == (None, None, None, None)
        assert (found.actual_marks, found.is_over, found.missing) == ([], False, list(SO_FAR))

    def test_without_any_account(self, workspace: Workspace) -> None:
        budget(workspace)
        assert (stands(workspace).spent_usd, stands(workspace).why_not) == (None, Reason.DAYS_MISSING)

    def test_a_month_without_usage_cost_nothing(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(60), ago(1)), usd=None, state=DayState.NO_USAGE)
        budget(workspace)
        found = stands(workspace)
        assert (found.spent_usd, found.missing, found.used_up_on) == (D(0), [], None)

    @pytest.mark.parametrize("filters", [{}, {"model": ["m"]}], ids=["of everything", "of a model"])
    def test_a_removed_account_counts_and_is_not_expected_to_go_on(
        self, workspace: Workspace, filters: Mapping[str, Sequence[str]]
    ) -> None:
        gone = add(workspace, "gone", removed_at=NOON - timedelta(days=10))
        cover(gone, Period(ago(100), ago(11)), usd=100)
        cover(add(workspace, "stays"), Period(ago(200), ago(1)), usd=10)
        budget(workspace, 1290, filters=filters)
        found = stands(workspace)
        assert found.spent_usd == D(9 * 100 + 190)
        assert found.forecast is not None
        assert (found.forecast.settled, found.forecast.expected) == (D(1090), D(1200))
        assert (found.used_up_on, found.missing) == (None, [])
        found.budget.amount_usd = D(1120)
        assert stands(workspace).used_up_on == date(2026, 11, 22)

    def test_before_six_yesterday_is_not_missing(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(2)), usd=10)
        budget(workspace)
        found = stands(workspace, datetime(2026, 11, 20, 3, tzinfo=UTC))
        assert (found.missing, found.spent_usd, found.time) == ([], D(180), D(19) / 30)
        assert stands(workspace).missing == [ago(1)]

    def test_on_the_first_of_a_month_it_begins_with_what_is_known_so_far(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        first = datetime(2026, 12, 1, 3, tzinfo=UTC)
        cover(one, Period(TODAY, date(2026, 11, 29)), usd=10)
        open_day(one, 9, date(2026, 11, 30))
        budget(workspace)
        assert stands(workspace, first).spent_usd is None
        open_day(one, 3, first.date())
        found = stands(workspace, first)
        assert (found.spent_usd, found.settled_usd, found.time) == (D(3), D(0), D(0))
        assert found.forecast is not None
        assert found.forecast.expected == D(310)

    def test_a_day_has_no_forecast(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        open_day(one, 12)
        budget(workspace, 10, BudgetPeriod.DAY)
        found = stands(workspace)
        assert (found.period, found.spent_usd, found.used_up_on) == (Period(TODAY, TODAY), D(12), TODAY)
        assert (found.forecast, found.why_not, found.actual_marks) == (None, Reason.ONE_DAY, [50, 80, 100])

    @pytest.mark.parametrize(
        ("period", "spent", "expected"), [("week", 40, 70), ("month", 190, 300), ("quarter", 500, 920)]
    )
    def test_each_period(self, workspace: Workspace, one: Integration, period: str, spent: int, expected: int) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        budget(workspace, 5000, BudgetPeriod(period))
        found = stands(workspace)
        assert found.forecast is not None
        assert (found.spent_usd, found.forecast.expected) == (D(spent), D(expected))

    def test_how_the_period_before_ended(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(60), ago(1)), usd=10)
        mine = budget(workspace, 300)
        found = budgets.status(mine, NOON, Period(date(2026, 10, 1), date(2026, 10, 31)))
        assert (found.spent_usd, found.time, found.is_over) == (D(310), D(1), True)
        assert (found.used_up_on, found.actual_marks, found.label) == (
            date(2026, 10, 30),
            [50, 80, 100],
            "October 2026",
        )


class TestFilters:
    @pytest.fixture(autouse=True)
    def _two(self, workspace: Workspace, one: Integration) -> None:
        two = add(workspace, "two")
        for integration, usd in ((one, 10), (two, 1)):
            cover(integration, Period(ago(100), ago(1)), usd=usd, key=f"key{usd}")
            open_day(integration, usd, model="today")
        cover(one, SO_FAR, usd=100, model="dear")

    def test_each_filter_and_its_words(self, workspace: Workspace, one: Integration) -> None:
        for filters, spent, about in (
            ({"integration": [one.id]}, 19 * 110 + 10, "integration “one”"),
            ({"model": ["dear"]}, 1900, "model dear"),
            ({"model": ["m", "today"]}, 19 * 11 + 11, "models m, today"),
            ({"integration": [one.id], "model": ["m"]}, 190, "integration “one”; model m"),
            ({"host": ["h"]}, 19 * 111 + 11, "host h"),
        ):
            mine = budget(workspace, 5000, filters=filters)
            [found] = budgets.statuses(workspace.id, NOON, [mine])
            assert (found.spent_usd, found.about) == (D(spent), about), filters

    def test_a_host_is_not_known_from_analytics(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(4)], usd=None, source=Source.ANALYTICS)
        mine = budget(workspace, 5000, filters={"host": ["h"]})
        assert budgets.statuses(workspace.id, NOON, [mine])[0].missing == [ago(4)]

    def test_an_integration_that_is_gone_is_not_everything(self, workspace: Workspace, one: Integration) -> None:
        mine = budget(workspace, filters={"integration": [one.id + 100]})
        [found] = budgets.statuses(workspace.id, NOON, [mine])
        assert (found.spent_usd, found.gone) == (None, ["An integration that it is about was deleted."])
        one.removed_at = NOON
        mine.filters = {"integration": [one.id]}
        [found] = budgets.statuses(workspace.id, NOON, [mine])
        assert found.gone == ["The integration “one” was removed."]
        assert found.spent_usd == D(19 * 110 + 10)

    def test_an_api_key(self, workspace: Workspace, one: Integration) -> None:
        key_id(one, "key10")
        mine = budget(workspace, 5000, filters={"key": ["key10", "nokey"]})
        [found] = budgets.statuses(workspace.id, NOON, [mine])
        assert found.about == "API keys “key10”, “(unknown)”"
        assert found.gone == ["An API key that it is about is not known any more."]
        db.session.execute(select(ApiKey).where(ApiKey.name == "key10")).scalar_one().gone_at = NOON
        mine.filters = {"key": ["key10"]}
        assert budgets.statuses(workspace.id, NOON, [mine])[0].gone == [
            "The API key “key10” was deleted at the provider."
        ]

    def test_with_byok(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(2)], usd=0, model="byok", byok_usd=D(7))
        mine = budget(workspace, 5000, byok=True)
        [found] = budgets.statuses(workspace.id, NOON, [mine])
        assert (found.spent_usd, found.about) == (D(19 * 111 + 11 + 7), "everything, with BYOK")

    def test_each_of_many_has_its_own_amount(self, workspace: Workspace, one: Integration) -> None:
        for number in range(45):
            cover(one, [ago(2)], usd=number, model=f"m{number}")
            budget(workspace, 5000, filters={"model": [f"m{number}"]}, name=f"{number:02}")
        assert [found.spent_usd for found in budgets.statuses(workspace.id, NOON)] == [
            D(number) for number in range(45)
        ]

    def test_many_take_few_statements(self, app: Flask, workspace: Workspace, one: Integration) -> None:
        for number in range(20):
            budget(workspace, 10 + number, filters={"integration": [one.id]} if number % 2 else {})
        db.session.commit()
        workspace_id = workspace.id
        with asked(app) as statements:
            assert len(budgets.statuses(workspace_id, NOON)) == 20
        assert len(statements) == 3
        budget(workspace, 1, filters={"model": ["dear"]})
        db.session.commit()
        assert workspace.id == workspace_id
        with asked(app) as statements:
            assert len(budgets.statuses(workspace_id, NOON)) == 21
        assert len(statements) == 4


FORM = {"name": ["Team"], "amount_usd": ["1,200.50"], "period": ["month"], "actual": ["50%, 80, 100"], "forecast": [""]}


@on_sqlite
class TestForm:
    def test_what_is_sent_is_what_is_set(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(1)], key="k1")
        sent = FORM | {"integration": [str(one.id)], "model": ["m"], "host": ["h"], "key": ["k1", ""], "byok": ["1"]}
        fields, wrong = parsed(workspace.id, sent)
        assert wrong == {}
        assert fields == budgets.Fields(
            "Team",
            D("1200.50"),
            BudgetPeriod.MONTH,
            {"integration": [one.id], "model": ["m"], "host": ["h"], "key": ["k1", ""]},
            True,
            [50, 80, 100],
            [],
        )

    @pytest.mark.parametrize(
        ("sent", "name"), [({}, "All costs"), ({"model": ["m"]}, "m"), ({"host": ["h"], "model": ["m"]}, "m, h")]
    )
    def test_a_name_comes_from_what_it_is_about(
        self, workspace: Workspace, one: Integration, sent: dict[str, list[str]], name: str
    ) -> None:
        cover(one, [ago(1)])
        fields, _ = parsed(workspace.id, FORM | {"name": [" "]} | sent)
        assert fields is not None
        assert fields.name == name

    def test_what_can_not_be(self, workspace: Workspace) -> None:
        for field, value, sentence in (
            ("amount_usd", "0", "Enter an amount of more than $0."),
            ("amount_usd", "-5", "Enter an amount of more than $0."),
            ("amount_usd", "10,000,000,000", "Enter at most $1,000,000,000."),
            ("amount_usd", "1.0000000000001", "Enter at most 12 decimals."),
            ("amount_usd", "99,50", "Write cents after a point, such as 99.50, and thousands as 1,200."),
            ("amount_usd", "1,2000", "Write cents after a point, such as 99.50, and thousands as 1,200."),
            ("amount_usd", "", "Enter an amount in USD, such as 250 or 99.50."),
            ("amount_usd", "NaN", "Enter an amount in USD, such as 250 or 99.50."),
            ("actual", "80, 50", "Each percentage must be larger than the one before it."),
            ("actual", "50, 50", "Each percentage must be larger than the one before it."),
            ("actual", "0", "Enter whole percentages from 1 to 1,000, such as 50, 80, 100."),
            ("actual", "1001", "Enter whole percentages from 1 to 1,000, such as 50, 80, 100."),
            ("forecast", "12.5", "Enter whole percentages from 1 to 1,000, such as 50, 80, 100."),
            ("actual", "1 2 3 4 5 6 7 8 9 10 11", "Enter at most 10 percentages."),
            ("actual", "", "Enter at least one percentage, here or below."),
            ("period", "decade", "Choose a period."),
            ("name", "n" * 101, "A name can have up to 100 characters."),
            ("name", "a\nb", "The name contains characters that can't be shown, such as a line break."),
            ("integration", "77", "One of these integrations no longer exists. Choose again."),
            ("integration", "x", "One of these integrations no longer exists. Choose again."),
            ("model", "nobody/knows", "“nobody/knows” was never used here. Choose another model, or none."),
            ("host", "\0", "This can't be chosen."),
            ("key", "77", "One of these API keys is not known. Choose again."),
        ):
            assert parsed(workspace.id, FORM | {field: [value]}) == (None, {field: sentence})

    def test_a_key_that_is_gone_and_what_is_anothers(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(1)], key="k1")
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.flush()
        for field, value in (("integration", str(one.id)), ("model", "m"), ("host", "h"), ("key", "k1")):
            assert field in parsed(other.id, FORM | {field: [value]})[1]
        db.session.get_one(ApiKey, key_id(one, "k1")).gone_at = NOON
        one.removed_at = NOON
        assert parsed(workspace.id, FORM | {"key": ["k1"], "integration": [str(one.id)]})[1] == {
            "key": "The API key “k1” was deleted at the provider. Choose another, or none.",
            "integration": "“one” was removed. Choose another integration, or none.",
        }

    def test_made_changed_and_deleted(self, workspace: Workspace) -> None:
        fields, _ = parsed(workspace.id, FORM | {"amount_usd": ["1000000000"]})
        assert fields is not None
        with at(NOON - timedelta(days=3)):
            mine = budgets.create(workspace.id, fields)
            db.session.commit()
        db.session.refresh(mine)
        assert (mine.amount_usd, mine.actual, mine.since.date()) == (D(1_000_000_000), [50, 80, 100], ago(3))
        other, _ = parsed(workspace.id, FORM | {"name": ["Less"], "amount_usd": ["99.5"], "period": ["week"]})
        assert other is not None
        budgets.change(mine, other)
        assert (mine.name, mine.amount_usd, mine.period, mine.since.date()) == ("Less", D("99.5"), "week", TODAY)
        budgets.delete(mine)
        db.session.commit()
        assert budgets.all_of(workspace.id) == []
        noted = db.session.execute(select(AuditEntry.action, AuditEntry.subject).order_by(AuditEntry.number)).all()
        assert [tuple(row) for row in noted] == [
            ("budget added", "Team: $1,000,000,000 a month"),
            ("budget changed", "Less: $99.50 a week"),
            ("budget deleted", "Less: $99.50 a week"),
        ]

    def test_there_is_a_most(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(budgets, "MOST_BUDGETS", 2)
        fields, _ = parsed(workspace.id, FORM)
        assert fields is not None
        for _ in range(2):
            budgets.create(workspace.id, fields)
        with pytest.raises(budgets.TooMany):
            budgets.create(workspace.id, fields)


@on_sqlite
class TestPreview:
    def test_the_days_on_which_somebody_would_have_been_told(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(200), ago(1)), usd=10)
        fields, _ = parsed(workspace.id, FORM | {"amount_usd": ["250"], "actual": ["80"], "forecast": ["120"]})
        assert fields is not None
        fired = preview.of_budget(workspace.id, fields)
        assert [(one.day.isoformat(), one.title) for one in fired] == [
            ("2026-11-01", "120% of $250 forecast for November 2026: $300.00"),
            ("2026-10-20", "80% of $250 used in October 2026: $200.00"),
            ("2026-10-01", "120% of $250 forecast for October 2026: $310.00"),
            ("2026-09-20", "80% of $250 used in September 2026: $200.00"),
            ("2026-09-01", "120% of $250 forecast for September 2026: $300.00"),
        ]
        assert db.session.query(Budget).count() == 0

    def test_what_was_so_before_is_not_told_again(self, workspace: Workspace, one: Integration) -> None:
        cover(one, Period(ago(330), ago(1)), usd=10)
        fields, _ = parsed(workspace.id, FORM | {"amount_usd": ["3000"], "period": ["year"], "actual": ["1, 100"]})
        assert fields is not None
        assert [one.title for one in preview.of_budget(workspace.id, fields)] == [
            "100% of $3,000 used in 2026: $3,000.00"
        ]

"""Digests: what they say of a day, a week and a month, on days that can be checked by eye; and when they are due."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from flask import Flask
from sqlalchemy import delete

from grafient.alerts import digest, outbox
from grafient.alerts.channels import store
from grafient.alerts.digest import TooEarly
from grafient.alerts.message import Item, Message
from grafient.extensions import db
from grafient.models import Budget, DayCheck, Integration, Workspace, utc_now
from grafient.states import BudgetPeriod, DayState, Source, Summary
from tests.alerts.delivered import deliveries, opened, webhook
from tests.alerts.stand_ins import Internet
from tests.statements import asked
from tests.stored import TODAY, add, ago, check, cover, restate
from tests.syncing import NOON, at, on_sqlite

SEVEN = NOON.replace(hour=7)
DAY = timedelta(days=1)
MONDAY = SEVEN + 3 * DAY
FIRST = datetime(2026, 12, 1, 7, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _at_seven(request: pytest.FixtureRequest) -> Iterator[None]:
    if "app" in request.fixturenames:
        request.getfixturevalue("app")
    with at(SEVEN + timedelta(minutes=1)):
        yield


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    """An account with $10 a day until yesterday."""
    found = add(workspace, "one", last_success_at=SEVEN)
    cover(found, days(80, 1))
    return found


def days(first: int, last: int) -> list[date]:
    return [ago(number) for number in range(first, last - 1, -1)]


def said(workspace: Workspace, summary: Summary = Summary.DAILY, day: date = TODAY, name: str = "") -> Message:
    db.session.commit()
    found = digest.of(workspace.id, "msg_1", summary, day, name, NOON)
    assert found is not None
    return found


def item(message: Message, title: str) -> Item:
    [found] = [one for one in message.items if one.title.startswith(title)]
    return found


@on_sqlite
class TestADay:
    def test_what_it_cost_and_why(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(1)], usd=25, model="new")
        found = said(workspace, name=" · Acme")
        assert (found.type, found.uid) == ("digest.daily", "msg_1")
        assert found.title == "Thursday, 19 November 2026: $35.00 · Acme"
        costs = found.items[0]
        assert costs.title == "Thursday, 19 November 2026: $35.00"
        assert costs.lines == [
            "$25.00 (250%) more than 12 November ($10.00).",
            "Most of the change: new +$25.00.",
            "By reason: new models +$25.00.",
        ]
        assert costs.data == {"usd": "35.000000000000", "is_complete": True}
        assert found.foot == "All days of all accounts are in these figures."
        assert found.link == "http://localhost:5000/?from=2026-11-19&to=2026-11-19"

    def test_the_month_and_what_it_is_expected_to_come_to(self, workspace: Workspace, one: Integration) -> None:
        month = item(said(workspace), "November so far")
        assert month.title == "November so far: $190.00"
        assert month.lines == ["Expected by its end: about $300.00 (80% likely: $300.00 to $300.00)."]

    def test_as_much_as_before(self, workspace: Workspace, one: Integration) -> None:
        assert said(workspace).items[0].lines == ["As much as 12 November ($10.00)."]

    def test_nothing_was_used(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [TODAY], usd=None, state=DayState.NO_USAGE)
        db.session.commit()
        with at(SEVEN + DAY + timedelta(minutes=1)):
            found = said(workspace, day=TODAY + DAY)
        assert found.title == "Friday, 20 November 2026: $0.00"
        assert found.items[0].lines[0] == "$10.00 (100%) less than 13 November ($10.00)."

    def test_a_day_that_is_missing_is_not_known(self, workspace: Workspace) -> None:
        one = add(workspace, "one", last_success_at=SEVEN)
        cover(one, days(80, 2))
        found = said(workspace)
        assert found.title == "Thursday, 19 November 2026: not known yet"
        assert found.items[0].lines == [
            "It can't be compared with 12 November: no account has all days of both.",
            "Not compared, since days of them are missing: one.",
        ]
        assert found.items[0].data == {"usd": None, "is_complete": False}
        assert found.foot == "These figures are the least it can be: 0 of 1 day complete."

    def test_a_day_that_may_still_grow_is_not_known_either(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(1)], usd=None, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        assert said(workspace).title == "Thursday, 19 November 2026: not known yet"

    def test_an_account_whose_week_before_is_missing_counts_all_the_same(
        self, workspace: Workspace, one: Integration
    ) -> None:
        """It is not compared; the day is known."""
        two = add(workspace, "two", last_success_at=SEVEN)
        cover(two, [ago(1)], usd=7)
        found = said(workspace)
        assert found.title == "Thursday, 19 November 2026: $17.00"
        assert found.items[0].lines == [
            "Accounts with all days of both cost $10.00: as much as 12 November ($10.00).",
            "Not compared, since days of them are missing: two.",
        ]
        assert found.foot == "All days of all accounts are in these figures."

    def test_one_of_two_accounts_that_is_missing(self, workspace: Workspace, one: Integration) -> None:
        two = add(workspace, "two", last_success_at=SEVEN)
        cover(two, days(20, 2), usd=7)
        found = said(workspace)
        assert found.title == "Thursday, 19 November 2026: at least $10.00"
        assert found.foot == "These figures are the least it can be: 1 of 1 day complete; no data for two."

    def test_budgets_and_what_is_open(self, workspace: Workspace, one: Integration) -> None:
        db.session.add(
            Budget(
                workspace_id=workspace.id,
                name="Team",
                amount_usd=Decimal(200),
                period=BudgetPeriod.MONTH,
                filters={},
                actual=[100],
                forecast=[],
                since=NOON,
            )
        )
        opened(workspace, "one", "two")
        found = said(workspace)
        assert item(found, "Budgets").lines == ["Team, November 2026: 95% spent, $190.00 of $200.00, expected $300.00."]
        still = item(found, "Open alerts")
        assert still.lines == [
            "two: $5.00 of credits left, about 3 days.", "one: $5.00 of credits left, about 3 days."
        ]  # fmt: skip
        assert still.link == "http://localhost:5000/alerts"
        opened(workspace, *map(str, range(20)))
        assert item(said(workspace), "Open alerts").lines[20:] == ["There are more on the page."]

    def test_a_workspace_without_an_account_has_nothing_to_say(self, workspace: Workspace) -> None:
        assert digest.of(workspace.id, "msg_1", Summary.DAILY, TODAY, "", NOON) is None

    def test_names_are_one_line(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(1)], usd=25, model="a\nb" + "c" * 200)
        assert all("\n" not in line and len(line) < 200 for line in said(workspace).items[0].lines)

    def test_many_models_and_accounts_are_few_questions(
        self, app: Flask, workspace: Workspace, one: Integration
    ) -> None:
        db.session.commit()
        with asked(app) as few:
            said(workspace)
        for number in range(20):
            other = add(workspace, str(number), last_success_at=SEVEN)
            cover(other, days(9, 1), model=str(number))
        db.session.commit()
        with asked(app) as many:
            said(workspace)
        assert len(many) <= len(few) + 3


@on_sqlite
class TestAWeek:
    def test_from_monday_to_sunday(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [TODAY, TODAY + DAY, TODAY + 2 * DAY], usd=20)
        with at(MONDAY):
            found = said(workspace, Summary.WEEKLY, MONDAY.date())
        assert found.type == "digest.weekly"
        assert found.title == "16 November to 22 November: $100.00"
        assert found.items[0].lines[0] == "$30.00 (43%) more than 9 November to 15 November ($70.00)."
        assert found.link == "http://localhost:5000/?from=2026-11-16&to=2026-11-22"

    def test_a_day_of_it_is_missing(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [TODAY, TODAY + DAY], usd=20)
        with at(MONDAY):
            found = said(workspace, Summary.WEEKLY, MONDAY.date())
        assert found.title == "16 November to 22 November: at least $80.00"
        assert found.foot == "These figures are the least it can be: 6 of 7 days complete."


@on_sqlite
class TestAMonth:
    @pytest.fixture
    def november(self, workspace: Workspace, one: Integration) -> Integration:
        """All of it, and compared."""
        cover(one, days(0, -10))
        check(one, days(51, -10))
        db.session.commit()
        return one

    def test_with_its_statement(self, workspace: Workspace, november: Integration) -> None:
        cover(november, [ago(5)], usd=3, model="other")
        check_of = [ago(5)]
        db.session.execute(delete(DayCheck).where(DayCheck.day == check_of[0]))
        check(november, check_of, usd=13)
        with at(FIRST):
            found = said(workspace, Summary.MONTHLY, FIRST.date(), " · Acme")
        assert found.type == "digest.monthly"
        assert found.title == "November 2026: $303.00 · Acme"
        statement = item(found, "Statement")
        assert statement.lines == [
            "Total: $303.",
            "Models: m $300.00; other $3.00.",
            "Each day agrees with the provider's other figures.",
        ]
        assert statement.data == {"total_usd": "303.000000000000"}
        assert found.link == "http://localhost:5000/statement?month=2026-11"
        assert found.items[0].lines[0] == "$7.00 (2%) less than 1 October to 31 October ($310.00)."

    def test_it_waits_until_the_month_is_settled_and_compared(self, workspace: Workspace, one: Integration) -> None:
        cover(one, days(0, -9))
        check(one, days(51, -10))
        with at(FIRST), pytest.raises(TooEarly):
            said(workspace, Summary.MONTHLY, FIRST.date())
        cover(one, days(-10, -10))
        with at(FIRST):
            assert said(workspace, Summary.MONTHLY, FIRST.date()).title == "November 2026: $300.00"

    def test_at_most_until_the_sixth(self, workspace: Workspace, one: Integration) -> None:
        cover(one, days(0, -9))
        with at(FIRST + 5 * DAY - timedelta(hours=7, minutes=1)), pytest.raises(TooEarly):
            said(workspace, Summary.MONTHLY, FIRST.date())
        with at(FIRST + 5 * DAY - timedelta(hours=7)):
            found = said(workspace, Summary.MONTHLY, FIRST.date())
        assert found.title == "November 2026: at least $290.00"
        assert item(found, "Statement").lines[0] == "Total: at least $290."
        assert item(found, "Statement").lines[-1].startswith("It could not be compared in full: ")
        assert found.foot == "These figures are the least it can be: 29 of 30 days complete."

    def test_what_differs_and_what_was_restated(self, workspace: Workspace, november: Integration) -> None:
        db.session.execute(delete(DayCheck).where(DayCheck.day == ago(5)))
        check(november, [ago(5)], usd=14)
        restate(november, ago(4), NOON, "9", "10")
        cover(november, [ago(4)], usd=None, state=DayState.RESTATED)
        with at(FIRST):
            lines = item(said(workspace, Summary.MONTHLY, FIRST.date()), "Statement").lines
        assert lines[-2:] == [
            "It differs from the provider's other figures by $4.00.",
            "1 of its days was restated by the provider.",
        ]

    def test_one_that_comes_late_is_sent_at_once(self, workspace: Workspace, one: Integration) -> None:
        """Nobody was there in the first days of the month, or for weeks."""
        cover(one, days(0, -9))
        with at(FIRST + 20 * DAY):
            assert said(workspace, Summary.MONTHLY, FIRST.date()).title == "November 2026: at least $290.00"


class TestWhen:
    @pytest.mark.parametrize(
        ("summary", "now", "last", "following"),
        [
            (Summary.DAILY, "2026-11-20 06:59", "2026-11-19", "2026-11-20"),
            (Summary.DAILY, "2026-11-20 07:00", "2026-11-20", "2026-11-21"),
            (Summary.WEEKLY, "2026-11-20 07:00", "2026-11-16", "2026-11-23"),
            (Summary.WEEKLY, "2026-11-23 07:00", "2026-11-23", "2026-11-30"),
            (Summary.MONTHLY, "2026-11-20 07:00", "2026-11-01", "2026-12-01"),
            (Summary.MONTHLY, "2026-12-31 23:59", "2026-12-01", "2027-01-01"),
        ],
    )
    def test_in_the_morning(self, summary: Summary, now: str, last: str, following: str) -> None:
        moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
        seven = timedelta(hours=7)
        assert store.last_summary(summary, moment) == datetime.fromisoformat(last).replace(tzinfo=UTC) + seven
        assert store.next_summary(summary, moment) == datetime.fromisoformat(following).replace(tzinfo=UTC) + seven

    def test_each_once(self, workspace: Workspace) -> None:
        channel = webhook(workspace, summary=Summary.DAILY)
        webhook(workspace, "none")
        assert channel.summary_at == SEVEN + DAY
        assert outbox.add_digests(SEVEN + DAY - timedelta(seconds=1)) == 0
        assert outbox.add_digests(SEVEN + DAY) == 1
        db.session.commit()
        assert outbox.add_digests(SEVEN + DAY) == 0
        [delivery] = deliveries()
        assert (delivery.channel_id, delivery.sending, delivery.due_at) == (channel.id, "digest", SEVEN + DAY)
        assert delivery.about == {"summary": "daily", "day": "2026-11-21"}
        assert channel.summary_at == SEVEN + 2 * DAY

    def test_after_days_without_a_tick_the_latest(self, workspace: Workspace) -> None:
        daily, monthly = webhook(workspace, summary=Summary.DAILY), webhook(workspace, summary=Summary.MONTHLY)
        assert outbox.add_digests(FIRST + 3 * DAY) == 2
        db.session.commit()
        assert [one.about["day"] for one in deliveries()] == ["2026-12-04", "2026-12-01"]
        assert (daily.summary_at, monthly.summary_at) == (FIRST + 4 * DAY, datetime(2027, 1, 1, 7, tzinfo=UTC))

    def test_none_while_the_channel_is_off_nor_later(self, workspace: Workspace) -> None:
        channel = webhook(workspace, summary=Summary.WEEKLY)
        store.turn_off(channel)
        assert outbox.add_digests(MONDAY + DAY) == 0
        with at(MONDAY + DAY):
            store.turn_on(channel)
            assert outbox.add_digests(utc_now()) == 0
        assert outbox.add_digests(MONDAY + 7 * DAY) == 1

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    def test_two_ticks_at_once_write_it_once(self, context: Flask, workspace: Workspace) -> None:
        for number in range(5):
            webhook(workspace, str(number), summary=Summary.DAILY)
        together = threading.Barrier(2)

        def tick(_number: int) -> int:
            with context.app_context():
                together.wait(10)
                found = outbox.add_digests(SEVEN + DAY)
                db.session.commit()
                return found

        with ThreadPoolExecutor(2) as pool:
            assert sum(pool.map(tick, range(2))) == 5
        assert len(deliveries()) == 5

    @on_sqlite
    def test_a_month_that_is_not_settled_is_looked_at_again_in_six_hours(
        self, workspace: Workspace, one: Integration, internet: Internet
    ) -> None:
        machine = internet.machine("hooks.example.com")
        webhook(workspace, summary=Summary.MONTHLY)
        cover(one, days(0, -9))
        db.session.commit()
        outbox.add_digests(FIRST)
        db.session.commit()
        for hours in range(0, 24 * 6, 5):
            with at(FIRST + timedelta(hours=hours)):
                outbox.send_due()
            if machine.requests:
                break
        assert 24 * 5 - 7 <= hours <= 24 * 5 + 5
        [delivery] = deliveries()
        assert (delivery.state, delivery.attempts) == ("sent", 1)
        assert delivery.title == machine.last.json["data"]["title"] == "November 2026: at least $290.00"

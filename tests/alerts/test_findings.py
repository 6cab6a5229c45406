"""What a look finds: unusual days, what is new, credits that run out, accounts that are not read. On days that can be
checked by eye, with the incidents that follow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from grafient.alerts import budgets, rules, unusual, watch, wording
from grafient.extensions import db
from grafient.models import (
    AlertWatch,
    Budget,
    Channel,
    CoveredDay,
    CreditReading,
    DeliveryEvent,
    Incident,
    IncidentEvent,
    Integration,
    KeyReading,
    SyncRun,
    Workspace,
)
from grafient.states import (
    AlertKind,
    BudgetPeriod,
    ChannelKind,
    DayState,
    Happened,
    Problem,
    RunStatus,
    Source,
    Topic,
    Trigger,
)
from tests.stored import TODAY, add, ago, check, cover, key_id, restate
from tests.syncing import NOON, at

YESTERDAY = ago(1)  # a Thursday
LOOKED = NOON - timedelta(days=1)


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


@pytest.fixture
def one(workspace: Workspace) -> Integration:
    """An account with 80 days of $10 each, that was looked at yesterday."""
    found = add(workspace, "one", last_success_at=NOON - timedelta(hours=6))
    cover(found, days(80, 2))
    set_rule(workspace, AlertKind.NO_SYNC, is_on=False)  # most of these tests don't go on reading it
    look(workspace, LOOKED)
    return found


def days(first: int, last: int) -> list[date]:
    return [ago(number) for number in range(first, last - 1, -1)]


def look(workspace: Workspace, now: datetime = NOON) -> list[str]:
    """What is said after another look."""
    db.session.commit()
    before = {event.id for event in db.session.execute(select(IncidentEvent)).scalars()}
    with at(now):
        watch.look(workspace.id, now)
    found = select(IncidentEvent, Incident).join(Incident).where(IncidentEvent.id.not_in(before))
    rows = db.session.execute(found.order_by(IncidentEvent.id)).all()
    return [f"{event.what}: {wording.said(of.kind, event.what, event.facts, event.marks).title}" for event, of in rows]


def set_rule(workspace: Workspace, kind: AlertKind, is_on: bool = True, **settings: object) -> None:
    rules.save(workspace.id, kind, is_on, {**rules.default(kind).settings, **settings}, NOON - timedelta(days=400))
    db.session.commit()


class TestUnusualDays:
    def test_a_day_as_expected_says_nothing(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY])
        assert look(workspace) == []

    def test_a_spike_and_its_end(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY], usd=31)
        assert look(workspace) == ["opened: one: $31.00 on 19 November, $21.00 more than expected"]
        cover(one, [TODAY])
        tomorrow = NOON + timedelta(days=1)
        assert look(workspace, tomorrow) == ["resolved: one: as expected again after 19 November"]
        assert look(workspace, tomorrow) == []

    def test_a_spike_and_the_contrary(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY], usd=31)
        look(workspace)
        cover(one, [TODAY], usd=None, state=DayState.NO_USAGE)
        assert sorted(look(workspace, NOON + timedelta(days=1))) == [
            "opened: one: $0.00 on 20 November, $10.00 less than expected",
            "resolved: one: no longer more than expected after 19 November",
        ]

    def test_what_made_it_so(self, workspace: Workspace, one: Integration) -> None:
        cover(one, days(80, 2), usd=2, model="other")
        cover(one, [YESTERDAY], usd=3, model="other")
        cover(one, [YESTERDAY], usd=31)
        look(workspace)
        facts = db.session.execute(select(Incident.facts)).scalar_one()
        assert facts["drivers"] == [{"name": "m", "usd": "31.000000000000", "expected_usd": "10.00"}]
        assert facts["expected_usd"] == "12.00"

    def test_a_day_on_which_nothing_was_used(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY], usd=None, state=DayState.NO_USAGE)
        assert look(workspace) == ["opened: one: $0.00 on 19 November, $10.00 less than expected"]

    def test_a_day_that_is_missing_is_not_one(self, workspace: Workspace, one: Integration) -> None:
        assert look(workspace) == []

    def test_nor_one_that_is_not_settled(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY], usd=2, state=DayState.PROVISIONAL)
        assert look(workspace) == []

    def test_what_was_so_before_it_was_watched_is_no_news(self, workspace: Workspace) -> None:
        one = add(workspace, "one", last_success_at=NOON)
        cover(one, days(80, 2))
        cover(one, [YESTERDAY], usd=31)
        assert look(workspace) == []

    def test_nor_is_the_history_of_an_account_that_was_just_connected(
        self, workspace: Workspace, one: Integration
    ) -> None:
        two = add(workspace, "two", last_success_at=NOON)
        two.created_at = NOON
        cover(two, days(80, 2))
        cover(two, [YESTERDAY], usd=50)
        assert look(workspace) == []

    def test_a_restatement_of_a_day_that_was_judged_says_nothing(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY])
        look(workspace)
        cover(one, [YESTERDAY, ago(2)], usd=50, state=DayState.RESTATED, model="n")
        one.changed()
        assert look(workspace) == []

    def test_each_day_of_those_that_come_at_once(self, workspace: Workspace, one: Integration) -> None:
        """The account could not be read for three days; the middle one had a spike."""
        look(workspace, LOOKED)
        cover(one, [YESTERDAY, TODAY + timedelta(days=1)])
        cover(one, [TODAY], usd=40)
        found = look(workspace, NOON + timedelta(days=2))
        assert found[0] == "opened: one: $40.00 on 20 November, $30.00 more than expected"
        assert found[1] == "resolved: one: as expected again after 20 November"

    def test_days_in_a_row_are_one_incident(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY], usd=31)
        look(workspace)
        cover(one, [TODAY], usd=33)
        assert look(workspace, NOON + timedelta(days=1)) == []
        incident = db.session.execute(select(Incident)).scalar_one()
        assert (incident.first_day, incident.last_day) == (YESTERDAY, TODAY)
        assert incident.facts["usd"] == "33.000000000000"

    def test_a_rule_that_is_off_says_nothing_and_ends_what_it_said(
        self, workspace: Workspace, one: Integration
    ) -> None:
        cover(one, [YESTERDAY], usd=31)
        look(workspace)
        set_rule(workspace, AlertKind.UNUSUAL_DAY, is_on=False)
        assert look(workspace) == ["resolved: one: “Unusual day” was closed"]

    def test_one_model_alone(self, workspace: Workspace, one: Integration) -> None:
        """All of it as much as ever, but of another model."""
        cover(one, days(80, 2), usd=20, model="large")
        look(workspace, LOOKED + timedelta(hours=1))
        cover(one, [YESTERDAY], usd=30)
        cover(one, [YESTERDAY], usd=1, model="large")
        assert look(workspace) == [
            "opened: one, large: $1.00 on 19 November, $19.00 less than expected",
            "opened: one, m: $30.00 on 19 November, $20.00 more than expected",
        ]

    def test_one_key_alone_where_its_days_were_read(self, workspace: Workspace, one: Integration) -> None:
        set_rule(workspace, AlertKind.UNUSUAL_DAY, part_usd=Decimal(3), least_percent=50)
        key_id(one, "k" * 64)
        cover(one, days(80, 2), usd=4, model="of key", key="k" * 64)
        db.session.add(KeyReading(integration_id=one.id, key_hash="k" * 64, first_day=ago(80), last_day=YESTERDAY))
        look(workspace, LOOKED + timedelta(hours=1))
        cover(one, [YESTERDAY], usd=9)
        cover(one, [YESTERDAY], usd=9, model="of key", key="k" * 64)
        assert look(workspace) == [
            "opened: one, of key: $9.00 on 19 November, $5.00 more than expected",
        ]
        set_rule(workspace, AlertKind.UNUSUAL_DAY, part_usd=Decimal(3), least_percent=50, models=False)
        cover(one, [TODAY], usd=9)
        cover(one, [TODAY], usd=9, model="of key", key="k" * 64)
        reading = db.session.execute(select(KeyReading)).scalar_one()
        reading.last_day = TODAY
        found = look(workspace, NOON + timedelta(days=1))
        assert f"opened: one, API key {'k' * 64}: $9.00 on 20 November, $5.00 more than expected" in found


class TestToday:
    def test_it_is_said_once_and_what_it_came_to(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY])
        cover(one, [TODAY], usd=25, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        assert look(workspace) == [
            "opened: one: $25.00 so far on 20 November, more than a whole day is expected to cost"
        ]
        cover(one, [TODAY], usd=4, state=DayState.PROVISIONAL, source=Source.ANALYTICS, model="n")
        one.changed()
        assert look(workspace, NOON + timedelta(hours=2)) == []
        db.session.execute(CoveredDay.__table__.update().where(CoveredDay.day == TODAY).values(state=DayState.FINAL))
        tomorrow = look(workspace, NOON + timedelta(days=1))
        assert tomorrow == [
            "opened: one: $29.00 on 20 November, $19.00 more than expected",
            "resolved: one: 20 November came to $29.00, about $10.00 was expected",
        ]

    def test_less_than_a_whole_day_says_nothing(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY])
        cover(one, [TODAY], usd=12, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        assert look(workspace) == []

    def test_what_it_came_to_is_said_once_that_is_known(self, workspace: Workspace, one: Integration) -> None:
        """The provider was down for two days; before, the day was only said to be over."""
        cover(one, [YESTERDAY])
        cover(one, [TODAY], usd=25, state=DayState.PROVISIONAL, source=Source.ANALYTICS)
        look(workspace)
        assert look(workspace, NOON + timedelta(days=3)) == []
        db.session.execute(CoveredDay.__table__.update().where(CoveredDay.day == TODAY).values(state=DayState.FINAL))
        assert "resolved: one: 20 November came to $25.00, about $10.00 was expected" in look(
            workspace, NOON + timedelta(days=3, hours=1)
        )


class TestNew:
    def test_a_model_that_costs_enough(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [YESTERDAY])
        cover(one, [YESTERDAY], usd=3, model="n")
        assert look(workspace) == []
        cover(one, [TODAY])
        cover(one, [TODAY], usd=2, model="n")
        found = look(workspace, NOON + timedelta(days=1))
        assert found == ["opened: one: new model n has cost $5.00"]
        cover(one, [TODAY + timedelta(days=1)])
        cover(one, [TODAY + timedelta(days=1)], usd=2, model="n")
        assert look(workspace, NOON + timedelta(days=2)) == []

    def test_not_one_that_was_used_long_ago(self, workspace: Workspace, one: Integration) -> None:
        cover(one, [ago(300)], usd=1, model="n")
        cover(one, [YESTERDAY])
        cover(one, [YESTERDAY], usd=9, model="n")
        assert [said for said in look(workspace) if "new" in said] == []

    def test_nor_anything_in_an_account_that_is_new_itself(self, workspace: Workspace) -> None:
        one = add(workspace, "one", last_success_at=NOON)
        cover(one, days(10, 2))
        set_rule(workspace, AlertKind.DAYS_LEAVING, is_on=False)
        look(workspace, LOOKED)
        cover(one, [YESTERDAY], usd=9, model="n")
        assert look(workspace) == []


class TestCredits:
    def read(self, one: Integration, left: int, hours_ago: int = 1) -> None:
        moment = NOON - timedelta(hours=hours_ago)
        db.session.add(
            CreditReading(
                integration_id=one.id, read_at=moment, lifetime_usd=Decimal(100), bought_usd=Decimal(100 + left)
            )
        )
        one.changed()

    def test_few_days_then_a_sum_then_nothing_then_a_top_up(self, workspace: Workspace, one: Integration) -> None:
        self.read(one, 71, 9)
        assert look(workspace) == []
        self.read(one, 69, 8)
        assert look(workspace) == ["opened: one: $69.00 of credits left, about 6 days"]
        self.read(one, 72, 7)
        assert look(workspace) == []  # hardly more than before is no top-up
        self.read(one, 9, 6)
        assert look(workspace) == ["worsened: one: $9.00 of credits left, less than a day"]
        self.read(one, -1, 5)
        assert look(workspace) == ["worsened: one: no credits left"]
        self.read(one, 500, 4)
        assert look(workspace) == ["resolved: one: $500.00 of credits left again"]
        self.read(one, 8, 3)
        assert look(workspace) == ["opened: one: $8.00 of credits left, less than a day"]

    def test_it_is_said_again_each_day(self, workspace: Workspace, one: Integration) -> None:
        self.read(one, 5)
        look(workspace)
        assert look(workspace, NOON + timedelta(hours=23)) == []
        assert look(workspace, NOON + timedelta(hours=24)) == ["reminded: one: $5.00 of credits left, less than a day"]
        assert look(workspace, NOON + timedelta(hours=47)) == []

    def test_what_becomes_unknown_is_not_over(self, workspace: Workspace, one: Integration) -> None:
        """No day of the last five is settled, so nobody knows how long they last; then how much there is."""
        self.read(one, 69)
        assert look(workspace) == ["opened: one: $69.00 of credits left, about 6 days"]
        assert look(workspace, NOON + timedelta(days=4)) == ["reminded: one: $69.00 of credits left"]
        db.session.add(CreditReading(integration_id=one.id, read_at=NOON, lifetime_usd=Decimal(100)))
        one.changed()
        assert look(workspace, NOON + timedelta(days=4, hours=1)) == []

    def test_who_spends_nothing_has_enough(self, workspace: Workspace, one: Integration) -> None:
        self.read(one, 69)
        look(workspace)
        cover(one, [TODAY + timedelta(days=number) for number in range(-1, 15)], usd=None, state=DayState.NO_USAGE)
        found = look(workspace, NOON + timedelta(days=15))
        assert "resolved: one: $69.00 of credits left again" in found

    def test_an_account_that_is_connected_a_second_time(self, workspace: Workspace, one: Integration) -> None:
        self.read(one, 5)
        one.account_ref = "acct"
        look(workspace)
        two = add(workspace, "a name before", last_success_at=NOON, account_ref="acct")
        self.read(two, 5)
        assert not any("credits" in said for said in look(workspace))

    def test_what_is_unknown_is_not_low(self, workspace: Workspace, one: Integration) -> None:
        db.session.add(CreditReading(integration_id=one.id, read_at=NOON, lifetime_usd=Decimal(100)))
        assert look(workspace) == []


class TestReading:
    def test_a_rejected_key_is_one_incident_that_gets_worse(self, workspace: Workspace, one: Integration) -> None:
        one.set_problem(Problem.NEEDS_KEY, "OpenRouter says: User not found.", NOON)
        assert look(workspace) == ["opened: one: its key was rejected"]
        later = NOON + timedelta(hours=30)  # not read for 36 hours: the same cause
        assert look(workspace, later) == ["reminded: one: its key was rejected"]
        last = NOON + timedelta(days=25)
        assert look(workspace, last) == ["worsened: one: days will soon be lost, because its key was rejected"]
        one.clear_problem()
        one.last_success_at = last
        cover(one, [ago(number) for number in range(1, -25, -1)])
        assert "resolved: one: its key works again" in look(workspace, last)

    def test_one_that_is_not_read(self, workspace: Workspace, one: Integration) -> None:
        set_rule(workspace, AlertKind.NO_SYNC)
        assert look(workspace, NOON + timedelta(hours=20)) == []
        assert look(workspace, NOON + timedelta(hours=20, seconds=1)) == [
            "opened: one has not been read since 20 November 2026, 06:00 UTC"
        ]
        one.last_success_at = NOON + timedelta(hours=20)
        assert look(workspace, NOON + timedelta(hours=21)) == ["resolved: one is read again"]

    def test_who_asks_for_a_sync_has_not_read_it(self, workspace: Workspace, one: Integration) -> None:
        set_rule(workspace, AlertKind.NO_SYNC)
        late = NOON + timedelta(hours=21)
        look(workspace, late)
        db.session.add(SyncRun(integration_id=one.id, trigger=Trigger.MANUAL, created_at=late))
        assert look(workspace, late) == []

    def test_one_that_was_just_resumed_has_ten_minutes(self, workspace: Workspace, one: Integration) -> None:
        set_rule(workspace, AlertKind.NO_SYNC)
        late = NOON + timedelta(hours=21)
        db.session.add(SyncRun(integration_id=one.id, trigger=Trigger.MANUAL, created_at=late))
        assert look(workspace, late) == []
        assert watch.due(late + timedelta(minutes=10)) == []
        assert watch.due(late + timedelta(minutes=10, seconds=1)) == [workspace.id]

    @pytest.mark.parametrize(
        ("column", "value"), [("problem", Problem.NEEDS_KEY), ("paused_at", NOON), ("removed_at", NOON)]
    )
    def test_it_is_not_read_again_only_because_something_else_is_so(
        self, workspace: Workspace, one: Integration, column: str, value: object
    ) -> None:
        topics = [str(topic) for topic in Topic]
        db.session.add(Channel(workspace_id=workspace.id, kind=ChannelKind.SLACK, name="all", shown={}, topics=topics))
        set_rule(workspace, AlertKind.NO_SYNC)
        late = NOON + timedelta(hours=21)
        look(workspace, late)
        setattr(one, column, value)
        look(workspace, late)
        incident = db.session.execute(select(Incident).where(Incident.kind == AlertKind.NO_SYNC)).scalar_one()
        told = set(db.session.execute(select(DeliveryEvent.event_id)).scalars())
        assert [(event.what, event.id in told) for event in incident.events] == [
            (Happened.OPENED, True),
            (Happened.RESOLVED, False),
        ]

    def test_it_is_read_again_though_its_key_ends_soon(self, workspace: Workspace, one: Integration) -> None:
        topics = [str(topic) for topic in Topic]
        db.session.add(Channel(workspace_id=workspace.id, kind=ChannelKind.SLACK, name="all", shown={}, topics=topics))
        set_rule(workspace, AlertKind.NO_SYNC)
        late = NOON + timedelta(hours=21)
        look(workspace, late)
        one.last_success_at, one.key_expires_at = late, late + timedelta(days=3)
        found = look(workspace, late)
        assert found[1:] == ["resolved: one is read again"]
        assert db.session.execute(select(func.count()).select_from(DeliveryEvent)).scalar_one() == 3

    def test_a_key_that_ends_soon(self, workspace: Workspace, one: Integration) -> None:
        one.key_expires_at = NOON + timedelta(days=14)
        assert look(workspace) == []
        assert look(workspace, NOON + timedelta(seconds=1)) == [
            "opened: one: its key expires on 4 December 2026, 12:00 UTC"
        ]

    def test_another_api(self, workspace: Workspace, one: Integration) -> None:
        one.set_problem(Problem.API_CHANGED, "The field usage is missing.", NOON)
        assert look(workspace) == ["opened: one: OpenRouter changed its API"]

    def test_a_day_that_is_about_to_be_lost(self, workspace: Workspace, one: Integration) -> None:
        db.session.execute(CoveredDay.__table__.delete().where(CoveredDay.day == ago(26)))
        one.changed()
        assert look(workspace) == ["opened: one: 1 missing day will soon be lost"]

    def test_a_pause_is_no_trouble(self, workspace: Workspace, one: Integration) -> None:
        set_rule(workspace, AlertKind.NO_SYNC)
        one.paused_at = NOON
        assert look(workspace, NOON + timedelta(days=9)) == []


def test_what_is_too_small_to_be_told_of_costs_no_time(
    workspace: Workspace, one: Integration, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked_out = []

    def counted(*args: Any) -> Any:
        worked_out.append(args)
        return expected(*args)

    expected = unusual.expected
    for number in range(30):
        cover(one, [*days(30, 10), YESTERDAY], usd="0.01", model=f"small {number}")
    cover(one, [YESTERDAY])
    monkeypatch.setattr(unusual, "expected", counted)
    assert look(workspace) == []
    assert len(worked_out) < 5


class TestFigures:
    def test_a_difference(self, workspace: Workspace, one: Integration) -> None:
        check(one, [ago(3)], usd=12)
        one.changed()
        assert look(workspace) == ["opened: one: the figures differ from OpenRouter's by $2.00"]
        assert look(workspace, NOON + timedelta(hours=1)) == []

    def test_a_small_one_is_not_worth_it(self, workspace: Workspace, one: Integration) -> None:
        set_rule(workspace, AlertKind.DIFFERENCE, least_usd=Decimal(3))
        check(one, [ago(3)], usd=12)
        assert look(workspace) == []

    def test_a_month_that_was_over(self, workspace: Workspace, one: Integration) -> None:
        def restated(day: date, after: str, moment: datetime) -> None:
            restate(one, day, moment, "10", after)
            one.last_restated_at = moment
            one.changed()

        restated(TODAY - timedelta(days=3), "30", NOON)
        assert look(workspace) == []  # this month is not over
        restated(date(2026, 10, 5), "10.5", NOON)
        assert look(workspace) == []  # by less than a dollar
        restated(date(2026, 10, 6), "12.5", NOON)
        assert look(workspace) == ["opened: one: OpenRouter restated October 2026, now $3.00 more"]
        restated(date(2026, 10, 7), "15", NOON + timedelta(hours=1))
        again = look(workspace, NOON + timedelta(hours=1))
        assert again == ["worsened: one: OpenRouter restated October 2026, now $8.00 more"]
        assert look(workspace, NOON + timedelta(hours=2)) == []


class TestBudgets:
    @pytest.fixture
    def budget(self, workspace: Workspace, one: Integration) -> Budget:
        cover(one, [YESTERDAY])
        with at(NOON - timedelta(days=30)):
            fields = budgets.Fields("All", Decimal(30), BudgetPeriod.DAY, {}, False, [100], [])
            found = budgets.create(workspace.id, fields)
            db.session.flush()
        for kind in (AlertKind.UNUSUAL_DAY, AlertKind.TODAY):
            set_rule(workspace, kind, is_on=False)
        look(workspace, LOOKED)
        return found

    def test_each_day_of_those_that_come_at_once(self, workspace: Workspace, one: Integration, budget: Budget) -> None:
        cover(one, [TODAY], usd=40)
        cover(one, [TODAY + timedelta(days=1), TODAY + timedelta(days=2)])
        found = look(workspace, NOON + timedelta(days=3))
        assert found == ["opened: All: over budget by $10.00 ($40.00 of $30.00, 20 November)"]

    def test_how_it_ended_is_said_also_if_nobody_looked_meanwhile(
        self, workspace: Workspace, one: Integration, budget: Budget
    ) -> None:
        cover(one, [TODAY], usd=40, state=DayState.PROVISIONAL)
        assert look(workspace) == ["opened: All: over budget by $10.00 ($40.00 of $30.00, 20 November)"]
        found = look(workspace, NOON + timedelta(days=9))
        assert found == ["resolved: All: 20 November ended at 133%, $40.00 of $30.00"]


class TestClocks:
    """One that was weeks ahead, and is right again."""

    AHEAD = NOON + timedelta(days=21)

    def test_the_next_look_is_not_weeks_away(self, workspace: Workspace, one: Integration) -> None:
        look(workspace, self.AHEAD)
        assert watch.due(NOON) == [workspace.id]
        look(workspace)
        assert watch.due(NOON) == []

    def test_what_was_set_then_counts_from_now_on(self, workspace: Workspace, one: Integration) -> None:
        rules.save(workspace.id, AlertKind.UNUSUAL_DAY, True, rules.default(AlertKind.UNUSUAL_DAY).settings, self.AHEAD)
        cover(one, [YESTERDAY], usd=31)
        assert look(workspace) == ["opened: one: $31.00 on 19 November, $21.00 more than expected"]

    def test_reminders_go_on(self, workspace: Workspace, one: Integration) -> None:
        one.set_problem(Problem.API_CHANGED, "The field usage is missing.", NOON)
        look(workspace, self.AHEAD)
        assert look(workspace) == ["reminded: one: OpenRouter changed its API"]
        assert look(workspace, NOON + timedelta(hours=23)) == []


class TestLooks:
    def test_nothing_is_due_when_nothing_changed(self, workspace: Workspace, one: Integration) -> None:
        look(workspace)
        assert watch.due(NOON + timedelta(hours=1)) == []
        one.changed()
        db.session.commit()
        assert watch.due(NOON + timedelta(hours=1)) == [workspace.id]

    def test_time_alone_makes_it_due(self, workspace: Workspace, one: Integration) -> None:
        look(workspace)
        assert watch.due(NOON + timedelta(hours=12)) == []  # midnight, to the second
        assert watch.due(NOON + timedelta(hours=12, seconds=1)) == [workspace.id]

    def test_who_changed_something_has_it_looked_at_anew(self, workspace: Workspace, one: Integration) -> None:
        look(workspace)
        watch.look_again(workspace.id)
        db.session.commit()
        assert watch.due(NOON + timedelta(hours=1)) == [workspace.id]

    def test_who_ends_last_looks(self, workspace: Workspace, one: Integration) -> None:
        """A workspace of 1,000 accounts is not looked at 1,000 times while these are read."""
        two = add(workspace, "two", last_success_at=NOON)
        run = SyncRun(integration_id=two.id, trigger=Trigger.DAILY, status=RunStatus.RUNNING)
        db.session.add(run)
        look(workspace)

        def turn() -> int:
            watch.look_after_sync(one.id)
            return db.session.get_one(AlertWatch, workspace.id, populate_existing=True).turn

        before = turn()
        assert turn() == before
        run.status = RunStatus.DONE
        db.session.commit()
        assert turn() == before + 1

    def test_a_workspace_without_accounts_is_never_due(self, workspace: Workspace) -> None:
        assert watch.due(NOON) == []

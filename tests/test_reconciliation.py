"""Is it the bill: activity, analytics and credits are three counts of one account, and must not be let off lightly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from sqlalchemy import select, update

from grafient import coverage, reconciliation
from grafient.coverage import Known
from grafient.days import Period
from grafient.extensions import db
from grafient.models import CoveredDay, CreditReading, DayCheck, Integration, Workspace
from grafient.providers import Activity
from grafient.providers.http import Reply
from grafient.providers.openrouter import OpenRouterReader
from grafient.providers.openrouter.calls import Calls
from grafient.query import Query
from grafient.reconciliation import ROUNDED_USD, Verdict
from grafient.sandbox import Sandbox
from grafient.states import Source
from grafient.sync import stages
from grafient.sync.hold import Hold
from tests.stored import add, cover
from tests.syncing import MICRO, NOON, again, at, days, later, leave_out_keys, on_sqlite, synced, window, with_the_year

TODAY = NOON.date()


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    leave_out_keys(monkeypatch)
    with at():
        yield


def verdict(first: date, last: date, *integrations: Integration) -> Verdict:
    found = reconciliation.verdict(known_of(first, last, *integrations))
    db.session.rollback()
    return found


def known_of(first: date, last: date, *integrations: Integration) -> Known:
    """What is known of these integrations, those without a settled day too."""
    workspace_id = integrations[0].workspace_id if integrations else 0
    known = coverage.load(Query(workspace_id, Period(first, last)), integrations)
    known.integrations = list(integrations)
    return known


def at_request(when: str, request: str, do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen once: before that request is sent, after its reply, or when activity has been read."""
    once, activity, waiting = Calls._once, OpenRouterReader.activity, {when: do}

    def watched(self: Calls, asked: str, send: Any) -> Reply:
        happens = waiting if asked == request else {}
        happens.pop("before", lambda: None)()
        reply = once(self, asked, send)
        happens.pop("after", lambda: None)()
        return reply

    def read(self: OpenRouterReader) -> Activity:
        found = activity(self)
        waiting.pop("between", lambda: None)()
        return found

    monkeypatch.setattr(Calls, "_once", watched)
    monkeypatch.setattr(OpenRouterReader, "activity", read)


class TestDays:
    @on_sqlite
    @pytest.mark.parametrize("name", ["lively", "other", "byok", "hostile"])
    def test_a_window_whose_days_agree_is_verified(self, workspace: Workspace, sandbox: Sandbox, name: str) -> None:
        found = verdict(*window(sandbox), synced(workspace, sandbox, name))
        assert (found.state, found.asked, found.agreeing, found.why) == ("verified", 30, 30, "")
        assert (found.differing, found.spans, found.difference_usd) == ([], [], 0)
        spent = sandbox.truth(name, *window(sandbox)).usage
        assert abs(sum(day.activity_usd for day in found.days) - spent) < Decimal("1E-11")

    @on_sqlite
    def test_days_without_usage_are_verified_too(self, workspace: Workspace, sandbox: Sandbox) -> None:
        found = verdict(*window(sandbox), synced(workspace, sandbox, "empty"))
        assert (found.state, found.agreeing) == ("verified", 30)

    def test_what_analytics_says_differently_differs_to_the_cent(self, workspace: Workspace, sandbox: Sandbox) -> None:
        sandbox.fault("lively", "analytics-off")
        first, last = window(sandbox)
        found = verdict(first, last, synced(workspace, sandbox))
        assert (found.state, found.why) == ("differs", "")
        usage = {day: sandbox.truth("lively", day, day).usage for day in days(first, last)}
        off = {
            day: amount - (amount.quantize(MICRO) * Decimal("1.5")).quantize(MICRO)
            for day, amount in usage.items()
            if amount
        }
        assert {day.day: day.difference_usd for day in found.differing} == off
        assert found.difference_usd == -sum(off.values()) > 0
        assert found.agreeing == 30 - len(off)

    def test_one_day_that_differs_is_named(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        day = TODAY - timedelta(days=4)
        usage = sandbox.truth("lively", day, day).usage
        for other, differs in (
            (usage + ROUNDED_USD, False),
            (usage - ROUNDED_USD, False),
            (usage + 2 * ROUNDED_USD, True),
            (Decimal(0), True),
        ):
            db.session.execute(update(DayCheck).where(DayCheck.day == day).values(analytics_usd=other))
            found = reconciliation.verdict(known_of(*window(sandbox), integration))
            assert found.state == ("differs" if differs else "verified")
            assert [one.day for one in found.differing] == ([day] if differs else [])
        db.session.rollback()

    @on_sqlite
    def test_what_was_restated_is_held_against_what_analytics_says_now(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        sandbox.restate("lively", TODAY - timedelta(days=4), Decimal(2))
        again(integration)
        assert verdict(*window(sandbox), integration).state == "verified"

    def test_of_several_integrations_each_has_to_agree(self, workspace: Workspace, sandbox: Sandbox) -> None:
        lively, other = synced(workspace, sandbox), synced(workspace, sandbox, "analytics-off")
        first, last = window(sandbox)
        assert verdict(first, last, lively).state == "verified"
        both = verdict(first, last, lively, other)
        assert (both.state, both.asked, len(both.days)) == ("differs", 60, 60)
        assert {day.integration_id for day in both.differing} == {other.id}
        assert both.difference_usd == verdict(first, last, other).difference_usd
        never = add(workspace, "never read")
        each = reconciliation.verdicts(known_of(first, last, lively, other, never))
        assert each == {one.id: verdict(first, last, one) for one in (lively, other, never)}
        assert (each[never.id].state, each[never.id].asked) == ("unverified", 30)

    @on_sqlite
    @pytest.mark.parametrize("name", ["no-analytics", "analytics-silent"])
    def test_without_a_second_count_it_is_unverified_and_says_why(
        self, workspace: Workspace, sandbox: Sandbox, name: str
    ) -> None:
        integration = synced(workspace, sandbox, name)
        found = verdict(*window(sandbox), integration)
        assert (found.state, found.days, found.difference_usd) == ("unverified", [], 0)
        said = (integration.no_history or "").rstrip(".")
        assert said
        assert found.why == f"0 of 30 days agree with analytics; 30 have nothing to compare with: {said}."

    @on_sqlite
    def test_what_is_known_from_analytics_alone_is_not_verified_by_it(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(with_the_year(workspace), sandbox)
        found = verdict(TODAY - timedelta(days=365), TODAY - timedelta(days=1), integration)
        assert (found.state, found.asked, found.agreeing) == ("unverified", 365, 30)
        assert "30 of 365 days agree with analytics; 335 are known from analytics only" in found.why

    @on_sqlite
    def test_a_day_of_the_window_that_only_analytics_told_of_is_not_verified(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        day = TODAY - timedelta(days=4)
        db.session.execute(update(CoveredDay).where(CoveredDay.day == day).values(source="analytics"))
        db.session.commit()
        found = verdict(*window(sandbox), integration)
        assert (found.state, found.agreeing) == ("unverified", 29)
        assert "from analytics only" in found.why

    def test_today_and_missing_days_are_not_verified(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        found = verdict(TODAY - timedelta(days=32), TODAY, integration)
        assert (found.state, found.asked, found.agreeing) == ("unverified", 33, 30)
        assert "3 are missing or not settled" in found.why

    def test_of_nothing_there_is_nothing_to_say(self, workspace: Workspace) -> None:
        found = verdict(TODAY, TODAY)
        assert (found.state, found.why, found.days) == ("unverified", "", [])


class TestCredits:
    """Whole days between two readings; each reading at noon, its own day half spent."""

    def test_they_grow_by_what_the_days_come_to_restatements_included(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        before, within = TODAY - timedelta(days=9), TODAY + timedelta(days=1)
        for after in (1, 2, 3, 5):
            with later(after):
                if after == 2:
                    sandbox.restate("lively", before, Decimal("1.5"))
                if after == 3:
                    sandbox.restate("lively", within, Decimal("0.25"))
                assert again(integration).days_restated == (1 if after in (2, 3) else 0)
        last = TODAY + timedelta(days=4)
        found = verdict(TODAY, last, integration)
        (span,) = found.spans
        assert (span.days.first, span.days.last) == (TODAY, last)
        assert abs(span.difference_usd) <= ROUNDED_USD
        whole = sandbox.truth("lively", TODAY, last).usage + sandbox.truth("lively", before, before).usage / 3
        assert abs(span.days_usd - whole) < Decimal("1E-11")
        assert 0 < span.slack_usd < whole / 100
        assert found.state == "verified"
        other = synced(workspace, sandbox, "other")
        assert reconciliation.verdicts(known_of(TODAY, last, integration, other))[integration.id] == found

    def test_what_is_restated_after_the_last_reading_is_not_held_against_it(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        with later(3):
            again(integration)
        with later(4):
            sandbox.restate("lively", TODAY + timedelta(days=1), Decimal(3))
            sandbox.fault("lively", "no-credits")
            assert again(integration).days_restated == 1
        (span,) = verdict(TODAY, TODAY + timedelta(days=2), integration).spans
        assert abs(span.difference_usd) <= ROUNDED_USD

    @on_sqlite
    def test_readings_and_restatements_of_other_days_do_not_matter(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        """A part of the time between the first reading and the last one."""
        integration = synced(workspace, sandbox)
        for after in (1, 2, 3, 4, 5, 6):
            with later(after):
                sandbox.restate("lively", TODAY + timedelta(days=after - 2), Decimal("1.1"))
                again(integration)
        for first in range(6):
            for last in range(first, 6):
                period = (TODAY + timedelta(days=first), TODAY + timedelta(days=last))
                (span,) = verdict(*period, integration).spans
                assert (span.days.first, span.days.last) == period
                assert abs(span.difference_usd) <= ROUNDED_USD, period

    @on_sqlite
    @pytest.mark.parametrize("amount", ["0.9", "-0.9"])
    def test_a_reading_that_is_off_differs_by_so_much(
        self, workspace: Workspace, sandbox: Sandbox, amount: str
    ) -> None:
        integration = synced(workspace, sandbox)
        with later(2):
            again(integration)
        off = Decimal(amount)
        db.session.get_one(CreditReading, 2).lifetime_usd += off
        db.session.commit()
        found = verdict(TODAY, TODAY + timedelta(days=1), integration)
        (span,) = found.spans
        assert (found.state, span.agrees, found.differing) == ("differs", False, [])
        assert abs(span.difference_usd - off) <= ROUNDED_USD
        assert abs(found.difference_usd - abs(off)) <= ROUNDED_USD

    def test_what_only_the_credits_know_differs(self, workspace: Workspace, sandbox: Sandbox) -> None:
        """A day that was restated when /activity told of it no more."""
        integration = synced(workspace, sandbox)
        day = TODAY - timedelta(days=60)
        was = sandbox.truth("lively", day, day).usage
        with later(2):
            sandbox.restate("lively", day, Decimal(2))
            again(integration)
        found = verdict(TODAY, TODAY + timedelta(days=1), integration)
        (span,) = found.spans
        assert found.state == "differs"
        assert abs(span.difference_usd - was) <= ROUNDED_USD

    @on_sqlite
    def test_where_the_readings_own_day_is_not_known_it_is_within_the_slack(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox, "no-analytics")
        readings = db.session.execute(select(CreditReading)).scalars().all()
        assert [reading.today_usd for reading in readings] == [None]
        for after in (2, 3):
            with later(after):
                again(integration)
        (span,) = verdict(TODAY, TODAY + timedelta(days=1), integration).spans
        assert span.agrees
        assert span.slack_usd > abs(span.difference_usd) > 1

    @on_sqlite
    def test_one_reading_or_two_on_one_day_tell_nothing(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        with at(NOON + timedelta(hours=2)):
            again(integration)
        assert verdict(*window(sandbox), integration).spans == []
        assert verdict(TODAY, TODAY + timedelta(days=3), integration).spans == []

    @on_sqlite
    def test_with_an_unsettled_day_between_they_tell_nothing(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox, "no-analytics")
        with later(35):
            again(integration)
            assert verdict(TODAY, TODAY + timedelta(days=34), integration).spans == [], "five days are missing"
            assert verdict(*window(sandbox), integration).spans == []

    @on_sqlite
    def test_days_that_analytics_alone_could_still_tell_count_too(self, workspace: Workspace, sandbox: Sandbox) -> None:
        integration = synced(workspace, sandbox)
        with later(35):
            again(integration)
            (span,) = verdict(TODAY, TODAY + timedelta(days=34), integration).spans
            assert span.agrees
            assert abs(span.difference_usd) <= ROUNDED_USD

    @on_sqlite
    @pytest.mark.parametrize(
        ("when", "request_"),
        [
            ("after", "GET /activity"),
            ("between", "activity and credits"),
            ("before", "GET /credits"),
            ("after", "GET /credits"),
            ("before", "GET /analytics/meta"),
        ],
    )
    def test_midnight_inside_a_sync_makes_no_difference(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, when: str, request_: str
    ) -> None:
        """The reading is of one day and the activity of another, or the totals are; every figure is right."""
        integration = synced(workspace, sandbox)
        midnight = datetime.combine(TODAY + timedelta(days=1), time(), tzinfo=UTC)
        with time_machine.travel(midnight - timedelta(seconds=20), tick=True) as clock, monkeypatch.context() as patch:
            at_request(when, request_, lambda: clock.move_to(midnight + timedelta(seconds=2)), patch)
            again(integration)
        with later(3):
            again(integration)
        for first, last in ((0, 0), (0, 2), (1, 2)):
            found = verdict(TODAY + timedelta(days=first), TODAY + timedelta(days=last), integration)
            assert found.state == "verified", (found.state, found.difference_usd, found.spans)
            assert found.spans or (first, last) != (0, 2), "elsewhere both readings may be of one day"

    @on_sqlite
    def test_totals_that_are_asked_hours_after_the_reading_say_nothing_of_its_day(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A laptop sleeps in the middle of a sync, when the credits are read and the totals are not."""
        read, read_credits = threading.Event(), stages._read_credits

        def reading(hold: Hold) -> Any:
            found = read_credits(hold)
            read.set()
            return found

        monkeypatch.setattr(stages, "_read_credits", reading)
        with time_machine.travel(NOON, tick=True) as clock:

            def sleep() -> None:
                assert read.wait(20)
                clock.shift(timedelta(hours=8))

            at_request("before", "GET /analytics/meta", sleep, monkeypatch)
            synced(workspace, sandbox)
        assert db.session.execute(select(CreditReading)).scalar_one().today_usd is None

    @on_sqlite
    def test_a_reading_right_after_midnight_may_lack_the_last_minutes_of_the_day_before(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        midnight = datetime.combine(TODAY + timedelta(days=2), time(), tzinfo=UTC)
        with later(5):
            again(integration)
            spent = sandbox.truth("lively", TODAY + timedelta(days=1), TODAY + timedelta(days=1)).usage
            for minutes, hidden in ((1, spent * 300 / 86400), (6, 0)):
                reading = CreditReading(
                    integration_id=integration.id,
                    read_at=midnight + timedelta(minutes=minutes),
                    lifetime_usd=Decimal(0),
                    today_usd=Decimal(0),
                )
                days = known_of(TODAY, TODAY + timedelta(days=4), integration).counted
                assert reconciliation._slack(reading, days) == hidden
            db.session.rollback()


class TestSmallPrint:
    """What is added and what is hidden, figure by figure."""

    def reading(self, hours: float, today_usd: int | None, lifetime_usd: int = 0) -> CreditReading:
        read_at = datetime.combine(TODAY, time(), tzinfo=UTC) + timedelta(hours=hours)
        today = None if today_usd is None else Decimal(today_usd)
        return CreditReading(integration_id=1, read_at=read_at, lifetime_usd=Decimal(lifetime_usd), today_usd=today)

    @pytest.mark.parametrize(("hours", "hidden"), [(0.5, 5), (1, 5), (10, Decimal("0.5"))])
    def test_a_reading_hides_what_is_spent_in_five_minutes(self, hours: float, hidden: Decimal) -> None:
        """In the first hour of a day its pace is not known yet: a first request at 00:01 would look like a fortune."""
        assert reconciliation._slack(self.reading(hours, 60), {}) == hidden

    @pytest.mark.parametrize(("minutes", "hidden"), [(4, 30), (5, 5)])
    def test_right_after_midnight_it_hides_the_end_of_the_day_before_too(self, minutes: int, hidden: int) -> None:
        day_before = (1, TODAY - timedelta(days=1))
        days = {day_before: coverage.Counted("final", "activity", Decimal(7200), None)}  # type: ignore[arg-type]
        assert reconciliation._slack(self.reading(minutes / 60, 60), days) == hidden

    def test_where_a_readings_own_day_is_unknown_it_is_all_in_the_slack(self) -> None:
        first, last = self.reading(12, None, 100), self.reading(12, 5, 130)
        days = {(1, TODAY): coverage.Counted("final", "activity", Decimal(9), None)}  # type: ignore[arg-type]
        span = reconciliation._span(Period(TODAY, TODAY), first, last, Decimal(25), days)
        assert (span.credits_usd, span.difference_usd) == (Decimal(25), Decimal(0))
        assert span.slack_usd == ROUNDED_USD + 9 + Decimal(5) * 300 / (12 * 3600)

    def test_a_line_that_went_or_came_after_the_last_reading_is_taken_back(self) -> None:
        first, last = self.reading(0, 0), self.reading(48, 0)
        after, between = last.read_at + timedelta(seconds=1), last.read_at
        period = Period(TODAY, TODAY)

        def restated(day: date, changed_at: datetime, before: int | None, now: int | None) -> Decimal:
            usd = [None if amount is None else Decimal(amount) for amount in (before, now)]
            change = SimpleNamespace(day=day, changed_at=changed_at, before=usd[0], after=usd[1])
            return reconciliation._restated_between(period, first, last, [change])

        assert restated(TODAY, after, 5, None) == 5
        assert restated(TODAY, after, None, 3) == -3
        assert restated(TODAY, between, 5, None) == 0, "it is in the last reading"
        earlier = TODAY - timedelta(days=1)
        assert restated(earlier, between, None, 3) == 3
        assert restated(earlier, between, 5, None) == -5
        assert restated(earlier, first.read_at, None, 3) == restated(earlier, after, None, 3) == 0


@on_sqlite
def test_one_day_is_spoken_of_as_one(workspace: Workspace) -> None:
    one = add(workspace, "one")
    cover(one, [TODAY - timedelta(days=1)], source=Source.ANALYTICS)
    db.session.commit()
    first, last = TODAY - timedelta(days=2), TODAY - timedelta(days=1)
    alone = "known from analytics only, so there is nothing to compare"
    assert verdict(last, last, one).why == f"0 of 1 day agrees with analytics; 1 is {alone} it with."
    assert verdict(first, last, one).why == (
        f"0 of 2 days agree with analytics; 1 is {alone} it with; 1 is missing or not settled yet."
    )
    cover(one, [first], source=Source.ANALYTICS)
    db.session.commit()
    assert verdict(first, last, one).why == f"0 of 2 days agree with analytics; 2 are {alone} them with."
    two = add(workspace, "two", no_history="OpenRouter does not offer analytics to this account.")
    cover(two, [first, last])
    db.session.commit()
    said = "nothing to compare with: OpenRouter does not offer analytics to this account."
    assert verdict(last, last, two).why == f"0 of 1 day agrees with analytics; 1 has {said}"
    found = verdict(first, last, two)
    assert (found.why, found.unchecked) == (f"0 of 2 days agree with analytics; 2 have {said}", 2)

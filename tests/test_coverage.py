"""What pages say about their figures is true: which days are known, of whom, and what is compared with what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from grafient import coverage, integrations, reconciliation, status
from grafient.coverage import Coverage
from grafient.days import Period, last_due
from grafient.extensions import db
from grafient.models import (
    UNATTRIBUTED,
    ApiKey,
    KeyReading,
    SyncRun,
    Workspace,
)
from grafient.plans import PLANS
from grafient.query import Group, Query, all_integrations, choices
from grafient.reports import breakdown, dashboard, statement
from grafient.reports.dashboard import Dashboard
from grafient.sandbox import Sandbox
from grafient.states import DayState, RunStatus, Source, Trigger
from tests.stored import TODAY, add, ago, check, cover
from tests.syncing import NOON, again, at, later, on_sqlite, synced

WEEK = Period(TODAY - timedelta(days=7), TODAY - timedelta(days=1))


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    with at():
        yield


def page(workspace: Workspace, period: Period = WEEK, group: Group = Group.MODEL, **filters: object) -> Dashboard:
    return dashboard.report(Query(workspace.id, period, **filters), group)  # type: ignore[arg-type]


def counts(found: Coverage) -> tuple[int, int, int]:
    return found.covered, found.asked, found.provisional


class TestKeys:
    """An API key's day is known if a reply about that key spoke of it."""

    @on_sqlite
    def test_a_day_that_was_not_read_of_a_key_is_missing_and_not_zero(
        self, workspace: Workspace, sandbox: Sandbox
    ) -> None:
        integration = synced(workspace, sandbox)
        key = next(one for one in sandbox.account("lively").keys(TODAY) if one.name)
        with later(3):
            sandbox.fault("lively", "down", path="/keys")
            again(integration)
            query = Query(workspace.id, Period.latest(7, NOON + timedelta(days=3)), keys=(key.hash,))
            found = dashboard.report(query)
            assert counts(found.coverage) == (4, 7, 0)
            unread = [day for day in found.days if day.day >= TODAY]
            assert {(day.state, day.total) for day in unread} == {(DayState.MISSING, None)}
            assert found.change is None
            assert counts(breakdown.report(query, Group.MODEL, "usage_usd", True).coverage) == (4, 7, 0)
            by_key = dashboard.report(Query(workspace.id, query.period), Group.KEY)
            assert by_key.coverage.is_complete, "of the account all is known"
            column = next(number for number, one in enumerate(by_key.chart.series) if one.id == key.hash)
            assert {day.by_series[column] for day in by_key.days if day.day >= TODAY} == {None}
            sandbox.fault("lively", None)
            db.session.rollback()
            again(integration)
            found = dashboard.report(query)
            assert found.coverage.is_complete
            assert found.total_usd == sum(
                part.usage
                for day in query.period
                for part in sandbox.state.slices(sandbox.account("lively"), day)
                if part.key.hash == key.hash
            )

    def test_what_no_key_accounts_for_is_known_once_every_key_is_read(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, WEEK)
        for name, last in (("aa", WEEK.last), ("bb", ago(3))):
            db.session.add(ApiKey(integration_id=one.id, key_hash=name, name=name, disabled=False, read_at=NOON))
            db.session.add(KeyReading(integration_id=one.id, key_hash=name, first_day=WEEK.first, last_day=last))
        db.session.flush()
        found = page(workspace, keys=(UNATTRIBUTED,))
        assert counts(found.coverage) == (5, 7, 0)
        assert found.total_usd == Decimal(50), "what an unread key spent is not counted as nobody's"
        assert [day.total for day in found.days if day.day > ago(3) and day.day in WEEK] == [None, None]

    def test_of_a_key_that_is_gone_the_days_after_are_known_to_be_empty(self, workspace: Workspace) -> None:
        one, gone_at = add(workspace, "one"), NOON - timedelta(days=4)
        db.session.add(ApiKey(integration_id=one.id, key_hash="aa", name="a", disabled=False, gone_at=gone_at))
        cover(one, WEEK, key="aa")
        db.session.add(KeyReading(integration_id=one.id, key_hash="aa", first_day=WEEK.first, last_day=ago(6)))
        db.session.flush()
        found = page(workspace, keys=("aa",))
        missing = [day.day for day in found.days if day.state == DayState.MISSING]
        assert missing == [ago(5), ago(4)], "the day on which it went may have had usage"

    def test_an_integration_without_the_key_is_not_asked(self, workspace: Workspace) -> None:
        one, two = add(workspace, "one"), add(workspace, "two")
        cover(one, WEEK, key="aa")
        cover(two, list(WEEK)[:2])
        db.session.add(KeyReading(integration_id=one.id, key_hash="aa", first_day=WEEK.first, last_day=WEEK.last))
        db.session.flush()
        found = page(workspace, keys=("aa",))
        assert (counts(found.coverage), found.coverage.integrations) == ((7, 7, 0), 1)
        assert found.total_usd == Decimal(70)

    def test_days_from_analytics_show_hosts_and_keys_as_unknown(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, [ago(1)])
        cover(one, [ago(2)], source=Source.ANALYTICS, usd=None)
        found = page(workspace, Period(ago(2), ago(1)), Group.HOST)
        assert [day.by_series for day in found.days if day.day < TODAY] == [[None], [Decimal(10)]]

    def test_what_the_other_keys_had_is_known_once_all_of_them_were_read(self, workspace: Workspace) -> None:
        """The column of all others: no line in it means nothing only where every key was read, and from activity."""
        one = add(workspace, "one")
        cover(one, Period(ago(3), ago(2)))
        cover(one, [ago(1)], source=Source.ANALYTICS)
        for name, first in (("aa", ago(3)), ("bb", ago(2))):
            db.session.add(ApiKey(integration_id=one.id, key_hash=name, name=name, disabled=False, read_at=NOON))
            db.session.add(KeyReading(integration_id=one.id, key_hash=name, first_day=first, last_day=ago(2)))
        db.session.flush()
        integrations_ = all_integrations(workspace.id)
        known = coverage.load(Query(workspace.id, WEEK), integrations_, Group.KEY)
        assert [known.knows_part(ago(n), Group.KEY, None) for n in (3, 2, 1)] == [False, True, False]
        assert [known.knows_part(ago(n), Group.KEY, "bb") for n in (3, 2, 1)] == [False, True, False]
        assert [known.knows_part(ago(n), Group.KEY, "cc") for n in (3, 2, 1)] == [True, True, True], "nobody has it"
        assert known.knows_part(ago(3), Group.KEY, UNATTRIBUTED)
        by_model = coverage.load(Query(workspace.id, WEEK), integrations_)
        assert by_model.knows_part(ago(1), Group.MODEL, "x")
        assert [by_model.knows_part(ago(n), Group.HOST, "x") for n in (2, 1)] == [True, False]

    def test_provisional_days_before_the_period_are_not_its_own(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, WEEK)
        cover(one, [WEEK.first - timedelta(days=1)], usd=3, state=DayState.PROVISIONAL)
        assert page(workspace).provisional == []
        first = page(workspace, Period(WEEK.first - timedelta(days=1), WEEK.last))
        assert [part.days for part in first.provisional] == [[WEEK.first - timedelta(days=1)]]

    def test_keys_that_are_gone_are_said_to_be_and_come_last(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        for name, gone_at, read_at in (("a", NOON, NOON), ("b", None, NOON), ("c", None, None)):
            db.session.add(
                ApiKey(
                    integration_id=one.id, key_hash=name, name=name, disabled=False, gone_at=gone_at, read_at=read_at
                )
            )
        db.session.flush()
        assert [(key.name, key.gone) for key in choices(Query(workspace.id, WEEK))[2]] == [("b", False), ("a", True)]

    @pytest.mark.parametrize("filters", [{"hosts": ("h",)}, {"keys": ("aa",)}, {"text": "m"}, {"models": ("m",)}])
    def test_any_filter_makes_a_query_about_a_part(self, filters: dict[str, str]) -> None:
        assert Query(1, WEEK, **filters).is_filtered
        assert not Query(1, WEEK, (1,), byok=True).is_filtered

    def test_names_of_keys_of_other_workspaces_are_not_told(self, workspace: Workspace) -> None:
        other = Workspace(plan="free")
        db.session.add(other)
        db.session.flush()
        for mine, name in ((workspace, "mine"), (other, "theirs")):
            integration = add(mine, name)
            db.session.add(
                ApiKey(integration_id=integration.id, key_hash=name, name=name, disabled=False, read_at=NOON)
            )
        db.session.flush()
        assert [key.name for key in choices(Query(workspace.id, WEEK))[2]] == ["mine"]
        assert [one.label for one in all_integrations(workspace.id)] == ["mine"]


class TestRemoved:
    """A removed integration whose history is kept is asked for the days that were due when it was removed."""

    def test_it_is_not_asked_for_the_days_after(self, workspace: Workspace) -> None:
        one, two = add(workspace, "one"), add(workspace, "two", removed_at=NOON - timedelta(days=40))
        long = Period(ago(60), ago(1))
        cover(one, long)
        cover(two, Period(ago(60), ago(41)))
        check(one, long)
        check(two, Period(ago(60), ago(41)))
        found = page(workspace, long)
        assert counts(found.coverage) == (60, 60, 0)
        assert (found.verdict.state, found.verdict.asked, found.verdict.agreeing) == ("verified", 80, 80)
        recent = page(workspace, Period(ago(30), ago(1)))
        assert (recent.verdict.state, recent.verdict.asked) == ("verified", 30)
        assert [row.label for row in recent.providers] == ["one"]
        assert recent.coverage.integrations == 1

    def test_days_that_it_should_have_covered_are_missing(self, workspace: Workspace) -> None:
        one, two = add(workspace, "one"), add(workspace, "two", removed_at=NOON - timedelta(days=2))
        cover(one, WEEK)
        cover(two, Period(ago(7), ago(5)))
        found = page(workspace)
        states = [day.state for day in found.days if day.day in WEEK]
        assert states == [DayState.FINAL] * 3 + [DayState.PARTIAL] * 2 + [DayState.FINAL] * 2
        assert found.verdict.asked == 7 + 5

    @pytest.mark.parametrize(("hour", "last_asked"), [(12, 11), (3, 12)])
    def test_the_day_of_removal_does_not_stay_open(self, workspace: Workspace, hour: int, last_asked: int) -> None:
        """Removed at noon it had read the day in part; at 03:00 the day before was not due either."""
        removed_at = datetime.combine(ago(10), datetime.min.time(), tzinfo=UTC) + timedelta(hours=hour)
        one, two = add(workspace, "one"), add(workspace, "two", removed_at=removed_at)
        period = Period(ago(30), ago(1))
        cover(one, period)
        cover(two, Period(ago(30), ago(last_asked)))
        cover(two, Period(ago(last_asked - 1), ago(10)), usd=3, state=DayState.PROVISIONAL)
        found = page(workspace, period)
        assert counts(found.coverage) == (30, 30, 0)
        assert found.total_usd == Decimal(10 * 30 + 10 * (31 - last_asked))
        assert {day.state for day in found.days} == {DayState.FINAL}
        assert sum((day.total or 0 for day in found.days), Decimal(0)) == found.total_usd
        (rest,) = found.provisional
        assert (rest.removed, rest.usage_usd, rest.days[-1]) == (True, Decimal(3 * (last_asked - 10)), ago(10))
        alone = page(workspace, period, integrations=(two.id,))
        assert alone.total_usd == Decimal(10 * (31 - last_asked))

    def test_a_statement_says_the_same(self, workspace: Workspace) -> None:
        one = add(workspace, "one", removed_at=NOON - timedelta(days=5))
        month = Period.month(TODAY)
        cover(one, Period(month.first, ago(6)))
        cover(one, [ago(5)], usd=3, state=DayState.PROVISIONAL)
        found = statement.report(Query(workspace.id, month))
        assert found.total_usd == 10 * len([day for day in month if day <= ago(6)])
        (rest,) = found.provisional
        assert (rest.removed, rest.days) == (True, [ago(5)])


class TestWithoutData:
    """One account that was never read does not hide what is known of the others."""

    def test_it_is_left_out_and_named(self, workspace: Workspace) -> None:
        for number in range(9):
            one = add(workspace, f"good {number}")
            cover(one, Period(ago(14), ago(1)))
            check(one, WEEK)
        add(workspace, "misshapen")
        found = page(workspace)
        assert counts(found.coverage) == (7, 7, 0)
        assert (found.coverage.counted, found.coverage.integrations) == (9, 10)
        assert found.coverage.without_data == ["misshapen"]
        assert (found.total_usd, found.daily_average_usd) == (Decimal(630), Decimal(90))
        assert found.change is not None
        assert (found.change.before_usd, found.change.fraction) == (Decimal(630), Decimal(0))
        assert (found.compared, found.coverage.integrations) == (9, 10)
        assert {(day.state, day.missing) for day in found.days} == {(DayState.FINAL, 0)}
        assert found.verdict.state == reconciliation.VerdictState.VERIFIED
        row = next(row for row in found.providers if row.label == "misshapen")
        assert (row.usage_usd, row.requests.known, counts(row.coverage)) == (None, None, (0, 7, 0))

    def test_where_none_has_data_nothing_is_known(self, workspace: Workspace) -> None:
        add(workspace, "one")
        add(workspace, "two")
        found = page(workspace)
        assert (found.total_usd, found.daily_average_usd, found.change) == (None, None, None)
        assert (counts(found.coverage), found.coverage.without_data) == ((0, 7, 0), [])

    def test_a_day_is_hatched_for_what_is_missing_of_it(self, workspace: Workspace) -> None:
        whole, part = add(workspace, "whole"), add(workspace, "part")
        cover(whole, WEEK)
        cover(part, list(WEEK)[:-1])
        found = page(workspace)
        assert counts(found.coverage) == (6, 7, 0)
        last = next(day for day in found.days if day.day == WEEK.last)
        assert (last.state, last.missing, last.asked, last.total) == (DayState.PARTIAL, 1, 2, Decimal(10))
        assert found.total_usd == Decimal(130)

    def test_the_average_counts_complete_days_alone(self, workspace: Workspace) -> None:
        whole, part = add(workspace, "whole"), add(workspace, "part")
        cover(whole, WEEK)
        cover(part, list(WEEK)[:2], usd=4)
        assert page(workspace).daily_average_usd == Decimal(14)
        cover(whole, [TODAY], usd=1000, state=DayState.PROVISIONAL)
        assert page(workspace, Period(WEEK.first, TODAY)).daily_average_usd == Decimal(14)


class TestChange:
    def test_there_is_none_unless_both_periods_are_complete(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, Period(ago(13), ago(1)))
        assert page(workspace).change is None, "a day of the period before is missing"
        cover(one, [ago(14)], usd=40)
        found = page(workspace).change
        assert found is not None
        assert (found.before, found.before_usd) == (Period(ago(14), ago(8)), Decimal(100))
        assert found.fraction == Decimal("-0.3")

    def test_like_is_compared_with_like(self, workspace: Workspace) -> None:
        """An integration that is new in this period looks like no rise, and one that broke off like no fall."""
        old, new, broken = (add(workspace, name) for name in ("old", "new", "broken"))
        cover(old, Period(ago(14), ago(8)), usd=10)
        cover(old, WEEK, usd=11)
        cover(new, WEEK, usd=1000)
        cover(broken, Period(ago(14), ago(3)), usd=500)
        of_three = page(workspace)
        found = of_three.change
        assert found is not None
        assert (found.before_usd, found.after_usd, found.fraction) == (Decimal(70), Decimal(77), Decimal("0.1"))
        assert (of_three.compared, of_three.coverage.integrations) == (1, 3)

    def test_from_nothing_there_is_no_percentage(self, workspace: Workspace) -> None:
        one = add(workspace, "one")
        cover(one, Period(ago(14), ago(8)), usd=None, state=DayState.NO_USAGE)
        cover(one, WEEK)
        found = page(workspace).change
        assert found is not None
        assert (found.before_usd, found.fraction) == (Decimal(0), None)


class TestNight:
    """Between midnight and 06:00 UTC yesterday is not due, so nothing is wrong."""

    @pytest.mark.parametrize(("hour", "last"), [(0, 2), (5, 2), (6, 1), (23, 1)])
    def test_periods_end_with_the_last_day_that_is_due(self, hour: int, last: int) -> None:
        now = NOON.replace(hour=hour, minute=59 if hour == 5 else 0)
        assert last_due(now) == ago(last)
        assert Period.latest(7, now) == Period(ago(last + 6), ago(last))

    @on_sqlite
    def test_the_dashboard_of_the_night_is_that_of_the_evening(self, workspace: Workspace, sandbox: Sandbox) -> None:
        with later(-8):
            integration = synced(workspace, sandbox)
        with later(0):
            again(integration)
        evening = page(workspace)
        night = NOON + timedelta(hours=15)
        with at(night):
            found = page(workspace, Period.latest(7, night))
            assert (found.period, found.total_usd, found.change) == (WEEK, evening.total_usd, evening.change)
            assert counts(found.coverage) == (7, 7, 0)
            assert found.verdict.state == reconciliation.VerdictState.VERIFIED
            assert found.daily_average_usd == evening.daily_average_usd is not None
            (open_days,) = found.provisional
            assert (open_days.days, open_days.removed) == ([TODAY], False)
            assert [day.day for day in found.days if day.day not in WEEK] == [TODAY], "yesterday, beside the period"
            again(integration)
            found = page(workspace, Period.latest(7, night))
            assert (found.period, found.total_usd) == (WEEK, evening.total_usd)
            (settled,) = found.settled_since
            assert settled.total == sandbox.truth("lively", TODAY, TODAY).usage
            assert status.integration_page(integration).card.verdict.state == reconciliation.VerdictState.VERIFIED


class TestCards:
    @pytest.mark.parametrize(("hours", "state"), [(25, "Up to date"), (27, "Overdue"), (75, "Overdue")])
    def test_a_card_is_overdue_after_a_day_and_two_hours(self, workspace: Workspace, hours: int, state: str) -> None:
        one = add(workspace, "one", last_success_at=NOON - timedelta(hours=hours))
        cover(one, WEEK)
        assert status.card(one).state == state

    def test_a_card_asks_again_when_something_can_have_changed(self, workspace: Workspace) -> None:
        one = add(workspace, "one", last_success_at=NOON)
        cover(one, WEEK)
        assert status.card(one).ask_after is None
        run = SyncRun(integration_id=one.id, trigger=Trigger.MANUAL, status=RunStatus.DUE, attempt=0)
        run.next_attempt_at = NOON
        db.session.add(run)
        db.session.flush()
        assert status.card(one).ask_after == 2
        run.attempt, run.next_attempt_at = 3, NOON + timedelta(hours=5)
        db.session.flush()
        card = status.card(one)
        assert card.waits
        assert 5 * 3600 - 60 < (card.ask_after or 0) <= 5 * 3600 + 2
        run.next_attempt_at = NOON - timedelta(hours=1)
        db.session.flush()
        assert status.card(one).ask_after == 2

    def test_as_many_integrations_as_are_allowed_and_no_more(
        self, workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = replace(PLANS[workspace.plan], integrations=3)
        monkeypatch.setitem(PLANS, workspace.plan, plan)
        for number in range(2):
            add(workspace, f"one {number}")
        add(workspace, "removed", removed_at=NOON)
        db.session.commit()
        integrations.connect(workspace.id, "openrouter", "", sandbox.key("lively"))
        with pytest.raises(integrations.Refused, match="3 integrations"):
            integrations.connect(workspace.id, "openrouter", "", sandbox.key("other"))


def test_coverage_counts_states() -> None:
    states = [DayState.FINAL, DayState.RESTATED, DayState.PROVISIONAL, DayState.MISSING, DayState.NO_USAGE]
    found = Coverage.of(states)
    assert (found.asked, found.covered, found.provisional, found.restated) == (5, 3, 1, 1)
    assert not found.is_complete

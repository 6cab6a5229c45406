"""PagerDuty and Opsgenie keep alerts of their own: however an incident ends here, none stays open there. Nobody else
hears of an end that is no news."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from grafient import integrations, sample
from grafient.alerts import board, budgets, closing, incidents, outbox, watch
from grafient.alerts.channels import sending, store
from grafient.alerts.channels.sending import Outcome
from grafient.alerts.channels.store import Options
from grafient.alerts.findings import Finding
from grafient.extensions import db
from grafient.models import Budget, Channel, Incident, Workspace, utc_now
from grafient.states import AlertKind, BudgetPeriod, ChannelKind, Happened, Problem, Topic
from tests.alerts.delivered import GATHERED, credits_of, deliveries, goes_on, opened, resolved, sent, states
from tests.alerts.delivered import webhook as webhook_to
from tests.alerts.stand_ins import Internet, Reply, StandIn
from tests.alerts.test_findings import set_rule
from tests.statements import asked, scanned
from tests.stored import add
from tests.syncing import NOON, at, on_sqlite

pytestmark = pytest.mark.usefixtures("at_noon")

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
KINDS = {
    ChannelKind.PAGERDUTY: ("events.pagerduty.com", {"key": "k" * 32, "region": "us"}),
    ChannelKind.OPSGENIE: ("api.opsgenie.com", {"key": "0123abcd-s3cr3t-s3cr3t", "region": "us"}),
}
CLOSED = outbox.LEASE + 20 * SECOND


@pytest.fixture
def service(internet: Internet) -> StandIn:
    """PagerDuty."""
    return internet.machine(KINDS[ChannelKind.PAGERDUTY][0])


@pytest.fixture
def pager(workspace: Workspace, service: StandIn) -> Channel:
    return channel_of(workspace)


def channel_of(workspace: Workspace, kind: ChannelKind = ChannelKind.PAGERDUTY, **options: Any) -> Channel:
    return store.create(workspace.id, kind, "", KINDS[kind][1], Options(**options))[0]


def said(service: StandIn) -> list[tuple[str, str]]:
    """What a service was asked to do, and under which key, in order."""
    return [_asked_for(one.path, one.json) for one in service.requests]


def _asked_for(path: str, body: Any) -> tuple[str, str]:
    if path.endswith("/close?identifierType=alias"):
        return "resolve", path.split("/")[3]
    return (body["event_action"], body["dedup_key"]) if "dedup_key" in body else ("trigger", body["alias"])


def both(*found: Incident) -> list[tuple[str, str]]:
    """Each is opened, and then each is closed."""
    return [(what, f"grafient-{one.id}") for what in ("trigger", "resolve") for one in found]


def _its_rule_is_off(incident: Incident) -> None:
    key = incident.kind, incident.subject
    _write(incident, incidents.step({key: incident}, [], [], [], utc_now(), quiet=[key]))


def _it_only_happened(incident: Incident) -> None:
    goes_on(incident, Finding(incident.kind, incident.subject, incident.facts, lasts=timedelta(0)))


def _it_is_no_news(incident: Incident) -> None:
    goes_on(incident, Finding(incident.kind, incident.subject, incident.facts, marks=(), is_news=False))


def _it_is_snoozed(incident: Incident) -> None:
    board.snooze(incident, 7, utc_now())
    resolved(incident)


def _write(incident: Incident, changes: list[incidents.Change]) -> None:
    outbox.tell(incident.workspace_id, *incidents.write(incident.workspace_id, changes, utc_now()), utc_now())
    db.session.commit()


ENDS = [_its_rule_is_off, _it_only_happened, _it_is_no_news, _it_is_snoozed]


class TestEndsThatAreNoNews:
    @pytest.mark.parametrize("ends", ENDS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_they_are_closed_and_nobody_else_is_told(
        self,
        workspace: Workspace,
        internet: Internet,
        hook: StandIn,
        kind: ChannelKind,
        ends: Callable[[Incident], None],
    ) -> None:
        service = internet.machine(KINDS[kind][0])
        channel_of(workspace, kind)
        other = webhook_to(workspace)
        [one] = opened(workspace, "one")
        sent(NOON + GATHERED)
        with at(NOON + HOUR):
            ends(one)
        sent(NOON + HOUR + GATHERED)
        assert said(service) == both(one)
        assert (len(hook.requests), states(other)) == (1, ["sent"])

    def test_not_where_nobody_was_told_of_it(self, workspace: Workspace, pager: Channel, service: StandIn) -> None:
        """Told of something else, not told of this kind, or set up only then."""
        other = channel_of(workspace, topics=(Topic.BUDGETS,))
        [one] = opened(workspace, "one")
        sent(NOON + GATHERED)
        late = channel_of(workspace)
        with at(NOON + HOUR):
            opened(workspace, "two")
            _its_rule_is_off(one)
        sent(NOON + HOUR + GATHERED)
        assert (len(deliveries(pager)), len(deliveries(other)), len(deliveries(late))) == (2, 0, 1)
        assert said(service).count(("resolve", f"grafient-{one.id}")) == 1

    def test_not_where_nothing_was_sent_since_the_channel_was_off(
        self, workspace: Workspace, pager: Channel, service: StandIn
    ) -> None:
        [one] = opened(workspace, "one")
        store.turn_off(pager)
        sent(NOON + GATHERED)
        store.turn_on(pager)
        with at(NOON + HOUR):
            _its_rule_is_off(one)
        sent(NOON + HOUR + GATHERED)
        assert (states(pager), service.requests) == (["dropped"], [])

    def test_also_where_it_is_not_known_whether_it_arrived(
        self, workspace: Workspace, pager: Channel, service: StandIn
    ) -> None:
        """An answer that came too late is a failure, and the alert is there."""
        [one] = opened(workspace, "one")
        service.reply = Reply(500)
        for hours in range(1, 40):
            sent(NOON + hours * HOUR)
        assert states(pager) == ["failed"]
        service.reply = Reply()
        with at(NOON + 2 * DAY):
            _its_rule_is_off(one)
        sent(NOON + 2 * DAY + GATHERED)
        assert said(service)[-1] == ("resolve", f"grafient-{one.id}")

    def test_also_if_it_is_told_of_other_things_by_now(
        self, workspace: Workspace, pager: Channel, service: StandIn
    ) -> None:
        [one] = opened(workspace, "one")
        sent(NOON + GATHERED)
        store.change(pager, "", None, Options(topics=(Topic.BUDGETS,)))
        with at(NOON + HOUR):
            resolved(one)
        sent(NOON + HOUR + GATHERED)
        assert said(service) == both(one)

    def test_what_came_and_went_leaves_nothing_open(
        self, workspace: Workspace, pager: Channel, service: StandIn
    ) -> None:
        [one] = opened(workspace, "one", is_over=True)
        sent(NOON + GATHERED)
        assert said(service) == [("resolve", f"grafient-{one.id}")]

    def test_what_is_snoozed_and_goes_on_says_nothing(
        self, workspace: Workspace, pager: Channel, service: StandIn
    ) -> None:
        one, two = opened(workspace, "one", "two")
        sent(NOON + GATHERED)
        with at(NOON + HOUR):
            goes_on(one, Finding(AlertKind.CREDITS, "one", credits_of("one", "-1"), ("found", "gone")))
            _its_rule_is_off(two)
            board.snooze(one, 7, utc_now())
            db.session.commit()
        sent(NOON + HOUR + GATHERED)
        assert said(service)[2:] == [("resolve", f"grafient-{two.id}")]

    def test_a_look_after_a_rule_was_turned_off(self, workspace: Workspace, pager: Channel, service: StandIn) -> None:
        account = add(workspace, "one", last_success_at=NOON)
        db.session.commit()
        watch.look(workspace.id, NOON)
        account.set_problem(Problem.NEEDS_KEY, "OpenRouter says: User not found.", utc_now())
        db.session.commit()
        watch.look(workspace.id, NOON)
        sent(NOON + GATHERED)
        set_rule(workspace, AlertKind.KEY, is_on=False)
        with at(NOON + HOUR):
            watch.look(workspace.id)
        sent(NOON + HOUR + GATHERED)
        one = db.session.execute(select(Incident).where(Incident.kind == AlertKind.KEY)).scalar_one()
        assert [said(service).count(what) for what in both(one)] == [1, 1]

    def test_who_was_told_is_asked_once(self, app: Flask, workspace: Workspace, pager: Channel) -> None:
        counted = []
        for names in (["a", "b"], [f"{number}" for number in range(40)]):
            found = opened(workspace, *names)
            db.session.expire_all()
            changes = [incidents.Change(one, None, Happened.RESOLVED, is_told=False) for one in found]
            told, ended = incidents.write(workspace.id, changes, utc_now())
            with asked(app) as statements:
                outbox.tell(workspace.id, told, ended, utc_now())
            counted.append(len([one for one in statements if "SELECT" in str(one)]))
            db.session.commit()
            assert scanned(app, statements) == []
        assert counted[0] == counted[1]


class TestTriedAgain:
    def test_what_is_over_by_then_is_not_opened_anew(
        self, workspace: Workspace, pager: Channel, service: StandIn
    ) -> None:
        """The end was sent first, and the alert that came after it was open for good."""
        [one] = opened(workspace, "one")
        service.replies = [Reply(500), Reply(500)]
        sent(NOON + GATHERED)
        sent(NOON + GATHERED + MINUTE)
        with at(NOON + 2 * MINUTE):
            resolved(one)
        sent(NOON + 2 * MINUTE + GATHERED)
        sent(NOON + HOUR)
        assert states(pager) == ["sent", "sent"]
        assert [what for what, _ in said(service)] == ["trigger", "trigger", "resolve", "resolve"]
        assert {key for _, key in said(service)} == {f"grafient-{one.id}"}

    def test_what_goes_on_is_opened(self, workspace: Workspace, pager: Channel, service: StandIn) -> None:
        opened(workspace, "one")
        service.replies = [Reply(500)]
        sent(NOON + GATHERED)
        sent(NOON + HOUR)
        assert [what for what, _ in said(service)] == ["trigger", "trigger"]


@pytest.fixture
def budget(workspace: Workspace) -> Budget:
    fields = budgets.Fields("Team", Decimal(100), BudgetPeriod.MONTH, {}, False, [80], [])
    found = budgets.create(workspace.id, fields)
    db.session.commit()
    return found


def spent(workspace: Workspace, budget: Budget, *periods: str) -> list[Incident]:
    """Incidents of a budget."""
    facts = {"name": "Team", "amount_usd": "100", "spent_usd": "80", "first": "2026-11-01", "period": "month"}
    subjects = [f"{budget.id}:{period}" for period in periods or ("2026-11-01",)]
    return opened(workspace, *subjects, kind=AlertKind.BUDGET, facts=facts, budget_id=budget.id, marks=("actual 80",))


class TestDeleted:
    @pytest.mark.parametrize("kind", KINDS)
    def test_with_its_budget(
        self, workspace: Workspace, budget: Budget, internet: Internet, hook: StandIn, kind: ChannelKind
    ) -> None:
        service = internet.machine(KINDS[kind][0])
        channel, _other = channel_of(workspace, kind), webhook_to(workspace)
        wanted = both(*spent(workspace, budget))
        opened(workspace, "one")  # which is not deleted
        sent(NOON + GATHERED)
        late = channel_of(workspace, kind)
        with at(NOON + HOUR):
            budgets.delete(budget)
            db.session.commit()
        sent(NOON + HOUR + CLOSED)
        assert [one for one in said(service) if one in wanted] == wanted
        assert (len(service.requests), len(hook.requests), states(late)) == (3, 1, [])
        assert deliveries(channel)[-1].title == "Team: “Budget” was closed"

    def test_in_the_same_transaction(self, workspace: Workspace, budget: Budget, pager: Channel) -> None:
        spent(workspace, budget)
        sent(NOON + GATHERED)
        budgets.delete(budget)
        db.session.rollback()
        assert len(deliveries()) == 1

    def test_with_its_integration(self, workspace: Workspace, pager: Channel, service: StandIn, hook: StandIn) -> None:
        webhook_to(workspace)
        account, other = add(workspace, "one"), add(workspace, "two")
        [one] = opened(workspace, "one", integration_id=account.id)
        opened(workspace, "two", integration_id=other.id)
        sent(NOON + GATHERED)
        wanted = both(one)
        with at(NOON + HOUR):
            integrations.remove(account, keep_history=False)
        sent(NOON + HOUR + CLOSED)
        assert said(service)[2:] == wanted[1:]
        assert len(hook.requests) == 1

    def test_with_the_sample(self, workspace: Workspace, pager: Channel, service: StandIn) -> None:
        account = add(workspace, "Sample data")
        account.provider = sample.SLUG
        [one] = opened(workspace, "one", integration_id=account.id)
        sent(NOON + GATHERED)
        wanted = both(one)
        with at(NOON + HOUR):
            integrations.remove_sample(workspace.id)
        sent(NOON + HOUR + CLOSED)
        assert said(service) == wanted

    def test_what_was_never_told_or_is_over_is_not_closed(
        self, workspace: Workspace, budget: Budget, pager: Channel, service: StandIn
    ) -> None:
        quiet = channel_of(workspace, topics=(Topic.CREDITS,))
        [one] = spent(workspace, budget)
        sent(NOON + GATHERED)
        with at(NOON + HOUR):
            _its_rule_is_off(one)
        sent(NOON + HOUR + GATHERED)
        with at(NOON + 2 * HOUR):
            budgets.delete(budget)
            db.session.commit()
        assert (states(pager), states(quiet)) == (["sent", "sent"], [])

    def test_an_end_that_was_not_sent_yet_is_not_lost(
        self, workspace: Workspace, budget: Budget, pager: Channel, service: StandIn
    ) -> None:
        """It goes with the incident, and what was told of it is there to be closed."""
        [one] = spent(workspace, budget)
        wanted = both(one)
        sent(NOON + GATHERED)
        with at(NOON + HOUR):
            _its_rule_is_off(one)
            budgets.delete(budget)
            db.session.commit()
        sent(NOON + HOUR + CLOSED)
        assert said(service) == wanted

    def test_after_what_is_being_sent_at_that_moment(
        self, workspace: Workspace, budget: Budget, pager: Channel, service: StandIn, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another worker would send the end before the alert has arrived."""
        wanted, send = both(*spent(workspace, budget)), sending.send

        def and_delete(*args: object, **options: object) -> Outcome:
            monkeypatch.setattr(sending, "send", send)
            budgets.delete(db.session.get_one(Budget, budget.id))
            db.session.commit()
            outbox.send_due()
            return send(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(sending, "send", and_delete)
        sent(NOON + GATHERED)
        sent(NOON + GATHERED + outbox.LEASE - 10 * SECOND)
        assert said(service) == wanted[:1]
        sent(NOON + GATHERED + CLOSED)
        assert said(service) == wanted

    def test_hundreds_are_closed_a_few_at_a_time(
        self, workspace: Workspace, budget: Budget, pager: Channel, service: StandIn
    ) -> None:
        found = spent(workspace, budget, *map(str, range(2 * closing.AT_ONCE + 5)))
        wanted = {("resolve", f"grafient-{one.id}") for one in found}
        sent(NOON + GATHERED)
        before = len(service.requests)
        with at(NOON + HOUR):
            budgets.delete(budget)
            db.session.commit()
        assert [len(one.about["closed"]) for one in deliveries()[1:]] == [closing.AT_ONCE, closing.AT_ONCE, 5]
        sent(NOON + HOUR + CLOSED)
        assert set(said(service)[before:]) == wanted

    def test_what_happens_then_is_a_message_of_its_own(
        self, workspace: Workspace, budget: Budget, service: StandIn
    ) -> None:
        """One that is told once a day would be told at once, with what is closed."""
        channel = channel_of(workspace, alerts_daily=True)
        spent(workspace, budget)
        opened(workspace, "one")
        sent(NOON + DAY)
        with at(NOON + DAY):
            budgets.delete(budget)
            opened(workspace, "two")
        sent(NOON + DAY + CLOSED)
        assert states(channel) == ["sent", "sent", "due"]
        assert [what for what, _ in said(service)] == ["trigger", "trigger", "resolve"]

    @on_sqlite
    def test_another_incident_of_the_same_number_stays_open(
        self, workspace: Workspace, budget: Budget, pager: Channel, service: StandIn
    ) -> None:
        """SQLite gives the number of the last row again once it is gone."""
        [one] = spent(workspace, budget)
        number = one.id
        sent(NOON + GATHERED)
        with at(NOON + HOUR):
            budgets.delete(budget)
            db.session.commit()
            [other] = opened(workspace, "one")
        assert other.id == number
        sent(NOON + HOUR + CLOSED)
        assert [what for what, _ in said(service)] == ["trigger", "trigger"]
        assert sorted(states()) == ["dropped", "sent", "sent"]

    def test_a_restored_backup_sends_none_of_it(
        self, workspace: Workspace, budget: Budget, pager: Channel, service: StandIn
    ) -> None:
        spent(workspace, budget)
        sent(NOON + GATHERED)
        with at(NOON + HOUR):
            budgets.delete(budget)
            outbox.forget_every()
            db.session.commit()
        sent(NOON + HOUR + CLOSED)
        assert (states(), len(service.requests)) == (["sent", "dropped"], 1)


def test_a_flood_leaves_nothing_open(workspace: Workspace, pager: Channel, service: StandIn) -> None:
    """Of many alerts at once a service opens ten, and one that counts the others; what is over was among these."""
    found = opened(workspace, "one", "two")
    sent(NOON + GATHERED)
    with at(NOON + HOUR):
        opened(workspace, *(f"new {number}" for number in range(60)))
        for one in found:
            _its_rule_is_off(one)
    sent(NOON + HOUR + GATHERED)
    now = said(service)[2:]
    assert [key for what, key in now if what == "resolve"] == [f"grafient-{one.id}" for one in found]
    assert len([what for what, _ in now if what == "trigger"]) == 11

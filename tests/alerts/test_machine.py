"""Whatever happens in whatever order, no incident is lost, told twice or flaps.

A machine of two accounts and a budget: days are settled and restated, keys are revoked, credits run low, rules and
budgets are set anew, accounts are paused, incidents acknowledged and snoozed, looks die before their commit or meet
another one in their middle, and the clock jumps, backwards too. What should be open is worked out anew from what the
machine itself did. ``make fuzz`` tries many more sequences, on both databases.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from threading import Thread
from typing import Any
from unittest import mock

import pytest
import time_machine
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete, select

from grafient.alerts import board, budgets, incidents, outbox, rules, watch
from grafient.extensions import db
from grafient.models import (
    Budget,
    Channel,
    CreditReading,
    Delivery,
    DeliveryEvent,
    Incident,
    IncidentEvent,
    Integration,
    SyncRun,
    Workspace,
    utc_now,
)
from grafient.states import (
    AlertKind,
    BudgetPeriod,
    ChannelKind,
    DayState,
    DeliveryState,
    Happened,
    Problem,
    RunStatus,
    Topic,
    Trigger,
)
from tests.stored import add, cover, restate

FUZZ = int(os.environ.get("FUZZ", "0"))
EXAMPLES, STEPS = FUZZ // 20 or 15, 25
DATABASES = ["sqlite", "postgresql"] if FUZZ else ["sqlite"]

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
ACCOUNTS = ("one", "two")
HISTORY = 30
"""Days of $10 that each account has in the beginning."""

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
OVERDUE = timedelta(hours=26)
_HOVERS = ("1.04", "0.98", "1.09", "0.9")
STATES = (AlertKind.KEY, AlertKind.API_CHANGED, AlertKind.NO_SYNC, AlertKind.CREDITS)

accounts = st.sampled_from(ACCOUNTS)
looks = st.sampled_from([True, True, False])
"""Whether the workspace is looked at right afterwards, as after a sync and at a tick."""


class Killed(Exception):
    """A worker is."""


class Watched(RuleBasedStateMachine):
    """A workspace, and what is told of it."""

    def __init__(self, app: Flask, traveller: Any) -> None:
        super().__init__()
        self.app, self.traveller = app, traveller
        traveller.move_to(START)
        db.session.rollback()
        for table in reversed(db.metadata.sorted_tables):
            db.session.execute(delete(table))
        db.session.commit()
        self.costs: dict[tuple[str, date], int] = {}
        self.left: dict[str, Decimal] = {}
        self.least = Decimal(10)
        self.spikes: list[tuple[str, date]] = []
        self.numbers = iter(range(10_000))
        self.changes: dict[str, int] = defaultdict(int)
        """How often what an incident of a kind is about has changed so much that it may open or end."""
        self.changed_at: dict[int, int] = {}
        """What that was when an event was written."""

    @initialize()
    def begin(self) -> None:
        workspace = Workspace(plan="ultimate")
        db.session.add(workspace)
        db.session.commit()
        self.workspace_id = workspace.id
        everything = Channel(
            workspace_id=workspace.id, kind=ChannelKind.SLACK, name="all", shown={}, topics=[str(one) for one in Topic]
        )
        db.session.add(everything)
        self.ids = {}
        for label in ACCOUNTS:
            one = add(workspace, label, last_success_at=utc_now())
            self.ids[label] = one.id
            days = [START.date() - DAY * ago for ago in range(HISTORY, 0, -1)]
            cover(one, days)
            self.costs |= {(label, day): 10 for day in days}
        long_ago = START - timedelta(days=400)
        rules.save(workspace.id, AlertKind.DAYS_LEAVING, False, {}, long_ago)
        rules.save(workspace.id, AlertKind.CREDITS, True, {"left_usd": self.least, "days": None}, long_ago)
        db.session.commit()
        watch.look(self.workspace_id)
        self.budget_id = 0

    # what happens to the accounts

    def _one(self, label: str) -> Integration:
        return db.session.get_one(Integration, self.ids[label])

    @rule(label=accounts, usd=st.sampled_from([10, 10, 10, 10, 0, 100]), looks=looks)
    def a_sync(self, label: str, usd: int, looks: bool) -> None:
        """It settles the days up to yesterday; the last of them cost something else now and then."""
        one, yesterday = self._one(label), utc_now().date() - DAY
        newest = max(day for name, day in self.costs if name == label)
        days = [newest + DAY * number for number in range(1, (yesterday - newest).days + 1)][-30:]
        for day in days:
            amount = usd if day == yesterday else 10
            cover(one, [day], usd=amount or None, state=DayState.FINAL if amount else DayState.NO_USAGE)
            self.costs[label, day] = amount
        lately = [self.costs.get((label, yesterday - DAY * ago)) for ago in range(1, HISTORY)]
        if days and usd == 100 and lately.count(10) >= 25:
            self.spikes.append((label, yesterday))
        one.last_success_at = utc_now()
        one.clear_problem()
        one.changed()
        self._end_run(one)
        db.session.commit()
        self._change(AlertKind.KEY, AlertKind.API_CHANGED, AlertKind.NO_SYNC, AlertKind.BUDGET)
        self._then(looks)

    @rule(label=accounts, ago=st.integers(1, 40), usd=st.sampled_from([1, 20]))
    def a_day_is_restated(self, label: str, ago: int, usd: int) -> None:
        one, day = self._one(label), utc_now().date() - DAY * ago
        if self.costs.get((label, day)):
            model = f"restated {next(self.numbers)}"
            cover(one, [day], usd=usd, state=DayState.RESTATED, model=model)
            restate(one, day, utc_now(), "0", str(usd), model)
            self.costs[label, day] += usd
            one.last_restated_at = utc_now()
            one.changed()
            db.session.commit()
            self._change(AlertKind.BUDGET, AlertKind.RESTATED)

    @rule(label=accounts, problem=st.sampled_from([Problem.NEEDS_KEY, Problem.API_CHANGED, Problem.FAULT]), looks=looks)
    def a_sync_fails(self, label: str, problem: Problem, looks: bool) -> None:
        one = self._one(label)
        one.set_problem(problem, "It says why.", utc_now())
        self._end_run(one)
        db.session.commit()
        self._change(AlertKind.KEY, AlertKind.API_CHANGED, AlertKind.NO_SYNC)
        self._then(looks)

    @rule(label=accounts)
    def somebody_asks_for_a_sync(self, label: str) -> None:
        """Which nobody does yet: that is no news of any kind."""
        one = self._one(label)
        open_ = select(SyncRun.id).where(SyncRun.integration_id == one.id, SyncRun.status == RunStatus.DUE)
        if one.paused_at is None and db.session.execute(open_).first() is None:
            self._finds_nothing(partial(self._ask, label))

    def _ask(self, label: str) -> None:
        db.session.add(SyncRun(integration_id=self.ids[label], trigger=Trigger.MANUAL))
        db.session.commit()

    def _end_run(self, one: Integration) -> None:
        for run in db.session.execute(select(SyncRun).where(SyncRun.integration_id == one.id)).scalars():
            run.status = RunStatus.DONE

    @rule(label=accounts, left=st.sampled_from([100, 30, 9, -1]), looks=looks)
    def credits_are_read(self, label: str, left: int, looks: bool) -> None:
        self._read_credits(label, Decimal(left))
        self._change(AlertKind.CREDITS)
        self._then(looks)

    @rule(label=accounts)
    def credits_hover(self, label: str) -> None:
        """Around the sum below which they are told of: once."""
        if rules.of(self.workspace_id)[AlertKind.CREDITS].is_on and self._one(label).paused_at is None:
            self._read_credits(label, self.least * Decimal("0.95"))
            self._change(AlertKind.CREDITS)
            self._finds_nothing(*(partial(self._read_credits, label, self.least * Decimal(part)) for part in _HOVERS))

    def _finds_nothing(self, *after: Callable[[], object]) -> None:
        """A look finds nothing that an earlier one has not, after any of these."""
        events = select(IncidentEvent.id).order_by(IncidentEvent.id)
        watch.look(self.workspace_id)
        before = db.session.execute(events).scalars().all()
        for step in after:
            step()
            watch.look(self.workspace_id)
            assert db.session.execute(events).scalars().all() == before, step

    def _read_credits(self, label: str, left: Decimal) -> None:
        self.left[label] = left
        bought = Decimal(1000) + left
        values = {"integration_id": self.ids[label], "read_at": utc_now(), "lifetime_usd": Decimal(1000)}
        taken = CreditReading.integration_id == self.ids[label], CreditReading.read_at == utc_now()
        db.session.execute(delete(CreditReading).where(*taken))
        db.session.add(CreditReading(**values, bought_usd=bought))
        self._one(label).changed()
        db.session.commit()

    @rule(label=accounts)
    def it_is_paused_or_goes_on(self, label: str) -> None:
        one = self._one(label)
        one.paused_at = utc_now() if one.paused_at is None else None
        db.session.commit()
        self._change(*STATES)

    # what people set and say

    @rule(kind=st.sampled_from(STATES), is_on=st.booleans(), least=st.sampled_from([10, 50]), looks=looks)
    def a_rule_is_set(self, kind: AlertKind, is_on: bool, least: int, looks: bool) -> None:
        changed = dict(rules.of(self.workspace_id)[kind].settings)
        if kind is AlertKind.CREDITS:
            changed["left_usd"] = self.least = Decimal(least)
        rules.save(self.workspace_id, kind, is_on, changed, utc_now())
        self._set(kind)
        self._then(looks)

    @rule(
        usd=st.sampled_from([100, 300, 450, 600]),
        period=st.sampled_from([BudgetPeriod.MONTH, BudgetPeriod.WEEK]),
        looks=looks,
    )
    def a_budget_is_set(self, usd: int, period: BudgetPeriod, looks: bool) -> None:
        fields = budgets.Fields("All", Decimal(usd), period, {}, False, [50, 100], [])
        budget = db.session.get(Budget, self.budget_id)
        if budget is None:
            self.budget_id = budgets.create(self.workspace_id, fields).id
        else:
            budgets.change(budget, fields)
        self._set(AlertKind.BUDGET)
        self._then(looks)

    @rule()
    def the_budget_is_deleted(self) -> None:
        budget = db.session.get(Budget, self.budget_id)
        if budget is not None:
            budgets.delete(budget)
        self._set(AlertKind.BUDGET)

    def _set(self, kind: AlertKind) -> None:
        watch.look_again(self.workspace_id)
        db.session.commit()
        self._change(kind)

    @rule(data=st.data(), days=st.sampled_from([0, 1, 7]))
    def somebody_answers(self, data: st.DataObject, days: int) -> None:
        """That they know, or want to hear nothing for some days."""
        found = board.open_of(self.workspace_id)
        if found:
            one = data.draw(st.sampled_from(sorted(found, key=lambda one: one.id)), label="incident")
            if days:
                board.snooze(one, days, utc_now())
            else:
                board.acknowledge(one, "somebody", utc_now())
        db.session.commit()

    # the clock, and who looks

    @rule(hours=st.sampled_from([1, 3, 12, 21, 24, 27, 24 * 7, 24 * 21, -1, -5, -24, -24 * 9, -24 * 21]), looks=looks)
    def the_clock_moves(self, hours: int, looks: bool) -> None:
        self.traveller.move_to(utc_now() + HOUR * hours)
        self._change(*AlertKind)
        self._then(looks)

    @rule(minutes=st.integers(1, 15))
    def minutes_pass(self, minutes: int) -> None:
        """What becomes overdue meanwhile may be told."""
        self.traveller.move_to(utc_now() + MINUTE * minutes)
        self._change(AlertKind.NO_SYNC, AlertKind.BUDGET) if utc_now().hour == 0 else None

    @rule()
    def a_tick(self) -> None:
        watch.look_at_due()
        assert watch.due(utc_now()) == []

    @rule()
    def a_look(self) -> None:
        watch.look(self.workspace_id)

    @rule(where=st.sampled_from([(incidents, "write"), (outbox, "tell")]))
    def a_look_that_dies(self, where: tuple[Any, str]) -> None:
        """After it has written, before it commits."""
        module, name = where
        real = getattr(module, name)

        def dies(*args: Any) -> None:
            real(*args)
            raise Killed

        with mock.patch.object(module, name, dies), pytest.raises(Killed):
            watch.look(self.workspace_id)
        db.session.rollback()

    @rule(twice=st.booleans())
    def two_looks(self, twice: bool) -> None:
        """One has read everything, and not written yet, when another one comes and goes."""
        real, others = incidents.step, [2 if twice else 1]

        def step(*args: Any) -> Any:
            found = real(*args)
            if others[0]:
                others[0] -= 1
                with mock.patch.object(incidents, "step", real):
                    thread = Thread(target=self._look_elsewhere)
                    thread.start()
                    thread.join()
            return found

        with mock.patch.object(incidents, "step", step):
            watch.look(self.workspace_id)

    def _look_elsewhere(self) -> None:
        with self.app.app_context():
            watch.look(self.workspace_id)

    @rule()
    def what_waits_is_sent(self) -> None:
        for one in db.session.execute(select(Delivery).where(Delivery.state == DeliveryState.DUE)).scalars():
            one.state, one.ended_at = DeliveryState.SENT, utc_now()
        db.session.commit()

    def _then(self, looks: bool) -> None:
        if looks:
            watch.look(self.workspace_id)

    # what has to be so

    def _change(self, *kinds: AlertKind) -> None:
        for kind in kinds:
            self.changes[kind] += 1

    @invariant()
    def each_thing_is_told_once(self) -> None:
        db.session.rollback()
        db.session.expire_all()
        last: dict[tuple[str, str], Incident] = {}
        told = Counter(db.session.execute(select(DeliveryEvent.event_id)).scalars())
        for incident in db.session.execute(select(Incident).order_by(Incident.id)).scalars():
            key, before = (incident.kind, incident.subject), last.get((incident.kind, incident.subject))
            assert before is None or before.resolved_at is not None, f"two are open: {key}"
            happened = [event.what for event in incident.events]
            assert happened[0] is Happened.OPENED, happened
            assert happened.count(Happened.OPENED) == 1, happened
            assert (incident.resolved_at is not None) == (Happened.RESOLVED in happened), happened
            assert Happened.RESOLVED not in happened[:-1], happened
            marks = [mark for event in incident.events for mark in event.marks]
            assert len(marks) == len(set(marks)), f"told twice: {key} {marks}"
            for one, event in zip([None, *incident.events], incident.events, strict=False):
                now = self.changed_at.setdefault(event.id, self.changes[incident.kind])
                if event.what is Happened.REMINDED and one is not None:
                    assert abs(event.at - one.at) >= DAY, f"reminded too soon: {key}"
                if event.what is Happened.OPENED and before is not None and before.resolved_at is not None:
                    soon = abs(event.at - before.resolved_at) < HOUR
                    assert not soon or now > self.changed_at[before.events[-1].id], f"flaps: {key}"
                assert told[event.id] <= 1, f"sent twice: {key} {event.what}"
                if incident.kind in STATES and event.what in (Happened.OPENED, Happened.WORSENED, Happened.REMINDED):
                    is_snoozed = incident.snoozed_until is not None and event.what is not Happened.OPENED
                    assert is_snoozed or told[event.id], f"nobody was told: {key} {event.what}"
            last[key] = incident

    def teardown(self) -> None:
        """After all of it, what is open is what is so."""
        if not hasattr(self, "budget_id"):
            return
        db.session.rollback()
        watch.look_at_due()
        db.session.rollback()
        db.session.expire_all()
        self.each_thing_is_told_once()
        now = utc_now()
        mine = select(Incident).where(Incident.resolved_at.is_(None))
        found = {(one.kind, one.subject): one for one in db.session.execute(mine).scalars()}
        rules_now = rules.of(self.workspace_id)
        for label in ACCOUNTS:
            one, subject = self._one(label), str(self.ids[label])
            wanted = self._unread(one, now)
            for kind in STATES[:3]:
                is_open = (kind, subject) in found
                if kind is AlertKind.NO_SYNC and wanted is kind and not is_open and self._is_just_asked(one, now):
                    continue
                assert is_open == (kind is wanted and rules_now[kind].is_on), f"{kind} of {label}: {is_open}"
            if label in self.left and one.paused_at is None:
                is_open, left = (AlertKind.CREDITS, subject) in found, self.left[label]
                if not rules_now[AlertKind.CREDITS].is_on or left >= self.least * Decimal("1.1"):
                    assert not is_open, f"credits of {label}"
                elif left < self.least:
                    assert is_open, f"credits of {label}"
        self._check_budget(found, now)
        for label, day in self.spikes:
            about = Incident.kind == AlertKind.UNUSUAL_DAY, Incident.integration_id == self.ids[label]
            of_day = Incident.first_day <= day, Incident.last_day >= day
            assert db.session.execute(select(Incident.id).where(*about, *of_day)).first(), f"lost: {label} on {day}"

    def _unread(self, one: Integration, now: datetime) -> AlertKind | None:
        if one.paused_at is not None:
            return None
        if one.problem in (Problem.NEEDS_KEY, Problem.API_CHANGED):
            return AlertKind.KEY if one.problem is Problem.NEEDS_KEY else AlertKind.API_CHANGED
        assert one.last_success_at is not None
        return AlertKind.NO_SYNC if now - one.last_success_at > OVERDUE else None

    def _is_just_asked(self, one: Integration, now: datetime) -> bool:
        runs = select(SyncRun).where(SyncRun.integration_id == one.id, SyncRun.status == RunStatus.DUE)
        return any(run.created_at > now - timedelta(minutes=11) for run in db.session.execute(runs).scalars())

    def _check_budget(self, found: dict[tuple[AlertKind, str], Incident], now: datetime) -> None:
        budget, today = db.session.get(Budget, self.budget_id), now.date()
        if budget is None:
            assert not any(kind is AlertKind.BUDGET for kind, _ in found)
            return
        first = today.replace(day=1) if budget.period is BudgetPeriod.MONTH else today - DAY * today.weekday()
        spent = [usd for (_, day), usd in self.costs.items() if first <= day <= today]
        incident = found.get((AlertKind.BUDGET, f"{budget.id}:{first}"))
        if spent and sum(spent) * 2 >= budget.amount_usd:
            assert incident is not None, f"the budget: {sum(spent)} of {budget.amount_usd}"
            assert (sum(spent) < budget.amount_usd) or "actual 100" in incident.marks
        elif spent and sum(spent) * 2 < budget.amount_usd * Decimal("0.98"):
            assert incident is None, f"the budget: {sum(spent)} of {budget.amount_usd}"


@contextmanager
def _clock() -> Iterator[Any]:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.mark.long
@pytest.mark.parametrize("database_url", DATABASES, indirect=True)
def test_no_sequence_loses_doubles_or_flaps_an_incident(context: Flask) -> None:
    machine_settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=not FUZZ,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with _clock() as traveller:
        run_state_machine_as_test(lambda: Watched(context, traveller), settings=machine_settings)

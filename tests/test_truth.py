"""The ledger is what the provider last told, whatever the provider, the worker and the clock do to each other.

A state machine drives the real write side against the sandbox over HTTP and keeps, beside it, an account of its own of
what was told: it reads the replies as they come over the wire, believes those whose reading was committed, and knows
nothing of how the ledger is written. ``GRAFIENT_SEARCH=500`` searches that many examples, never the same twice.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any

import pytest
import time_machine
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete, select

from grafient import coverage, integrations, reconciliation, runs, sync, totals
from grafient.days import Period
from grafient.extensions import db
from grafient.models import (
    UNATTRIBUTED,
    CostLine,
    CoveredDay,
    CreditReading,
    Integration,
    Restatement,
    SyncRun,
    Workspace,
    utc_now,
)
from grafient.providers import ProviderError
from grafient.providers.http import Reply
from grafient.providers.openrouter import _Pace, calls
from grafient.query import Group, Query
from grafient.reports import breakdown, dashboard, ledger, statement
from grafient.sandbox import ActivityRow, NewRow, Sandbox
from tests.stored import KeyLine
from tests.syncing import claim_one

SEARCH = int(os.environ.get("GRAFIENT_SEARCH", "0"))
EXAMPLES = 8
STEPS = 22

SLEEPS = "GRAFIENT_SLEEPS" in os.environ
"""Whether the machine may sleep for a night in the middle of a sync: what analytics told of today is settled then."""

ACCOUNT = "lively"
NAMES = ("lively", "lively-again")
"""Two keys of one account."""

START = datetime(2026, 7, 15, 9, 10, tzinfo=UTC)
BEFORE = 430
"""Days before the start that the books of the account are written for; more than analytics tells of."""

SETTLED = ("final", "no_usage", "restated")
MEASURES = (
    "model",
    "usage_usd",
    "byok_usd",
    "requests",
    "byok_requests",
    "prompt_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens",
)
NUMBERS = MEASURES[1:]

Id = tuple[str, str, str]
"""What makes a line the same line on a day: permaslug, endpoint and host."""
Line = dict[str, Any]
Day = dict[Id, Line]


class Died(BaseException):
    """The worker was killed here."""


# what the provider's account is made of

ROWS = (
    ("anthropic/claude-x", "anthropic/claude-x-0401", "e1", "Anthropic", "0.012345678901", "0", "Production API"),
    ("openai/gpt-y", "openai/gpt-y-0301", "e2", "OpenAI", "1.5", "0", "Staging"),
    ("openai/gpt-y:free", "openai/gpt-y-0301", "e3", "OpenAI", "0", "0", "Production API"),
    ("vendor/plain", "vendor/plain", "", "", "0.0000004", "0.25", "Staging"),
    ("vendor/refund", "vendor/refund-1", "e4", "Refunds", "-0.25", "0", "Production API"),
)


def usual(day: date) -> Iterator[NewRow]:
    """The rows of a day as the provider first has them: none to four."""
    number = day.toordinal()
    for n in range((0, 1, 2, 1, 3, 0, 4)[number % 7]):
        model, permaslug, endpoint, host, usage, byok, key = ROWS[(number + n * n) % len(ROWS)]
        yield NewRow(
            model=model,
            model_permaslug=permaslug,
            endpoint_id=endpoint,
            provider_name=host,
            usage=Decimal(usage) * (1 + number % 5),
            byok_usage_inference=Decimal(byok),
            requests=number % 11,
            byok_requests=n,
            prompt_tokens=number % 1000,
            completion_tokens=17,
            cached_tokens=None if number % 3 else 5,
            key=key,
        )


# what was told, read from the wire by hand


@dataclass
class Told:
    """One whole reply. ``before`` and ``after`` are our clock around it, ``server`` the provider's."""

    kind: str
    body: bytes
    before: datetime
    after: datetime
    server: datetime
    key_hash: str = ""
    first: date = date.min
    last: date = date.min


def exact(value: Any) -> Decimal:
    return Decimal(value or 0).quantize(Decimal("1E-12"), ROUND_HALF_EVEN)


def count_of(value: Any) -> int | None:
    return None if value is None else int(value)


def read_activity(told: Told) -> tuple[dict[date, Day], date, date] | None:
    """The days of an /activity reply, and of which days its silence tells; None if it is no reply of that shape."""
    rows = json.loads(told.body, parse_float=Decimal)["data"]
    if not isinstance(rows, list) or any("usage" not in row or row["usage"] == "abc" for row in rows):
        return None
    if any("/" in row["date"] for row in rows):
        return None
    clocks = (told.before, told.after, told.server)
    newest, oldest = max(clocks).date(), min(clocks).date()
    days: dict[date, Day] = {}
    for row in rows:
        day = date.fromisoformat(row["date"][:10])
        if day >= newest:
            continue
        name = (row["model_permaslug"], row["endpoint_id"], row["provider_name"])
        line = {
            "model": row.get("model") or row["model_permaslug"],
            "usage_usd": exact(row["usage"]),
            "byok_usd": exact(row["byok_usage_inference"]),
            **{field: row.get(field) for field in NUMBERS[2:]},
        }
        same = days.setdefault(day, {}).get(name)
        days[day][name] = line if same is None else added(same, line)
    return days, newest - timedelta(days=30), oldest - timedelta(days=1)


def read_analytics(told: Told) -> tuple[dict[date, Day], date, date] | None:
    """The same of an analytics reply per model and day."""
    data = json.loads(told.body, parse_float=Decimal)["data"]
    if data["metadata"]["truncated"]:
        return None
    days: dict[date, Day] = {}
    for row in data["data"]:
        day = date.fromisoformat((row.get("date__day") or row["created_at__day"])[:10])
        days.setdefault(day, {})[row["model"], "", ""] = {
            "model": None,
            "usage_usd": exact(row["credits_usage"]),
            "byok_usd": exact(row["byok_usage"]),
            "requests": count_of(row["request_count"]),
            "byok_requests": None,
            "prompt_tokens": count_of(row["tokens_prompt"]),
            "completion_tokens": count_of(row["tokens_completion"]),
            "reasoning_tokens": count_of(row["reasoning_tokens"]),
            "cached_tokens": count_of(row["cached_tokens"]),
        }
    return days, told.first, told.last


def added(one: Line, other: Line) -> Line:
    known = {f: None if None in (one[f], other[f]) else one[f] + other[f] for f in NUMBERS}
    return {"model": one["model"], **known}


def agree(one: Line, other: Line) -> bool:
    """Whether two tellings of a line contradict each other nowhere."""
    return all(one[f] == other[f] for f in MEASURES if None not in (one[f], other[f]))


def completed(one: Line, other: Line) -> Line:
    """What either of two tellings that agree knows."""
    return {f: one[f] if other[f] is None else other[f] for f in MEASURES}


def same_day(one: Day, other: Day) -> bool:
    return one.keys() == other.keys() and all(agree(one[name], other[name]) for name in one)


def range_of(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


@dataclass
class Model:
    """What the provider told of each day, by the rules that the product documents."""

    lines: dict[date, Day] = field(default_factory=dict)
    states: dict[date, str] = field(default_factory=dict)
    sources: dict[date, str] = field(default_factory=dict)
    first: dict[date, Day] = field(default_factory=dict)
    """The lines of each day when it was settled."""
    parts: dict[tuple[str, date], Day] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    silent: bool = False
    """Whether the last reply was empty although usage of its days is known."""
    account_silent: bool = False
    """The same of the last reply of the account's own activity: a key's empty reply is not believed then."""

    def believe(self, told: Told) -> None:
        if told.kind == "key":
            self._part(told)
        elif told.kind == "activity":
            self._told(told, read_activity(told), "activity")
            self.account_silent = self.silent
        else:
            self._told(told, read_analytics(told), "analytics")

    def _told(self, told: Told, reading: tuple[dict[date, Day], date, date] | None, source: str) -> None:
        if reading is None:
            return
        days, first, last = reading
        spoken = {*range_of(first, last), *days}
        if source == "analytics":
            spoken = {day for day in spoken if self.states.get(day) not in SETTLED}
        if not days and any(self.lines.get(day) for day in spoken):
            self.silent = True
            return  # an empty reply where usage is stored
        self.silent = False
        for day in spoken:
            self._day(day, days.get(day, {}), told.before, source)

    def _day(self, day: date, new: Day, now: datetime, source: str) -> None:
        old, was = self.lines.get(day, {}), self.states.get(day)
        for (permaslug, _, _), line in new.items():
            self.names.setdefault(permaslug, {permaslug}).add(line["model"] or permaslug)
        differs = not same_day(old, new)
        whole = {n: completed(old[n], line) if n in old and agree(old[n], line) else line for n, line in new.items()}
        self.lines[day] = whole
        if was in SETTLED:
            if differs:
                self.states[day], self.sources[day] = "restated", source
            return
        settles_at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, minutes=30)
        self.states[day] = "provisional" if now < settles_at else "final" if whole else "no_usage"
        self.sources[day] = source
        if self.states[day] in SETTLED:
            self.first[day] = whole

    def _part(self, told: Told) -> None:
        reading = read_activity(told)
        if reading is None:
            return
        days, first, last = reading
        if not days and self.account_silent:
            return
        for day in {*range_of(first, last), *days}:
            self.parts[told.key_hash, day] = days.get(day, {})


@dataclass
class Trouble:
    """What befalls a worker at one of its calls or commits."""

    what: str
    at: int


@dataclass
class Worker:
    """One claimed run on its way: what it was told and has not committed yet, and what is to befall it."""

    trouble: Trouble | None
    calls: Iterator[int] = field(default_factory=lambda: count(1))
    commits: Iterator[int] = field(default_factory=lambda: count(1))
    pending: list[Told] = field(default_factory=list)
    overtaken: bool = False


CALL_TROUBLES = (
    "dies in a call",
    "another takes over",
    "restated meanwhile",
    "a minute passes",
    "the lease passes",
    *(("the machine sleeps",) if SLEEPS else ()),
)
COMMIT_TROUBLES = ("dies before a commit", "dies after a commit")
troubles = st.none() | st.one_of(
    st.builds(Trouble, st.sampled_from(CALL_TROUBLES), st.integers(1, 6) | st.integers(1, 26)),
    st.builds(Trouble, st.sampled_from(COMMIT_TROUBLES), st.integers(1, 9)),
)

FAULTS = (
    "down",
    "limited",
    "cut",
    "not-json",
    "misshapen",
    "wrong-types",
    "bad-date",
    "null-data",
    "revoked",
    "inference",
    "analytics-down",
    "analytics-silent",
    "analytics-off",
    "no-analytics",
    "no-keys",
    "keys-down",
    "no-credits",
    "no-workspaces",
    "busy-once",
    "redirect",
    "new-field",
)
PATHS = (None, "/activity", "/activity", "/credits", "/analytics/meta", "/analytics/query", "/keys", "/workspaces")


@dataclass
class Fault:
    """How the provider answers from now on: the next so many requests to a path, or all."""

    what: str
    path: str | None
    times: int | None


faults = st.builds(Fault, st.sampled_from(FAULTS), st.sampled_from(PATHS), st.none() | st.integers(1, 6))
weathers = st.one_of(st.just("fine"), st.just("as it was"), faults)

agos = st.integers(1, 30) | st.integers(1, 60) | st.integers(1, 400)


class Grafient(RuleBasedStateMachine):
    """An integration of one account, and all that can happen to it."""

    def __init__(self, app: Flask, sandbox: Sandbox, traveller: Any) -> None:
        super().__init__()
        self.app, self.sandbox, self.traveller = app, sandbox, traveller
        self.model = Model()
        self.workers: list[Worker | None] = []
        traveller.move_to(START)
        db.session.rollback()
        for table in reversed(db.metadata.sorted_tables):
            db.session.execute(delete(table))
        db.session.commit()
        sandbox.reset()
        sandbox.settings.analytics_per_minute = 1_000_000
        self.written = START.date() - timedelta(days=BEFORE)
        self._write_books()
        self.name = ACCOUNT
        self.integration_id = 0
        self.edited: set[date] = set()

    # the world

    def _write_books(self) -> None:
        """The account's usage of the days that have come."""
        for day in range_of(self.written, utc_now().date() + timedelta(days=1)):
            self.sandbox.drop_day(ACCOUNT, day)
            for row in usual(day):
                self.sandbox.add_row(ACCOUNT, day, row)
            self.written = day + timedelta(days=1)

    def _pass(self, time: timedelta) -> None:
        self._move(utc_now() + time)

    def _move(self, moment: datetime) -> None:
        """Later, never in a minute where a day ends or settles."""
        moment = max(moment, utc_now())
        if (moment.hour == 0 and moment.minute in (0, 29, 30)) or (moment.hour, moment.minute) == (23, 59):
            moment += timedelta(minutes=5)
        self.traveller.move_to(moment)
        self._write_books()

    @initialize(plan=st.sampled_from(["free", "ultimate"]))
    def connect(self, plan: str) -> None:
        workspace = Workspace(plan=plan)
        db.session.add(workspace)
        db.session.commit()
        self.workspace_id = workspace.id
        self.integration_id = integrations.connect(workspace.id, "openrouter", "", self.sandbox.key(self.name)).id

    @rule(
        days=st.sampled_from([1, 1, 1, 2, 3, 29, 30, 31, 45]),
        time=st.sampled_from([(0, 10), (6, 10), (9, 10), (23, 50)]),
    )
    def days_pass(self, days: int, time: tuple[int, int]) -> None:
        """At 00:10 the day before is not settled yet; at 23:50 midnight may come in the middle of a sync."""
        self._move((utc_now() + timedelta(days=days)).replace(hour=time[0], minute=time[1], second=0))

    @rule(hours=st.integers(1, 20))
    def hours_pass(self, hours: int) -> None:
        self._pass(timedelta(hours=hours))

    @rule(ago=agos, factor=st.sampled_from(["1.25", "0.5", "1.000001", "0", "-1"]))
    def a_day_is_restated(self, ago: int, factor: str) -> None:
        self.sandbox.restate(ACCOUNT, self._edit(ago), factor)

    @rule(ago=agos, index=st.integers(0, 3))
    def a_row_vanishes(self, ago: int, index: int) -> None:
        day = self._edit(ago)
        rows = self.sandbox.truth(ACCOUNT, day, day).rows
        if rows:
            self.sandbox.remove_row(ACCOUNT, day, index % len(rows))

    @rule(ago=agos, row=st.sampled_from(ROWS), cached=st.none() | st.integers(0, 9), usd=st.sampled_from(["0", "0.3"]))
    def a_row_comes_late(self, ago: int, row: tuple[str, ...], cached: int | None, usd: str) -> None:
        model, permaslug, endpoint, host, _, byok, key = row
        self.sandbox.add_row(
            ACCOUNT,
            self._edit(ago),
            NewRow(
                model=model,
                model_permaslug=permaslug,
                endpoint_id=endpoint,
                provider_name=host,
                usage=Decimal(usd),
                byok_usage_inference=Decimal(byok),
                cached_tokens=cached,
                key=key,
            ),
        )

    @rule(ago=agos, days=st.sampled_from([1, 1, 3, 31]))
    def days_are_dropped(self, ago: int, days: int) -> None:
        for n in range(days):
            self.sandbox.drop_day(ACCOUNT, self._edit(ago + n))

    def _weather(self, weather: Fault | str) -> None:
        if isinstance(weather, Fault):
            self.sandbox.fault(self.name, weather.what, weather.times, weather.path)
        elif weather == "fine":
            self.sandbox.fault(self.name, None)

    def _edit(self, ago: int) -> date:
        """A day so many days ago, which the provider may tell differently from now on."""
        day = utc_now().date() - timedelta(days=ago)
        self.edited.add(day)
        return day

    # what Grafient does

    @rule(trouble=troubles, weather=weathers)
    def someone_forces_a_sync(self, trouble: Trouble | None, weather: Fault | str) -> None:
        self._weather(weather)
        integrations.force_sync(db.session.get_one(Integration, self.integration_id))
        self._work(trouble)

    @rule(trouble=troubles, weather=weathers)
    def the_clock_ticks(self, trouble: Trouble | None, weather: Fault | str) -> None:
        self._weather(weather)
        runs.insert_daily(utc_now())
        db.session.commit()
        self._work(trouble)

    @rule(trouble=troubles, weather=weathers)
    def what_waits_is_tried_again(self, trouble: Trouble | None, weather: Fault | str) -> None:
        """The time passes until the open run can be had."""
        self._weather(weather)
        run = db.session.execute(select(SyncRun).where(SyncRun.status.in_(("due", "running")))).scalar_one_or_none()
        if run is not None:
            moment = run.lease_until if run.status == "running" else run.next_attempt_at
            db.session.rollback()
            self._move(moment + timedelta(seconds=1))
        db.session.rollback()
        self._work(trouble)

    @rule(name=st.sampled_from(NAMES))
    def the_key_is_replaced(self, name: str) -> None:
        try:
            integrations.replace_key(db.session.get_one(Integration, self.integration_id), self.sandbox.key(name))
        except ProviderError:
            db.session.rollback()
        else:
            self.name = name

    def _work(self, trouble: Trouble | None = None) -> None:
        """Do what is due, as a job does. The trouble befalls the first."""
        while True:
            claim = claim_one(utc_now())
            db.session.commit()
            if claim is None:
                break
            worker, trouble = Worker(trouble), None
            self.workers.append(worker)
            try:
                sync.perform(claim)
            except Died:
                db.session.rollback()
                db.session.remove()
                break
            except runs.LeaseLost:
                assert worker.overtaken, "a worker that nobody overtook lost its lease"
                db.session.rollback()
            else:
                assert not worker.overtaken, "a worker went on after another had taken over"
            finally:
                self.workers.pop()
        db.session.rollback()
        db.session.remove()

    # what happens inside a sync

    def on_call(self) -> None:
        """The worker is about to ask the provider."""
        worker = self.workers[-1] if self.workers else None
        if worker is None or worker.trouble is None or worker.trouble.what not in CALL_TROUBLES:
            return
        if next(worker.calls) != worker.trouble.at:
            return
        what = worker.trouble.what
        if what == "dies in a call":
            raise Died
        if what == "restated meanwhile":
            self.sandbox.restate(ACCOUNT, self._edit(2), "1.5")
            self.sandbox.drop_day(ACCOUNT, self._edit(5))
        elif what == "a minute passes":
            self._pass(timedelta(minutes=1))
        elif what == "the machine sleeps":
            self._pass(timedelta(hours=25))
        else:
            self._pass(timedelta(minutes=17))
            if what == "another takes over":
                self._overtake(worker)

    def _overtake(self, worker: Worker) -> None:
        """Another worker finds that the lease has ended, and does the run."""
        self.workers.append(None)
        with self.app.app_context():
            if runs.count_claimable(utc_now()):
                worker.overtaken = True
            db.session.rollback()
            self._work()
        self.workers.pop()

    def on_reply(self, told: Told) -> None:
        if self.workers and self.workers[-1] is not None:
            self.workers[-1].pending.append(told)

    def on_commit(self, commit: Callable[[], None]) -> None:
        worker = self.workers[-1] if self.workers else None
        if worker is None:
            commit()
            return
        trouble, number = worker.trouble, next(worker.commits)
        dies = trouble is not None and trouble.what in COMMIT_TROUBLES and trouble.at == number
        if dies and trouble is not None and trouble.what == "dies before a commit":
            raise Died
        commit()
        for told in worker.pending:
            self.model.believe(told)
        worker.pending = []
        if dies:
            raise Died

    # what always holds

    @invariant()
    def the_ledger_is_what_was_told(self) -> None:
        states, sources, stored = self._stored()
        assert states == self.model.states
        assert sources == self.model.sources
        told = {day: lines for day, lines in self.model.lines.items() if lines}
        assert stored.keys() == told.keys()
        for day, lines in told.items():
            assert stored[day].keys() == lines.keys(), day
            for name, line in lines.items():
                self._same(stored[day][name], line, name[0])
        for day, state in states.items():
            assert day in self.model.states
            if state == "no_usage":
                assert day not in stored

    def _same(self, stored: Line, told: Line, permaslug: str) -> None:
        assert {f: stored[f] for f in NUMBERS} == {f: told[f] for f in NUMBERS}, permaslug
        if told["model"] is None:  # analytics knows permaslugs alone
            assert stored["model"] in self.model.names[permaslug]
        else:
            assert stored["model"] == told["model"]

    def _stored(self) -> tuple[dict[date, str], dict[date, str], dict[date, Day]]:
        rows = db.session.execute(select(CoveredDay.day, CoveredDay.state, CoveredDay.source)).all()
        stored = _by_day(CostLine)
        db.session.rollback()
        return {row.day: row.state for row in rows}, {row.day: row.source for row in rows}, stored

    @invariant()
    def restatements_replay(self) -> None:
        """From the lines with which a day was settled, its restatements in their order lead to those of now."""
        replayed: dict[date, Day] = {day: dict(lines) for day, lines in self.model.first.items()}
        rows = db.session.execute(select(Restatement).order_by(Restatement.id)).scalars().all()
        for row in rows:
            assert row.day in replayed, "a day was restated that was not settled"
            lines, name = replayed[row.day], (row.permaslug, row.endpoint_id, row.host)
            before, after = (_from_json(text) for text in (row.before, row.after))
            assert (before is None) == (name not in lines)
            if before is not None:
                assert agree(before, lines[name])
            if after is None:
                del lines[name]
            else:
                lines[name] = after
            for line, usd in ((before, row.usage_before_usd), (after, row.usage_after_usd)):
                assert usd == (line and line["usage_usd"])
        restated = {row.day for row in rows}
        db.session.rollback()
        assert restated == {day for day, state in self.model.states.items() if state == "restated"}
        assert restated <= self.edited, "a day was restated that the provider never changed"
        for day, lines in replayed.items():
            assert same_day(lines, self.model.lines[day]), day

    @invariant()
    def the_totals_are_what_the_lines_add_up_to(self) -> None:
        assert totals.wrong() == []
        db.session.rollback()

    @invariant()
    def the_parts_add_up(self) -> None:
        """What single keys spent is what was told of them, and with what no key explains it is the whole."""
        columns = [KeyLine.key_hash, KeyLine.day, KeyLine.permaslug, KeyLine.endpoint_id, KeyLine.host]
        sums: dict[tuple[date, Id], Line] = {}
        parts: dict[tuple[str, date], Day] = {}
        for row in db.session.execute(select(*columns, *(getattr(KeyLine, f) for f in MEASURES))):
            name, line = (row.permaslug, row.endpoint_id, row.host), {f: getattr(row, f) for f in MEASURES}
            if row.key_hash != UNATTRIBUTED:
                parts.setdefault((row.key_hash, row.day), {})[name] = line
            same = sums.get((row.day, name))
            sums[row.day, name] = line if same is None else added(same, line)
        db.session.rollback()
        assert parts == {key: lines for key, lines in self.model.parts.items() if lines}
        for day, lines in _by_day(CostLine).items():
            for name, line in lines.items():
                total = sums.pop((day, name), None)
                if total is None:
                    assert not any(line[f] for f in NUMBERS), (day, name)
                else:
                    for f in NUMBERS:
                        assert None in (total[f], line[f]) or total[f] == line[f], (day, name, f)
                    assert total["usage_usd"] == line["usage_usd"]
        for where, line in sums.items():
            assert not any(line[f] for f in NUMBERS), where
        db.session.rollback()

    @invariant()
    def the_run_ledger_is_sane(self) -> None:
        found = db.session.execute(select(SyncRun).order_by(SyncRun.id)).scalars().all()
        assert sum(run.status in ("due", "running") for run in found) <= 1
        for run in found:
            assert run.status in ("due", "running", "done", "failed", "cancelled")
            assert (run.token is not None) == (run.lease_until is not None) == (run.status == "running")
            assert (run.finished_at is not None) == (run.status in ("done", "failed", "cancelled"))
            if run.status == "done":
                assert set(range_of(run.first_day, run.last_day)) <= self.model.states.keys()
        slots = [run.slot for run in found if run.slot is not None]
        assert len(slots) == len(set(slots))
        db.session.rollback()

    @invariant()
    def pages_agree_with_the_ledger(self) -> None:
        """Whatever page a figure is on, it is the sum of the settled days' lines, and no other days'."""
        today = utc_now().date()
        now = utc_now()
        self._check_page(Query(self.workspace_id, Period.latest(30, now)), Group.MODEL, Group.KEY)
        self._check_page(Query(self.workspace_id, Period.latest(365, now)), Group.HOST)
        self._check_page(Query(self.workspace_id, Period(today - timedelta(days=1), today)), Group.KEY)
        db.session.rollback()

    def _check_page(self, query: Query, *groups: Group) -> None:
        settled = [day for day in query.period if self.model.states.get(day) in SETTLED]
        lines = [line for day in settled for line in self.model.lines.get(day, {}).values()]
        total = sum((line["usage_usd"] for line in lines), Decimal(0)) if settled else None
        for group in groups:
            page = dashboard.report(query, group)
            table = breakdown.report(query, group, "usage_usd", True)
            assert page.total_usd == table.total_usd == total, query.period
            assert page.coverage.covered == table.coverage.covered == len(settled)
            shown = [day.total for day in page.days if day.state in SETTLED and day.day in query.period]
            assert sum(shown, Decimal(0)) == (total or 0)
            assert sum((row.usage_usd for row in table.rows), Decimal(0)) == (total or 0)
            assert {day.day: day.state for day in page.days if day.day in query.period} == {
                day: self.model.states.get(day, "missing") for day in query.period
            }
        assert statement.report(query).total_usd == total
        exported = [row for row in ledger.rows(query) if row[-1] in SETTLED]
        assert sum((row[6] for row in exported), Decimal(0)) == (total or 0)
        assert len(exported) == len(lines)

    def teardown(self) -> None:
        if sys.exc_info()[0] is None and self.integration_id:
            self._comes_right()

    def _comes_right(self) -> None:
        """Once nothing is wrong any more, one sync makes the window exact."""
        self.sandbox.fault(self.name, None)
        self.the_key_is_replaced(self.name)
        self._move((utc_now() + timedelta(days=1)).replace(hour=9, minute=10))
        self.someone_forces_a_sync(None, "fine")
        run = db.session.execute(select(SyncRun).order_by(SyncRun.id.desc()).limit(1)).scalar_one()
        assert run.status == "done", run.error
        self.the_ledger_is_what_was_told()
        self.restatements_replay()
        self.the_parts_add_up()
        self._is_the_truth()
        self._is_the_bill()

    def _is_the_bill(self) -> None:
        """What the provider counts in three ways, and counts right, differs nowhere."""
        found = self._verdict(30)
        if not self.model.silent:
            assert not found.differing
        unknown = select(CreditReading.id).where(CreditReading.today_usd.is_(None))
        if not self.edited and db.session.execute(unknown).first() is None:
            for days in (30, 365):
                found = self._verdict(days)
                assert all(span.agrees for span in found.spans), found.spans
        db.session.rollback()

    def _verdict(self, days: int) -> reconciliation.Verdict:
        integration = db.session.get_one(Integration, self.integration_id)
        query = Query(self.workspace_id, Period.latest(days, utc_now()), (self.integration_id,))
        return reconciliation.verdict(coverage.load(query, [integration]))

    def _is_the_truth(self) -> None:
        today = utc_now().date()
        window = range_of(today - timedelta(days=30), today - timedelta(days=1))
        truth = {day: _truth(self.sandbox.truth(ACCOUNT, day, day).rows) for day in window}
        states, _, stored = self._stored()
        if not any(truth.values()) and any(day in stored for day in truth):
            return  # an empty reply is not believed
        for day, lines in truth.items():
            assert states[day] in SETTLED, day
            assert same_day(stored.get(day, {}), lines), day


def _truth(rows: list[ActivityRow]) -> Day:
    found: Day = {}
    for row in rows:
        name = (row.model_permaslug, row.endpoint_id, row.provider_name)
        line = {
            "model": row.model,
            "usage_usd": exact(row.usage),
            "byok_usd": exact(row.byok_usage_inference),
            **{f: getattr(row, f) for f in NUMBERS[2:]},
        }
        found[name] = added(found[name], line) if name in found else line
    return found


def _by_day(table: type[CostLine]) -> dict[date, Day]:
    columns = [table.day, table.permaslug, table.endpoint_id, table.host, *(getattr(table, f) for f in MEASURES)]
    found: dict[date, Day] = {}
    for row in db.session.execute(select(*columns)):
        line = {f: getattr(row, f) for f in MEASURES}
        found.setdefault(row.day, {})[row.permaslug, row.endpoint_id, row.host] = line
    return found


def _from_json(text: str | None) -> Line | None:
    if text is None:
        return None
    line: Line = json.loads(text)
    return line | {f: None if line[f] is None else Decimal(line[f]) for f in ("usage_usd", "byok_usd")}


# the wire between the two


class Wire:
    """Stands in the way of every call to the provider, for the machine that runs at the moment."""

    machine: Grafient | None = None

    def get(self, real: Callable[..., Reply], mine: calls.Calls, path: str, **options: Any) -> Reply:
        before = self._asking()
        reply = real(mine, path, **options)
        params = options.get("params") or {}
        if path == "/activity" and "date" not in params:
            key_hash = params.get("api_key_hash", "")
            self._told(Told("key" if key_hash else "activity", reply.body, before, *_clocks(reply), key_hash))
        return reply

    def ask(self, real: Callable[..., Reply], mine: calls.Calls, path: str, question: Any, **options: Any) -> Reply:
        before = self._asking()
        reply = real(mine, path, question, **options)
        first, end = (date.fromisoformat(question["time_range"][name][:10]) for name in ("start", "end"))
        last = end - timedelta(days=1)
        if question["dimensions"] == ["model"]:
            self._told(Told("analytics", reply.body, before, *_clocks(reply), first=first, last=last))
        elif _is_idle(reply.body, last):  # then nobody asks for the day's models
            self._told(Told("analytics", NOTHING, before, *_clocks(reply), first=last, last=last))
        return reply

    def _asking(self) -> datetime:
        before = utc_now()
        if self.machine is not None:
            self.machine.on_call()
        return before

    def _told(self, told: Told) -> None:
        if self.machine is not None:
            self.machine.on_reply(told)


NOTHING = b'{"data": {"data": [], "metadata": {"truncated": false}}}'


def _is_idle(body: bytes, day: date) -> bool:
    """Whether totals of days have others than this one, which is to say that it had no usage."""
    try:
        days = [row.get("date__day") or row["created_at__day"] for row in json.loads(body)["data"]["data"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return bool(days) and not any(str(one).startswith(day.isoformat()) for one in days)


def _clocks(reply: Reply) -> tuple[datetime, datetime]:
    return utc_now(), parsedate_to_datetime(reply.headers["Date"]).astimezone(UTC)


def _wait(state: Any) -> float:
    """Nothing, but where the provider asks for so much that it is not waited for."""
    error = state.outcome.exception()
    asked = getattr(error, "retry_after", None) or 0
    return asked if asked >= 60 else 0.0


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    real_get, real_ask, real_commit = calls.Calls.get, calls.Calls.ask, db.session.commit
    monkeypatch.setattr(calls.Calls, "get", lambda *args, **options: wire.get(real_get, *args, **options))
    monkeypatch.setattr(calls.Calls, "ask", lambda *args, **options: wire.ask(real_ask, *args, **options))
    monkeypatch.setattr(calls, "_wait", _wait)
    monkeypatch.setattr(_Pace, "wait", lambda self: None)

    def commit() -> None:
        if wire.machine is None:
            real_commit()
        else:
            wire.machine.on_commit(real_commit)

    monkeypatch.setattr(db.session, "commit", commit)
    return wire


@pytest.mark.long
def test_the_ledger_is_what_the_provider_last_told(context: Flask, sandbox: Sandbox, wire: Wire) -> None:
    machine_settings = settings(
        max_examples=SEARCH or EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=not SEARCH,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with time_machine.travel(START, tick=True) as traveller:

        def machine() -> Grafient:
            wire.machine = None
            wire.machine = Grafient(context, sandbox, traveller)
            return wire.machine

        run_state_machine_as_test(machine, settings=machine_settings)
